//! The load lab: what `catwalk bench` measures, what `catwalk top` shows, and the scripts for other load generators.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use catwalk::os::processes::Stat;
use nix::sys::signal::{kill, Signal};
use serde_json::Value;

use crate::support::server::{directory, BIN};
use crate::support::{eventually, Server};

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
    let all = &figures["kinds"][0];
    assert_eq!(
        (&all["kind"], &all["answered"], &all["errors"]),
        (&"all".into(), &800.into(), &0.into()),
        "{figures}"
    );
    assert!(figures["kinds"].as_array().unwrap().len() > 8, "all kinds but rare ones: {figures}");
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
    let p90_ms = figures["kinds"][0]["p90_ms"].as_f64().unwrap();
    assert!(p90_ms > 300.0, "{figures}");
    let (all, asked) = (&figures["kinds"][0], &figures["rate"]);
    assert_eq!(
        (&all["answered"], &all["errors"], asked),
        (&600.into(), &0.into(), &200.0.into()),
        "{figures}"
    );
}

#[test]
fn a_limit_is_found_and_why_it_is_one() {
    let server = server();
    let dir = directory();
    let [html, json] = ["limit.html", "limit.json"].map(|name| dir.path().join(name));
    let bench = |args: &[&str]| {
        let mut command = Command::new(BIN);
        command.arg("bench").arg(format!("http://{}", server.address)).args([
            "--find-limit",
            "--warm-up",
            "0",
        ]);
        command.args(args).arg("--html").arg(&html).arg("--json").arg(&json);
        let out = command.output().unwrap();
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned(), report["limit"].clone())
    };
    // Any server is too slow for a microsecond.
    let (status, text, limit) = bench(&["--rate", "50", "--seconds", "0.5", "--p99", "0.001"]);
    assert_eq!((status, &limit["best"]), (Some(2), &Value::Null), "{text}");
    assert!(text.contains("not even 50 requests/s") && text.contains("p99 is not below 0.001 ms"), "{text}");
    // One connection of a server that is held for a moment each second takes some rate, and not any.
    let args =
        ["--rate", "20", "--seconds", "0.5", "--p99", "60000", "--connections", "1", "--kinds", "product"];
    let (status, text, limit) = bench(&args);
    assert_eq!(status, Some(0), "{text}");
    let rate = |step: &str| limit[step]["rate"].as_f64().unwrap();
    assert!(rate("best") >= 20.0 && rate("failed") > rate("best"), "{limit}");
    let steps = limit["steps"].as_array().unwrap();
    assert!(steps.len() >= 8 && steps.iter().any(|step| step["why"].is_string()), "{limit}");
    assert!(std::fs::read_to_string(html).unwrap().contains("<svg"));
}

#[test]
fn a_catalogue_with_gaps_is_asked_for_what_it_has() {
    let server = server();
    let gaps = "delete from related where current_product_id % 3 = 0 or related_product_id % 3 = 0; \
                delete from products where id % 3 = 0";
    server.database().batch_execute(gaps).unwrap();
    let args = ["--rate", "300", "--seconds", "2", "--warm-up", "0", "--kinds", "product,newest,styles,cart"];
    let figures = bench(&server, &args);
    assert_eq!((&figures["products"], &figures["kinds"][0]["errors"]), (&200.into(), &0.into()), "{figures}");
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
    for (option, value) in [
        ("--seconds", "inf"),
        ("--warm-up", "1e30"),
        ("--zipf", "inf"),
        ("--zipf", "nan"),
        ("--connections", "18446744073709551615"),
        ("--threads", "0"),
        ("--html", "/nonexistent/--html"),
    ] {
        let server = Server::shared();
        let url = format!("http://{}", server.address);
        let out = Command::new(BIN).args(["bench", &url, option, value]).output().unwrap();
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !out.status.success() && why.contains(option) && !why.contains("panicked"),
            "{option} {value}: {why}"
        );
    }
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
        "all is well",
        "stolen",
        "connections 0, database ",
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

/// A terminal's worth of it, as often as it goes: a look takes less than a hundredth of the two seconds between two of them.
#[test]
fn a_look_of_top_takes_less_than_20_ms_of_cpu() {
    const LOOKS: u64 = 20;
    if Command::new("script").arg("--version").output().is_err() {
        return println!("passed over: there is no script(1) here, which lends a terminal");
    }
    let server = server();
    let top = format!("{BIN} top --every 0.2 --runtime-dir {}", server.dir.join("run").display());
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-e", "-c", &format!("exec {top}"), "/dev/null"]).env("TERM", "xterm-256color");
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let child = || {
        let path = format!("/proc/{0}/task/{0}/children", terminal.id());
        let pid = std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()?;
        Stat::of(pid).filter(|stat| stat.name == "catwalk-lab")
    };
    eventually("it runs", || child().is_some());
    let before = child().unwrap().cpu_ticks;
    std::thread::sleep(Duration::from_millis(200 * LOOKS));
    let ms = (child().expect("it runs on").cpu_ticks - before) as f64 * 10.0 / LOOKS as f64;
    println!("{ms:.2} ms of CPU a look");
    terminal.stdin.take().unwrap().write_all(b"q").unwrap();
    assert!(terminal.wait().unwrap().success());
    assert!(ms < 20.0, "{ms} ms");
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
