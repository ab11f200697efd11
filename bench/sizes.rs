//! Whether answers take longer from a large catalogue than from a small one: two servers side by side, asked in turn, cold (cache off,
//! pages warm) and hot.
//! Runs in: offline (`make bench-sizes`). SIZES=100000,10000000 PROFILE=catalog; SIZES_DIR keeps the catalogues for another run.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "client.rs"]
mod client;
#[path = "server.rs"]
mod server;
use client::{connect, get};
use server::Server;

/// Things asked for, spread over the whole catalogue: so few that what is read of them stays in the database's memory.
const SAMPLE: u64 = 1_000;
const REQUESTS: usize = 20_000;

fn main() {
    let sizes = std::env::var("SIZES").unwrap_or("100000,10000000".into());
    let sizes: Vec<u64> = sizes.split(',').map(|size| size.parse().expect("a number of products")).collect();
    let profile = std::env::var("PROFILE").unwrap_or("catalog".into());
    let dir = std::env::var_os("SIZES_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dirs: Vec<PathBuf> = sizes.iter().map(|size| dir.join(format!("catwalk-{profile}-{size}"))).collect();
    sizes.iter().zip(&dirs).for_each(|(size, dir)| fill(dir, *size, &profile));
    println!(
        "route                             | p50 µs small | large | ratio | p99 µs small | large | ratio"
    );
    for (name, cache) in [("cold", "0"), ("hot", "256MiB")] {
        let servers: Vec<Server> = dirs
            .iter()
            .map(|dir| Server::start_in(dir, &["--products", "0", "--workers", "1", "--cache-size", cache]))
            .collect();
        for route in routes(&profile) {
            compare(&format!("{name} {route}"), route, &servers, &sizes);
        }
        if name == "cold" {
            pages(&servers[1], sizes[1]);
        }
    }
    if std::env::var_os("SIZES_DIR").is_none() {
        dirs.iter().for_each(|dir| drop(std::fs::remove_dir_all(dir)));
    }
}

/// Paths with the number of a product for `#`.
fn routes(profile: &str) -> &'static [&'static str] {
    match profile {
        "catalog" => &["/products/#", "/products/#/styles", "/api/images?shoe_id=#"],
        _ => &[
            "/products/#",
            "/products/#/styles",
            "/products/#/related",
            "/reviews?product_id=#",
            "/reviews?product_id=#&sort=helpful",
            "/reviews/meta?product_id=#",
            "/qa/questions?product_id=#",
            "/qa/questions/#/answers",
        ],
    }
}

fn fill(dir: &Path, size: u64, profile: &str) {
    if dir.join("filled").exists() {
        return;
    }
    let server = Server::start_in(dir, &["--products", "0"]);
    let started = Instant::now();
    let seed = [
        "seed",
        "--profile",
        profile,
        "--database-url",
        &server.database_url,
        "--products",
        &size.to_string(),
    ];
    assert!(Command::new(env!("CARGO_BIN_EXE_catwalk"))
        .args(seed)
        .status()
        .expect("catwalk starts")
        .success());
    println!("{size} products ({profile}) seeded in {:.0} s", started.elapsed().as_secs_f64());
    std::fs::write(dir.join("filled"), "").expect("a file");
}

/// The same sample of one route from both, in turn.
fn compare(name: &str, route: &str, servers: &[Server], sizes: &[u64]) {
    let mut streams: Vec<TcpStream> = servers.iter().map(|server| connect(&server.address)).collect();
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); servers.len()];
    let paths = |size: u64, n: u64| {
        // A prime apart: over the whole catalogue, and in no order.
        let id = 1 + (n * 7_368_787) % SAMPLE * (size / SAMPLE);
        route.replace('#', &id.to_string())
    };
    for n in 0..SAMPLE * 2 + REQUESTS as u64 {
        for (at, stream) in streams.iter_mut().enumerate() {
            let took = get(stream, &paths(sizes[at], n));
            // Twice around, so that pages are warm.
            if n >= SAMPLE * 2 {
                times[at].push(took);
            }
        }
    }
    let us = |times: &mut Vec<Duration>, share: f64| {
        times.sort();
        times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    };
    let (small, large) = times.split_at_mut(1);
    let at = |share: f64, small: &mut Vec<Duration>, large: &mut Vec<Duration>| {
        let (small, large) = (us(small, share), us(large, share));
        format!("{small:>12.1} | {large:>5.1} | {:>5.2}", large / small)
    };
    println!(
        "{name:<33} | {} | {}",
        at(0.5, &mut small[0], &mut large[0]),
        at(0.99, &mut small[0], &mut large[0])
    );
}

/// The last page of all products against the first.
fn pages(server: &Server, size: u64) {
    let mut stream = connect(&server.address);
    let paths = ["/products?count=5".to_string(), format!("/products?count=5&page={}", size / 5)];
    let mut times: [Vec<Duration>; 2] = Default::default();
    for n in 0..REQUESTS / 4 + 200 {
        for (path, times) in paths.iter().zip(&mut times) {
            let took = get(&mut stream, path);
            if n >= 200 {
                times.push(took);
            }
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let (first, last) = (median(&mut times[0]), median(&mut times[1]));
    println!("page 1 of {size}: {first:.1} µs, the last one {last:.1} µs, ratio {:.2}", last / first);
}
