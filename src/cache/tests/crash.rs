//! Every store and compare-and-swap of the arena is a point at which a process may die: children die at each in turn, over one
//! script, and whoever lives on must find the arena sound and the cache right.

use std::cell::Cell;
use std::process::Command;

use super::*;
use crate::os::clock;
use crate::os::fork::{self, Ending};

thread_local! {
    /// Points passed by this thread, and the one to die at.
    static POINTS: Cell<(u64, u64)> = const { Cell::new((0, u64::MAX)) };
}

/// Called before every change of the arena. `_exit`: nothing is run, nothing is written back.
pub fn reach() {
    POINTS.with(|points| {
        let (passed, fatal) = points.get();
        points.set((passed + 1, fatal));
        if passed == fatal {
            fork::end_at_once(ENDED);
        }
    });
}

/// Status of a child that died where it was to.
const ENDED: i32 = 99;

const KEYS: i64 = 24;

/// Words of an arena that is full, so that the script drains segments of both queues.
fn full_arena() -> Vec<u64> {
    let arena = arena(4 << 20);
    let cache = cache_on(arena.clone(), 1);
    for id in 0..arena.layout().segments as i64 * 20 {
        put(&cache, 1_000 + id, &"f".repeat(16_000));
        get(&cache, key(1_000 + id / 2), 0);
        get(&cache, key(1_000 + id / 2), 0);
    }
    let memory = arena.memory();
    memory.words(0, memory.size_bytes() / 8).iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

/// Another arena with the same words.
fn copy_of(words: &[u64]) -> Arc<Arena> {
    let memory = SharedMemory::create("test", words.len() * 8).unwrap();
    memory.words(0, words.len()).iter().zip(words).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
    Arc::new(UncheckedArena::new(Arc::new(memory)).open().unwrap())
}

fn text(id: i64, version: u64) -> String {
    format!("{id}@{version}:{}", "v".repeat((id as usize * 997 + version as usize * 31) % 40_000))
}

/// What a worker does: fills, finds, voids, has leases, until segments of both queues were drained. `voided`: of each key, the version
/// before which all are void.
fn script(cache: &Cache, voided: &SharedMemory) {
    for round in 0..25u64 {
        for id in 0..KEYS {
            let asked = cache.ask_lease(key(id), cache.token(key(id)), 5_000_000);
            put_version(cache, id, round);
            if let Asked::Granted(lease) = asked {
                cache.end_lease(lease, round % 2 == 0, 5_000_000);
            }
            (0..3).for_each(|_| drop(get(cache, key(id), 0)));
        }
        // What is found twice goes on to main, until that is drained too.
        for id in 0..8 {
            let id = 2_000 + round as i64 * 8 + id;
            put(cache, id, &"m".repeat(15_000));
            (0..2).for_each(|_| drop(get(cache, key(id), 0)));
        }
        let id = round as i64 % KEYS;
        cache.forget(key(id));
        voided.word(id as usize * 8).store(round + 1, Ordering::Relaxed);
    }
}

fn put_version(cache: &Cache, id: i64, version: u64) {
    let token = cache.token(key(id));
    cache.fill(&record(key(id), token, version, &text(id, version)));
}

/// Not a test of its own: the process whose children die.
#[test]
fn children() {
    if std::env::var_os("CATWALK_TEST_CRASH").is_none() {
        return;
    }
    let full = full_arena();
    // The script does what it is for.
    let cache = cache_on(copy_of(&full), 0);
    script(&cache, &SharedMemory::create("test", 4096).unwrap());
    let count = |counter| cache.metrics.page().total(counter);
    let counts = [Counter::CacheRecycled, Counter::CacheMoved, Counter::CacheEvicted].map(count);
    assert!(counts.into_iter().all(|count| count > 8), "recycled, moved, evicted: {counts:?}");
    // All points in the long form; in the short one each sixteenth, from another one on each time.
    let step = std::env::var("CRASH_STEP").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let (mut point, mut died) = (clock::boottime_ns() % step, 0);
    loop {
        let (arena, voided) = (copy_of(&full), SharedMemory::create("test", 4096).unwrap());
        let theirs = arena.clone();
        // SAFETY: the harness's other thread only waits for this one, and holds no lock that the child might want.
        let child = match unsafe { nix::unistd::fork() }.expect("a fork") {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => {
                POINTS.set((0, point));
                script(&cache_on(theirs, 0), &voided);
                fork::end_at_once(0);
            }
        };
        let ending =
            std::iter::repeat_with(fork::reap).find_map(|reaped| reaped.filter(|(pid, _)| *pid == child));
        let (_, ending) = ending.expect("the child ends");
        end_life(&arena, 0);
        live_on(&arena, &voided, point);
        match ending {
            Ending::Exit(0) => break,
            Ending::Exit(ENDED) => died += 1,
            ending => panic!("at point {point} the child {ending}"),
        }
        point += step;
    }
    println!("{died} children died, at each {step}th of {point} points");
    assert!(died > 200, "{died} points only");
}

/// What must hold after a death at `point`.
fn live_on(arena: &Arc<Arena>, voided: &SharedMemory, point: u64) {
    let verdict = verify::verify(arena);
    assert!(verdict.is_sound(), "after a death at point {point}: {verdict}");
    let cache = cache_on(arena.clone(), 2);
    for id in 0..KEYS {
        if let Some(found) = get(&cache, key(id), 0) {
            let version = found.split(['@', ':']).nth(1).and_then(|v| v.parse().ok()).expect("a version");
            let least = voided.word(id as usize * 8).load(Ordering::Relaxed);
            assert!(
                version >= least,
                "version {version} of {id}, of which all before {least} are void, at point {point}"
            );
            assert_eq!(found, text(id, version), "after a death at point {point}");
        }
    }
    // Nothing is held for ever: leases are granted, and fills go round the whole ring.
    assert!(matches!(
        cache.ask_lease(key(0), cache.token(key(0)), 5_000_000),
        Asked::Granted(_) | Asked::OpenToAll
    ));
    for id in 0..arena.layout().segments as i64 * 5 {
        put(&cache, 5_000 + id, &"r".repeat(60_000));
    }
    let verdict = verify::verify(arena);
    assert!(
        verdict.is_sound() && verdict.open <= 4 && verdict.draining == 0,
        "after going on from point {point}: {verdict}"
    );
}

#[test]
fn a_death_at_any_store_leaves_a_sound_arena() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cache::tests::crash::children", "--nocapture", "--test-threads=1"]);
    let out = command.env("CATWALK_TEST_CRASH", "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("children died"), "{text}");
    println!("{text}");
}
