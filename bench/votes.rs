//! How many writes a second are taken: catwalk by turns with bench/plain, a transaction a request, on the same database.
//! Runs in: offline (`make bench`). 64 connections, nine votes to one review, distinct rows, synchronous_commit on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "server.rs"]
#[allow(dead_code, reason = "nobody asks its database from here")]
mod server;
use server::Server;

const CONNECTIONS: u64 = 64;
const ROUNDS: usize = 5;
const SECONDS: u64 = 5;
const PRODUCTS: u64 = 20_000;
/// Reviews that are voted on: there are about six a product.
const REVIEWS: u64 = 100_000;
/// Of the plain server, in turn: as many as catwalk has for writes, and as many as PostgreSQL likes.
const PLAIN_CONNECTIONS: [usize; 2] = [4, 32];

struct Plain {
    child: Child,
    address: String,
}

impl Plain {
    fn start(database_url: &str, connections: usize) -> Plain {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/plain/Cargo.toml");
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target/plain");
        let built = Command::new("cargo")
            .args(["build", "--release", "--quiet", "--manifest-path", manifest, "--target-dir", target])
            .status();
        assert!(built.expect("cargo runs").success(), "bench/plain builds");
        let mut child = Command::new(format!("{target}/release/plain"))
            .args([database_url, &connections.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut address).expect("its address");
        Plain { child, address: address.trim().to_string() }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let catwalk = Server::start(&["--products", &PRODUCTS.to_string()]);
    println!("server                       | writes/s (median of {ROUNDS}) | p50 ms | p99 ms");
    let plain: Vec<Plain> =
        PLAIN_CONNECTIONS.iter().map(|count| Plain::start(&catwalk.database_url, *count)).collect();
    let mut sides = vec![("catwalk".to_string(), catwalk.address.clone(), Vec::new(), Vec::new())];
    for (count, plain) in PLAIN_CONNECTIONS.iter().zip(&plain) {
        sides.push((format!("plain, {count} connections"), plain.address.clone(), Vec::new(), Vec::new()));
    }
    for round in 0..ROUNDS {
        for (_, address, rates, delays) in &mut sides {
            let (writes, mut took) = measure(address, round as u64);
            rates.push(writes as f64 / SECONDS as f64);
            delays.append(&mut took);
        }
    }
    let mut rates_of_all = Vec::new();
    for (name, _, mut rates, mut delays) in sides {
        rates.sort_by(f64::total_cmp);
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
        println!("{name:<28} | {:>28.0} | {:>6.1} | {:>6.1}", rates[ROUNDS / 2], at(0.5), at(0.99));
        rates_of_all.push(rates[ROUNDS / 2]);
    }
    let best = rates_of_all[1..].iter().copied().fold(0.0, f64::max);
    println!("catwalk / the better plain one: {:.2}", rates_of_all[0] / best);
}

/// Writes that were answered, and how long each took in ms.
fn measure(address: &str, round: u64) -> (u64, Vec<f64>) {
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let (stop, writes) = (&stop, &writes);
                scope.spawn(move || write_until(address, round * CONNECTIONS + n, stop, writes))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(SECONDS));
        stop.store(true, Ordering::Relaxed);
        let delays = threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        (writes.load(Ordering::Relaxed), delays)
    })
}

fn write_until(address: &str, seed: u64, stop: &AtomicBool, writes: &AtomicU64) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let mut delays = Vec::new();
    let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut buf = [0u8; 4096];
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let start = Instant::now();
        stream.write_all(request(n, dice >> 20).as_bytes()).expect("it reads");
        let len = stream.read(&mut buf).expect("it answers");
        assert!(buf[..len].starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&buf[..len]));
        delays.push(start.elapsed().as_secs_f64() * 1e3);
        writes.fetch_add(1, Ordering::Relaxed);
    }
    delays
}

/// Nine votes, then a review.
fn request(n: u64, dice: u64) -> String {
    if n % 10 < 9 {
        let id = 1 + dice % REVIEWS;
        return format!("PUT /reviews/{id}/helpful HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    }
    let product = 1 + dice % PRODUCTS;
    let characteristic = (product - 1) * 4 + 1;
    let body = format!(
        r#"{{"product_id": {product}, "rating": 4, "summary": "Fine", "body": "It does what it should, and looks well.",
        "recommend": true, "name": "ada", "email": "a@example.com", "photos": ["https://x/1"],
        "characteristics": {{"{characteristic}": 5, "{}": 4}}}}"#,
        characteristic + 1
    );
    format!(
        "POST /reviews HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
