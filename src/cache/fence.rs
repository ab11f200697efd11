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

/// What a fill must find unchanged: the fence lane and the arena's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub lane: u32,
    pub epoch: u32,
}

/// Hash bit that chooses the lane: none of those that choose bucket or tag.
const LANE_BIT: u32 = 46;

fn place(arena: &Arena, fence: Key) -> (usize, u32) {
    let hash = arena.hash(fence);
    (arena.layout().bucket_at(hash as usize), ((hash >> LANE_BIT) & 1) as u32 * 32)
}

/// The present token of a fence.
///
/// ORDERING: Acquire pairs with the Release of `raise`: who sees a raised fence sees what was done before.
#[inline]
pub fn token(arena: &Arena, fence: Key) -> Token {
    let (at, shift) = place(arena, fence);
    let lane = (arena.word(at).load(Ordering::Acquire) >> shift) as u32;
    let epoch = arena.word(header::EPOCH).load(Ordering::Acquire) as u32;
    Token { lane, epoch }
}

/// Voids everything under `fence`, and with it what shares its half of the word: such neighbours are counted.
///
/// ORDERING: Release pairs with the Acquire of `token`.
pub fn raise(arena: &Arena, fence: Key, metrics: &SlotMetrics) {
    metrics.count(Counter::CacheVoided);
    metrics.add(Counter::CacheVoidedCollateral, neighbours(arena, fence) as u64);
    let (at, shift) = place(arena, fence);
    let word = arena.word(at);
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        // The lane wraps within its half: no carry into the neighbour.
        let lane = ((seen >> shift) as u32).wrapping_add(1);
        let raised = (seen & !(0xFFFF_FFFF << shift)) | (u64::from(lane) << shift);
        match word.compare_exchange_weak(seen, raised, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Valid records of other fences that share `fence`'s half of its word.
fn neighbours(arena: &Arena, fence: Key) -> usize {
    let (here, present) = (place(arena, fence), token(arena, fence));
    let shares = |other: Key| other != fence && place(arena, other) == here;
    let records = index::headers(arena, arena.hash(fence));
    records.filter(|found| found.len_bytes > 0 && found.token == present && shares(found.key.fence())).count()
}

/// Voids everything in the arena.
///
/// ORDERING: Release pairs with the Acquire of `token`.
pub fn raise_epoch(arena: &Arena) {
    arena.word(header::EPOCH).fetch_add(1, Ordering::Release);
}
