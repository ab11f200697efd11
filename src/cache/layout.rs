//! Where everything lies in the arena: computed once from its size, never stored as pointers.
//! Runs in: both.
//!
//! ```text
//! 0        ┌──────────────────────────────┐
//!          │ header page, 4 KiB           │ words below
//! 4096     ├──────────────────────────────┤
//!          │ slots × 1 KiB                │ epoch, beat, pid, state, panic text
//!          ├──────────────────────────────┤
//!          │ leases × 8 B                 │ fills under way
//!          ├──────────────────────────────┤
//!          │ buckets × 64 B               │ fence word + 7 item words
//!          ├──────────────────────────────┤
//!          │ segment states × 8 B         │ written when a segment changes hands
//!          │ segment generations × 8 B    │ written once a life: what every hit reads stays in the readers' caches
//!          │ segment bytes written × 8 B  │ written by each append
//! 4 KiB ×n ├──────────────────────────────┤
//!          │ segments × 256 KiB or 1 MiB  │ records, back to back
//!          └──────────────────────────────┘
//! ```

use crate::limits::{
    slots_for, ARENA_HEADER_SIZE_BYTES, ARENA_LARGE_BYTES, BUCKET_ITEMS, BUCKET_LOAD, BUCKET_SIZE_BYTES,
    CACHE_SIZE_MIN_BYTES, LEASES, RECORD_HEADER_SIZE_BYTES, RECORD_SIZE_TYPICAL_BYTES,
    SEGMENT_SIZE_LARGE_BYTES, SEGMENT_SIZE_SMALL_BYTES, SEGMENT_WORDS_SIZE_BYTES, SLOT_SIZE_BYTES,
};

/// "catwalk" and a zero, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"catwalk\0");
/// Raised whenever the meaning of a byte changes, or what an answer made of the same rows looks like.
pub const SCHEMA_VERSION: u64 = 6;

/// Words of the header page, by byte offset.
pub mod header {
    pub const MAGIC: usize = 0;
    pub const SCHEMA_VERSION: usize = 8;
    pub const ABI_HASH: usize = 16;
    pub const SIZE_BYTES: usize = 24;
    pub const CACHE_SIZE_BYTES: usize = 32;
    pub const WORKERS: usize = 40;
    /// Keys are hashed with it: fresh for each arena, so that nobody outside can aim at a bucket.
    pub const SEED: usize = 48;
    /// Which database the records are from: system identifier and timeline.
    pub const SYSTEM_IDENTIFIER: usize = 56;
    pub const TIMELINE: usize = 64;
    /// Raised to void everything.
    pub const EPOCH: usize = 72;
    /// Time up to which every change is known to be applied (CLOCK_BOOTTIME).
    pub const WATERMARK_NS: usize = 80;
    /// Slots that crash-loop, counted by the master.
    pub const CRASH_LOOPS: usize = 96;
    /// Where the change feed stands; [`super::super::watermark`] has the meanings.
    pub const FEED_STATE: usize = 104;
    pub const FEED_CURSOR: usize = 112;
    pub const FEED_FOLLOWED: usize = 120;
    pub const FEED_LIFE: usize = 128;
    /// Why and when everything was voided last.
    pub const VOID_REASON: usize = 136;
    pub const VOIDED_NS: usize = 144;
    /// The settings that answers are made with, as one number.
    pub const SETTINGS: usize = 152;
    /// With replicas, positions in the WAL; [`super::super::floor`] has the meanings.
    pub const FLOOR: usize = 160;
    pub const APPLIED: usize = 168;
    /// When the followed node was last looked at.
    pub const FOLLOWED_NS: usize = 176;
    /// When the arena was last taken over from a server that was gone (CLOCK_BOOTTIME); 0: never.
    pub const ADOPTED_NS: usize = 184;
    /// The watermark that server had left, for answers while no database can be reached.
    pub const LEFT_NS: usize = 192;
    /// Addresses of the database nodes, as one number.
    pub const NODES: usize = 200;
    /// Workers that the master wants to serve.
    pub const WANTED: usize = 208;
    /// When a worker last found the database to be what this server needs (CLOCK_BOOTTIME).
    pub const CHECKED_NS: usize = 216;
    /// Counted up by each segment that is sealed: the order in which segments are drained. On a line of its own, with the next:
    /// what is above is read by every lookup.
    pub const SEALED: usize = 256;
    /// Small segments drained so far: the clock by which evicted keys are forgotten.
    pub const SMALL_DRAINED: usize = 264;
}

/// Words of a slot, by byte offset within it.
pub mod slot {
    pub const EPOCH: usize = 0;
    pub const BEAT_NS: usize = 8;
    /// Which process it is: its number and its start.
    pub const PROCESS: usize = 16;
    pub const STATE: usize = 24;
    pub const STARTED_NS: usize = 32;
    /// The master whose child lives here; 0: nobody does.
    pub const OWNER: usize = 40;
    /// 1: the change feed's.
    pub const IS_FEED: usize = 48;
    pub const PANIC_LEN: usize = 120;
    pub const PANIC_TEXT: usize = 128;
}

/// Sizes and offsets, in bytes, of one arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub workers: usize,
    pub slots: usize,
    pub buckets: usize,
    pub segments: usize,
    pub segment_size: usize,
    pub leases_at: usize,
    pub index_at: usize,
    pub states_at: usize,
    pub generations_at: usize,
    pub written_at: usize,
    pub data_at: usize,
    pub size_bytes: usize,
}

