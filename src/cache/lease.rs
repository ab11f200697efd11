//! Leases: over all workers, one fills a key at a time. Advisory: what is filled is right by its token, so that taking over from
//! one who is dead, stuck or slow is always safe.
//! Runs in: worker.
//!
//! ```text
//! lease word   63        48 47        32 31                 0
//!              │   slot    │ epoch, low  │   deadline, ms     │    0: free. Slot 0xFFFF: nobody need wait for anybody
//!
//! free ──take──► held ──done──► free            of a key that can't be kept, or that failed: ──► open to all, for a while
//!   ▲             └─ owner dead, or past its deadline: as free
//! ```
//! Keys whose hashes fall on one word wait for one another. The token is part of the hash: who comes after a change does not wait for a
//! fill that began before it.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::fence::Token;
use crate::cache::record::Key;
use crate::cache::segment::{self, Owner};
use crate::limits::LEASE_MAX;

const OPEN_TO_ALL: u16 = u16::MAX;

/// A lease held by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    at: usize,
    word: u64,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Granted(Lease),
    /// Another fill is under way: look again soon.
    Elsewhere,
    /// Waiting would not help.
    OpenToAll,
}

fn now_ms(now_ns: u64) -> u32 {
    (now_ns / 1_000_000) as u32
}

fn pack(slot: u16, epoch: u32, now_ns: u64) -> u64 {
    let deadline = now_ms(now_ns).wrapping_add(LEASE_MAX.as_millis() as u32);
    u64::from(slot) << 48 | u64::from(epoch as u16) << 32 | u64::from(deadline)
}

/// Whether a word's deadline lies ahead, and by no more than one can.
fn is_ahead(word: u64, now_ns: u64) -> bool {
    let left_ms = (word as u32).wrapping_sub(now_ms(now_ns));
    left_ms > 0 && left_ms <= LEASE_MAX.as_millis() as u32
}

/// Asks for the lease of `key` under `token`, for `owner`.
///
/// ORDERING: Acquire, when it is found free and by the swap, pairs with the Release of `end`: who gets a lease, or finds it ended, sees
/// what was published under it.
pub fn ask(arena: &Arena, key: Key, token: Token, owner: Owner, now_ns: u64) -> Asked {
    let hash = arena.hash(key)
        ^ (u64::from(token.lane) << 32 | u64::from(token.epoch)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The high bits have taken the token in.
    let at = arena.layout().lease_at(hash >> 32);
    let seen = arena.load(at, Ordering::Acquire);
    if seen != 0 && is_ahead(seen, now_ns) {
        match (seen >> 48) as u16 {
            OPEN_TO_ALL => return Asked::OpenToAll,
            owner if !is_dead(arena, owner, (seen >> 32) as u16) => return Asked::Elsewhere,
            _ => {}
        }
    }
    let word = pack(owner.slot, owner.epoch, now_ns);
    match arena.swap(at, seen, word, Ordering::AcqRel) {
        Ok(()) => Asked::Granted(Lease { at, word }),
        Err(_) => Asked::Elsewhere,
    }
}

/// Whether the life of a slot that a word names is over.
fn is_dead(arena: &Arena, slot: u16, epoch: u16) -> bool {
    segment::epoch_of(arena, slot).map(|present| present as u16) != Some(epoch)
}

/// Ends a lease. Not `kept`: nothing that others could take was published, so nobody need wait for the next one either.
pub fn end(arena: &Arena, lease: Lease, kept: bool, now_ns: u64) {
    let word = if kept { 0 } else { pack(OPEN_TO_ALL, 0, now_ns) };
    // ORDERING: Release pairs with the Acquire of `ask`. It fails where somebody has taken over, whose it is now.
    let _ = arena.swap(lease.at, lease.word, word, Ordering::Release);
}

/// Words that are held or open to all at `now_ns`.
pub fn count(arena: &Arena, now_ns: u64) -> usize {
    let layout = arena.layout();
    let words = arena.words(layout.leases_at, if layout.segments > 0 { crate::limits::LEASES } else { 0 });
    words
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .filter(|word| *word != 0 && is_ahead(*word, now_ns))
        .count()
}
