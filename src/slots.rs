//! The slots of the arena: which life of which worker runs where, its beat, its last words.
//! Runs in: both. The master starts and ends lives; a worker beats and leaves its panic text.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::cache::layout::{header, slot, Layout};
use crate::limits::PANIC_TEXT_MAX_BYTES;
use crate::os::mmap::SharedMemory;
use crate::os::{clock, processes};

/// What a slot's process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Empty,
    Starting,
    Serving,
    Draining,
    /// The change feed's.
    Following,
}

impl Phase {
    fn from_word(word: u64) -> Phase {
        match word {
            1 => Phase::Starting,
            2 => Phase::Serving,
            3 => Phase::Draining,
            4 => Phase::Following,
            _ => Phase::Empty,
        }
    }
}

/// By then a child has said which process it is.
const UNNAMED_MAX_NS: u64 = 1_000_000_000;

/// All slots. Cheap to clone.
#[derive(Clone)]
pub struct Slots {
    memory: Arc<SharedMemory>,
    layout: Layout,
}

impl Slots {
    pub fn new(memory: Arc<SharedMemory>, layout: Layout) -> Slots {
        Slots { memory, layout }
    }

    pub fn count(&self) -> usize {
        self.layout.slots
    }

    /// Workers that there is room for.
    pub fn room(&self) -> usize {
        self.layout.workers
    }

    /// Workers that are to serve.
    pub fn set_wanted(&self, workers: usize) {
        self.memory.word(header::WANTED).store(workers as u64, Ordering::Relaxed);
    }

    pub fn wanted(&self) -> usize {
        self.memory.word(header::WANTED).load(Ordering::Relaxed) as usize
    }

    /// A worker has found the database to be what this server needs.
    pub fn set_checked(&self) {
        self.memory.word(header::CHECKED_NS).store(clock::boottime_ns(), Ordering::Relaxed);
    }

    /// Age of the last time that one has, in ns.
    pub fn checked_age_ns(&self) -> u64 {
        clock::boottime_ns().saturating_sub(self.memory.word(header::CHECKED_NS).load(Ordering::Relaxed))
    }

    /// Whether nobody's life is in the slot.
    pub fn is_free(&self, slot: usize) -> bool {
        self.owner(slot) == 0
    }

    fn word(&self, slot: usize, offset: usize) -> &std::sync::atomic::AtomicU64 {
        self.memory.word(self.layout.slot_at(slot) + offset)
    }

    fn get(&self, slot: usize, offset: usize) -> u64 {
        self.word(slot, offset).load(Ordering::Relaxed)
    }

    fn set(&self, slot: usize, offset: usize, value: u64) {
        self.word(slot, offset).store(value, Ordering::Relaxed);
    }

