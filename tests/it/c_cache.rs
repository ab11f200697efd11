//! Real processes over one arena, killed at any instruction, stopped for seconds: nothing wrong is ever read.
//!
//! The truth is a table of versions beside the arena, as a database would hold them. A writer raises the version,
//! raises the fence, then acknowledges; a filler takes the token, then reads the version, then fills. So a hit may
//! never be older than what was acknowledged before the lookup; and every body ends with a checksum of its key, its version and all of
//! its bytes.
//!
//! The short form runs with the other tests. The long one, `make torture`, goes on until as many kills and verified reads are
//! reached as are wanted, over several runs if need be: it notes how far it has come.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catwalk::cache::arena::{Purpose, UncheckedArena};
use catwalk::cache::lease::Asked;
use catwalk::cache::record::Bodies;
use catwalk::cache::verify::verify;
use catwalk::cache::{Ages, Arena, Cache, Encoding, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::{Counter, MetricsPage};
use catwalk::os::mmap::SharedMemory;
use catwalk::os::{clock, fork};
use catwalk::slots::Slots;
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{kill, signal, SigHandler, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{ForkResult, Pid};
use rapidhash::v3::rapidhash_v3;

use crate::support::{seed, Dice};

const ARENA_SIZE_BYTES: usize = 8 << 20;
const KEYS: u64 = 6_000;
const PROCESSES: usize = 4;
/// Reads between two looks at what was read.
const READS_A_ROUND: u64 = 200;
const AGES: Ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };

/// Versions as the database has them, those acknowledged, and how many hits were verified.
struct Truth(SharedMemory);

impl Truth {
    fn create() -> Truth {
        Truth(SharedMemory::create("test-truth", (KEYS as usize * 16 + 8).next_multiple_of(4096)).unwrap())
    }

    fn written(&self, id: u64) -> &AtomicU64 {
        self.0.word(id as usize * 16)
    }

    fn acknowledged(&self, id: u64) -> &AtomicU64 {
        self.0.word(id as usize * 16 + 8)
    }

    fn verified(&self) -> &AtomicU64 {
        self.0.word(KEYS as usize * 16)
    }
}

/// Key, version, so many bytes that depend on both, and the checksum of all that. Most are small; some are as large as a value may be.
fn body(id: u64, version: u64) -> Vec<u8> {
    let mixed = rapidhash_v3(&[id.to_le_bytes(), version.to_le_bytes()].concat());
    let len = match mixed % 64 {
        0 => mixed >> 8 & 0xFFFF,
        _ => mixed >> 8 & 0x3FF,
    };
    let mut body = [id.to_le_bytes(), version.to_le_bytes()].concat();
    body.resize(16 + (len as usize).min(65_000), mixed as u8);
    let checksum = rapidhash_v3(&body);
    body.extend_from_slice(&checksum.to_le_bytes());
    body
}

/// The version that `body` is of, if it is a whole one of `id`.
fn version_of(body: &[u8], id: u64) -> Option<u64> {
    let word =
        |at: usize| body.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight")));
    let end = body.len().checked_sub(8)?;
    let whole = word(0) == Some(id) && word(end) == Some(rapidhash_v3(&body[..end]));
    whole.then(|| word(8)).flatten()
}

/// A process: reads most of the time, fills what it misses, writes now and then.
struct Process<'a> {
    cache: Cache,
    truth: &'a Truth,
    dice: Dice,
    out: Vec<u8>,
}

