//! The cache in one process: publish, void, recycle, gates, and a model.

pub mod crash;

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::arena::{Gate, Purpose, UncheckedArena};
use super::layout::header;
use super::record::Bodies;
use super::*;
use crate::catalogue::View;
use crate::limits::VALUE_SIZE_MAX_BYTES;
use crate::metrics::MetricsPage;
use crate::os::mmap::SharedMemory;

/// The unit that records keep times in: 17 ms.
const MS: u64 = 1 << 24;
const AGES: Ages =
    Ages { found_ns: 1_000 * MS, missing_ns: 100 * MS, watermark_ns: u64::MAX, stale_ns: 5_000 * MS };

fn purpose(size_bytes: usize) -> Purpose {
    Purpose { cache_size_bytes: size_bytes, workers: 1, answers: 5 }
}

fn arena(size_bytes: usize) -> Arc<Arena> {
    let purpose = purpose(size_bytes);
    let memory = Arc::new(SharedMemory::create("test", purpose.layout().size_bytes).unwrap());
    Arc::new(Arena::format(memory, &purpose, 7))
}

fn end_life(arena: &Arena, slot: usize) {
    arena.add(arena.layout().slot_at(slot) + layout::slot::EPOCH, 1, Ordering::Release);
}

fn cache_on(arena: Arc<Arena>, slot: usize) -> Cache {
    let metrics = MetricsPage::create(4).unwrap().slot(slot);
    Cache::new(arena, slot, 0, AGES, metrics)
}

fn cache(size_bytes: usize) -> Cache {
    cache_on(arena(size_bytes), 0)
}

fn key(id: i64) -> Key {
    Key::new(Kind::Product, id)
}

fn record(key: Key, token: Token, position: u64, json: &str) -> Record {
    let bodies = Bodies { json: json.into(), ..Bodies::default() };
    let view = if json.is_empty() { View::Missing } else { View::Related(vec![1]) };
    Record::make(key, token, Reading { born_ns: 0, position }, view, &bodies).unwrap()
}

fn get(cache: &Cache, key: Key, now_ns: u64) -> Option<String> {
    match cache.get(key, now_ns) {
        Lookup::Hit(hit) => {
            let mut out = b"before".to_vec();
            assert!(cache.copy_body(&hit, Encoding::Identity, &mut out));
            Some(String::from_utf8(out.split_off(6)).unwrap())
        }
        Lookup::Miss | Lookup::Untrusted => None,
    }
}

fn put(cache: &Cache, id: i64, json: &str) {
    let token = cache.token(key(id));
    assert_eq!(cache.fill(&record(key(id), token, 0, json)), Filled::Published);
}

#[test]
fn what_is_published_is_found_whole() {
    let cache = cache(4 << 20);
    for id in 0..500 {
        put(&cache, id, &"x".repeat(id as usize));
    }
    for id in 1..500 {
        assert_eq!(get(&cache, key(id), 0).unwrap(), "x".repeat(id as usize), "{id}");
    }
    assert_eq!(get(&cache, key(500), 0), None);
    let Lookup::Hit(hit) = cache.get(key(9), 0) else { panic!() };
    let record = cache.read_record(&hit).unwrap();
    assert_eq!(record.entry().unwrap().view, View::Related(vec![1]));
    assert_eq!(record.body(Encoding::Identity), b"xxxxxxxxx");
}

#[test]
fn a_raised_fence_voids_the_record_and_every_fill_under_way() {
    let cache = cache(4 << 20);
    put(&cache, 1, "old");
    let early = cache.token(key(1));
    cache.forget(key(1));
    assert_eq!(get(&cache, key(1), 0), None);
    assert_eq!(cache.fill(&record(key(1), early, 0, "late")), Filled::Voided);
    put(&cache, 1, "new");
    assert_eq!(get(&cache, key(1), 0).as_deref(), Some("new"));
    cache.forget_all(watermark::Reason::Asked);
    assert_eq!(get(&cache, key(1), 0), None);
}

#[test]
fn a_fence_is_of_a_kind_and_a_product() {
    let cache = cache(4 << 20);
    let styles = Key::new(Kind::Styles, 1);
    put(&cache, 1, "product");
    cache.fill(&record(styles, cache.token(styles), 0, "styles"));
    cache.forget(styles);
    assert_eq!(get(&cache, key(1), 0).as_deref(), Some("product"));
    assert_eq!(get(&cache, styles, 0), None);
}

