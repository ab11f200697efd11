//! The page itself: slots × blocks of words in a shared mapping.
//! Runs in: both.
//!
//! ```text
//! page  ┌ slot 0 block ┬ slot 1 block ┬ … ┐      block, 4,608 bytes:
//!       └──────────────┴──────────────┴───┘      64 words: word n = counter n (names.rs), the rest spare
//!                                                256 samples of 2 words: what was hit, one hit in many; the oldest goes
//! ```
//! A block is written by its slot's worker, and by the master for starts and deaths. It outlives workers.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use nix::errno::Errno;

use crate::metrics::names::{Counter, COUNTERS, METRICS};
use crate::os::mmap::SharedMemory;

const BLOCK_WORDS: usize = 64;
/// Samples that a slot keeps.
pub const SAMPLES: usize = 256;
/// Of the hits one in so many is a sample: a prime, so that no rhythm of a client's hides anything.
pub const SAMPLE_ONE_IN: u64 = 61;
const BLOCK_SIZE_BYTES: usize = BLOCK_WORDS * 8 + SAMPLES * 16;
/// The first block's last word: the page's shape.
const SHAPE_AT: usize = (BLOCK_WORDS - 1) * 8;
const _: () = assert!(COUNTERS < BLOCK_WORDS);

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
        (0..self.slots).map(|slot| self.value(slot, counter)).sum()
    }

    fn value(&self, slot: usize, counter: Counter) -> u64 {
        let offset = slot * BLOCK_SIZE_BYTES + counter as usize * 8;
        self.memory.word(offset).load(Ordering::Relaxed)
    }
}

/// What a page's counters are, as one number: another version's are others.
fn shape() -> u64 {
    let names: Vec<_> = METRICS.iter().map(|metric| (metric.name, metric.labels)).collect();
    rapidhash::v3::rapidhash_v3(format!("{BLOCK_SIZE_BYTES} {names:?}").as_bytes())
}

fn sample_at(slot: usize, n: usize) -> usize {
    slot * BLOCK_SIZE_BYTES + BLOCK_WORDS * 8 + n % SAMPLES * 16
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
        let offset = self.slot * BLOCK_SIZE_BYTES + counter as usize * 8;
        self.page.memory.word(offset).fetch_add(n, Ordering::Relaxed)
    }

    /// This slot's count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.page.value(self.slot, counter)
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
