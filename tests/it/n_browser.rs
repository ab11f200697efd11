//! The storefront in a real browser: `tests/browser/visit.mjs` walks through it. `VISIT=whole` for a phone, the dark and the keyboard too, as
//! `make browser` has it; screenshots stay in target/browser/shots.

use std::path::PathBuf;
use std::process::Command;

use catwalk::os::processes::Stat;

use crate::support::server::BIN;
use crate::support::{eventually, Connection, Server};

/// Where `.ci/instruments` puts the browser's driver.
fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("below target").join("browser")
}

/// A browser, and why there is none.
fn chromium() -> Result<PathBuf, &'static str> {
    let has = |path: &PathBuf| path.exists();
    if !["playwright-core", "axe-core"].iter().all(|name| target().join("node_modules").join(name).exists()) {
        return Err("playwright-core and axe-core are not there");
    }
    let places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    places.iter().map(PathBuf::from).find(has).ok_or("there is no Chromium")
}

/// What the visits do: `short`, or the `whole` one, which whoever asks for it wants to have.
fn extent() -> String {
    std::env::var("VISIT").unwrap_or("short".into())
}

fn pass_over(why: &str) {
    assert_ne!(extent(), "whole", "{why}");
    println!("passed over: {why}");
}

/// Runs a visit of `tests/browser` on a server of its own.
fn walk(script: &str) {
    let browser = match chromium() {
        Ok(browser) => browser,
        Err(why) => return pass_over(why),
    };
    let server = Server::start(&["--products", "300"]);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(script);
    let mut node = Command::new("node");
    node.arg(script).env("URL", format!("http://{}", server.address)).env("CHROMIUM", browser);
    node.env("ADMIN_URL", format!("http://{}", server.admin_address.as_deref().expect("it has one")));
    node.env("MODULES", target().join("node_modules")).env("OUTPUT", target().join("shots"));
    let out = match node.env("VISIT", extent()).output() {
        Ok(out) => out,
        Err(e) => return pass_over(&format!("node: {e}")),
    };
    print!("{}", String::from_utf8_lossy(&out.stdout));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(server.metric("catwalk_http_responses_total{class=\"5xx\"}"), 0);
}

#[test]
fn a_visitor_finds_orders_reviews_votes_and_asks() {
    walk("visit.mjs");
}

#[test]
fn the_status_page_moves_while_load_runs() {
    walk("status.mjs");
}

/// What looks at the server every two seconds takes less than a hundredth of a core from it.
#[test]
fn an_overview_takes_less_than_20_ms_of_cpu() {
    const OVERVIEWS: u64 = 300;
    let server = Server::start(&["--products", "50", "--cache-size", "256MiB"]);
    let ticks = || {
        let all = server.workers().into_iter().filter_map(|pid| Stat::of(pid.as_raw() as u64));
        all.map(|stat| stat.cpu_ticks).sum::<u64>()
    };
    let mut admin = Connection::open(server.admin_address.as_deref().unwrap());
    let mut workers = || admin.get("/status.json").json()["workers"].clone();
    eventually("all workers serve", || workers()["serving"] == workers()["wanted"]);
    let before = ticks();
    for _ in 0..OVERVIEWS {
        assert!(workers()["wanted"].as_u64() > Some(0));
    }
    // A tick is 10 ms of CPU time, not of the clock's.
    let ms = (ticks() - before) as f64 * 10.0 / OVERVIEWS as f64;
    println!("{ms:.2} ms of CPU an overview");
    assert!(ms < 20.0, "{ms} ms");
}

