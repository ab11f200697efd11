//! Segments: appended to by one worker each; copied out of by everybody, who checks afterwards.
//! Runs in: worker.
//!
//! ```text
//! state word   63   56 55      40 39      32 31        0
//!              │state │  slot    │   0      │  epoch    │      slot, epoch: the owner's, for Open and Draining
//!
//! Free ──claim──► Open(owner) ──full──► Sealed ──claim──► Draining(owner) ──cleared──► Open(owner)
//!                     └── owner dead: as Sealed ──┘   └── owner dead: drained again by the next one
//! ```
//! The generation goes up once per life, when the segment has been drained and before its first new byte.

use std::sync::atomic::{fence, Ordering};

use crate::cache::arena::Arena;
use crate::cache::evict;
use crate::cache::index::Item;
use crate::cache::layout::{segment as word_of, slot};
use crate::cache::record::{Record, RecordHeader};
use crate::limits::RECORD_HEADER_SIZE_BYTES;
use crate::metrics::SlotMetrics;

/// States of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Free,
    Open(Owner),
    Sealed,
    Draining(Owner),
}

/// Who appends to or drains a segment: a slot in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub slot: u16,
    pub epoch: u32,
}

impl State {
    pub fn pack(self) -> u64 {
        let owned = |n: u64, o: Owner| n << 56 | u64::from(o.slot) << 40 | u64::from(o.epoch);
        match self {
            State::Free => 0,
            State::Open(owner) => owned(1, owner),
            State::Sealed => 2 << 56,
            State::Draining(owner) => owned(3, owner),
        }
    }

    pub fn unpack(word: u64) -> State {
        let owner = Owner { slot: (word >> 40) as u16, epoch: word as u32 };
        match word >> 56 {
            1 => State::Open(owner),
            2 => State::Sealed,
            3 => State::Draining(owner),
            _ => State::Free,
        }
    }
}

impl Owner {
    /// Whether this life of the slot is over. Only the master ends one, after it has reaped the process.
    pub fn is_dead(self, arena: &Arena) -> bool {
        if usize::from(self.slot) >= arena.layout().slots {
            return true;
        }
        // ORDERING: Acquire pairs with the Release of `Slots::end_life`: the dead worker's stores are seen.
        let at = arena.layout().slot_at(usize::from(self.slot)) + slot::EPOCH;
        arena.word(at).load(Ordering::Acquire) as u32 != self.epoch
    }
}

/// Where one worker appends.
pub struct Appender {
    owner: Owner,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    segment: usize,
    generation: u16,
    written_bytes: usize,
}

impl Appender {
    pub fn new(slot: usize, epoch: u32) -> Appender {
        let slot = u16::try_from(slot).expect("slots are fewer than 65536");
        Appender { owner: Owner { slot, epoch }, open: None }
    }

    /// Stores `record` and returns where; None when no segment can be had.
    pub fn append(&mut self, arena: &Arena, record: &Record, metrics: &SlotMetrics) -> Option<Item> {
        let words = record.words();
        let size = words.len() * 8;
        if self.open.as_ref().is_some_and(|o| o.written_bytes + size > arena.layout().segment_size) {
            self.seal(arena);
        }
        if self.open.is_none() {
            let segment = evict::claim(arena, self.owner, metrics)?;
            let generation = generation(arena, segment) as u16;
            self.open = Some(OpenSegment { segment, generation, written_bytes: 0 });
        }
        let open = self.open.as_mut()?;
        let at = arena.layout().segment_at(open.segment) + open.written_bytes;
        for (n, word) in words.iter().enumerate() {
            arena.word(at + n * 8).store(*word, Ordering::Relaxed);
        }
        open.written_bytes += size;
        // ORDERING: Release pairs with the Acquire of `evict::drain`: it walks whole records only.
        let header_at = arena.layout().segment_header_at(open.segment);
        arena.word(header_at + word_of::WRITTEN_BYTES).store(open.written_bytes as u64, Ordering::Release);
        let location = u32::try_from((at - arena.layout().data_at) / 8).ok()?;
        Some(Item { tag: 0, generation: open.generation, location })
    }

    fn seal(&mut self, arena: &Arena) {
        if let Some(open) = self.open.take() {
            let state = arena.word(arena.layout().segment_header_at(open.segment) + word_of::STATE);
            // ORDERING: Release pairs with the Acquire of `evict::claim`. Nobody else changes a live owner's state.
            state.store(State::Sealed.pack(), Ordering::Release);
        }
    }
}

