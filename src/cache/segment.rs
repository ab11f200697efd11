//! Segments: appended to by one worker each; copied out of by everybody, who checks afterwards.
//! Runs in: worker.
//!
//! ```text
//! state word   63  62 61     60 59      48 47            32 31             0
//!              │state│ queue  │    0     │      slot     │     epoch      │   Open, Draining: whose
//!              │state│ queue  │             sequence 60                   │   Sealed: the order of draining
//!
//!                 ┌───────────────── owner dead: sealed by the next one ─────────────────┐
//! Free ──claim──► Open(owner) ──full──► Sealed ──claim──► Draining(owner) ──emptied──► Free
//!  ▲                                                        └── owner dead: drained again by the next one
//!  └── the generation has gone up: items of the last life are dead
//! ```

use std::sync::atomic::{fence, Ordering};

use crate::cache::arena::Arena;
use crate::cache::index::Item;
use crate::cache::layout::{header, slot};
use crate::cache::record::{PackedHeader, RecordHeader};
use crate::limits::RECORD_HEADER_SIZE_BYTES;

/// S3-FIFO's queues (Yang et al., SOSP 2023): what is new, and what was asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Small,
    Main,
}

/// States of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Free,
    Open(Queue, Owner),
    Sealed(Queue, u64),
    Draining(Queue, Owner),
}

/// Who appends to or drains a segment: a slot in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub slot: u16,
    pub epoch: u32,
}

const SEQUENCE_MASK: u64 = (1 << 60) - 1;

impl State {
    pub fn pack(self) -> u64 {
        let tagged = |state: u64, queue: Queue| state << 62 | u64::from(queue == Queue::Main) << 60;
        let owned = |o: Owner| u64::from(o.slot) << 32 | u64::from(o.epoch);
        match self {
            State::Free => 0,
            State::Open(queue, owner) => tagged(1, queue) | owned(owner),
            State::Sealed(queue, sequence) => tagged(2, queue) | (sequence & SEQUENCE_MASK),
            State::Draining(queue, owner) => tagged(3, queue) | owned(owner),
        }
    }

    pub fn unpack(word: u64) -> State {
        let owner = Owner { slot: (word >> 32) as u16, epoch: word as u32 };
        let queue = if word >> 60 & 1 == 1 { Queue::Main } else { Queue::Small };
        match word >> 62 {
            1 => State::Open(queue, owner),
            2 => State::Sealed(queue, word & SEQUENCE_MASK),
            3 => State::Draining(queue, owner),
            _ => State::Free,
        }
    }

    /// The queue of the segment's records; None while it has none.
    pub fn queue(self) -> Option<Queue> {
        match self {
            State::Free => None,
            State::Open(queue, _) | State::Sealed(queue, _) | State::Draining(queue, _) => Some(queue),
        }
    }
}

impl Owner {
    /// Whether this life of the slot is over. Only the master ends one, after it has reaped the process.
    pub fn is_dead(self, arena: &Arena) -> bool {
        epoch_of(arena, self.slot) != Some(self.epoch)
    }
}

/// The epoch of a slot's present life; None where there is no such slot.
///
/// ORDERING: Acquire pairs with the Release of `Slots::end_life`: who finds a life over sees the stores of who had it.
pub fn epoch_of(arena: &Arena, slot: u16) -> Option<u32> {
    let slot = usize::from(slot);
    let is_there = slot < arena.layout().slots;
    is_there.then(|| arena.load(arena.layout().slot_at(slot) + slot::EPOCH, Ordering::Acquire) as u32)
}

/// The state of a segment, as a word to swap and unpacked.
///
/// ORDERING: Acquire pairs with the Release of whoever brought it there: `open`, `seal`, `free`, a claim to drain.
pub fn state(arena: &Arena, segment: usize) -> (u64, State) {
    let word = arena.load(arena.layout().state_at(segment), Ordering::Acquire);
    (word, State::unpack(word))
}

/// Changes a state that was seen as `seen`. False: somebody else was faster.
///
/// ORDERING: Release pairs with the Acquire of `state`; the swap itself acquires what the last holder did.
pub fn change_state(arena: &Arena, segment: usize, seen: u64, to: State) -> bool {
    arena.swap(arena.layout().state_at(segment), seen, to.pack(), Ordering::AcqRel).is_ok()
}

/// The next number in the order of draining.
pub fn next_sequence(arena: &Arena) -> u64 {
    arena.add(header::SEALED, 1, Ordering::Relaxed)
}