#[test]
fn old_records_are_not_served() {
    let cache = cache(4 << 20);
    put(&cache, 1, "found");
    put(&cache, 2, "");
    assert!(get(&cache, key(1), 1_000 * MS).is_some() && get(&cache, key(1), 1_000 * MS + 1).is_none());
    assert!(get(&cache, key(2), 100 * MS).is_some() && get(&cache, key(2), 100 * MS + 1).is_none());
}

#[test]
fn segments_are_recycled_first_in_first_out() {
    let cache = cache(4 << 20);
    let body = "y".repeat(8_000);
    for id in 0..2_000 {
        put(&cache, id, &body);
    }
    assert_eq!(get(&cache, key(0), 0), None);
    assert_eq!(get(&cache, key(1_999), 0), Some(body));
    assert!(cache.metrics.page().total(Counter::CacheRecycled) > 0);
}

#[test]
fn a_hit_on_a_recycled_segment_copies_nothing() {
    let cache = cache(4 << 20);
    put(&cache, 1, "short-lived");
    let Lookup::Hit(hit) = cache.get(key(1), 0) else { panic!() };
    for id in 2..3_000 {
        put(&cache, id, &"z".repeat(8_000));
    }
    let mut out = b"kept".to_vec();
    assert!(!cache.copy_body(&hit, Encoding::Identity, &mut out));
    assert_eq!(out, b"kept");
    assert!(cache.read_record(&hit).is_none());
}

#[test]
fn a_dead_workers_segment_is_claimed_and_a_living_ones_is_not() {
    let arena = arena(4 << 20);
    let (one, two) = (cache_on(arena.clone(), 0), cache_on(arena.clone(), 1));
    let segments = arena.layout().segments as i64;
    let is_there = || matches!(index::standing(&arena, key(-1)), Standing::Present(..));
    put(&one, -1, "of one");
    // Two has every other segment; one's is Open and stays.
    for id in 0..segments * 40 {
        put(&two, id, &"q".repeat(8_000));
    }
    assert!(is_there());
    end_life(&arena, 0);
    for id in 0..segments * 40 {
        put(&two, id, &"q".repeat(8_000));
    }
    assert!(!is_there());
}

#[test]
fn too_large_and_off_are_refused_without_harm() {
    let cache = cache(4 << 20);
    let large = record(key(1), cache.token(key(1)), 0, &"x".repeat(VALUE_SIZE_MAX_BYTES + 1));
    assert_eq!(cache.fill(&large), Filled::TooLarge);
    let off = cache_on(arena(0), 0);
    assert!(!off.is_on() && get(&off, key(1), 0).is_none());
    assert_eq!(off.fill(&record(key(1), off.token(key(1)), 0, "x")), Filled::Refused);
    off.forget(key(1));
}

#[test]
fn each_gate_refuses_what_it_is_for() {
    let open = |arena: &Arena| UncheckedArena::new(arena.memory().clone()).open().map(|_| ());
    let poke = |at: usize, value: u64| {
        let arena = arena(4 << 20);
        arena.store(at, value, Ordering::Relaxed);
        open(&arena).unwrap_err()
    };
    assert_eq!(open(&arena(4 << 20)), Ok(()));
    assert_eq!(poke(header::MAGIC, 0), Gate::Magic);
    assert_eq!(poke(header::SCHEMA_VERSION, 99), Gate::Schema(99));
    assert_eq!(poke(header::ABI_HASH, 1), Gate::Abi);
    for (at, value) in [
        (header::CACHE_SIZE_BYTES, u64::MAX),
        (header::CACHE_SIZE_BYTES, 0),
        (header::WORKERS, 0),
        (header::WORKERS, u64::MAX),
        (header::SIZE_BYTES, 4096),
    ] {
        assert!(matches!(poke(at, value), Gate::Size { .. }), "{at} = {value}");
    }
}

/// Trusts a watermark for 100 ms.
fn watched(arena: &Arc<Arena>) -> Cache {
    let metrics = MetricsPage::create(4).unwrap().slot(0);
    let ages = Ages { found_ns: 10_000 * MS, watermark_ns: 100 * MS, ..AGES };
    Cache::new(arena.clone(), 0, 0, ages, metrics)
}

