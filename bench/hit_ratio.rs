//! Hit ratios of the shared cache on Zipf traces, beside an LRU of as many objects on the same trace.

mod zipf;

use std::sync::Arc;

use catwalk::cache::arena::Purpose;
use catwalk::cache::layout::Layout;
use catwalk::cache::record::Bodies;
use catwalk::cache::{Ages, Arena, Cache, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::MetricsPage;
use catwalk::os::mmap::SharedMemory;
use lru::LruCache;
use zipf::Zipf;

const OBJECTS: usize = 100_000;
/// A segment of 256 KiB holds 16.
const OBJECT_SIZE_BYTES: usize = 16 * 1024;
/// Left of it for header and archive.
const EMPTY_RECORD_SIZE_BYTES: usize = 256;

/// A cache with room for about `objects` objects, and the room it has.
fn cache(objects: usize) -> (Cache, usize) {
    let per_segment = Layout::new(64 << 20, 1).segment_size / OBJECT_SIZE_BYTES;
    let size =
        (1..).map(|step| step << 16).find(|size| Layout::new(*size, 1).segments * per_segment >= objects);
    let size = size.expect("some size is enough").max(4 << 20);
    let purpose = Purpose { cache_size_bytes: size, workers: 1, settings: 0, nodes: 0 };
    let layout = purpose.layout();
    let memory = Arc::new(SharedMemory::create("hit-ratio", layout.size_bytes).expect("memory"));
    let arena = Arc::new(Arena::format(memory, &purpose, 7));
    let metrics = MetricsPage::create(1).expect("memory").slot(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    (Cache::new(arena, 0, 0, ages, metrics), layout.segments * per_segment)
}

fn object(cache: &Cache, key: Key) -> Record {
    let bodies =
        Bodies { json: vec![b'x'; OBJECT_SIZE_BYTES - EMPTY_RECORD_SIZE_BYTES], ..Bodies::default() };
    let view = View::Related(Vec::new());
    let record = Record::make(key, cache.token(key), Reading::default(), view, &bodies).expect("it archives");
    let size = record.words().expect("it fits").len() * 8;
    assert!(size <= OBJECT_SIZE_BYTES && size > OBJECT_SIZE_BYTES - 256, "{size} bytes");
    record
}

/// Hits of `requests`, of the cache and of the LRU, after as many to warm up as the cache has room for ten times over.
fn run(alpha: f64, objects: usize, requests: usize) -> (f64, f64) {
    let (cache, room) = cache(objects);
    let mut lru = LruCache::new(room.try_into().expect("not 0"));
    let mut zipf = Zipf::new(alpha, OBJECTS, 1);
    let (mut hits, mut lru_hits) = (0, 0);
    for _ in 0..requests {
        let id = zipf.draw();
        let key = Key::new(Kind::Product, id);
        match cache.get(key, 0) {
            Lookup::Hit(_) => hits += 1,
            _ => drop(cache.fill(&object(&cache, key))),
        }
        match lru.get(&id) {
            Some(()) => lru_hits += 1,
            None => drop(lru.put(id, ())),
        }
    }
    (hits as f64 * 100.0 / requests as f64, lru_hits as f64 * 100.0 / requests as f64)
}

fn main() {
    let requests = std::env::var("HIT_RATIO_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000_000);
    println!("{OBJECTS} objects of {OBJECT_SIZE_BYTES} bytes, {requests} requests from a cold start\n");
    println!("| Zipf | room, % | cache, % | LRU, % | points above | wanted |\n|---|---|---|---|---|---|");
    let wanted = [[9.0, 8.0, 6.0], [6.0, 4.5, 2.5]];
    for (row, percent) in [1, 10].into_iter().enumerate() {
        for (column, alpha) in [0.9, 1.0, 1.1].into_iter().enumerate() {
            let (ours, lru) = run(alpha, OBJECTS * percent / 100, requests);
            let wanted = wanted[row][column];
            println!("| {alpha} | {percent} | {ours:.2} | {lru:.2} | {:.2} | {wanted} |", ours - lru);
        }
    }
}
