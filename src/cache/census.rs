//! A look at the arena by who does not serve from it: what it holds, and the records of a key.
//! Runs in: offline | worker. Only loads.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::fence;
use crate::cache::index;
use crate::cache::layout::header;
use crate::cache::record::{Key, Kind, Record, RecordHeader, KINDS};
use crate::cache::segment::{self, Queue, State};

/// Records of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    pub records: usize,
    pub size_bytes: usize,
}

/// What an arena holds.
#[derive(Debug, Clone, Default)]
pub struct Census {
    pub free: usize,
    pub open: usize,
    pub draining: usize,
    pub sealed_small: usize,
    pub sealed_main: usize,
    /// Of records under their present token, by kind.
    pub valid: [Group; KINDS.len()],
    /// Records that a change made void.
    pub void: Group,
    /// Keys that were evicted and are remembered.
    pub ghosts: usize,
}

/// Counts segments alone, which costs little.
pub fn segments(arena: &Arena) -> Census {
    let mut census = Census::default();
    for segment in 0..arena.layout().segments {
        match segment::state(arena, segment).1 {
            State::Free => census.free += 1,
            State::Open(..) => census.open += 1,
            State::Draining(..) => census.draining += 1,
            State::Sealed(Queue::Small, _) => census.sealed_small += 1,
            State::Sealed(Queue::Main, _) => census.sealed_main += 1,
        }
    }
    census
}

/// Counts segments and records.
pub fn take(arena: &Arena) -> Census {
    let mut census = segments(arena);
    for (place, is_ghost) in index::all(arena) {
        if is_ghost {
            census.ghosts += 1;
        } else if let Some(header) = segment::read_header(arena, place.item) {
            let group = match is_valid(arena, &header) {
                true => &mut census.valid[header.key.kind.index()],
                false => &mut census.void,
            };
            group.records += 1;
            group.size_bytes += header.len_bytes as usize;
        }
    }
    census
}

/// Whether nobody has voided a record.
pub fn is_valid(arena: &Arena, header: &RecordHeader) -> bool {
    fence::token(arena, header.key.fence()) == header.token
}

impl Census {
    pub fn of_kind(&self, kind: Kind) -> Group {
        self.valid[kind.index()]
    }
}

/// A record, and how often it was found since it last moved.
pub struct Found {
    pub record: Record,
    pub queue: Option<Queue>,
    pub uses: u8,
}

/// The records of `key` that the index knows, valid or not, each checked; the latest first, as a lookup takes it.
pub fn records_of(arena: &Arena, key: Key) -> Vec<Found> {
    let open = |place: index::Place| {
        let header = segment::read_header(arena, place.item).filter(|header| header.key == key)?;
        let mut bytes = Vec::new();
        segment::copy_out(arena, place.item, 0, header.len_bytes as usize, &mut bytes);
        let queue = segment::queue_of(arena, place.item);
        Some(Found { record: Record::open(&bytes)?, queue, uses: place.item.uses() })
    };
    let mut found: Vec<Found> = index::matches(arena, arena.hash(key)).filter_map(open).collect();
    found.sort_by_key(|found| u64::MAX - found.record.header().reading.position);
    found
}

/// Everything was voided so often.
pub fn epoch(arena: &Arena) -> u64 {
    arena.load(header::EPOCH, Ordering::Acquire)
}
