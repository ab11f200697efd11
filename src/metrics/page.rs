//! The page itself: slots × blocks of words in a shared mapping.
//! Runs in: both.
//!
//! ```text
//! page  ┌ slot 0 block ┬ slot 1 block ┬ … ┐      block, 10,240 bytes:
//!       └──────────────┴──────────────┴───┘      88 words: word n = counter n (names.rs), the rest spare
//!                                                8 words: word n = level n; the first block's last is the page's shape
//!                                                16 histograms of 24 words, one a group of routes
//!                                                256 samples of 2 words: what was hit, one hit in many; the oldest goes
//!                                                96 statements of 3 words: how often, ns in all, ns of the longest
//! ```
//! A block is written by its slot's worker, and by the master for starts and deaths. It outlives workers.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use nix::errno::Errno;

use crate::metrics::histogram;
use crate::metrics::names::{Counter, Level, RouteGroup, COUNTERS, LEVELS, ROUTES};
use crate::os::mmap::SharedMemory;
use crate::statements::STATEMENTS;

const COUNTER_WORDS: usize = 88;
const LEVEL_WORDS: usize = 8;
/// Samples that a slot keeps.
pub const SAMPLES: usize = 256;
/// Of the hits one in so many is a sample: a prime, so that no rhythm of a client's hides anything.
pub const SAMPLE_ONE_IN: u64 = 61;
/// Offsets within a block.
const LEVELS_AT: usize = COUNTER_WORDS * 8;
const HISTOGRAMS_AT: usize = LEVELS_AT + LEVEL_WORDS * 8;
const SAMPLES_AT: usize = HISTOGRAMS_AT + ROUTES.len() * histogram::WORDS * 8;
const STATEMENTS_AT: usize = SAMPLES_AT + SAMPLES * 16;
const STATEMENTS_MAX: usize = 96;
const STATEMENT_SIZE_BYTES: usize = 24;
const BLOCK_SIZE_BYTES: usize = STATEMENTS_AT + STATEMENTS_MAX * STATEMENT_SIZE_BYTES;
/// The first block's last level: the page's shape.
const SHAPE_AT: usize = HISTOGRAMS_AT - 8;
const _: () = assert!(COUNTERS.len() <= COUNTER_WORDS && LEVELS.len() < LEVEL_WORDS);
const _: () = assert!(ROUTES.len() == 16 && BLOCK_SIZE_BYTES == 10_240);
const _: () = assert!(STATEMENTS.len() <= STATEMENTS_MAX);

/// Waits that have begun, and those that have ended, by lane.
pub const WAITS: [(Counter, Counter); 3] = [
    (Counter::LaneWaitsFast, Counter::LaneLeftFast),
    (Counter::LaneWaitsSlow, Counter::LaneLeftSlow),
    (Counter::LaneWaitsWrite, Counter::LaneLeftWrite),
];

/// How a statement was run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Runs {
    pub name: &'static str,
    pub count: u64,
    pub sum_ns: u64,
    pub longest_ns: u64,
}

/// All slots' counters.
#[derive(Clone)]
pub struct MetricsPage {
    memory: Arc<SharedMemory>,
    slots: usize,
}

/// One slot's counters, to add to.
#[derive(Clone)]
pub struct SlotMetrics {
    page: MetricsPage,
    slot: usize,
}

impl MetricsPage {
    /// A page of zeros for `slots` slots.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC.
    pub fn create(slots: usize) -> nix::Result<MetricsPage> {
        let memory =
            SharedMemory::create("catwalk-metrics", (slots * BLOCK_SIZE_BYTES).next_multiple_of(4096))?;
        memory.word(SHAPE_AT).store(shape(), Ordering::Relaxed);
        Ok(MetricsPage { memory: Arc::new(memory), slots })
    }

    /// The page that was handed on, if it is one of this version for as many slots; else one of zeros.
    ///
    /// # Errors
    /// As `create`.
    pub fn join_or_create(handed_on: Option<OwnedFd>, slots: usize) -> nix::Result<MetricsPage> {
        let size_bytes = (slots * BLOCK_SIZE_BYTES).next_multiple_of(4096);
        match handed_on.and_then(|fd| SharedMemory::open_trusted(fd).ok()) {
            Some(memory)
                if memory.size_bytes() == size_bytes
                    && memory.word(SHAPE_AT).load(Ordering::Relaxed) == shape() =>
            {
                Ok(MetricsPage { memory: Arc::new(memory), slots })
            }
            _ => MetricsPage::create(slots),
        }
    }

    /// The page of a running server, to look at only.
    ///
    /// # Errors
    /// What mmap(2) says; EINVAL for what is no page of this version.
    pub fn open_to_read(fd: OwnedFd) -> nix::Result<MetricsPage> {
        let memory = SharedMemory::open_to_read(fd)?;
        let slots = memory.size_bytes() / BLOCK_SIZE_BYTES;
        if slots == 0 || memory.word(SHAPE_AT).load(Ordering::Relaxed) != shape() {
            return Err(Errno::EINVAL);
        }
        Ok(MetricsPage { memory: Arc::new(memory), slots })
    }

    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The samples of all slots.
    pub fn samples(&self) -> Vec<[u64; 2]> {
        let word = |at: usize| self.memory.word(at).load(Ordering::Relaxed);
        let places = (0..self.slots).flat_map(|slot| (0..SAMPLES).map(move |n| sample_at(slot, n)));
        places.map(|at| [word(at), word(at + 8)]).filter(|sample| *sample != [0, 0]).collect()
    }