    /// Takes a free slot for a child of `owner`, a master's identity, before the fork: two masters may look for one at the same time. Returns the
    /// epoch of the child's life; None: another one was faster.
    ///
    /// ORDERING: Acquire pairs with the Release of `end_life`: whoever takes the slot sees the epoch that the last life was ended with.
    pub fn begin_life(&self, slot: usize, owner: u64, is_feed: bool) -> Option<u32> {
        let taken =
            self.word(slot, slot::OWNER).compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed);
        taken.ok()?;
        self.set(slot, slot::BEAT_NS, clock::boottime_ns());
        self.set(slot, slot::STARTED_NS, clock::boottime_ns());
        self.set(slot, slot::PANIC_LEN, 0);
        self.set(slot, slot::IS_FEED, u64::from(is_feed));
        self.set(slot, slot::STATE, Phase::Starting as u64);
        Some(self.get(slot, slot::EPOCH) as u32)
    }

    /// Ends the slot's life: what its process owned can be claimed. Only by its owner, and only after waitpid has returned the process: one
    /// that is still alive writes to what others would claim.
    pub fn end_life(&self, slot: usize) {
        // ORDERING: Release pairs with the Acquire of `segment::epoch_of`.
        self.word(slot, slot::EPOCH).fetch_add(1, Ordering::Release);
        self.set(slot, slot::STATE, Phase::Empty as u64);
        self.set(slot, slot::PROCESS, 0);
        self.word(slot, slot::OWNER).store(0, Ordering::Release);
    }

    /// Ends whatever lives the slots tell of, of processes that are known to be gone.
    pub fn end_all_lives(&self) {
        (0..self.count()).for_each(|slot| self.end_life(slot));
        self.set_crash_loops(0);
    }

    /// Takes over the slot of a child whose master is gone, and the child with it, to end its life; `is_there` tells of processes. False:
    /// there is no such life in it, or another master was faster.
    pub fn inherit_life(&self, slot: usize, heir: u64, is_there: impl Fn(u64) -> bool) -> bool {
        let owner = self.owner(slot);
        if owner == 0 || owner == heir || is_there(owner) || self.process(slot).is_some_and(&is_there) {
            return false;
        }
        // One that was only just forked has not said which process it is.
        if self.process(slot).is_none() && self.life_age_ns(slot) < UNNAMED_MAX_NS {
            return false;
        }
        self.word(slot, slot::OWNER)
            .compare_exchange(owner, heir, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    fn owner(&self, slot: usize) -> u64 {
        self.get(slot, slot::OWNER)
    }

    /// Whether another master's change feed may live.
    pub fn has_foreign_feed(&self, own: u64, is_there: impl Fn(u64) -> bool) -> bool {
        let may_live = |slot: usize| {
            let owner = self.owner(slot);
            let is_foreign = owner != 0 && owner != own && self.get(slot, slot::IS_FEED) == 1;
            is_foreign && (is_there(owner) || self.process(slot).is_none_or(&is_there))
        };
        (0..self.count()).any(may_live)
    }

    pub fn set_phase(&self, slot: usize, phase: Phase) {
        self.set(slot, slot::STATE, phase as u64);
    }

    pub fn phase(&self, slot: usize) -> Phase {
        Phase::from_word(self.get(slot, slot::STATE))
    }

    /// Says which process lives in the slot: its own identity.
    pub fn set_process(&self, slot: usize, identity: u64) {
        self.set(slot, slot::PROCESS, identity);
    }

    /// The identity of the process of the slot's life; None while there is none.
    fn process(&self, slot: usize) -> Option<u64> {
        Some(self.get(slot, slot::PROCESS)).filter(|identity| *identity != 0)
    }

    /// The number of that process.
    pub fn pid(&self, slot: usize) -> Option<u64> {
        self.process(slot).map(processes::pid_of)
    }

    /// Says "still scheduling". From the worker's scheduler only: a timer goes on while that is blocked.
    pub fn beat(&self, slot: usize) {
        self.set(slot, slot::BEAT_NS, clock::boottime_ns());
    }

    /// Age of the slot's last beat, in ns.
    pub fn beat_age_ns(&self, slot: usize) -> u64 {
        clock::boottime_ns().saturating_sub(self.get(slot, slot::BEAT_NS))
    }

    /// Age of the slot's life, in ns.
    pub fn life_age_ns(&self, slot: usize) -> u64 {
        clock::boottime_ns().saturating_sub(self.get(slot, slot::STARTED_NS))
    }

    /// Slots whose worker serves and has beaten within `limit_ns`.
    pub fn serving(&self, limit_ns: u64) -> usize {
        let alive = |&s: &usize| self.phase(s) == Phase::Serving && self.beat_age_ns(s) < limit_ns;
        (0..self.count()).filter(alive).count()
    }

    /// Whether a change feed follows the database.
    pub fn is_followed(&self) -> bool {
        (0..self.count()).any(|slot| self.phase(slot) == Phase::Following)
    }

    pub fn set_crash_loops(&self, slots: usize) {
        self.memory.word(header::CRASH_LOOPS).store(slots as u64, Ordering::Relaxed);
    }

    pub fn crash_loops(&self) -> u64 {
        self.memory.word(header::CRASH_LOOPS).load(Ordering::Relaxed)
    }

    /// Leaves a dying worker's text for the master. Allocates nothing.
    pub fn leave_panic_text(&self, slot: usize, text: &str) {
        let len = text.len().min(PANIC_TEXT_MAX_BYTES);
        for (n, chunk) in text.as_bytes()[..len].chunks(8).enumerate() {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.set(slot, slot::PANIC_TEXT + n * 8, u64::from_le_bytes(word));
        }
        self.set(slot, slot::PANIC_LEN, len as u64);
    }

    /// The text that the slot's last process left, if it panicked.
    pub fn panic_text(&self, slot: usize) -> Option<String> {
        let len = (self.get(slot, slot::PANIC_LEN) as usize).min(PANIC_TEXT_MAX_BYTES);
        let words = (0..len.div_ceil(8)).flat_map(|n| self.get(slot, slot::PANIC_TEXT + n * 8).to_le_bytes());
        let bytes: Vec<u8> = words.take(len).collect();
        (len > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        let layout = Layout::new(0, 2);
        let memory = SharedMemory::create("test", layout.size_bytes).unwrap();
        Slots::new(Arc::new(memory), layout)
    }

    #[test]
    fn each_life_has_an_epoch_of_its_own() {
        let slots = slots();
        let first = slots.begin_life(1, 7, false).unwrap();
        assert_eq!(slots.begin_life(1, 8, false), None, "it is another master's");
        slots.end_life(1);
        assert_ne!(first, slots.begin_life(1, 8, false).unwrap());
        assert_eq!(slots.phase(1), Phase::Starting);
    }

    #[test]
    fn a_life_is_ended_by_its_master_or_once_that_is_gone() {
        let slots = slots();
        slots.begin_life(0, 7, true).unwrap();
        slots.set_process(0, 70);
        let (all, none, child) = (|_| true, |_| false, |process| process == 70);
        assert!(!slots.inherit_life(0, 8, all), "its master is there");
        assert!(!slots.inherit_life(0, 8, child), "it lives on for a while");
        assert!(slots.has_foreign_feed(8, child) && !slots.has_foreign_feed(7, child));
        assert!(!slots.has_foreign_feed(8, none));
        assert!(slots.inherit_life(0, 8, none) && !slots.inherit_life(0, 9, |process| process == 8));
        slots.end_life(0);
        assert!(slots.is_free(0));
    }

    #[test]
    fn last_words_are_cut_to_their_room() {
        let slots = slots();
        assert_eq!(slots.panic_text(0), None);
        slots.leave_panic_text(0, "index out of bounds");
        assert_eq!(slots.panic_text(0).as_deref(), Some("index out of bounds"));
        slots.leave_panic_text(0, &"x".repeat(5000));
        assert_eq!(slots.panic_text(0).unwrap().len(), PANIC_TEXT_MAX_BYTES);
    }
}
