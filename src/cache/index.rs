//! The index: buckets of one cache line, seven items each, changed by compare-and-swap only.
//! Runs in: worker.
//!
//! ```text
//! item word   63     50 49  48 47      32 31                0
//!             │ tag 14 │freq 2│ gen 16  │ location 32      │   location in 8-byte units from the data's start
//! ```
//! 0 is an empty item: generations start at 1.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::arena::Arena;
use crate::cache::fence;
use crate::cache::record::RecordHeader;
use crate::cache::segment;
use crate::limits::BUCKET_ITEMS;
use crate::metrics::{Counter, SlotMetrics};

/// An item word, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub tag: u16,
    pub generation: u16,
    /// In 8-byte units from the start of the data.
    pub location: u32,
}

const TAG_BITS: u32 = 14;

impl Item {
    pub fn pack(self) -> u64 {
        u64::from(self.tag) << 50 | u64::from(self.generation) << 32 | u64::from(self.location)
    }

    pub fn unpack(word: u64) -> Item {
        Item { tag: (word >> 50) as u16, generation: (word >> 32) as u16, location: word as u32 }
    }
}

/// The 14 bits of a hash that an item carries; the bucket takes the low ones.
pub fn tag(hash: u64) -> u16 {
    (hash >> (64 - TAG_BITS)) as u16
}

/// Items of `hash`'s bucket that carry its tag and point into the arena.
///
/// ORDERING: Acquire pairs with the Release of `publish`: who sees an item sees its record's bytes.
#[inline]
pub fn matches(arena: &Arena, hash: u64) -> impl Iterator<Item = Item> + '_ {
    let wanted = tag(hash);
    words(arena, hash).iter().filter_map(move |word| {
        let word = word.load(Ordering::Acquire);
        let item = Item::unpack(word);
        (word != 0 && item.tag == wanted).then_some(item)
    })
}

/// The item words of `hash`'s bucket.
#[inline]
fn words(arena: &Arena, hash: u64) -> &[AtomicU64] {
    arena.words(arena.layout().bucket_at(hash as usize) + 8, BUCKET_ITEMS)
}

/// What became of an item to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Yes,
    /// The present record of the key was read from a later snapshot, under the same token.
    Overtaken,
    /// The present record of the key is valid and this one is not any more.
    Voided,
    /// Every compare-and-swap was lost to others.
    Lost,
}

/// Where an item may go.
enum Place {
    /// Over the word seen there; whether a live neighbour is lost by it.
    At {
        at: usize,
        seen: u64,
        displaces: bool,
    },
    Overtaken,
    Voided,
}

/// Puts `item`, whose record has `header`, into its bucket: over an item of the same key if there is one, else into an
/// empty or dead place, else over a neighbour.
///
/// One compare-and-swap decides; when it is lost the search starts again, a few times.
pub fn publish(arena: &Arena, header: &RecordHeader, item: Item, metrics: &SlotMetrics) -> Published {
    let hash = arena.hash(header.key);
    let item = Item { tag: tag(hash), ..item };
    for _ in 0..BUCKET_ITEMS {
        let (at, seen, displaces) = match choose(arena, hash, header, item) {
            Place::At { at, seen, displaces } => (at, seen, displaces),
            Place::Overtaken => return Published::Overtaken,
            Place::Voided => return Published::Voided,
        };
        // ORDERING: Release pairs with the Acquire of `matches`.
        let swapped =
            arena.word(at).compare_exchange(seen, item.pack(), Ordering::Release, Ordering::Relaxed);
        if swapped.is_ok() {
            if displaces {
                metrics.count(Counter::CacheDisplaced);
            }
            return settle(arena, hash, header, item);
        }
    }
    Published::Lost
}

fn choose(arena: &Arena, hash: u64, header: &RecordHeader, item: Item) -> Place {
    let bucket = arena.layout().bucket_at(hash as usize);
    let (mut free, mut own) = (None, None);
    for n in 1..=BUCKET_ITEMS {
        let at = bucket + n * 8;
        let seen = arena.word(at).load(Ordering::Acquire);
        let present = Item::unpack(seen);
        let same_tag = seen != 0 && present.tag == item.tag;
        match same_tag.then(|| segment::read_header(arena, present)).flatten() {
            Some(found) if found.key == header.key => {
                if found.token == header.token && found.reading.position > header.reading.position {
                    return Place::Overtaken;
                }
                if found.token != header.token && found.token == fence::token(arena, header.key.fence()) {
                    return Place::Voided;
                }
                own.get_or_insert((at, seen));
            }
            _ => {}
        }
        if seen == 0 || !segment::is_current(arena, present) {
            free.get_or_insert((at, seen));
        }
    }
    if let Some((at, seen)) = own.or(free) {
        return Place::At { at, seen, displaces: false };
    }
    // All seven are live: the new location's low bits pick the one to lose.
    let at = bucket + (1 + item.location as usize / 2 % BUCKET_ITEMS) * 8;
    Place::At { at, seen: arena.word(at).load(Ordering::Acquire), displaces: true }
}

/// Takes out what publishers leave who found no item of the key at the same time: all but the latest, be it this one.
fn settle(arena: &Arena, hash: u64, header: &RecordHeader, published: Item) -> Published {
    let mut outcome = Published::Yes;
    for item in matches(arena, hash).filter(|item| *item != published) {
        let Some(found) = segment::read_header(arena, item).filter(|f| f.key == header.key) else { continue };
        if found.token == header.token && found.reading.position > header.reading.position {
            clear(arena, hash, published);
            outcome = Published::Overtaken;
        } else if found.reading.position < header.reading.position {
            clear(arena, hash, item);
        }
    }
    outcome
}

/// Headers of all records in `hash`'s bucket.
pub fn headers(arena: &Arena, hash: u64) -> impl Iterator<Item = RecordHeader> + '_ {
    let words = words(arena, hash).iter().map(|word| word.load(Ordering::Acquire));
    words.filter(|word| *word != 0).filter_map(|word| segment::read_header(arena, Item::unpack(word)))
}

/// Takes `item` out of its bucket if it is still there.
pub fn clear(arena: &Arena, hash: u64, item: Item) {
    let packed = Item { tag: tag(hash), ..item }.pack();
    for word in words(arena, hash) {
        // Relaxed: an item that goes away publishes nothing.
        if word.load(Ordering::Relaxed) == packed {
            let _ = word.compare_exchange(packed, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_survive_packing() {
        for (tag, generation, location) in [(0, 1, 0), (0x3FFF, u16::MAX, u32::MAX), (7, 300, 12345)] {
            let item = Item { tag, generation, location };
            assert_eq!(Item::unpack(item.pack()), item);
            assert_ne!(item.pack(), 0);
        }
    }
}
