//! Boxes and catalogue size: hit ratio, reads of the database, staleness; simulated with the cache that serves, after the simulation has been
//! held against a server on this machine.
//!
//! Boxes are alike and know nothing of each other's caches: one of them is simulated, with its share of the requests and all of the changes.

mod client;
mod server;
mod zipf;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catwalk::cache::arena::Purpose;
use catwalk::cache::record::Bodies;
use catwalk::cache::{Ages, Arena, Cache, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::limits::FEED_PAUSE_CHANGES;
use catwalk::metrics::MetricsPage;
use catwalk::os::mmap::SharedMemory;
use server::Server;
use zipf::Zipf;

/// What is simulated: one box of several.
struct Case {
    products: usize,
    boxes: u64,
    cache_size_bytes: usize,
    /// Body, coded body and typed fields of a product.
    record_size_bytes: usize,
    /// Of all boxes together, and of everybody who writes.
    requests_per_s: f64,
    changes_per_s: f64,
    /// Of the replica that is read from and followed; 0 without.
    lag_ms: f64,
    requests: usize,
}

struct Outcome {
    hit_ratio: f64,
    /// Reads of the database, of all boxes.
    reads_per_s: f64,
    /// Answers that lacked a change committed before they were asked for, and by how long at the 99th percentile.
    stale_ratio: f64,
    stale_p99_ms: f64,
}

fn cache(size_bytes: usize) -> Cache {
    let purpose = Purpose { cache_size_bytes: size_bytes, workers: 2, settings: 0, nodes: 0 };
    let memory = Arc::new(SharedMemory::create("scaling", purpose.layout().size_bytes).expect("memory"));
    let arena = Arc::new(Arena::format(memory, &purpose, 7));
    let metrics = MetricsPage::create(1).expect("memory").slot(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    Cache::new(arena, 0, 0, ages, metrics)
}

/// A change that this box has not heard of yet, and when it will.
struct News {
    id: i64,
    committed_s: f64,
    heard_s: f64,
}

fn simulate(case: &Case) -> Outcome {
    let cache = cache(case.cache_size_bytes);
    let (mut asked, mut changed) = (Zipf::new(1.0, case.products, 1), Zipf::new(1.0, case.products, 2));
    let mut dice = Zipf::new(0.0, 1_000_000, 3);
    let step_s = case.boxes as f64 / case.requests_per_s;
    let (look_s, mut next_change_s) = (FEED_PAUSE_CHANGES.as_secs_f64(), 0.0);
    let (mut news, mut unheard): (Vec<News>, HashMap<i64, f64>) = (Vec::new(), HashMap::new());
    let (mut hits, mut counted, mut stale_ms) = (0_u64, 0_u64, Vec::new());
    let object = |key: Key, body_size_bytes: usize| {
        let bodies = Bodies { json: vec![b'x'; body_size_bytes], ..Bodies::default() };
        let view = View::Related(Vec::new());
        Record::make(key, cache.token(key), Reading::default(), view, &bodies).expect("it archives")
    };
    let empty = object(Key::new(Kind::Product, 0), 0).words().expect("it fits").len() * 8;
    let body_size_bytes = case.record_size_bytes.saturating_sub(empty);
    for n in 0..case.requests {
        let now_s = n as f64 * step_s;
        while case.changes_per_s > 0.0 && next_change_s <= now_s {
            // A look comes at any time until one pause later, and a replica shows the change a lag later.
            let wait_s = look_s * dice.draw() as f64 / 1e6 + case.lag_ms / 1e3;
            let id = changed.draw();
            unheard.insert(id, next_change_s);
            news.push(News { id, committed_s: next_change_s, heard_s: next_change_s + wait_s });
            next_change_s += 1.0 / case.changes_per_s;
        }
        news.retain(|news| {
            let is_heard = news.heard_s <= now_s;
            if is_heard {
                cache.forget(Key::new(Kind::Product, news.id));
                if unheard.get(&news.id) == Some(&news.committed_s) {
                    unheard.remove(&news.id);
                }
            }
            !is_heard
        });
        let id = asked.draw();
        let key = Key::new(Kind::Product, id);
        // The first half warms up.
        let counts = n >= case.requests / 2;
        counted += u64::from(counts);
        match cache.get(key, 0) {
            Lookup::Hit(_) => {
                hits += u64::from(counts);
                if let Some(committed_s) = unheard.get(&id).filter(|_| counts) {
                    stale_ms.push((now_s - committed_s) * 1e3);
                }
            }
            _ => {
                cache.fill(&object(key, body_size_bytes));
            }
        }
    }
    let hit_ratio = hits as f64 / counted as f64;
    stale_ms.sort_by(f64::total_cmp);
    let p99 = stale_ms.get((stale_ms.len() as f64 * 0.99) as usize).copied().unwrap_or(0.0);
    Outcome {
        hit_ratio,
        reads_per_s: case.requests_per_s * (1.0 - hit_ratio),
        stale_ratio: stale_ms.len() as f64 / counted as f64,
        stale_p99_ms: p99,
    }
}

/// What a server here came to.
struct Measured {
    hit_ratio: f64,
    requests_per_s: f64,
    changes_per_s: f64,
    record_size_bytes: usize,
}

/// Asks and changes a server here as is simulated.
fn measure(products: usize, cache: &str, changes_per_s: f64) -> Measured {
    let server =
        Server::start(&["--products", &products.to_string(), "--cache-size", cache, "--workers", "2"]);
    let (database, mut stream) = (server.database(), client::connect(&server.address));
    let (mut asked, mut changed) = (Zipf::new(1.0, products, 1), Zipf::new(1.0, products, 2));
    let metric = |name: &str| server.metric(name);
    let (mut start, mut changes, mut before) = (Instant::now(), 0_u64, (0, 0));
    let (warm, all) = (Duration::from_secs(8), Duration::from_secs(16));
    let (began, mut requests, mut is_warm) = (Instant::now(), 0_u64, false);
    while began.elapsed() < all {
        if !is_warm && began.elapsed() > warm {
            (is_warm, start, changes, requests) = (true, Instant::now(), 0, 0);
            before = (metric("catwalk_cache_hits_total"), metric("catwalk_cache_misses_total"));
        }
        if changes_per_s > 0.0 && (changes as f64) < start.elapsed().as_secs_f64() * changes_per_s {
            let id = changed.draw() + 1;
            database
                .batch_execute(&format!("update products set slogan = slogan where id = {id}"))
                .expect("it writes");
            changes += 1;
        }
        client::get(&mut stream, &format!("/products/{}", asked.draw() + 1));
        requests += 1;
    }
    let took_s = start.elapsed().as_secs_f64();
    let hits = (metric("catwalk_cache_hits_total") - before.0) as f64;
    let misses = (metric("catwalk_cache_misses_total") - before.1) as f64;
    Measured {
        hit_ratio: hits / (hits + misses),
        requests_per_s: requests as f64 / took_s,
        changes_per_s: changes as f64 / took_s,
        record_size_bytes: server.record_size_bytes("product"),
    }
}

fn main() {
    println!("| products | cache | changes/s | requests/s | hit ratio measured | simulated |\n|---|---|---|---|---|---|");
    let mut record_size_bytes = 0;
    for (products, changes) in [(20_000, 0.0), (20_000, 200.0), (5_000, 200.0)] {
        let Measured { hit_ratio, requests_per_s, changes_per_s, record_size_bytes: size } =
            measure(products, "4MiB", changes);
        record_size_bytes = size;
        let simulated = simulate(&Case {
            products,
            boxes: 1,
            cache_size_bytes: 4 << 20,
            record_size_bytes,
            requests_per_s,
            changes_per_s,
            lag_ms: 0.0,
            requests: (requests_per_s * 16.0) as usize,
        });
        println!(
            "| {products} | 4 MiB | {changes_per_s:.0} | {requests_per_s:.0} | {:.1} % | {:.1} % |",
            hit_ratio * 100.0,
            simulated.hit_ratio * 100.0
        );
    }
    println!(
        "\n100,000 requests/s, 200 changes/s (both Zipf 1.0), replicas 2 ms behind; caches of 64 MiB a box, records of {record_size_bytes} bytes\n"
    );
    println!("| products | boxes | hit ratio | database reads/s | answers that lack a change | by, p99 ms |\n|---|---|---|---|---|---|");
    for products in [20_000, 200_000, 2_000_000] {
        for boxes in [1, 2, 4, 8, 16] {
            let outcome = simulate(&Case {
                products,
                boxes,
                cache_size_bytes: 64 << 20,
                record_size_bytes,
                requests_per_s: 100_000.0,
                changes_per_s: 200.0,
                lag_ms: 2.0,
                requests: 1_500_000,
            });
            println!(
                "| {products} | {boxes} | {:.1} % | {:.0} | {:.3} % | {:.1} |",
                outcome.hit_ratio * 100.0,
                outcome.reads_per_s,
                outcome.stale_ratio * 100.0,
                outcome.stale_p99_ms
            );
        }
    }
    println!("\n1,000,000 requests/s, 200 changes/s, 200,000 products, caches of 1 GiB a box\n");
    println!("| boxes | hit ratio | database reads/s |\n|---|---|---|");
    for boxes in [8, 16] {
        let outcome = simulate(&Case {
            products: 200_000,
            boxes,
            cache_size_bytes: 1 << 30,
            record_size_bytes,
            requests_per_s: 1_000_000.0,
            changes_per_s: 200.0,
            lag_ms: 2.0,
            requests: 8_000_000,
        });
        println!("| {boxes} | {:.1} % | {:.0} |", outcome.hit_ratio * 100.0, outcome.reads_per_s);
    }
}
