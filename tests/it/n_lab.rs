//! The load lab: what `catwalk bench` measures, what `catwalk top` shows, and the scripts for other load generators.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use serde_json::Value;

use crate::support::server::{directory, BIN};
use crate::support::Server;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Has the program that they are part of built, beside the server's.
fn build_lab() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "-p", "catwalk-lab"]).current_dir(root());
    assert!(build.status().expect("cargo runs").success());
}

/// Runs `catwalk bench` on a server; its figures by kind.
fn bench(server: &Server, args: &[&str]) -> Value {
    let dir = directory();
    let json = dir.path().join("figures.json");
    let mut command = Command::new(BIN);
    command.arg("bench").arg(format!("http://{}", server.address)).args(args).arg("--json").arg(&json);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

fn server() -> Server {
    build_lab();
    let dir = directory();
    let path = dir.path().join("d");
    let config = dir.path().join("catwalk.toml");
    std::fs::write(&config, "[http]\nwrite_rate = 0\n").unwrap();
    Server::start_in(&path, &["--products", "300", "--config", config.to_str().unwrap()]).keep(dir)
}

#[test]
fn a_bench_keeps_its_rate_and_a_stall_of_the_server_is_in_its_figures() {
    let server = server();
    let dir = directory();
    let html = dir.path().join("report.html");
    let requests = server.metric("catwalk_http_requests_total");
    let figures = bench(
        &server,
        &["--rate", "400", "--seconds", "2", "--warm-up", "0.5", "--html", html.to_str().unwrap()],
    );
    let all = &figures[0];
    assert_eq!(
        (&all["kind"], &all["answered"], &all["errors"]),
        (&"all".into(), &800.into(), &0.into()),
        "{figures}"
    );
    assert!(figures.as_array().unwrap().len() > 8, "all kinds but rare ones: {figures}");
    assert!(server.metric("catwalk_http_requests_total") >= requests + 1_000, "the warm-up too");
    let text = std::fs::read_to_string(html).unwrap();
    assert_eq!(text.matches("<svg").count(), 2);
    assert!(!text.contains("src=") && !text.contains("href="), "it takes nothing from elsewhere");

    // For a third of the time nobody answers. Whoever waited for answers before asking again would have asked four times in it.
    let workers = server.workers();
    let stall = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1_200));
        workers.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        std::thread::sleep(Duration::from_millis(1_000));
        workers.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
    });
    let args = ["--rate", "200", "--seconds", "3", "--warm-up", "0", "--connections", "4", "--no-writes"];
    let figures = bench(&server, &args);
    stall.join().unwrap();
    let p90_ms = figures[0]["latency_ms"][1].as_f64().unwrap();
    assert!(p90_ms > 300.0, "{figures}");
    assert_eq!(figures[0]["answered"], 600);
}

#[test]
fn who_can_not_be_driven_is_told_so() {
    build_lab();
    let told = |url: &str| {
        let out = Command::new(BIN).args(["bench", url, "--seconds", "1"]).output().unwrap();
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(told("http://127.0.0.1:1").contains("connecting to 127.0.0.1:1"));
    assert!(told("https://shop.example").contains("begins with http://"));
}

#[test]
fn top_shows_a_running_server_and_takes_nothing_from_it() {
    let server = server();
    (0..200).for_each(|n| assert_eq!(server.get(&format!("/products/{}", n % 9 + 1)).status, 200));
    let before = server.metric("catwalk_http_requests_total");
    let mut top = Command::new(BIN);
    top.args(["top", "--once", "--every", "0.5", "--runtime-dir"]).arg(server.dir.join("run"));
    let out = top.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for part in [
        "2/2 workers",
        "no errors",
        "freshness",
        "routes",
        "products_fetch",
        "serving",
        "following",
        "primary",
        "product:",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert_eq!(server.metric("catwalk_http_requests_total"), before, "it asks nothing of the server");
}

#[test]
fn wrk_drives_the_mixture() {
    if Command::new("wrk").arg("-v").output().is_err() {
        return println!("passed over: there is no wrk here");
    }
    let server = server();
    let mut wrk = Command::new("wrk");
    wrk.args(["-t2", "-c8", "-d2s", "-s"]).arg(root().join("bench/scripts/wrk.lua"));
    let out = wrk.arg(format!("http://{}", server.address)).env("PRODUCTS", "300").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("Requests/sec") && !text.contains("Socket errors"), "{text}");
    let count = |name: &str| server.metric(name);
    assert_eq!(count("catwalk_http_responses_total{class=\"5xx\"}"), 0);
    let (bad, all) =
        (count("catwalk_http_responses_total{class=\"4xx\"}"), count("catwalk_http_requests_total"));
    assert!(all > 500 && bad * 20 < all, "{bad} of {all} refused: {text}");
    for route in [
        "product",
        "styles",
        "related",
        "products",
        "reviews",
        "meta",
        "questions",
        "votes",
        "cart",
        "interactions",
    ] {
        let name = format!("catwalk_http_request_duration_seconds_count{{route=\"{route}\"}}");
        assert!(count(&name) > 0, "{route} was never asked for");
    }
}

#[test]
fn artillery_drives_the_mixture() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("below target").join("artillery");
    let program = target.join("node_modules/.bin/artillery");
    if !program.exists() {
        return println!("passed over: there is no artillery here");
    }
    let server = server();
    let mut artillery = Command::new(program);
    artillery.args(["run", "--target", &format!("http://{}", server.address)]);
    artillery.arg(root().join("bench/scripts/artillery.yml")).env("PRODUCTS", "300");
    artillery.args(["--overrides", "{\"config\":{\"phases\":[{\"duration\":3,\"arrivalRate\":100}]}}"]);
    let out = artillery.env("ARTILLERY_DISABLE_TELEMETRY", "true").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.contains("200: "), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(!text.contains("Errors:") && !text.contains("503: "), "{text}");
    assert!(server.metric("catwalk_http_requests_total") >= 250, "{text}");
}