impl Process<'_> {
    fn step(&mut self) -> u64 {
        // Few keys are asked for often, as everywhere.
        let id = self.dice.below(KEYS).min(self.dice.below(KEYS)).min(self.dice.below(KEYS));
        let key = Key::new(Kind::Product, id as i64);
        match self.dice.below(1000) {
            0..5 => {
                let version = self.truth.written(id).fetch_add(1, Ordering::SeqCst) + 1;
                self.cache.forget(key);
                self.truth.acknowledged(id).fetch_max(version, Ordering::SeqCst);
                0
            }
            _ => self.read(id, key),
        }
    }

    /// Hits that were verified.
    fn read(&mut self, id: u64, key: Key) -> u64 {
        let acknowledged = self.truth.acknowledged(id).load(Ordering::SeqCst);
        let Lookup::Hit(hit) = self.cache.get(key, 0) else {
            self.fill(id, key);
            return 0;
        };
        self.out.clear();
        if !self.cache.copy_body(&hit, Encoding::Identity, &mut self.out) {
            return 0;
        }
        let version = version_of(&self.out, id).expect("the body of one version of that key");
        assert!(version >= acknowledged, "version {version} of {id} after {acknowledged} was acknowledged");
        1
    }

    fn fill(&self, id: u64, key: Key) {
        let token = self.cache.token(key);
        let asked = self.cache.ask_lease(key, token, clock::boottime_ns());
        if asked == Asked::Elsewhere {
            return;
        }
        let version = self.truth.written(id).load(Ordering::SeqCst);
        let bodies = Bodies { json: body(id, version), ..Bodies::default() };
        let reading = Reading { born_ns: 0, position: version, ..Reading::default() };
        let made = Record::make(key, token, reading, View::Related(vec![id as i64]), &bodies);
        self.cache.fill(&made.expect("it archives"));
        if let Asked::Granted(lease) = asked {
            self.cache.end_lease(lease, true, clock::boottime_ns());
        }
    }
}

/// What every process has inherited.
struct Shop {
    arena: Arena,
    slots: Slots,
    truth: Truth,
}

impl Shop {
    fn new() -> Shop {
        let purpose =
            Purpose { cache_size_bytes: ARENA_SIZE_BYTES, workers: PROCESSES, settings: 0, nodes: 0 };
        let memory = Arc::new(SharedMemory::create("test-arena", purpose.layout().size_bytes).unwrap());
        let arena = Arena::format(memory.clone(), &purpose, 3);
        Shop { arena, slots: Slots::new(memory, purpose.layout()), truth: Truth::create() }
    }

    fn spawn(&self, slot: usize, seed: u64) -> Pid {
        let epoch = self.slots.begin_life(slot, 1, false).expect("a free slot");
        // SAFETY: the other thread of this process waits for this one, and holds no lock that a child could want; with the other tests
        // beside it this runs in a process of its own.
        match unsafe { nix::unistd::fork() }.expect("a fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => self.live(slot, epoch, seed),
        }
    }

    fn live(&self, slot: usize, epoch: u32, seed: u64) -> ! {
        // A mapping of its own, at an address of its own: nothing in the arena may be a pointer.
        let fd = self.arena.memory().fd().as_fd().try_clone_to_owned().unwrap();
        let arena = UncheckedArena::new(Arc::new(SharedMemory::open(fd).unwrap())).open().unwrap();
        let metrics = MetricsPage::create(slot + 1).unwrap().slot(slot);
        let cache = Cache::new(Arc::new(arena), slot, epoch, AGES, metrics);
        let mut process = Process { cache, truth: &self.truth, dice: Dice(seed), out: Vec::new() };
        let parent = nix::unistd::getppid();
        loop {
            let verified = (0..READS_A_ROUND).map(|_| process.step()).sum();
            self.truth.verified().fetch_add(verified, Ordering::Relaxed);
            // Orphans of a killed test end by themselves.
            if nix::unistd::getppid() != parent {
                fork::end_at_once(0);
            }
        }
    }
}

/// How far it has come, over all runs.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    kills: u64,
    of_them_sigsegv: u64,
    stops: u64,
    reads: u64,
    seconds: f64,
}

/// What is wanted, and where it is noted.
struct Plan {
    kills: u64,
    reads: u64,
    stops_max: u64,
    pause_max_us: u64,
    longest: Duration,
    file: Option<PathBuf>,
}

