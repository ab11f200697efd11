//! Room for new records: S3-FIFO over segments (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//! Runs in: worker.
//!
//! ```text
//! fill ──► small, a tenth of the segments ──drained──► used: copied to main · unused: evicted, its ghost stays in the index
//!   └─ of a key whose ghost is there, or that was in main ──► main ──drained──► used: copied on, a use less · unused: evicted
//! ```
//! Each queue is drained oldest segment first. A few segments are kept free: whoever drains one has room for what survives.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::fence;
use crate::cache::index::{self, Item};
use crate::cache::layout::header;
use crate::cache::record::{Record, RecordHeader};
use crate::cache::segment::{self, OpenSegment, Owner, Queue, State};
use crate::limits::SMALL_QUEUE_ONE_IN;
use crate::metrics::{Counter, SlotMetrics};

/// Segments drained for one that is needed, before survivors are evicted like the others: each use of a record saves it once.
const DRAINS_GENTLE: usize = 8;
/// Attempts to get a segment, most of which others may win.
const ATTEMPTS_MAX: usize = 64;
/// Uses from which a record of the small queue goes on to main.
const USES_FOR_MAIN: u8 = 2;

/// Where one worker appends: a segment of each queue.
pub struct Appender {
    owner: Owner,
    small: Option<OpenSegment>,
    main: Option<OpenSegment>,
    metrics: SlotMetrics,
    /// The record being moved on.
    copied: Vec<u8>,
}

impl Appender {
    pub fn new(owner: Owner, metrics: SlotMetrics) -> Appender {
        Appender { owner, small: None, main: None, metrics, copied: Vec::new() }
    }

    /// Stores a record's words and returns where; None when no segment can be had.
    pub fn append(
        &mut self,
        arena: &Arena,
        words: impl ExactSizeIterator<Item = u64>,
        queue: Queue,
    ) -> Option<Item> {
        if !self.make_room(arena, queue, words.len() * 8) {
            return None;
        }
        self.place(queue).as_mut().map(|open| open.append(arena, words))
    }

