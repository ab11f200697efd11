//! With replicas: how far somebody of this box may have seen, and how far the change feed has come, as positions in the WAL.
//! Runs in: worker, feed.
//!
//! The floor is raised before anybody is answered with what lies below it, before fences are raised for a change, and before a write is
//! answered. Whoever reads from a replica asks for it after the key's token: below it a replica is not read from, so what is published
//! under a token has seen every change that the token stands for, and no client sees less than it has seen.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::layout::header;

/// Position up to which a replica must have replayed to be read from.
///
/// ORDERING: Acquire pairs with the Release of `raise`. Loaded after the token: who sees a raised fence sees the floor that was raised before.
pub fn floor(arena: &Arena) -> u64 {
    arena.load(header::FLOOR, Ordering::Acquire)
}

/// Somebody may have seen what lies below `lsn`.
pub fn raise(arena: &Arena, lsn: u64) {
    let mut seen = arena.load(header::FLOOR, Ordering::Relaxed);
    while seen < lsn {
        match arena.swap(header::FLOOR, seen, lsn, Ordering::AcqRel) {
            Ok(()) => return,
            Err(now) => seen = now,
        }
    }
}

/// A floor that was `seen` before the primary was asked, and lies above what it has written, is of another history: no replica would
/// ever get there. Not if somebody has raised it meanwhile: then it is looked at again.
pub fn heal(arena: &Arena, seen: u64, written: u64) {
    if seen > written {
        let _ = arena.swap(header::FLOOR, seen, written, Ordering::AcqRel);
    }
}

/// Position up to which every change has its fences raised.
///
/// ORDERING: Acquire pairs with the Release of `set_applied`.
pub fn applied(arena: &Arena) -> u64 {
    arena.load(header::APPLIED, Ordering::Acquire)
}

/// Every change below `lsn` has its fences raised.
pub fn set_applied(arena: &Arena, lsn: u64) {
    arena.store(header::APPLIED, lsn, Ordering::Release);
}
