//! A lookup with the copy of its body, beside a memcpy of the same bytes; on one core and on two.
//!
//! What is looked up: 256 products, which lie in a core's cache, by turns; a single one; or 100,000 by Zipf's law. The clock is not read.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use catwalk::cache::arena::Purpose;
use catwalk::cache::record::Bodies;
use catwalk::cache::{Ages, Arena, Cache, Encoding, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::MetricsPage;
use catwalk::os::mmap::SharedMemory;
use divan::counter::ItemsCount;
use divan::Bencher;

/// Keys drawn beforehand, more than a core's cache remembers the order of.
const DRAWS: usize = 1 << 16;

fn main() {
    divan::main();
}

/// A cache of `count` products with bodies of `size_bytes`, each found often enough to cause no store any more.
fn filled(count: i64, size_bytes: usize) -> Cache {
    let size = (count as usize * (size_bytes + 256) * 2).max(16 << 20);
    let purpose = Purpose { cache_size_bytes: size, workers: 1, settings: 0, nodes: 0 };
    let memory = SharedMemory::create("lookup", purpose.layout().size_bytes).expect("memory");
    let arena = Arc::new(Arena::format(Arc::new(memory), &purpose, 7));
    let metrics = MetricsPage::create(1).expect("memory").slot(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    let cache = Cache::new(arena, 0, 0, ages, metrics);
    for id in 0..count {
        let key = Key::new(Kind::Product, id);
        let bodies = Bodies { json: vec![b'x'; size_bytes], ..Bodies::default() };
        let made = Record::make(key, cache.token(key), Reading::default(), View::Related(vec![]), &bodies);
        cache.fill(&made.expect("it archives"));
        (0..3).for_each(|_| assert!(matches!(cache.get(key, 0), Lookup::Hit(_))));
    }
    cache
}

fn read(cache: &Cache, id: i64, out: &mut Vec<u8>) {
    out.clear();
    if let Lookup::Hit(hit) = cache.get(black_box(Key::new(Kind::Product, id)), 0) {
        assert!(cache.copy_body(&hit, Encoding::Identity, out));
    }
    black_box(&out[..]);
}

/// Lookups of 1,000 keys that `next` draws, in each of the threads.
fn lookups(bencher: Bencher<'_, '_>, cache: &Cache, next: impl Fn(u64) -> i64 + Sync) {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static STATE: std::cell::Cell<u64> = std::cell::Cell::new(THREADS.fetch_add(7919, Ordering::Relaxed));
    }
    bencher.counter(ItemsCount::new(1000u32)).bench(|| {
        let mut out = Vec::with_capacity(8192);
        let start = STATE.get();
        STATE.set(start + 1000);
        for n in start..start + 1000 {
            read(cache, next(n), &mut out);
        }
    });
}

#[divan::bench(consts = [256, 512, 1024], threads = [1])]
fn in_cache<const SIZE: usize>(bencher: Bencher<'_, '_>) {
    let cache = filled(256, SIZE);
    lookups(bencher, &cache, |n| (n * 37 % 256) as i64);
}

/// The same bytes, copied from private memory.
#[divan::bench(consts = [256, 512, 1024], threads = [1])]
fn in_cache_memcpy<const SIZE: usize>(bencher: Bencher<'_, '_>) {
    let bodies: Vec<Vec<u8>> = (0..256).map(|_| vec![b'x'; SIZE]).collect();
    bencher.counter(ItemsCount::new(1000u32)).bench(|| {
        let mut out = Vec::with_capacity(8192);
        for n in 0..1000 {
            out.clear();
            out.extend_from_slice(black_box(&bodies[n * 37 % 256]));
            black_box(&out[..]);
        }
    });
}

#[divan::bench(threads = [1, 2])]
fn one_hot_key(bencher: Bencher<'_, '_>) {
    static CACHE: LazyLock<Cache> = LazyLock::new(|| filled(256, 1024));
    lookups(bencher, &CACHE, |_| 17);
}

/// The same, each thread on a cache of its own: what two cores of this machine do when they share nothing.
#[divan::bench(threads = [1, 2])]
fn one_hot_key_each(bencher: Bencher<'_, '_>) {
    thread_local! {
        static OWN: Cache = filled(256, 1024);
    }
    bencher.counter(ItemsCount::new(1000u32)).bench(|| {
        OWN.with(|cache| {
            let mut out = Vec::with_capacity(8192);
            (0..1000).for_each(|_| read(cache, 17, &mut out));
        });
    });
}

#[divan::bench(threads = [1, 2])]
fn zipf(bencher: Bencher<'_, '_>) {
    static CACHE: LazyLock<(Cache, Vec<i64>)> = LazyLock::new(|| (filled(100_000, 1024), draws(100_000)));
    let (cache, draws) = &*CACHE;
    lookups(bencher, cache, |n| draws[n as usize % DRAWS]);
}

/// Ids by Zipf's law with exponent 1.
fn draws(objects: usize) -> Vec<i64> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=objects)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let point = (state >> 11) as f64 / (1u64 << 53) as f64 * sum;
        cumulated.partition_point(|sum| *sum < point) as i64
    };
    (0..DRAWS).map(|_| draw()).collect()
}