impl Plan {
    /// The long form where kills are asked for, else the short one.
    fn new() -> Plan {
        let number =
            |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<f64>().ok()).map(|n| n as u64);
        match number("TORTURE_KILLS") {
            Some(kills) => Plan {
                kills,
                reads: number("TORTURE_READS").unwrap_or(1_000_000_000),
                stops_max: 500,
                pause_max_us: 10_000,
                longest: Duration::from_secs(number("TORTURE_SECONDS").unwrap_or(5_000)),
                file: Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture.json")),
            },
            None => {
                let seconds = number("SOAK_SECONDS").unwrap_or(6);
                let (kills, reads) = (u64::MAX, u64::MAX);
                let longest = Duration::from_secs(seconds);
                Plan { kills, reads, stops_max: 10, pause_max_us: 40_000, longest, file: None }
            }
        }
    }

    fn load(&self) -> Progress {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let noted: Progress = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        match self.is_reached(&noted) {
            true => Progress::default(),
            false => noted,
        }
    }

    fn note(&self, progress: &Progress) {
        if let Some(file) = &self.file {
            std::fs::write(file, serde_json::to_string(progress).unwrap()).unwrap();
        }
    }

    fn is_reached(&self, progress: &Progress) -> bool {
        progress.kills >= self.kills && progress.reads >= self.reads
    }
}

/// A process that is stopped until then.
struct Stopped {
    slot: usize,
    until: Instant,
}

struct Torture {
    shop: Shop,
    children: Vec<Pid>,
    stopped: Option<Stopped>,
    progress: Progress,
    dice: Dice,
}

impl Torture {
    fn kill_one(&mut self) {
        let slot = self.dice.below(PROCESSES as u64) as usize;
        if self.stopped.as_ref().is_some_and(|stopped| stopped.slot == slot) {
            return;
        }
        let signal = if self.dice.below(2) == 0 { Signal::SIGKILL } else { Signal::SIGSEGV };
        self.end(slot, signal);
        self.progress.kills += 1;
        self.progress.of_them_sigsegv += u64::from(signal == Signal::SIGSEGV);
        self.children[slot] = self.shop.spawn(slot, self.dice.below(u64::MAX >> 34));
    }

    /// Ends a child; one that has failed by itself has said why.
    fn end(&self, slot: usize, signal: Signal) {
        kill(self.children[slot], signal).unwrap();
        match waitpid(self.children[slot], None).unwrap() {
            WaitStatus::Signaled(_, ended_by, _) if ended_by == signal => self.shop.slots.end_life(slot),
            status => panic!("process {slot} failed by itself: {status:?}"),
        }
    }

    /// Stops one for up to 5 s, or lets the one that is stopped go on.
    fn stop_one(&mut self) {
        match &self.stopped {
            Some(Stopped { slot, until }) if Instant::now() >= *until => {
                kill(self.children[*slot], Signal::SIGCONT).unwrap();
                self.stopped = None;
            }
            Some(_) => {}
            None => {
                let slot = self.dice.below(PROCESSES as u64) as usize;
                kill(self.children[slot], Signal::SIGSTOP).unwrap();
                let until = Instant::now() + Duration::from_millis(self.dice.below(5_000));
                self.stopped = Some(Stopped { slot, until });
                self.progress.stops += 1;
            }
        }
    }

    fn check(&self, when: &str) {
        let verdict = verify(&self.shop.arena);
        assert!(verdict.is_sound(), "{when}: {verdict}");
    }
}