    fn place(&mut self, queue: Queue) -> &mut Option<OpenSegment> {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn has_room(&mut self, arena: &Arena, queue: Queue, size_bytes: usize) -> bool {
        self.place(queue).as_ref().is_some_and(|open| open.has_room(arena, size_bytes))
    }

    /// Claims a Free segment to append to from now on. False: somebody else was faster.
    fn open(&mut self, arena: &Arena, free: (usize, u64), queue: Queue) -> bool {
        let Some(opened) = OpenSegment::open(arena, free, queue, self.owner) else { return false };
        if let Some(full) = self.place(queue).replace(opened) {
            full.seal(arena, queue);
        }
        true
    }

    /// Sees to it that there is room: opens a segment, draining others until enough are free. False when every one is held by the living.
    fn make_room(&mut self, arena: &Arena, queue: Queue, size_bytes: usize) -> bool {
        let mut drained = 0;
        for _ in 0..ATTEMPTS_MAX {
            // Also after a drain: what survived may have opened a segment with room left.
            if self.has_room(arena, queue, size_bytes) {
                return true;
            }
            let survey = Survey::take(arena);
            match survey.victim() {
                Some(victim) if survey.free <= arena.layout().segments_reserved() => {
                    drained += usize::from(self.drain(arena, victim, drained < DRAINS_GENTLE));
                }
                _ => {
                    let Some(free) = survey.first_free else { return false };
                    self.open(arena, free, queue);
                }
            }
        }
        self.has_room(arena, queue, size_bytes)
    }

    /// Empties a segment. False: somebody else does it.
    fn drain(&mut self, arena: &Arena, victim: Victim, gently: bool) -> bool {
        let Victim { segment, seen, queue } = victim;
        if !segment::change_state(arena, segment, seen, State::Draining(queue, self.owner)) {
            return false;
        }
        if queue == Queue::Small {
            arena.add(header::SMALL_DRAINED, 1, Ordering::Relaxed);
        }
        for (item, header) in segment::records(arena, segment) {
            self.sort_out(arena, item, &header, queue, gently);
        }
        segment::free(arena, segment);
        self.metrics.count(Counter::CacheRecycled);
        true
    }

    /// Moves a record on, or evicts it. Whoever does it again after a death finds it gone.
    fn sort_out(&mut self, arena: &Arena, item: Item, header: &RecordHeader, queue: Queue, gently: bool) {
        let hash = arena.hash(header.key);
        let Some(place) = index::place_of(arena, hash, item) else { return };
        let is_valid = fence::token(arena, header.key.fence()) == header.token;
        let (wanted, left) = match queue {
            Queue::Small => (USES_FOR_MAIN, 0),
            Queue::Main => (1, place.item.uses().saturating_sub(1)),
        };
        if gently && is_valid && place.item.uses() >= wanted {
            if let Some(moved) = self.copy_on(arena, place.item, header) {
                index::replace(arena, hash, place.item, Some(moved.with_uses(left)));
                self.metrics.count(Counter::CacheMoved);
                return;
            }
        }
        let ghost = (is_valid && queue == Queue::Small).then(|| index::ghost(arena, place.item.tag()));
        index::replace(arena, hash, place.item, ghost);
        self.metrics.count(Counter::CacheEvicted);
    }

    /// Copies a record into this worker's main segment. What does not hold its checksum goes nowhere.
    fn copy_on(&mut self, arena: &Arena, item: Item, header: &RecordHeader) -> Option<Item> {
        self.copied.clear();
        if !segment::copy_out(arena, item, 0, header.len_bytes as usize, &mut self.copied) {
            return None;
        }
        let record = Record::checked(&self.copied)?;
        let words = record.words()?;
        if !self.has_room(arena, Queue::Main, words.len() * 8) {
            // Here the reserve is what it is for.
            let free = Survey::take(arena).first_free?;
            self.open(arena, free, Queue::Main).then_some(())?;
        }
        self.main.as_mut().map(|open| open.append(arena, words))
    }
}

/// A segment to be drained, in the state that it was seen in.
#[derive(Clone, Copy)]
struct Victim {
    segment: usize,
    seen: u64,
    queue: Queue,
}

/// What all segments are doing, as far as one walk over their states tells.
#[derive(Default)]
struct Survey {
    free: usize,
    /// With its state as it was seen.
    first_free: Option<(usize, u64)>,
    segments: usize,
    /// Of the small queue, whatever their state.
    small: usize,
    oldest_small: Option<(u64, Victim)>,
    oldest_main: Option<(u64, Victim)>,
    /// Left behind by one who died draining it.
    orphan: Option<Victim>,
}

impl Survey {
    /// Walks over all states. What the dead were appending to is sealed on the way.
    fn take(arena: &Arena) -> Survey {
        let mut survey = Survey { segments: arena.layout().segments, ..Survey::default() };
        for segment in 0..survey.segments {
            let (seen, state) = segment::state(arena, segment);
            survey.note(arena, segment, seen, state);
        }
        survey
    }

    fn note(&mut self, arena: &Arena, segment: usize, seen: u64, state: State) {
        self.small += usize::from(state.queue() == Some(Queue::Small));
        match state {
            State::Free => {
                self.free += 1;
                self.first_free.get_or_insert((segment, seen));
            }
            State::Sealed(queue, sequence) => {
                let oldest = match queue {
                    Queue::Small => &mut self.oldest_small,
                    Queue::Main => &mut self.oldest_main,
                };
                if oldest.is_none_or(|(least, _)| sequence < least) {
                    *oldest = Some((sequence, Victim { segment, seen, queue }));
                }
            }
            State::Open(queue, owner) if owner.is_dead(arena) => {
                let sealed = State::Sealed(queue, segment::next_sequence(arena));
                segment::change_state(arena, segment, seen, sealed);
            }
            State::Draining(queue, owner) if owner.is_dead(arena) => {
                self.orphan = Some(Victim { segment, seen, queue });
            }
            State::Open(..) | State::Draining(..) => {}
        }
    }

    /// The segment to be drained next.
    fn victim(&self) -> Option<Victim> {
        let small_max = self.segments.div_ceil(SMALL_QUEUE_ONE_IN);
        let (small, main) = (self.oldest_small.map(|(_, v)| v), self.oldest_main.map(|(_, v)| v));
        let by_queue = if self.small >= small_max { small.or(main) } else { main.or(small) };
        self.orphan.or(by_queue)
    }
}
