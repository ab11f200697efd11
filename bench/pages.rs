//! The last page of a million products against the first: the same statement, so the same cost.
//! Runs in: offline (`make bench`). Prints medians of interleaved requests over one connection, cache off.

use std::time::Duration;

#[path = "client.rs"]
mod client;
#[path = "server.rs"]
mod server;
use client::{connect, get};
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
    let mut stream = connect(address);
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