/// Until the plan's kills and reads are reached, or its time is over.
fn torture(plan: &Plan) -> Progress {
    let progress = plan.load();
    let (earlier_reads, earlier_seconds) = (progress.reads, progress.seconds);
    let shop = Shop::new();
    let mut dice = Dice(seed());
    let children = (0..PROCESSES).map(|slot| shop.spawn(slot, dice.below(1 << 30))).collect();
    let mut torture = Torture { shop, children, stopped: None, progress, dice };
    let start = Instant::now();
    let mut noted = Instant::now();
    while start.elapsed() < plan.longest && !plan.is_reached(&torture.progress) {
        std::thread::sleep(Duration::from_micros(torture.dice.below(plan.pause_max_us)));
        torture.kill_one();
        // Spread over the run: stops are few.
        let is_due =
            torture.progress.stops * (plan.kills / plan.stops_max.max(1)).min(400) <= torture.progress.kills;
        if torture.stopped.is_some() || (is_due && torture.progress.stops < plan.stops_max) {
            torture.stop_one();
        }
        torture.progress.reads = earlier_reads + torture.shop.truth.verified().load(Ordering::Relaxed);
        torture.progress.seconds = earlier_seconds + start.elapsed().as_secs_f64();
        if noted.elapsed() > Duration::from_secs(20) {
            noted = Instant::now();
            torture.check("while it goes on");
            plan.note(&torture.progress);
            println!("{}", serde_json::to_string(&torture.progress).unwrap());
        }
    }
    (0..PROCESSES).for_each(|slot| torture.end(slot, Signal::SIGKILL));
    torture.check("at the end");
    go_round(&torture.shop);
    let verdict = verify(&torture.shop.arena);
    // Only the last life's own segments are open still.
    assert!(
        verdict.is_sound() && verdict.open <= 2 && verdict.draining == 0,
        "after a round of fills: {verdict}"
    );
    plan.note(&torture.progress);
    torture.progress
}

/// Every segment can still be claimed: one life more goes round the whole ring.
fn go_round(shop: &Shop) {
    let epoch = shop.slots.begin_life(0, 1, false).expect("a free slot");
    let metrics = MetricsPage::create(1).unwrap().slot(0);
    let fd = shop.arena.memory().fd().as_fd().try_clone_to_owned().unwrap();
    let arena = UncheckedArena::new(Arc::new(SharedMemory::open(fd).unwrap())).open().unwrap();
    let segments = arena.layout().segments as u64;
    let cache = Cache::new(Arc::new(arena), 0, epoch, AGES, metrics.clone());
    for id in 0..segments * 60 {
        let key = Key::new(Kind::Styles, id as i64);
        let bodies = Bodies { json: vec![b'x'; 8_000], ..Bodies::default() };
        let made = Record::make(key, cache.token(key), Reading::default(), View::Missing, &bodies);
        cache.fill(&made.unwrap());
    }
    assert!(metrics.page().total(Counter::CacheRecycled) >= segments);
}

/// Not a test of its own: the process whose children are killed. It has no other thread than the harness's, which waits.
#[test]
fn master_of_the_killed() {
    if std::env::var_os("CATWALK_TEST_TORTURE").is_none() {
        return;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    // Its children inherit it: the standard library's handler lets a SIGSEGV that is no fault pass once.
    // SAFETY: SIG_DFL installs no handler code.
    unsafe { signal(Signal::SIGSEGV, SigHandler::SigDfl) }.unwrap();
    let plan = Plan::new();
    let Progress { kills, of_them_sigsegv, stops, reads, seconds } = torture(&plan);
    println!("{kills} kills, {of_them_sigsegv} of them SIGSEGV, {stops} stops, {reads} verified reads in {seconds:.0} s, 0 violations");
    match plan.file {
        Some(_) => assert!(
            kills >= plan.kills && reads >= plan.reads,
            "its time is over; the next run goes on from here"
        ),
        None => assert!(kills > plan.longest.as_secs() * 8 && reads > 50_000),
    }
}

#[test]
fn processes_killed_at_any_instruction_leave_a_sound_cache() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "c_cache::master_of_the_killed", "--nocapture", "--test-threads=1"]);
    let status = command.env("CATWALK_TEST_TORTURE", "1").status().unwrap();
    assert!(status.success(), "{status}");
}
