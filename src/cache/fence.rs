//! Fences and tokens: a record is valid while the token it was filled under is the present one.
//! Runs in: worker (and the change feed).
//!
//! ```text
//! fence word (first of a bucket)   63        32 31         0
//!                                  │  lane 1   │  lane 0   │   a hash bit chooses the lane
//! ```
//! Raising a lane is one atomic add; it voids the key's records in the cache and every fill that took its
//! token before, wherever it is.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::index;
use crate::cache::layout::header;
use crate::cache::record::Key;
use crate::metrics::{Counter, SlotMetrics};

/// What a fill must find unchanged: the fence lane and the arena's epoch, of which records keep 24 bits. It takes 16 million voidings
/// of everything within the life of a record to mistake one for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub lane: u32,
    pub epoch: u32,
}

pub const EPOCH_MASK: u32 = (1 << 24) - 1;

/// Hash bit that chooses the lane: none of those that choose bucket or tag.
const LANE_BIT: u32 = 46;

#[inline]
fn place(arena: &Arena, hash: u64) -> (usize, u32) {
    (arena.layout().bucket_at(hash), ((hash >> LANE_BIT) & 1) as u32 * 32)
}

/// The present token of a fence.
///
/// ORDERING: Acquire pairs with the Release of `raise`: who sees a raised fence sees what was done before.
#[inline]
pub fn token(arena: &Arena, fence: Key) -> Token {
    token_of_hash(arena, arena.hash(fence))
}

/// The same, by the fence's hash.
#[inline]
pub fn token_of_hash(arena: &Arena, hash: u64) -> Token {
    let (at, shift) = place(arena, hash);
    let lane = (arena.load(at, Ordering::Acquire) >> shift) as u32;
    let epoch = arena.load(header::EPOCH, Ordering::Acquire) as u32 & EPOCH_MASK;
    Token { lane, epoch }
}

/// Voids everything under `fence`, and with it what shares its half of the word: such neighbours are counted.
///
/// ORDERING: Release pairs with the Acquire of `token`.
pub fn raise(arena: &Arena, fence: Key, metrics: &SlotMetrics) {
    metrics.count(Counter::CacheVoided);
    metrics.add(Counter::CacheVoidedCollateral, neighbours(arena, fence) as u64);
    let (at, shift) = place(arena, arena.hash(fence));
    let mut seen = arena.load(at, Ordering::Relaxed);
    loop {
        // The lane wraps within its half: no carry into the neighbour.
        let lane = ((seen >> shift) as u32).wrapping_add(1);
        let raised = (seen & !(0xFFFF_FFFF << shift)) | (u64::from(lane) << shift);
        match arena.swap(at, seen, raised, Ordering::Release) {
            Ok(()) => return,
            Err(now) => seen = now,
        }
    }
}

/// Valid records of other fences that share `fence`'s half of its word.
fn neighbours(arena: &Arena, fence: Key) -> usize {
    let hash = arena.hash(fence);
    let (here, present) = (place(arena, hash), token_of_hash(arena, hash));
    let shares = |other: Key| other != fence && place(arena, arena.hash(other)) == here;
    let records = index::headers(arena, hash);
    records.filter(|found| found.len_bytes > 0 && found.token == present && shares(found.key.fence())).count()
}

/// Voids everything in the arena.
///
/// ORDERING: Release pairs with the Acquire of `token`.
pub fn raise_epoch(arena: &Arena) {
    arena.add(header::EPOCH, 1, Ordering::Release);
}
