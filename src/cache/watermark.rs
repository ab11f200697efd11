//! What the change feed and the workers agree on: up to when every change is applied, and where the feed stands.
//! Runs in: worker (reads), feed (writes).
//!
//! ```text
//! feed     notes the time T ─► asks for changes ─► raises their fences ─► stores T, Release
//! worker   loads T, Acquire ─► loads the fence ─► trusts a record only if T is recent and its token the present one
//! ```
//! So whatever was committed before T is not served any more by whoever sees T. A feed that is dead, stopped or cut off
//! leaves T as it is: one case for all.

use std::sync::atomic::Ordering;

use crate::cache::arena::Arena;
use crate::cache::fence;
use crate::cache::layout::header;
use crate::os::clock;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant = $word),* }

        impl $name {
            fn from_word(word: u64) -> $name {
                match word { $($word => $name::$variant,)* _ => $name::from_word(0) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $text),* })
            }
        }
    };
}

words! {
    /// What the feed is doing.
    State {
        Starting = 0, "starting";
        Following = 1, "following";
        /// The database can't be reached, or doesn't answer.
        CutOff = 2, "cut off from the database";
        /// Triggers are missing, or the server is no primary: the log names them.
        Unfollowable = 3, "the database can't be followed; the log and `catwalk check --database` say why";
    }
}

words! {
    /// Why everything was voided.
    Reason {
        Nothing = 0, "never";
        NoCursor = 1, "the feed began anew";
        Noted = 2, "the database said so: a table was truncated or replaced";
        Identity = 3, "it is another database, or another timeline of it";
        Life = 4, "the database recovered from a crash, was promoted or restored";
        Triggers = 5, "a trigger of the change feed, or a table that it follows, was changed";
        Dropped = 6, "changes were dropped before they were read";
        TooMany = 7, "more changed at once than is followed one by one";
        Asked = 8, "it was asked for";
    }
}

/// Where a feed goes on that takes over from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Changes of every transaction before this one are applied.
    pub xmin: u64,
    /// The triggers and tables that were followed, as one number.
    pub followed: u64,
    /// The database's life: another one after a crash.
    pub life: u64,
}

/// Time up to which every change is applied (CLOCK_BOOTTIME, ns); 0: none yet.
///
/// ORDERING: Acquire pairs with the Release of `advance`; the fence must be loaded after it.
#[inline]
pub fn watermark_ns(arena: &Arena) -> u64 {
    arena.load(header::WATERMARK_NS, Ordering::Acquire)
}

/// The same, or what the server had left whose arena this was: good for answers while no database can be reached.
pub fn left_ns(arena: &Arena) -> u64 {
    watermark_ns(arena).max(arena.load(header::LEFT_NS, Ordering::Relaxed))
}

/// Every change committed before `now_ns` is applied.
///
/// ORDERING: Release pairs with the Acquire of `watermark_ns`: the fences were raised before.
pub fn advance(arena: &Arena, now_ns: u64) {
    arena.store(header::WATERMARK_NS, now_ns, Ordering::Release);
}

/// When the node that is followed was last looked at (CLOCK_BOOTTIME, ns), be there a primary or none.
pub fn followed_ns(arena: &Arena) -> u64 {
    arena.load(header::FOLLOWED_NS, Ordering::Acquire)
}

/// What the followed node showed at `now_ns` has its fences raised.
///
/// ORDERING: Release pairs with the Acquire of `followed_ns`.
pub fn set_followed(arena: &Arena, now_ns: u64) {
    arena.store(header::FOLLOWED_NS, now_ns, Ordering::Release);
}

/// Voids everything in one store, and says why.
pub fn void_everything(arena: &Arena, reason: Reason) {
    arena.store(header::VOID_REASON, reason as u64, Ordering::Relaxed);
    arena.store(header::VOIDED_NS, clock::boottime_ns(), Ordering::Relaxed);
    fence::raise_epoch(arena);
}

/// Why everything was voided last, and when (CLOCK_BOOTTIME, ns).
pub fn last_void(arena: &Arena) -> (Reason, u64) {
    let get = |at| arena.load(at, Ordering::Relaxed);
    (Reason::from_word(get(header::VOID_REASON)), get(header::VOIDED_NS))
}

pub fn state(arena: &Arena) -> State {
    State::from_word(arena.load(header::FEED_STATE, Ordering::Relaxed))
}

pub fn set_state(arena: &Arena, state: State) {
    arena.store(header::FEED_STATE, state as u64, Ordering::Relaxed);
}

/// Where the last feed on this arena stood; None on a fresh one, or when it died while it changed its place.
pub fn cursor(arena: &Arena) -> Option<Cursor> {
    let get = |at| arena.load(at, Ordering::Acquire);
    let xmin = get(header::FEED_CURSOR);
    (xmin != 0).then(|| Cursor { xmin, followed: get(header::FEED_FOLLOWED), life: get(header::FEED_LIFE) })
}

/// Whoever comes next begins anew, and voids everything.
///
/// ORDERING: Release pairs with the Acquire of `cursor`.
pub fn forget_cursor(arena: &Arena) {
    arena.store(header::FEED_CURSOR, 0, Ordering::Release);
}

/// Notes where this feed stands. An old cursor beside new surroundings would skip changes, so it goes first.
///
/// ORDERING: Release pairs with the Acquire of `cursor`, which reads the xmin first.
pub fn set_cursor(arena: &Arena, cursor: Cursor) {
    let set = |at, value| arena.store(at, value, Ordering::Release);
    if self::cursor(arena).is_some_and(|c| c.followed == cursor.followed && c.life == cursor.life) {
        return set(header::FEED_CURSOR, cursor.xmin);
    }
    set(header::FEED_CURSOR, 0);
    set(header::FEED_FOLLOWED, cursor.followed);
    set(header::FEED_LIFE, cursor.life);
    set(header::FEED_CURSOR, cursor.xmin);
}