impl Layout {
    /// The layout of an arena whose cache may take `cache_size_bytes` (0: none) for `workers`.
    pub fn new(cache_size_bytes: usize, workers: usize) -> Layout {
        let on = cache_size_bytes >= CACHE_SIZE_MIN_BYTES;
        let slots = slots_for(workers);
        let segment_size = if cache_size_bytes >= ARENA_LARGE_BYTES {
            SEGMENT_SIZE_LARGE_BYTES
        } else {
            SEGMENT_SIZE_SMALL_BYTES
        };
        let objects = cache_size_bytes / RECORD_SIZE_TYPICAL_BYTES;
        // One bucket even without a cache: fences are raised all the same.
        let buckets = if on { objects / BUCKET_LOAD } else { 1 };
        let leases = if on { LEASES } else { 0 };
        let fixed = buckets * BUCKET_SIZE_BYTES + leases * 8;
        let left = cache_size_bytes.saturating_sub(fixed);
        // An item's location reaches 2^32 × 8 bytes.
        let reach = (1usize << 32) / (segment_size / 8);
        let fitting = left / (segment_size + SEGMENT_WORDS_SIZE_BYTES);
        let segments = if on { fitting.clamp(segments_min(workers), reach) } else { 0 };
        let leases_at = ARENA_HEADER_SIZE_BYTES + slots * SLOT_SIZE_BYTES;
        let index_at = (leases_at + leases * 8).next_multiple_of(BUCKET_SIZE_BYTES);
        let states_at = index_at + buckets * BUCKET_SIZE_BYTES;
        let generations_at = (states_at + segments * 8).next_multiple_of(BUCKET_SIZE_BYTES);
        let written_at = (generations_at + segments * 8).next_multiple_of(BUCKET_SIZE_BYTES);
        let data_at = (written_at + segments * 8).next_multiple_of(4096);
        let size_bytes = data_at + segments * segment_size;
        Layout {
            workers,
            slots,
            buckets,
            segments,
            segment_size,
            leases_at,
            index_at,
            states_at,
            generations_at,
            written_at,
            data_at,
            size_bytes,
        }
    }

    /// Segments kept free, so that whoever drains one has room for what survives.
    pub fn segments_reserved(&self) -> usize {
        self.workers + 1
    }

    pub fn slot_at(&self, slot: usize) -> usize {
        assert!(slot < self.slots, "no such slot");
        ARENA_HEADER_SIZE_BYTES + slot * SLOT_SIZE_BYTES
    }

    /// The lease word of a hash.
    pub fn lease_at(&self, hash: u64) -> usize {
        self.leases_at + (hash as usize % LEASES) * 8
    }

    /// The bucket of a hash, of which the low 32 bits choose it.
    #[inline]
    pub fn bucket_at(&self, hash: u64) -> usize {
        let bucket = (u64::from(hash as u32) * self.buckets as u64) >> 32;
        self.index_at + bucket as usize * BUCKET_SIZE_BYTES
    }

    pub fn state_at(&self, segment: usize) -> usize {
        debug_assert!(segment < self.segments);
        self.states_at + segment * 8
    }

    #[inline]
    pub fn generation_at(&self, segment: usize) -> usize {
        debug_assert!(segment < self.segments);
        self.generations_at + segment * 8
    }

    pub fn written_at(&self, segment: usize) -> usize {
        debug_assert!(segment < self.segments);
        self.written_at + segment * 8
    }

    pub fn segment_at(&self, segment: usize) -> usize {
        debug_assert!(segment < self.segments);
        self.data_at + segment * self.segment_size
    }
}

/// Two segments that each worker appends to, the reserve, and as many that can be drained meanwhile.
const fn segments_min(workers: usize) -> usize {
    4 * (workers + 1)
}

/// A hash of everything that two binaries must agree on to share an arena: layout constants, word order, the
/// archive format and the shape of what is archived.
pub fn abi_hash() -> u64 {
    let facts = format!(
        "bucket {BUCKET_SIZE_BYTES} items {BUCKET_ITEMS} slot {SLOT_SIZE_BYTES} record {RECORD_HEADER_SIZE_BYTES} \
         segment {SEGMENT_WORDS_SIZE_BYTES} leases {LEASES} load {BUCKET_LOAD}/{RECORD_SIZE_TYPICAL_BYTES} \
         endian {} pointer {} rkyv 0.8 entry {} schema {}",
        cfg!(target_endian = "little"),
        usize::BITS,
        super::record::archive_shape(),
        SCHEMA_VERSION,
    );
    rapidhash::v3::rapidhash_v3(facts.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_fill_the_size() {
        for mib in [4, 16, 256, 1024, 6144] {
            let l = Layout::new(mib << 20, 2);
            let parts = [
                l.leases_at,
                l.index_at,
                l.states_at,
                l.generations_at,
                l.written_at,
                l.data_at,
                l.size_bytes,
            ];
            assert!(parts.is_sorted_by(|a, b| a < b), "{parts:?}");
            assert!(l.data_at.is_multiple_of(4096) && l.index_at.is_multiple_of(64));
            assert!(l.segments >= 12, "{mib} MiB");
            let overhead = l.size_bytes as f64 / (mib << 20) as f64;
            assert!((0.9..1.01).contains(&overhead), "{mib} MiB takes {overhead} of what was asked");
        }
    }

    #[test]
    fn every_bucket_is_some_hashs_and_none_lies_outside() {
        let l = Layout::new(4 << 20, 2);
        let last = l.index_at + (l.buckets - 1) * BUCKET_SIZE_BYTES;
        assert_eq!((l.bucket_at(0), l.bucket_at(u64::MAX)), (l.index_at, last));
    }

    #[test]
    fn no_cache_still_has_slots_and_fences() {
        let l = Layout::new(0, 4);
        assert_eq!((l.segments, l.buckets, l.slots), (0, 1, 12));
    }
}
