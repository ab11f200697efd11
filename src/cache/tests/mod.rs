//! The cache in one process: publish, void, recycle, gates, and a model.

pub mod crash;

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::arena::{Gate, Purpose, UncheckedArena};
use super::layout::header;
use super::record::Bodies;
use super::*;
use crate::catalogue::View;
use crate::limits::{
    BUCKET_SIZE_BYTES, LEASE_MAX, RECORD_HEADER_SIZE_BYTES, SEGMENT_WORDS_SIZE_BYTES, VALUE_SIZE_MAX_BYTES,
};
use crate::metrics::MetricsPage;
use crate::os::mmap::SharedMemory;

/// The unit that records keep times in: 17 ms.
const MS: u64 = 1 << 24;
const AGES: Ages =
    Ages { found_ns: 1_000 * MS, missing_ns: 100 * MS, watermark_ns: u64::MAX, stale_ns: 5_000 * MS };

fn purpose(size_bytes: usize) -> Purpose {
    Purpose { cache_size_bytes: size_bytes, workers: 1, settings: 5, nodes: 0 }
}

fn arena(size_bytes: usize) -> Arc<Arena> {
    let purpose = purpose(size_bytes);
    let memory = Arc::new(SharedMemory::create("test", purpose.layout().size_bytes).unwrap());
    Arc::new(Arena::format(memory, &purpose, 7))
}

fn end_life(arena: &Arena, slot: usize) {
    arena.add(arena.layout().slot_at(slot) + layout::slot::EPOCH, 1, Ordering::Release);
}

