//! Hostile arena images: words anywhere in the shared memory, then everything that readers and fillers do.
//! Runs in: offline.
#![no_main]

use std::sync::atomic::Ordering;
use std::sync::Arc;

use catwalk::cache::arena::{Purpose, UncheckedArena};
use catwalk::cache::record::Bodies;
use catwalk::cache::{census, verify, Ages, Arena, Cache, Encoding, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::MetricsPage;
use catwalk::os::mmap::SharedMemory;
use libfuzzer_sys::fuzz_target;

const PURPOSE: Purpose = Purpose { cache_size_bytes: 4 << 20, workers: 1, settings: 0 };

fuzz_target!(|bytes: &[u8]| {
    let memory = Arc::new(SharedMemory::create("fuzz", PURPOSE.layout().size_bytes).expect("memory"));
    let arena = Arc::new(Arena::format(memory.clone(), &PURPOSE, 7));
    let metrics = MetricsPage::create(1).expect("memory").slot(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    let cache = Cache::new(arena.clone(), 0, 0, ages, metrics);
    (0..200).for_each(|id| use_key(&cache, id));
    // Twelve bytes a change: where, and what.
    for (n, change) in bytes.chunks_exact(12).enumerate() {
        let at = u32::from_le_bytes(change[..4].try_into().expect("four")) as usize % (memory.size_bytes() / 8) * 8;
        let value = u64::from_le_bytes(change[4..].try_into().expect("eight"));
        memory.word(at).store(value, Ordering::Relaxed);
        use_key(&cache, n as i64 % 300);
    }
    let _ = (verify::verify(&arena).to_string(), census::take(&arena));
    // Whatever it is now: the gates let it pass, or say why not.
    let _ = UncheckedArena::new(memory).adopt(&PURPOSE, u64::MAX);
});

fn use_key(cache: &Cache, id: i64) {
    let key = Key::new(Kind::Product, id);
    let token = cache.token(key);
    match cache.get(key, 0) {
        Lookup::Hit(hit) => {
            cache.copy_body(&hit, Encoding::Gzip, &mut Vec::new());
            cache.read_record(&hit);
        }
        _ => {
            let bodies = Bodies { json: vec![b'x'; (id * 997 % 60_000) as usize], ..Bodies::default() };
            let made = Record::make(key, token, Reading::default(), View::Related(vec![id]), &bodies);
            cache.fill(&made.expect("it archives"));
        }
    }
}
