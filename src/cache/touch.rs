//! Records from before a restart: each is checked whole when a worker first finds it.
//! Runs in: worker.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::cache::arena::Arena;
use crate::cache::index::Place;
use crate::cache::record::{PackedHeader, Record, BORN_SHIFT};
use crate::cache::segment;
use crate::limits::{BUCKET_ITEMS, BUCKET_SIZE_BYTES};

/// Which places of the index hold a record that this worker has checked; for an arena made by this master, none is needed.
pub struct FirstTouch {
    adopted_ns: u64,
    /// A byte a bucket, a bit a place. What is published into a checked place later was made by a process of this master.
    checked: Box<[AtomicU8]>,
}

const _: () = assert!(BUCKET_ITEMS < 8);

impl FirstTouch {
    pub fn new(arena: &Arena) -> FirstTouch {
        let adopted_ns = arena.adopted_ns();
        let buckets = if adopted_ns > 0 { arena.layout().buckets } else { 0 };
        FirstTouch { adopted_ns, checked: (0..buckets).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Whether the record found at `place` may be used.
    #[inline]
    pub fn holds(&self, arena: &Arena, place: Place, found: &PackedHeader) -> bool {
        // What was born since is from a process that this master has forked.
        self.adopted_ns == 0
            || found.reading().born_ns >> BORN_SHIFT > self.adopted_ns >> BORN_SHIFT
            || self.check(arena, place, found)
    }

    #[cold]
    fn check(&self, arena: &Arena, place: Place, found: &PackedHeader) -> bool {
        let (bucket, bit) = (
            (place.at - arena.layout().index_at) / BUCKET_SIZE_BYTES,
            1 << (place.at % BUCKET_SIZE_BYTES / 8),
        );
        // Relaxed: it guards nothing but work done twice.
        if self.checked[bucket].load(Ordering::Relaxed) & bit != 0 {
            return true;
        }
        let mut bytes = Vec::new();
        if !segment::copy_out(arena, place.item, 0, found.len_bytes(), &mut bytes) {
            // Recycled meanwhile: the copy of its body will find out.
            return true;
        }
        let holds = Record::open(&bytes).is_some();
        if holds {
            self.checked[bucket].fetch_or(bit, Ordering::Relaxed);
        }
        holds
    }
}
