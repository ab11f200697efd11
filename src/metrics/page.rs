//! The page itself: slots × blocks of words in a shared mapping.
//! Runs in: both.
//!
//! ```text
//! page  ┌ slot 0 block ┬ slot 1 block ┬ … ┐      block, 512 bytes:
//!       └ 64 words     ┴ 64 words     ┴ … ┘      word n = counter n (names.rs), the rest spare
//! ```
//! A block is written by its slot's worker, and by the master for starts and deaths. It outlives workers.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::metrics::names::{Counter, COUNTERS};
use crate::os::mmap::SharedMemory;

const BLOCK_WORDS: usize = 64;
const BLOCK_SIZE_BYTES: usize = BLOCK_WORDS * 8;
const _: () = assert!(COUNTERS <= BLOCK_WORDS);

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
        Ok(MetricsPage { memory: Arc::new(memory), slots })
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

impl SlotMetrics {
    /// Returns the count before.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) -> u64 {
        let offset = self.slot * BLOCK_SIZE_BYTES + counter as usize * 8;
        self.page.memory.word(offset).fetch_add(n, Ordering::Relaxed)
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
