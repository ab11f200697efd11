//! The last page of a million products against the first: the same statement, so the same cost.
//! Runs in: offline (`make bench`). Prints medians of interleaved requests over one connection, cache off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[path = "server.rs"]
mod server;
use server::Server;

const PRODUCTS: u64 = 1_000_000;
const REQUESTS: usize = 4_000;

fn main() {
    let server = Server::start(&["--products", "10", "--cache-size", "0"]);
    fill(&server);
    measure(&server.address);
}

/// Ids with gaps, as in a catalogue that has lived: three of four exist.
fn fill(server: &Server) {
    let db = server.database();
    db.batch_execute(&format!(
        "insert into products (id, name, slogan, description, category, default_price)
         select g, 'Product ' || g, 'A slogan', repeat('A description. ', 12), 'Pants', g % 500
         from generate_series(11, {}) g where g % 4 > 0",
        PRODUCTS * 4 / 3
    ))
    .expect("products are added");
    db.batch_execute("vacuum (analyze) products").expect("statistics");
}

fn measure(address: &str) {
    let mut stream = TcpStream::connect(address).expect("the server takes connections");
    stream.set_nodelay(true).expect("an option");
    let last = PRODUCTS / 5;
    for count in [5, 100] {
        let last = last * 5 / count;
        let paths = [format!("/products?count={count}"), format!("/products?page={last}&count={count}")];
        paths.iter().for_each(|path| {
            (0..200).for_each(|_| {
                get(&mut stream, path);
            })
        });
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..REQUESTS {
            for (path, times) in paths.iter().zip(&mut times) {
                times.push(get(&mut stream, path));
            }
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e6
        };
        let (first, last_page) = (median(&mut times[0]), median(&mut times[1]));
        println!(
            "count {count:>3}: first page {first:.1} µs, page {last} {last_page:.1} µs, ratio {:.3} (medians of {REQUESTS})",
            last_page / first
        );
    }
}

fn get(stream: &mut TcpStream, path: &str) -> Duration {
    let start = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).expect("it reads");
    let mut got = Vec::new();
    let mut buf = [0u8; 65536];
    loop {
        let n = stream.read(&mut buf).expect("it answers");
        assert!(n > 0, "the server closed");
        got.extend_from_slice(&buf[..n]);
        let Some(head) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&got[..head]);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let len: usize = text
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .and_then(|l| l.parse().ok())
            .expect("a length");
        if got.len() >= head + 4 + len {
            return start.elapsed();
        }
    }
}