/// ORDERING: Acquire pairs with the Release of `renew`.
fn generation(arena: &Arena, segment: usize) -> u64 {
    arena.word(arena.layout().segment_header_at(segment) + word_of::GENERATION).load(Ordering::Acquire)
}

/// Starts a drained segment's next life: from here on every item of the last one is a miss.
pub fn renew(arena: &Arena, segment: usize) {
    let at = arena.layout().segment_header_at(segment);
    // 0 is skipped in the 16 bits that items carry, so that no item word is 0.
    let step = if generation(arena, segment) as u16 == u16::MAX { 2 } else { 1 };
    arena.word(at + word_of::WRITTEN_BYTES).store(0, Ordering::Relaxed);
    arena.word(at + word_of::GENERATION).fetch_add(step, Ordering::Release);
    // ORDERING: this fence stands between the new generation and the first new byte; it pairs with the Acquire
    // fence in `copy_words`. A reader that saw a new byte also sees the new generation when it looks again.
    fence(Ordering::Release);
}

/// Segment and offset of an item, if they lie inside the data.
fn locate(arena: &Arena, item: Item) -> Option<(usize, usize)> {
    let layout = arena.layout();
    let offset = item.location as usize * 8;
    let segment = offset / layout.segment_size;
    (segment < layout.segments).then_some((segment, offset % layout.segment_size))
}

/// Whether the item's segment is still in the life that the item was stored in.
pub fn is_current(arena: &Arena, item: Item) -> bool {
    locate(arena, item).is_some_and(|(segment, _)| generation(arena, segment) as u16 == item.generation)
}

/// Copies words `[offset, offset + len)` of the item's record, then looks whether they could be trusted. `each`
/// takes the words in order. False: the segment was recycled, or the range leaves it.
#[inline]
fn copy_words(arena: &Arena, item: Item, offset: usize, len: usize, mut each: impl FnMut(u64)) -> bool {
    let Some((segment, at)) = locate(arena, item) else { return false };
    if at + offset + len > arena.layout().segment_size {
        return false;
    }
    let before = generation(arena, segment);
    if before as u16 != item.generation {
        return false;
    }
    let start = arena.layout().segment_at(segment) + at + offset;
    arena.words(start, len / 8).iter().for_each(|word| each(word.load(Ordering::Relaxed)));
    // ORDERING: pairs with the Release fence of `renew`; see there.
    fence(Ordering::Acquire);
    let now = arena.word(arena.layout().segment_header_at(segment) + word_of::GENERATION);
    now.load(Ordering::Relaxed) == before
}

/// The record header of `item`; None when it was recycled.
#[inline]
pub fn read_header(arena: &Arena, item: Item) -> Option<RecordHeader> {
    let mut words = [0u64; RECORD_HEADER_SIZE_BYTES / 8];
    let mut n = 0;
    let copied = copy_words(arena, item, 0, RECORD_HEADER_SIZE_BYTES, |word| {
        words[n] = word;
        n += 1;
    });
    copied.then(|| RecordHeader::unpack(&words))
}

/// Appends bytes `[offset, offset + len)` of the item's record to `out`. False, with `out` as before, when it
/// was recycled meanwhile.
pub fn copy_out(arena: &Arena, item: Item, offset: usize, len: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let first = offset & !7;
    let span = (offset + len).next_multiple_of(8) - first;
    out.reserve(span);
    let mut at = out.as_mut_ptr().wrapping_add(start);
    let mut skip = offset - first;
    let copied = copy_words(arena, item, first, span, |word| {
        // SAFETY: `span` bytes are reserved beyond `start`; each of the span/8 words stores 8 bytes at `at`, which
        // advances by 8 (by 8 - skip for the first), so it never passes start + span.
        unsafe { at.cast::<u64>().write_unaligned((word >> (skip * 8)).to_le()) };
        at = at.wrapping_add(8 - skip);
        skip = 0;
    });
    if copied {
        // SAFETY: the loop above initialised `span - (offset - first)` bytes, which is at least `len`.
        unsafe { out.set_len(start + len) };
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_packing() {
        let owner = Owner { slot: 513, epoch: 0xDEAD_BEEF };
        for state in [State::Free, State::Open(owner), State::Sealed, State::Draining(owner)] {
            assert_eq!(State::unpack(state.pack()), state);
        }
    }
}