/// A segment that one worker appends to.
#[derive(Debug)]
pub struct OpenSegment {
    pub segment: usize,
    generation: u16,
    written_bytes: usize,
}

impl OpenSegment {
    /// Claims a segment whose state was seen as Free. None: somebody else was faster.
    pub fn open(
        arena: &Arena,
        (segment, seen): (usize, u64),
        queue: Queue,
        owner: Owner,
    ) -> Option<OpenSegment> {
        if !change_state(arena, segment, seen, State::Open(queue, owner)) {
            return None;
        }
        // ORDERING: this fence stands between taking the segment over, with the generation that `free` has raised, and the first new
        // byte; it pairs with the Acquire fence in `copy_words`. A reader that saw a new byte also sees that generation when
        // it looks again.
        fence(Ordering::Release);
        Some(OpenSegment { segment, generation: generation(arena, segment) as u16, written_bytes: 0 })
    }

    pub fn has_room(&self, arena: &Arena, size_bytes: usize) -> bool {
        self.written_bytes + size_bytes <= arena.layout().segment_size
    }

    /// Stores a record's words, for which there is room, and returns where. Nobody finds them yet.
    pub fn append(&mut self, arena: &Arena, words: impl ExactSizeIterator<Item = u64>) -> Item {
        let size = words.len() * 8;
        assert!(self.has_room(arena, size), "a record beyond its segment's end");
        let layout = arena.layout();
        let at = layout.segment_at(self.segment) + self.written_bytes;
        arena.write(at, words);
        self.written_bytes += size;
        // ORDERING: Release pairs with the Acquire of `written_bytes`: who drains walks whole records only.
        arena.store(layout.written_at(self.segment), self.written_bytes as u64, Ordering::Release);
        let location = ((at - layout.data_at) / 8) as u32;
        Item::new(self.generation, location)
    }

    /// Nobody appends any more; from now on it may be drained.
    pub fn seal(self, arena: &Arena, queue: Queue) {
        let sealed = State::Sealed(queue, next_sequence(arena));
        // ORDERING: Release pairs with the Acquire of `state`. Nobody else changes a live owner's state.
        arena.store(arena.layout().state_at(self.segment), sealed.pack(), Ordering::Release);
    }
}

/// Bytes of whole records in a segment.
///
/// ORDERING: Acquire pairs with the Release of `append`.
pub fn written_bytes(arena: &Arena, segment: usize) -> usize {
    let written = arena.load(arena.layout().written_at(segment), Ordering::Acquire) as usize;
    written.min(arena.layout().segment_size)
}

/// The number of a segment's life.
///
/// ORDERING: Acquire pairs with the Release of `free`.
#[inline]
pub fn generation(arena: &Arena, segment: usize) -> u64 {
    arena.load(arena.layout().generation_at(segment), Ordering::Acquire)
}

/// Ends the life of a segment that this process has drained: every item of it is a miss, and anybody may open it.
pub fn free(arena: &Arena, segment: usize) {
    // 0 is skipped in the 16 bits that items carry.
    let step = if generation(arena, segment) as u16 == u16::MAX { 2 } else { 1 };
    arena.store(arena.layout().written_at(segment), 0, Ordering::Relaxed);
    // ORDERING: Release pairs with the Acquire of `generation`.
    arena.add(arena.layout().generation_at(segment), step, Ordering::Release);
    // ORDERING: Release pairs with the Acquire of `state`, and of the swap in `open`.
    arena.store(arena.layout().state_at(segment), State::Free.pack(), Ordering::Release);
}

/// Segment and offset of an item, if they lie inside the data.
#[inline]
pub fn locate(arena: &Arena, item: Item) -> Option<(usize, usize)> {
    let layout = arena.layout();
    let offset = item.location() as usize * 8;
    // Both sizes are powers of two, which is cheaper to divide by than it looks to the compiler.
    let (segment, at) = (offset >> layout.segment_size.trailing_zeros(), offset & (layout.segment_size - 1));
    (segment < layout.segments).then_some((segment, at))
}

/// The queue that an item's record is in.
pub fn queue_of(arena: &Arena, item: Item) -> Option<Queue> {
    locate(arena, item).and_then(|(segment, _)| state(arena, segment).1.queue())
}

/// Whether the item's segment is still in the life that the item was stored in.
pub fn is_current(arena: &Arena, item: Item) -> bool {
    locate(arena, item).is_some_and(|(segment, _)| generation(arena, segment) as u16 == item.generation())
}

