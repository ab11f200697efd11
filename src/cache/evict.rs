//! Room for new records: segments are taken first-in first-out, emptied, and given their next life.
//! Runs in: worker.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::index::{self, Item};
use crate::cache::layout::{header, segment as word_of};
use crate::cache::record::RecordHeader;
use crate::cache::segment::{self, Owner, State};
use crate::limits::RECORD_HEADER_SIZE_BYTES;
use crate::metrics::{Counter, SlotMetrics};

/// Claims a segment for `owner` to append to, emptying it if need be. None when every one is held by the living.
pub fn claim(arena: &Arena, owner: Owner, metrics: &SlotMetrics) -> Option<usize> {
    let segments = arena.layout().segments as u64;
    // One turn round the ring: the cursor goes on where the last claim, by whomever, ended.
    for _ in 0..segments {
        let segment =
            (arena.word(header::RECYCLE_CURSOR).fetch_add(1, Ordering::Relaxed) % segments) as usize;
        if try_claim(arena, segment, owner, metrics) {
            return Some(segment);
        }
    }
    None
}

fn try_claim(arena: &Arena, segment: usize, owner: Owner, metrics: &SlotMetrics) -> bool {
    let word = arena.word(arena.layout().segment_header_at(segment) + word_of::STATE);
    // ORDERING: Acquire pairs with the Release of whoever sealed it or, for a dead owner, of `Slots::end_life`.
    let seen = word.load(Ordering::Acquire);
    let claimable = match State::unpack(seen) {
        State::Free | State::Sealed => true,
        State::Open(holder) | State::Draining(holder) => holder.is_dead(arena),
    };
    let draining = State::Draining(owner).pack();
    if !claimable || word.compare_exchange(seen, draining, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    if State::unpack(seen) != State::Free {
        drain(arena, segment);
        metrics.count(Counter::CacheRecycled);
    }
    segment::renew(arena, segment);
    // ORDERING: Release pairs with the Acquire above, for when this owner is dead.
    word.store(State::Open(owner).pack(), Ordering::Release);
    true
}

/// Takes every record of the segment out of the index. Each step may be repeated by somebody else after a death.
fn drain(arena: &Arena, segment: usize) {
    let layout = arena.layout();
    let header_at = layout.segment_header_at(segment);
    let generation = arena.word(header_at + word_of::GENERATION).load(Ordering::Relaxed) as u16;
    // ORDERING: Acquire pairs with the Release of `Appender::append`.
    let written = arena.word(header_at + word_of::WRITTEN_BYTES).load(Ordering::Acquire) as usize;
    let start = layout.segment_at(segment);
    let mut at = 0;
    while at + RECORD_HEADER_SIZE_BYTES <= written.min(layout.segment_size) {
        let words: [u64; RECORD_HEADER_SIZE_BYTES / 8] =
            std::array::from_fn(|n| arena.word(start + at + n * 8).load(Ordering::Relaxed));
        let record = RecordHeader::unpack(&words);
        if !record.is_plausible(layout.segment_size - at) {
            return;
        }
        let location = ((start + at - layout.data_at) / 8) as u32;
        index::clear(arena, arena.hash(record.key), Item { tag: 0, generation, location });
        at += record.stored_size_bytes();
    }
}
