//! Records from before a restart: each is checked whole when a worker first finds it.
//! Runs in: worker.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::cache::arena::Arena;
use crate::cache::index::Place;
use crate::cache::reading::BORN_SHIFT;
use crate::cache::record::{PackedHeader, Record};
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

    /// Whether the record found at `place` may be used at `now_ns`.
    #[inline]
    pub fn holds(&self, arena: &Arena, place: Place, found: &PackedHeader, now_ns: u64) -> bool {
        self.adopted_ns == 0 || self.is_born_since(found, now_ns) || self.check(arena, place, found)
    }

    /// Whether it is from a process that this master has forked: born after the arena was adopted, and not in the future.
    fn is_born_since(&self, found: &PackedHeader, now_ns: u64) -> bool {
        let units =
            |ns: u64| ((ns >> BORN_SHIFT) as u32).wrapping_sub((self.adopted_ns >> BORN_SHIFT) as u32);
        let born = units(found.reading().born_ns);
        born > 0 && born <= units(now_ns)
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
            // Recycled meanwhile, as the copy of its body will find out; or it ends where no record can.
            return !segment::is_current(arena, place.item);
        }
        let holds = Record::open(&bytes).is_some();
        if holds {
            self.checked[bucket].fetch_or(bit, Ordering::Relaxed);
        }
        holds
    }
}