#[test]
fn nothing_is_trusted_once_the_watermark_is_older_than_the_bound() {
    let arena = arena(4 << 20);
    let cache = watched(&arena);
    watermark::advance(&arena, 1_000 * MS);
    put(&cache, 1, "fresh");
    let look = |ms: u64| cache.get(key(1), ms * MS);
    assert!(matches!(look(900), Lookup::Hit(_)), "received before the watermark");
    assert!(matches!(look(1_100), Lookup::Hit(_)));
    assert!(matches!(cache.get(key(1), 1_100 * MS + 1), Lookup::Untrusted));
    assert!(matches!(cache.get(key(2), 1_100 * MS + 1), Lookup::Untrusted));
    watermark::advance(&arena, 1_200 * MS);
    assert!(matches!(look(1_300), Lookup::Hit(_)), "nothing was voided meanwhile");
}

#[test]
fn an_untrusted_value_is_served_for_a_while_when_nobody_can_be_asked_but_never_a_void_one() {
    let arena = arena(4 << 20);
    let cache = watched(&arena);
    watermark::advance(&arena, 1_000 * MS);
    put(&cache, 1, "stale");
    assert!(cache.get_stale(key(1), 6_100 * MS).is_some());
    assert!(cache.get_stale(key(1), 6_100 * MS + 1).is_none());
    cache.forget(key(1));
    assert!(cache.get_stale(key(1), 2_000 * MS).is_none());
}

#[test]
fn a_cursor_is_found_again_and_never_beside_other_surroundings() {
    let arena = arena(4 << 20);
    assert_eq!(watermark::cursor(&arena), None);
    let mut cursor = watermark::Cursor { xmin: 700, followed: 5, life: 9 };
    watermark::set_cursor(&arena, cursor);
    assert_eq!(watermark::cursor(&arena), Some(cursor));
    cursor = watermark::Cursor { xmin: 800, followed: 6, ..cursor };
    watermark::set_cursor(&arena, cursor);
    assert_eq!(watermark::cursor(&arena), Some(cursor));
}

#[test]
fn voiding_everything_says_why() {
    let cache = cache(4 << 20);
    put(&cache, 1, "x");
    cache.forget_all(watermark::Reason::Noted);
    assert_eq!(get(&cache, key(1), 0), None);
    assert_eq!(watermark::last_void(cache.arena()).0, watermark::Reason::Noted);
}

/// What a fence voids beside its own is counted, and is at most what shares its half of the word.
#[test]
fn collateral_is_counted() {
    let cache = cache(4 << 20);
    (0..3_000).for_each(|id| put(&cache, id, "x"));
    let living = || (0..3_000).filter(|id| get(&cache, key(*id), 0).is_some()).count() as u64;
    let before = living();
    (0..300).for_each(|id| cache.forget(key(id)));
    let voided = cache.metrics.page().total(Counter::CacheVoided);
    let collateral = cache.metrics.page().total(Counter::CacheVoidedCollateral);
    assert_eq!(voided, 300);
    // Of the 300 some may have been the collateral of others before.
    let lost = before - living();
    assert!(
        collateral <= lost && lost <= 300 + collateral,
        "{lost} lost, {collateral} counted as collateral"
    );
    assert!(collateral <= 3 * voided, "{collateral} for {voided}");
}

/// Two publishers who both found no item of the key leave two: the later one is served, whichever place it has.
#[test]
fn of_two_records_of_a_key_the_later_one_is_served() {
    for later_first in [true, false] {
        let cache = cache(4 << 20);
        let token = cache.token(key(1));
        let publish = |position, json| {
            let record = record(key(1), token, position, json);
            let mut appender = cache.appender.lock();
            let item = appender.append(&cache.arena, record.words().unwrap(), Queue::Small).unwrap();
            let hash = cache.arena.hash(key(1));
            let first = cache.arena.layout().bucket_at(hash) + 8;
            let free = (0..7).map(|n| first + n * 8).find(|at| cache.arena.load(*at, Ordering::Relaxed) == 0);
            let word = item.with_tag(index::tag(hash)).word();
            cache.arena.store(free.unwrap(), word, Ordering::Release);
        };
        match later_first {
            true => (publish(20, "later"), publish(10, "earlier")),
            false => (publish(10, "earlier"), publish(20, "later")),
        };
        assert_eq!(get(&cache, key(1), 0).as_deref(), Some("later"));
        assert_eq!(cache.fill(&record(key(1), token, 15, "between")), Filled::Overtaken);
        assert_eq!(cache.fill(&record(key(1), token, 30, "latest")), Filled::Published);
        assert_eq!(get(&cache, key(1), 0).as_deref(), Some("latest"));
    }
}

