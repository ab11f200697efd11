//! From COMMIT to visible: how long after its COMMIT returned to a writer outside the server a version is still missing in answers.
//! Runs in: offline (`make bench`). 200 writes a second; first with nobody else, then while 64 connections read as fast as they can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Mutex};
use std::time::{Duration, Instant};

#[path = "server.rs"]
mod server;
use server::Server;

const WRITES_PER_SECOND: u64 = 200;
const SECONDS: u64 = 20;
/// Each watches one version after the other until it is seen.
const WATCHERS: usize = 8;
const LOAD_THREADS: usize = 2;
const LOAD_CONNECTIONS: usize = 32;
const PRODUCTS: u64 = 2_000;

fn main() {
    let server = Server::start(&["--products", &PRODUCTS.to_string(), "--workers", "1"]);
    println!("200 writes/s      | p50 ms | p99 ms | p99.9 ms | max ms | reads/s beside");
    for (name, load) in [("light load", false), ("full read load", true)] {
        let (mut delays, reads) = measure(&server, load);
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
        println!(
            "{name:<17} | {:>6.1} | {:>6.1} | {:>8.1} | {:>6.1} | {}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            reads / SECONDS
        );
    }
}

/// A version to be looked out for.
struct Written {
    id: u64,
    version: u64,
    committed: Instant,
}

/// Delays in ms, and the requests of the load.
fn measure(server: &Server, load: bool) -> (Vec<f64>, u64) {
    let (stop, reads, delays) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for n in 0..LOAD_THREADS * usize::from(load) {
            let (stop, reads) = (&stop, &reads);
            scope.spawn(move || read_for_ever(&server.address, n as u64, stop, reads));
        }
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|_| {
                let (sender, receiver) = mpsc::channel();
                let delays = &delays;
                scope.spawn(move || watch(&server.address, &receiver, delays));
                sender
            })
            .collect();
        write(server, &watchers);
        drop(watchers);
        stop.store(true, Ordering::Relaxed);
    });
    (delays.into_inner().expect("no watcher panics"), reads.into_inner())
}

fn write(server: &Server, watchers: &[mpsc::Sender<Written>]) {
    let db = server.database();
    let statement = db.prepare_cached("update products set slogan = $2 where id = $1").expect("a statement");
    let mut next = Instant::now();
    for n in 0..WRITES_PER_SECOND * SECONDS {
        // Each watcher has products of its own: one version after the other.
        let (id, version) = (1 + n % 400, 1_000_000 + n);
        db.execute(&statement, &[&(id as i64), &format!("version {version}")]).expect("it commits");
        let written = Written { id, version, committed: Instant::now() };
        let _ = watchers[n as usize % WATCHERS].send(written);
        next += Duration::from_micros(1_000_000 / WRITES_PER_SECOND);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// The delay of a version: how long after COMMIT the last request was sent whose answer lacked it.
fn watch(address: &str, written: &mpsc::Receiver<Written>, delays: &Mutex<Vec<f64>>) {
    let mut stream = connect(address);
    let mut buf = vec![0; 16 * 1024];
    let mut own = Vec::new();
    for Written { id, version, committed } in written {
        let wanted = format!("version {version}");
        let mut delay = 0.0;
        loop {
            let sent = Instant::now();
            let len = ask(&mut stream, id, &mut buf);
            if buf[..len].windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                break;
            }
            delay = (sent - committed).as_secs_f64() * 1e3;
            std::thread::sleep(Duration::from_micros(500));
        }
        own.push(delay);
    }
    delays.lock().expect("no watcher panics").extend(own);
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server takes connections");
    stream.set_nodelay(true).expect("an option");
    stream
}

fn request(id: u64) -> String {
    format!("GET /products/{id} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

fn ask(stream: &mut TcpStream, id: u64, buf: &mut [u8]) -> usize {
    stream.write_all(request(id).as_bytes()).expect("the server reads");
    receive(stream, buf)
}

/// One answer; how long it is.
fn receive(stream: &mut TcpStream, buf: &mut [u8]) -> usize {
    let mut len = 0;
    loop {
        len += stream.read(&mut buf[len..]).expect("the server answers");
        let Some(end) = buf[..len].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buf[..end]).to_ascii_lowercase();
        let body = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let body: usize = body.and_then(|n| n.trim().parse().ok()).expect("a length");
        if len >= end + 4 + body {
            return len;
        }
    }
}

fn read_for_ever(address: &str, seed: u64, stop: &AtomicBool, reads: &AtomicU64) {
    let mut streams: Vec<_> = (0..LOAD_CONNECTIONS).map(|_| connect(address)).collect();
    let mut buf = vec![0; 16 * 1024];
    let mut state = seed + 1;
    while !stop.load(Ordering::Relaxed) {
        for stream in &mut streams {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            stream.write_all(request(1 + (state >> 33) % PRODUCTS).as_bytes()).expect("the server reads");
        }
        for stream in &mut streams {
            receive(stream, &mut buf);
        }
        reads.fetch_add(LOAD_CONNECTIONS as u64, Ordering::Relaxed);
    }
}
