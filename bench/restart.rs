//! A restart with a full cache: from the start of the new process to its first answer, from the cache, and hit ratios before and after.
//!
//! `RESTART_PRODUCTS` and `RESTART_CACHE` for others than what fills 1 GiB.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "client.rs"]
mod client;
#[path = "server.rs"]
mod server;

use client::connect;
use server::Server;

const PORT: u16 = 18_473;
const ADMIN_PORT: u16 = 18_474;
const RESTARTS: usize = 9;
const TRAFFIC: Duration = Duration::from_secs(10);

/// `serve` beside a database that stays, its memory a file of a directory in memory.
fn serve(database_url: &str, run: &Path, cache: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catwalk"));
    command.args(["serve", "--database-url", database_url]).env_remove("NOTIFY_SOCKET");
    command.env("CATWALK_RUNTIME_DIR", run).env("CATWALK_CACHE_SIZE", cache).env("CATWALK_LOG", "warn");
    command
        .env("CATWALK_LISTEN", format!("127.0.0.1:{PORT}"))
        .env("CATWALK_ADMIN_LISTEN", format!("127.0.0.1:{ADMIN_PORT}"))
        .env("CATWALK_PUBLIC_URL", "http://shop.example");
    command.stdout(Stdio::null()).spawn().expect("catwalk starts")
}

/// Waits for an answer that comes from the cache, a new connection each time.
fn wait_for_hit(path: &str) -> Duration {
    let start = Instant::now();
    loop {
        if answer(path).is_some_and(|head| head.contains("cache-status: catwalk; hit\r\n")) {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no hit for a minute");
    }
}

fn answer(path: &str) -> Option<String> {
    answer_at(PORT, path)
}

fn answer_at(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    // A SYN that meets no listener yet would be sent again after a second: asked anew instead.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(20)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).ok()?;
    let mut buf = [0; 65536];
    let len = stream.read(&mut buf).ok()?;
    Some(String::from_utf8_lossy(&buf[..len]).to_ascii_lowercase())
}

/// Hits and misses, all workers'.
fn counts() -> (u64, u64) {
    let text = answer_at(ADMIN_PORT, "/metrics").expect("an answer");
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a counter");
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    (value("catwalk_cache_hits_total "), value("catwalk_cache_misses_total "))
}

/// Products by Zipf's law for a while, on a few connections; the hit ratio of the last tenth in per cent.
fn traffic(products: u64, time: Duration) -> f64 {
    let address = format!("127.0.0.1:{PORT}");
    let start = Instant::now();
    let mut before = (0, 0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let address = &address;
            scope.spawn(move || {
                let mut stream = connect(address);
                let mut state = thread + 1;
                while start.elapsed() < time {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // Zipf with exponent 1, continuous: ranks are as likely as their logarithms are dense.
                    let rank = (products as f64).powf((state >> 11) as f64 / (1u64 << 53) as f64) as u64;
                    let id = 1 + rank.wrapping_mul(7_919) % products;
                    client::get(&mut stream, &format!("/products/{id}"));
                }
            });
        }
        std::thread::sleep(time * 9 / 10);
        before = counts();
    });
    let after = counts();
    let (hits, misses) = (after.0 - before.0, after.1 - before.1);
    hits as f64 * 100.0 / (hits + misses) as f64
}

/// Asks for every product once.
fn fill(products: u64) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut stream = connect(&format!("127.0.0.1:{PORT}"));
                (1..=products).filter(|id| id % 4 == thread).for_each(|id| {
                    client::get(&mut stream, &format!("/products/{id}"));
                });
            });
        }
    });
}

fn main() {
    let products: u64 =
        std::env::var("RESTART_PRODUCTS").ok().and_then(|n| n.parse().ok()).unwrap_or(800_000);
    let cache = std::env::var("RESTART_CACHE").unwrap_or("1GiB".into());
    let database = Server::start(&["--products", "1", "--cache-size", "0", "--workers", "1"]);
    database.database().batch_execute("truncate products, shoe_images cascade").expect("an empty catalogue");
    let seeded = Command::new(env!("CARGO_BIN_EXE_catwalk"))
        .args(["seed", "--profile", "catalog", "--products", &products.to_string()])
        .args(["--database-url", &database.database_url, "--json"])
        .stdout(Stdio::null())
        .status();
    assert!(seeded.expect("catwalk starts").success());
    let run = Path::new("/dev/shm").join(format!("catwalk-bench-{}", std::process::id()));
    let mut child = serve(&database.database_url, &run, &cache);
    while answer("/readyz").is_none_or(|head| !head.starts_with("http/1.1 200")) {}
    fill(products);
    let before = traffic(products, TRAFFIC);
    let (mut firsts, mut after) = (Vec::new(), 0.0);
    for restart in 0..RESTARTS {
        // Without notice: whatever is in the air is lost, the memory is not.
        let _ = Command::new("kill").args(["-9", &child.id().to_string()]).status();
        child.wait().expect("it ends");
        while answer("/healthz").is_some() {}
        std::thread::sleep(Duration::from_secs(1));
        child = serve(&database.database_url, &run, &cache);
        let first = wait_for_hit("/products/7920");
        firsts.push(first.as_secs_f64() * 1e3);
        if restart + 1 == RESTARTS {
            after = traffic(products, TRAFFIC);
        }
    }
    let status = Command::new(env!("CARGO_BIN_EXE_catwalk"))
        .args(["cache", "status", "--runtime-dir"])
        .arg(&run)
        .output();
    println!("{}", String::from_utf8_lossy(&status.expect("catwalk starts").stdout));
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    child.wait().expect("it ends");
    let _ = std::fs::remove_dir_all(&run);
    firsts.sort_by(f64::total_cmp);
    println!("first hit, ms after the start of the process, of {RESTARTS} restarts after kill -9: {firsts:.0?}, median {:.0}", firsts[RESTARTS / 2]);
    println!("hit ratio of the tenth second of traffic: {before:.2} % before, {after:.2} % after");
}