/// Who has seen a value that can't be kept must not be served an older one afterwards.
#[test]
fn a_value_too_large_to_keep_voids_the_one_that_was_kept() {
    let cache = cache(4 << 20);
    put(&cache, 1, "small");
    let large = record(key(1), cache.token(key(1)), 5, &"x".repeat(VALUE_SIZE_MAX_BYTES + 1));
    assert_eq!(cache.fill(&large), Filled::TooLarge);
    assert_eq!(get(&cache, key(1), 0), None);
}

#[test]
fn a_slow_filler_does_not_undo_a_newer_one() {
    let cache = cache(4 << 20);
    let token = cache.token(key(1));
    assert_eq!(cache.fill(&record(key(1), token, 20, "newer")), Filled::Published);
    assert_eq!(cache.fill(&record(key(1), token, 10, "older")), Filled::Overtaken);
    assert_eq!(get(&cache, key(1), 20).as_deref(), Some("newer"));
}

/// Random words in index, segment headers and data: gets, fills and recycling go on without a panic.
#[test]
fn scribbled_memory_never_panics_a_reader() {
    let cache = cache(4 << 20);
    let arena = cache.arena.clone();
    let mut state = 9u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 11
    };
    for round in 0..20_000i64 {
        let l = *arena.layout();
        let at = l.index_at + (next() as usize % (l.size_bytes - l.index_at)) / 8 * 8;
        let generation_or_state = (l.states_at..l.data_at).contains(&at);
        let value = if generation_or_state { next() % 3 } else { next() << 11 ^ next() };
        arena.store(at, value, Ordering::Relaxed);
        let key = key(round % 300);
        let token = cache.token(key);
        if let Lookup::Hit(hit) = cache.get(key, 0) {
            cache.copy_body(&hit, Encoding::Gzip, &mut Vec::new());
            cache.read_record(&hit);
            continue;
        }
        cache.fill(&record(key, token, 0, &"w".repeat((round % 4000) as usize)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(i64),
    Fill(i64),
    /// A fill whose token was taken before the step in between.
    LateFill(i64, i64),
    Forget(i64),
    ForgetAll,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..40i64;
    prop_oneof![
        6 => id.clone().prop_map(Step::Get),
        4 => id.clone().prop_map(Step::Fill),
        2 => (id.clone(), id.clone()).prop_map(|(a, b)| Step::LateFill(a, b)),
        2 => id.prop_map(Step::Forget),
        1 => Just(Step::ForgetAll),
    ]
}

proptest! {
    /// Against a map of versions: a hit is always the present version, whatever was filled when.
    #[test]
    fn a_hit_is_never_an_older_version(steps in proptest::collection::vec(step(), 1..300)) {
        let cache = cache(4 << 20);
        let mut versions = vec![0u64; 40];
        let body = |id: i64, version: u64| format!("{id}@{version}");
        for step in steps {
            match step {
                Step::Get(id) => {
                    if let Some(found) = get(&cache, key(id), 0) {
                        prop_assert_eq!(found, body(id, versions[id as usize]));
                    }
                }
                Step::Fill(id) => {
                    put(&cache, id, &body(id, versions[id as usize]));
                    prop_assert_eq!(get(&cache, key(id), 0), Some(body(id, versions[id as usize])));
                }
                Step::LateFill(id, written) => {
                    let (token, read) = (cache.token(key(id)), versions[id as usize]);
                    versions[written as usize] += 1;
                    cache.forget(key(written));
                    cache.fill(&record(key(id), token, 0, &body(id, read)));
                }
                Step::Forget(id) => {
                    versions[id as usize] += 1;
                    cache.forget(key(id));
                    prop_assert_eq!(get(&cache, key(id), 0), None);
                }
                Step::ForgetAll => {
                    versions.iter_mut().for_each(|v| *v += 1);
                    cache.forget_all(watermark::Reason::Asked);
                }
            }
        }
    }
}
