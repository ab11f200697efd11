//! Real processes over one arena, killed at any instruction: nothing wrong is ever read.
//!
//! The truth is a table of versions beside the arena, as a database would hold them. A writer raises the version,
//! raises the fence, then acknowledges; a filler takes the token, then reads the version, then fills. So a hit may
//! never be older than what was acknowledged before the lookup, and its bytes are a function of key and version.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catwalk::cache::arena::{Purpose, UncheckedArena};
use catwalk::cache::record::Bodies;
use catwalk::cache::{Ages, Arena, Cache, Encoding, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::{Counter, MetricsPage};
use catwalk::os::mmap::SharedMemory;
use catwalk::slots::Slots;

use crate::support::{seed, Dice};

const ARENA_SIZE_BYTES: usize = 4 << 20;
const KEYS: u64 = 600;
const PROCESSES: usize = 4;

/// Versions as the database has them, those acknowledged, and how many hits were verified.
struct Truth(SharedMemory);

impl Truth {
    fn written(&self, id: u64) -> &std::sync::atomic::AtomicU64 {
        self.0.word(id as usize * 16)
    }

    fn acknowledged(&self, id: u64) -> &std::sync::atomic::AtomicU64 {
        self.0.word(id as usize * 16 + 8)
    }

    fn verified(&self) -> &std::sync::atomic::AtomicU64 {
        self.0.word(KEYS as usize * 16)
    }
}

/// A body that no mixture of two others can be: a run of its own letter behind key and version.
fn body(id: u64, version: u64) -> String {
    let letter = char::from(b'a' + ((id * 7 + version * 3) % 26) as u8);
    format!("{id}@{version}:{}", letter.to_string().repeat(((id * 131 + version * 17) % 6_000) as usize))
}

fn one_step(cache: &Cache, truth: &Truth, dice: &mut Dice) {
    let id = dice.below(KEYS);
    let key = Key::new(Kind::Product, id as i64);
    if dice.below(20) == 0 {
        let version = truth.written(id).fetch_add(1, Ordering::SeqCst) + 1;
        cache.forget(key);
        truth.acknowledged(id).fetch_max(version, Ordering::SeqCst);
        return;
    }
    let acknowledged = truth.acknowledged(id).load(Ordering::SeqCst);
    let token = cache.token(key);
    match cache.get(key, 0) {
        Lookup::Hit(hit) => {
            let mut out = Vec::new();
            if cache.copy_body(&hit, Encoding::Identity, &mut out) {
                let text = String::from_utf8(out).expect("bytes of one record");
                let (_, rest) = text.split_once('@').expect("a key and a version");
                let version: u64 = rest.split_once(':').expect("a version").0.parse().expect("a number");
                assert_eq!(text, body(id, version), "bytes of two records");
                assert!(
                    version >= acknowledged,
                    "version {version} of {id} after {acknowledged} was acknowledged"
                );
                truth.verified().fetch_add(1, Ordering::Relaxed);
            }
        }
        Lookup::Miss | Lookup::Untrusted => {
            let version = truth.written(id).load(Ordering::SeqCst);
            let bodies = Bodies { json: body(id, version).into(), ..Bodies::default() };
            let view = View::Related(vec![id as i64]);
            cache.fill(
                &Record::make(key, token, Reading::default(), view, &bodies).expect("it archives"),
            );
        }
    }
}

fn open_inherited(variable: &str) -> SharedMemory {
    let path = std::env::var(variable).expect("the parent sets it");
    let file = File::options().read(true).write(true).open(path).expect("the parent's memory");
    SharedMemory::open(OwnedFd::from(file)).expect("it maps")
}

/// Not a test of its own: what the processes of the test below run.
#[test]
fn process_over_the_arena() {
    let Ok(slot) = std::env::var("CATWALK_TEST_SLOT") else { return };
    let slot: usize = slot.parse().expect("a number");
    let memory = Arc::new(open_inherited("CATWALK_TEST_ARENA"));
    let truth = Truth(open_inherited("CATWALK_TEST_TRUTH"));
    let arena = Arc::new(UncheckedArena::new(memory.clone()).open().expect("a sound arena"));
    let epoch = Slots::new(memory, *arena.layout()).begin_life(slot);
    let metrics = MetricsPage::create(slot + 1).expect("memory").slot(slot);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    let cache = Cache::new(arena, slot, epoch, ages, metrics.clone());
    let mut dice = Dice(u64::from(std::process::id()));
    loop {
        (0..1000).for_each(|_| one_step(&cache, &truth, &mut dice));
        // Orphans of a killed test run end by themselves.
        if nix::unistd::getppid().as_raw() == 1 {
            return;
        }
        let _ = metrics.page().total(Counter::CacheFills);
    }
}

fn spawn(slot: usize, arena: &SharedMemory, truth: &SharedMemory) -> Child {
    let path = |m: &SharedMemory| format!("/proc/{}/fd/{}", std::process::id(), m.fd().as_raw_fd());
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["c_cache::process_over_the_arena", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("CATWALK_TEST_SLOT", slot.to_string());
    command.env("CATWALK_TEST_ARENA", path(arena)).env("CATWALK_TEST_TRUTH", path(truth));
    command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().expect("this binary starts again")
}

#[test]
fn processes_killed_at_any_instruction_leave_a_sound_cache() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let purpose = Purpose { cache_size_bytes: ARENA_SIZE_BYTES, workers: PROCESSES, answers: 0 };
    let layout = purpose.layout();
    let memory = Arc::new(SharedMemory::create("test-arena", layout.size_bytes).unwrap());
    let arena = Arena::format(memory.clone(), &purpose, 3);
    let slots = Slots::new(memory.clone(), layout);
    let truth = Truth(SharedMemory::create("test-truth", 64 * 1024).unwrap());
    let mut dice = Dice(seed());
    let mut children: Vec<Child> = (0..PROCESSES).map(|slot| spawn(slot, &memory, &truth.0)).collect();
    let (start, mut kills) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        let slot = dice.below(PROCESSES as u64) as usize;
        children[slot].kill().unwrap();
        let status = children[slot].wait().unwrap();
        assert_eq!(status.code(), None, "process {slot} failed by itself: {status}");
        slots.end_life(slot);
        kills += 1;
        children[slot] = spawn(slot, &memory, &truth.0);
    }
    for (slot, child) in children.iter_mut().enumerate() {
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "process {slot} failed by itself");
        slots.end_life(slot);
    }
    let verified = truth.verified().load(Ordering::Relaxed);
    println!("{kills} kills, {verified} hits verified");
    assert!(kills > seconds * 10 && verified > 10_000, "{kills} kills, {verified} hits verified");
    // Every segment can still be claimed: one life more goes round the whole ring.
    let epoch = slots.begin_life(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    let metrics = MetricsPage::create(1).unwrap().slot(0);
    let segments = arena.layout().segments as u64;
    let cache = Cache::new(Arc::new(arena), 0, epoch, ages, metrics.clone());
    for id in 0..segments * 60 {
        let key = Key::new(Kind::Styles, id as i64);
        let bodies = Bodies { json: vec![b'x'; 8_000], ..Bodies::default() };
        let made = Record::make(key, cache.token(key), Reading::default(), View::Missing, &bodies);
        cache.fill(&made.unwrap());
    }
    assert!(metrics.page().total(Counter::CacheRecycled) >= segments);
}