    pub fn slot(&self, slot: usize) -> SlotMetrics {
        assert!(slot < self.slots, "no such slot");
        SlotMetrics { page: self.clone(), slot }
    }

    /// Sum over all slots.
    pub fn total(&self, counter: Counter) -> u64 {
        self.sum(counter as usize * 8)
    }

    /// The same of a level.
    pub fn level(&self, level: Level) -> u64 {
        self.sum(level_at(level))
    }

    /// The histogram of a group, summed over all slots.
    pub fn durations(&self, route: RouteGroup) -> [u64; histogram::WORDS] {
        std::array::from_fn(|word| self.sum(duration_at(route, word)))
    }

    /// What statements took, of those that were run, over all slots.
    pub fn statements(&self) -> Vec<Runs> {
        let of = |n: usize, (name, _): &(&'static str, &str)| {
            let at = statement_at(n);
            let longest_ns = (0..self.slots).map(|slot| self.word(slot, at + 16)).max().unwrap_or(0);
            Runs { name, count: self.sum(at), sum_ns: self.sum(at + 8), longest_ns }
        };
        let all = STATEMENTS.iter().enumerate().map(|(n, statement)| of(n, statement));
        all.filter(|runs| runs.count > 0).collect()
    }

    fn sum(&self, at: usize) -> u64 {
        (0..self.slots).map(|slot| self.word(slot, at)).sum()
    }

    fn word(&self, slot: usize, at: usize) -> u64 {
        self.memory.word(slot * BLOCK_SIZE_BYTES + at).load(Ordering::Relaxed)
    }
}

/// What a page's counters are, as one number: another version's are others.
fn shape() -> u64 {
    let all = COUNTERS.iter().chain(LEVELS).chain(ROUTES);
    let names: Vec<_> = all.map(|metric| (metric.name, metric.labels)).collect();
    let statements: Vec<_> = STATEMENTS.iter().map(|(name, _)| name).collect();
    rapidhash::v3::rapidhash_v3(format!("{BLOCK_SIZE_BYTES} {names:?} {statements:?}").as_bytes())
}

fn sample_at(slot: usize, n: usize) -> usize {
    slot * BLOCK_SIZE_BYTES + SAMPLES_AT + n % SAMPLES * 16
}

fn statement_at(n: usize) -> usize {
    STATEMENTS_AT + n * STATEMENT_SIZE_BYTES
}

fn level_at(level: Level) -> usize {
    LEVELS_AT + level as usize * 8
}

fn duration_at(route: RouteGroup, word: usize) -> usize {
    HISTOGRAMS_AT + (route as usize * histogram::WORDS + word) * 8
}

impl SlotMetrics {
    /// Notes what was hit, if it is the one in many; `hits` counts those before.
    #[inline]
    pub fn sample(&self, hits: u64, what: impl FnOnce() -> [u64; 2]) {
        if hits.is_multiple_of(SAMPLE_ONE_IN) {
            let at = sample_at(self.slot, (hits / SAMPLE_ONE_IN) as usize);
            // Two stores: who reads between them sees a key that was not hit, once.
            what()
                .into_iter()
                .enumerate()
                .for_each(|(n, word)| self.page.memory.word(at + n * 8).store(word, Ordering::Relaxed));
        }
    }

    /// Returns the count before.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) -> u64 {
        self.add_at(counter as usize * 8, n)
    }

    #[inline]
    fn add_at(&self, at: usize, n: u64) -> u64 {
        self.page.memory.word(self.slot * BLOCK_SIZE_BYTES + at).fetch_add(n, Ordering::Relaxed)
    }

    /// Notes how long an answer took.
    #[inline]
    pub fn time(&self, route: RouteGroup, ns: u64) {
        self.add_at(duration_at(route, histogram::bucket(ns)), 1);
        self.add_at(duration_at(route, histogram::SUM), ns);
    }

    /// Notes how long a statement took; `n` is its place among all.
    pub fn time_statement(&self, n: usize, ns: u64) {
        let at = statement_at(n);
        self.add_at(at, 1);
        self.add_at(at + 8, ns);
        let longest = self.page.memory.word(self.slot * BLOCK_SIZE_BYTES + at + 16);
        longest.fetch_max(ns, Ordering::Relaxed);
    }

    pub fn set_level(&self, level: Level, value: u64) {
        let at = self.slot * BLOCK_SIZE_BYTES + level_at(level);
        self.page.memory.word(at).store(value, Ordering::Relaxed);
    }

    /// The slot's worker is gone, and what it had with it: nothing is open, nobody waits, and what it was asked for is past.
    pub fn end_life(&self) {
        Level::ALL.iter().for_each(|level| self.set_level(*level, 0));
        for n in 0..SAMPLES {
            let at = sample_at(self.slot, n);
            [at, at + 8].iter().for_each(|at| self.page.memory.word(*at).store(0, Ordering::Relaxed));
        }
        for (begun, ended) in WAITS {
            self.add(ended, self.get(begun).saturating_sub(self.get(ended)));
        }
    }

    /// This slot's count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.page.word(self.slot, counter as usize * 8)
    }

    /// Returns the count before.
    #[inline]
    pub fn count(&self, counter: Counter) -> u64 {
        self.add(counter, 1)
    }

    pub fn page(&self) -> &MetricsPage {
        &self.page
    }
}