/// Reads `len` bytes from `offset` of the item's record, both multiples of 8, with `take`, then looks whether it could be trusted.
/// None: the segment was recycled, or the range leaves it.
#[inline(always)]
fn with_words<T>(
    arena: &Arena,
    item: Item,
    offset: usize,
    len: usize,
    take: impl FnOnce(&[std::sync::atomic::AtomicU64]) -> T,
) -> Option<T> {
    let (segment, at) = locate(arena, item)?;
    if at + offset + len > arena.layout().segment_size {
        return None;
    }
    let before = generation(arena, segment);
    if before as u16 != item.generation() {
        return None;
    }
    let start = arena.layout().segment_at(segment) + at + offset;
    let taken = take(arena.words(start, len / 8));
    // ORDERING: pairs with the Release fence of `OpenSegment::open`; see there.
    fence(Ordering::Acquire);
    let now = arena.load(arena.layout().generation_at(segment), Ordering::Relaxed);
    (now == before).then_some(taken)
}

/// The record header of `item`; None when it was recycled.
#[inline]
pub fn read_packed(arena: &Arena, item: Item) -> Option<PackedHeader> {
    with_words(arena, item, 0, RECORD_HEADER_SIZE_BYTES, |words| {
        PackedHeader(std::array::from_fn(|n| words[n].load(Ordering::Relaxed)))
    })
}

/// The same, unpacked.
pub fn read_header(arena: &Arena, item: Item) -> Option<RecordHeader> {
    read_packed(arena, item).map(|packed| packed.unpack())
}

/// Appends bytes `[offset, offset + len)` of the item's record to `out`. False, with `out` as before, when it
/// was recycled meanwhile.
pub fn copy_out(arena: &Arena, item: Item, offset: usize, len: usize, out: &mut Vec<u8>) -> bool {
    let first = offset & !7;
    let span = (offset + len).next_multiple_of(8) - first;
    out.reserve(span);
    let skip = offset - first;
    let start = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
    let copied = with_words(arena, item, first, span, |words| {
        let Some((head, rest)) = words.split_first() else { return };
        // SAFETY: `span` bytes are reserved from `start` on. The first word stores 8 of them there, the others 8 each behind the
        // first's 8 - skip, so that the last ends at span - skip.
        unsafe {
            start.cast::<u64>().write_unaligned((head.load(Ordering::Relaxed) >> (skip * 8)).to_le());
            let mut at = start.add(8 - skip);
            let (lines, last) = rest.as_chunks::<8>();
            for line in lines {
                let words: [u64; 8] = std::array::from_fn(|n| line[n].load(Ordering::Relaxed).to_le());
                at.cast::<[u64; 8]>().write_unaligned(words);
                at = at.add(64);
            }
            for word in last {
                at.cast::<u64>().write_unaligned(word.load(Ordering::Relaxed).to_le());
                at = at.add(8);
            }
        }
    });
    if copied.is_some() {
        // SAFETY: `span - skip` bytes were written above, which is at least `len`.
        unsafe { out.set_len(out.len() + len) };
    }
    copied.is_some()
}

/// The records of a segment with their items, as far as they are plausible; for whoever drains it, all.
pub fn records(arena: &Arena, segment: usize) -> impl Iterator<Item = (Item, RecordHeader)> + '_ {
    let layout = arena.layout();
    let generation = generation(arena, segment) as u16;
    let written = written_bytes(arena, segment);
    let mut at = 0;
    std::iter::from_fn(move || {
        let room = written.checked_sub(at).filter(|room| *room >= RECORD_HEADER_SIZE_BYTES)?;
        let location = ((layout.segment_at(segment) + at - layout.data_at) / 8) as u32;
        let item = Item::new(generation, location);
        let header = read_header(arena, item).filter(|header| header.is_plausible(room))?;
        at += header.len_bytes as usize;
        Some((item, header))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_packing() {
        let owner = Owner { slot: 513, epoch: 0xDEAD_BEEF };
        for queue in [Queue::Small, Queue::Main] {
            for state in
                [State::Open(queue, owner), State::Sealed(queue, 1 << 59 | 3), State::Draining(queue, owner)]
            {
                assert_eq!(State::unpack(state.pack()), state);
            }
        }
        assert_eq!(State::unpack(State::Free.pack()), State::Free);
    }
}