#[test]
fn pages_are_found_by_browsers_and_the_api_by_everybody_else() {
    let server = Server::shared();
    let get = |path: &str, accept: &str| {
        server.connect().request("GET", path, &[("Accept", accept), ("Accept-Encoding", "br")])
    };
    let page = get("/", "text/html,*/*");
    assert_eq!((page.status, page.header("location")), (302, Some("/shop/")));
    assert_eq!(get("/", "*/*").status, 404, "a program hears that there is nothing");
    let page = get("/shop/products/7", "text/html");
    assert_eq!((page.status, page.header("content-encoding")), (200, Some("br")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!(get("/shop/none.js", "text/html").status, 404);
    let etag = get("/shop/app.js", "*/*").header("etag").unwrap().to_string();
    let request =
        |method: &str, path: &str, fields: &[(&str, &str)]| server.connect().request(method, path, fields);
    assert_eq!(request("GET", "/shop/app.js", &[("If-None-Match", &etag)]).status, 304);
    assert_eq!(request("POST", "/shop/", &[("Content-Length", "0")]).status, 404);
    let (head, whole) = (request("HEAD", "/shop/app.js", &[]), request("GET", "/shop/app.js", &[]));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), whole.header("content-length"));
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    // Parts, of the file that one knows.
    let part = |range: &str, fields: &[(&str, &str)]| {
        request("GET", "/shop/app.js", &[&[("Range", range), ("Accept-Encoding", "br")], fields].concat())
    };
    let some = part("bytes=3-9", &[]);
    assert_eq!((some.status, &some.body[..]), (206, &whole.body[3..10]));
    let told = format!("bytes 3-9/{}", whole.body.len());
    assert_eq!(some.header("content-range"), Some(told.as_str()));
    let own = whole.header("etag").unwrap();
    assert_eq!(
        (part("bytes=3-9", &[("If-Range", own)]).status, part("bytes=3-9", &[("If-Range", "\"x\"")]).status),
        (206, 200)
    );
    assert_eq!(part("bytes=99999999-", &[]).status, 416);
}

#[test]
fn a_front_end_of_ones_own_is_served_instead_and_read_anew_by_a_reload() {
    let dir = crate::support::server::directory();
    let front = dir.path().join("front");
    std::fs::create_dir_all(front.join("assets")).unwrap();
    std::fs::write(front.join("index.html"), "<p>first").unwrap();
    std::fs::write(front.join("assets/a.js"), "let a;").unwrap();
    std::fs::create_dir_all(front.join("größe & more")).unwrap();
    std::fs::write(front.join("größe & more/index.html"), "<p>below").unwrap();
    let config = dir.path().join("catwalk.toml");
    std::fs::write(&config, "loader_io = \"loaderio-00ff\"\n").unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_string();
    let server = Server::start(&["--static", &path(&front), "--config", &path(&config)]);
    let get = |path: &str| server.connect().request("GET", path, &[("Accept", "text/html")]);
    assert_eq!((get("/").text(), get("/some/page").text()), ("<p>first".into(), "<p>first".into()));
    let leads = get("/gr%C3%B6%C3%9Fe%20&%20more?x=%20y");
    assert_eq!(
        (leads.status, leads.header("location")),
        (302, Some("/gr%C3%B6%C3%9Fe%20%26%20more/?x=%20y"))
    );
    assert_eq!(get(leads.header("location").unwrap()).text(), "<p>below");
    let program = server.connect().request("GET", "/some/page", &[("Accept", "application/json")]);
    assert_eq!(program.status, 404, "who asks for data hears that there is none");
    assert_eq!(get("/assets/a.js").header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(get("/products/1").json()["id"], 1, "the API comes first");
    assert_eq!(get("/loaderio-00ff.txt").text(), "loaderio-00ff");
    assert_eq!((get("/shop/app.js").status, get("/assets/../../catwalk.toml").status), (404, 400));
    std::fs::write(front.join("index.html"), "<p>second").unwrap();
    let mut reload = Command::new(BIN);
    let run = server.dir.join("run");
    assert!(reload.args(["reload", "--wait", "--runtime-dir"]).arg(&run).status().unwrap().success());
    assert_eq!(get("/").text(), "<p>second");
    std::fs::remove_file(front.join("index.html")).unwrap();
    let check = Command::new(BIN)
        .arg("check")
        .env("CATWALK_STATIC", path(&front))
        .env("DATABASE_URL", "postgresql:///none")
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!check.status.success() && why.contains("has no index.html"), "{why}");
    let mut reload = Command::new(BIN);
    let told = reload.args(["reload", "--wait", "--runtime-dir"]).arg(&run).output().unwrap();
    let why = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(why.contains("nothing has changed") && why.contains("has no index.html"), "{why}");
    assert_eq!(get("/").text(), "<p>second");
}