/// A worker in the present life of `slot`.
fn cache_on(arena: Arc<Arena>, slot: usize) -> Cache {
    let metrics = MetricsPage::create(4).unwrap().slot(slot);
    let epoch = arena.load(arena.layout().slot_at(slot) + layout::slot::EPOCH, Ordering::Relaxed) as u32;
    Cache::new(arena, slot, epoch, AGES, metrics)
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
    Record::make(key, token, Reading { born_ns: 0, position, ..Reading::default() }, view, &bodies).unwrap()
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
    for (at, value) in
        [(header::CACHE_SIZE_BYTES, u64::MAX), (header::WORKERS, 0), (header::WORKERS, u64::MAX)]
    {
        assert_eq!(poke(at, value), Gate::Purpose, "{at} = {value}");
    }
    for (at, value) in
        [(header::CACHE_SIZE_BYTES, 0), (header::CACHE_SIZE_BYTES, 1 << 45), (header::SIZE_BYTES, 4096)]
    {
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
        let left = index::matches(&cache.arena, cache.arena.hash(key(1))).count();
        assert_eq!(left, 1, "nobody finds the earlier one when the later one is evicted");
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

/// What a record of a kibibyte takes beyond key and value: header, padding, its share of index and segments. Its value is what goes out
/// (ETag, head lines, bodies) and the typed fields.
#[test]
fn a_record_costs_what_it_says() {
    const KEY_SIZE_BYTES: usize = 1 + 2 + 8;
    const ETAG_SIZE_BYTES: usize = 8;
    let cache = cache(64 << 20);
    let arena = cache.arena.clone();
    let (mut stored, mut values, mut id) = (0, 0, 0);
    while cache.metrics.page().total(Counter::CacheRecycled) == 0 {
        let record = record(key(id), cache.token(key(id)), 0, &"x".repeat(900));
        values +=
            KEY_SIZE_BYTES + ETAG_SIZE_BYTES + record.words().unwrap().len() * 8 - RECORD_HEADER_SIZE_BYTES;
        cache.fill(&record);
        (stored, id) = (stored + 1, id + 1);
    }
    let layout = arena.layout();
    let full = (0..layout.segments).filter(|n| segment::state(&arena, *n).1 != segment::State::Free).count();
    let in_segments = full * (layout.segment_size + SEGMENT_WORDS_SIZE_BYTES);
    let live = census::take(&arena).valid.iter().map(|group| group.records).sum::<usize>();
    // As many records as segments can hold, over the index: it is sized for all of them.
    let indexed = layout.buckets * BUCKET_SIZE_BYTES * full / layout.segments;
    let overhead = (in_segments - values) as f64 / stored as f64 + indexed as f64 / live as f64;
    println!(
        "{overhead:.1} bytes a record of {} beyond key and value; {live} of {stored} in the index",
        values / stored
    );
    assert!(overhead <= 52.0 && overhead > 40.0, "{overhead} bytes a record");
    assert!(live * 100 > stored * 96, "{live} of {stored} records have found a place");
}

#[test]
fn values_of_64_kib_are_kept_and_larger_ones_are_not() {
    let cache = cache(4 << 20);
    for (id, size, outcome) in
        [(1, VALUE_SIZE_MAX_BYTES, Filled::Published), (2, VALUE_SIZE_MAX_BYTES + 1, Filled::TooLarge)]
    {
        let filled = cache.fill(&record(key(id), cache.token(key(id)), 0, &"x".repeat(size)));
        assert_eq!(filled, outcome);
    }
    assert_eq!(get(&cache, key(1), 0).unwrap().len(), VALUE_SIZE_MAX_BYTES);
    assert_eq!(cache.metrics.page().total(Counter::CacheFillsTooLarge), 1);
    let far = key(1 << 47);
    assert_eq!(cache.fill(&record(far, cache.token(far), 0, "x")), Filled::TooLarge);
    assert_eq!(get(&cache, key(-(1 << 47)), 0), None, "what the far one would be in 48 bits");
}

#[test]
fn what_is_found_twice_outlives_what_is_not() {
    let cache = cache(4 << 20);
    let body = "y".repeat(8_000);
    (0..20).for_each(|id| put(&cache, id, &body));
    for id in 0..10 {
        (0..2).for_each(|_| drop(get(&cache, key(id), 0)));
    }
    // Found as often, but void: it is worth no copy, nor to be remembered.
    put(&cache, 30, &body);
    (0..2).for_each(|_| drop(get(&cache, key(30), 0)));
    cache.forget(key(30));
    let ring = cache.arena.layout().segments as i64 * 32;
    (1_000..1_000 + ring).for_each(|id| put(&cache, id, &body));
    let there = |id: &i64| matches!(index::standing(&cache.arena, key(*id)), Standing::Present(..));
    assert_eq!(index::standing(&cache.arena, key(30)), Standing::Unknown);
    assert_eq!((0..20).filter(there).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    // Whoever comes back soon after it was evicted goes to main at once.
    let evicted =
        (1_000..1_000 + ring).rev().find(|id| index::standing(&cache.arena, key(*id)) == Standing::Evicted);
    let evicted = evicted.expect("a ghost");
    put(&cache, evicted, &body);
    assert_eq!(index::standing(&cache.arena, key(evicted)), Standing::Present(Queue::Main, 0));
}

#[test]
fn a_lease_is_had_by_one_until_its_end_its_deadline_or_its_owners_death() {
    let arena = arena(4 << 20);
    let (one, two) = (cache_on(arena.clone(), 0), cache_on(arena.clone(), 1));
    let token = one.token(key(1));
    let late_ns = 10_000_000_000 + to_ns(LEASE_MAX);
    let ask = |cache: &Cache, now_ns| cache.ask_lease(key(1), token, now_ns);
    let Asked::Granted(lease) = ask(&one, 10_000_000_000) else { panic!("nobody has it") };
    assert_eq!(ask(&two, 10_000_000_000), Asked::Elsewhere);
    assert_eq!(ask(&two, late_ns - 1_000_000), Asked::Elsewhere);
    let Asked::Granted(stolen) = ask(&two, late_ns) else { panic!("it is late") };
    one.end_lease(lease, true, late_ns);
    assert_eq!(ask(&one, late_ns), Asked::Elsewhere, "whoever was late ended its own only");
    end_life(&arena, 1);
    let Asked::Granted(third) = ask(&one, late_ns) else { panic!("its owner is dead") };
    two.end_lease(stolen, true, late_ns);
    assert_eq!(ask(&two, late_ns), Asked::Elsewhere);
    one.end_lease(third, false, late_ns);
    assert_eq!(ask(&two, late_ns), Asked::OpenToAll, "nothing was kept");
    assert!(matches!(ask(&two, late_ns + to_ns(LEASE_MAX)), Asked::Granted(_)));
    // After a change nobody waits for a fetch from before it.
    one.forget(key(1));
    assert!(matches!(one.ask_lease(key(1), one.token(key(1)), late_ns + 1_000_000_000), Asked::Granted(_)));
}

/// Random words anywhere behind the header's gates: everything goes on without a panic, and comes to an end.
#[test]
fn scribbled_memory_never_panics_a_reader() {
    for seed in 0..6u64 {
        // Every second one as after a restart, when nothing in it is believed.
        let memory = arena(4 << 20).memory().clone();
        let arena = match seed % 2 {
            0 => UncheckedArena::new(memory).open(),
            _ => UncheckedArena::new(memory).adopt(&purpose(4 << 20), 900 * MS),
        };
        let arena = Arc::new(arena.unwrap());
        let (cache, mut published) = (cache_on(arena.clone(), 0), 0);
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        };
        for round in 0..6_000i64 {
            let l = *arena.layout();
            let (from, to) = match next() % 4 {
                0 => (header::EPOCH, l.leases_at),
                1 => (l.leases_at, l.states_at),
                2 => (l.states_at, l.data_at),
                _ => (l.data_at, l.size_bytes),
            };
            let at = from + next() as usize % (to - from) / 8 * 8;
            // Small numbers and small changes hit what random ones never do.
            let value = match next() % 4 {
                0 => next() % 3,
                1 => arena.load(at, Ordering::Relaxed) ^ (1 << (next() % 64)),
                2 => ((next() % 4) << 62) | (next() % 300_000),
                _ => (next() << 11) ^ next(),
            };
            arena.store(at, value, Ordering::Relaxed);
            let key = key(round % 300);
            let token = cache.token(key);
            if let Asked::Granted(lease) = cache.ask_lease(key, token, next()) {
                cache.end_lease(lease, next() % 2 == 0, next());
            }
            if let Lookup::Hit(hit) = cache.get(key, 0) {
                cache.copy_body(&hit, Encoding::Gzip, &mut Vec::new());
                cache.copy_head(&hit, &mut Vec::new());
                cache.read_record(&hit);
            } else {
                let filled = cache.fill(&record(key, token, 0, &"w".repeat((round % 4000) as usize)));
                published += usize::from(filled == Filled::Published);
            }
            cache.forget(key);
            if round % 500 == 0 {
                let _ = (
                    verify::verify(&arena).to_string(),
                    census::take(&arena),
                    census::records_of(&arena, key),
                );
                lease::count(&arena, next());
            }
        }
        assert!(published > 100, "{published} fills of 6000 rounds found a place");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(usize, i64),
    Fill(usize, i64),
    /// A fill whose token was taken before the step in between.
    LateFill(usize, i64, i64),
    Forget(usize, i64),
    ForgetAll,
    /// Fills of other keys, which recycle segments.
    Pressure(usize, i64),
    /// A worker dies, and what it owned is left as it is.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (id, worker) = (0..40i64, 0..2usize);
    prop_oneof![
        12 => (worker.clone(), id.clone()).prop_map(|(w, id)| Step::Get(w, id)),
        8 => (worker.clone(), id.clone()).prop_map(|(w, id)| Step::Fill(w, id)),
        4 => (worker.clone(), id.clone(), id.clone()).prop_map(|(w, a, b)| Step::LateFill(w, a, b)),
        4 => (worker.clone(), id.clone()).prop_map(|(w, id)| Step::Forget(w, id)),
        1 => Just(Step::ForgetAll),
        4 => (worker.clone(), 100..160i64).prop_map(|(w, id)| Step::Pressure(w, id)),
        1 => worker.prop_map(Step::Crash),
    ]
}

/// Two workers over one arena, beside a map of versions.
struct Model {
    workers: [Cache; 2],
    versions: Vec<u64>,
}

impl Model {
    fn body(&self, id: i64) -> String {
        format!("{id}@{}", self.versions[id as usize])
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Get(worker, id) => {
                if let Some(found) = get(&self.workers[worker], key(id), 0) {
                    prop_assert_eq!(found, self.body(id));
                }
            }
            Step::Fill(worker, id) => {
                put(&self.workers[worker], id, &self.body(id));
                prop_assert_eq!(get(&self.workers[1 - worker], key(id), 0), Some(self.body(id)));
            }
            Step::LateFill(worker, id, written) => {
                let cache = &self.workers[worker];
                let late = record(key(id), cache.token(key(id)), 0, &self.body(id));
                self.versions[written as usize] += 1;
                self.workers[1 - worker].forget(key(written));
                self.workers[worker].fill(&late);
            }
            Step::Forget(worker, id) => {
                self.versions[id as usize] += 1;
                self.workers[worker].forget(key(id));
                prop_assert_eq!(get(&self.workers[1 - worker], key(id), 0), None);
            }
            Step::ForgetAll => {
                self.versions.iter_mut().for_each(|v| *v += 1);
                self.workers[0].forget_all(watermark::Reason::Asked);
            }
            Step::Pressure(worker, id) => put(&self.workers[worker], id, &"p".repeat(60_000)),
            Step::Crash(worker) => {
                let arena = self.workers[worker].arena.clone();
                end_life(&arena, worker);
                self.workers[worker] = cache_on(arena, worker);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_500))]

    /// Over a million steps: a hit is always the present version, whoever filled, moved or died when.
    #[test]
    fn a_hit_is_never_an_older_version(steps in proptest::collection::vec(step(), 1..600)) {
        let arena = arena(4 << 20);
        let workers = [0, 1].map(|slot| cache_on(arena.clone(), slot));
        let mut model = Model { workers, versions: vec![0; 40] };
        for step in &steps {
            model.take(step)?;
        }
        let verdict = verify::verify(&arena);
        prop_assert!(verdict.is_sound(), "{}", verdict);
    }
}
