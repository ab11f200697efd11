//! The index: buckets of one cache line, seven items each, changed by compare-and-swap only.
//! Runs in: worker.
//!
//! ```text
//! item word   63     50 49   48 47           32 31                    0
//!             │ tag 14 │ uses 2 │ generation 16 │     location 32      │   in 8-byte units from the data's start
//! ghost       │ tag 14 │   0    │       0       │      stamp 32        │   a key that was evicted unused, and when
//! ```
//! 0 is an empty place. A ghost remembers what S3-FIFO's third queue would: whoever comes back soon after it was evicted belongs to
//! the main queue. It lives in a place of its bucket that no record needs, and costs no memory of its own.

use std::sync::atomic::{self, Ordering};

use crate::cache::arena::Arena;
use crate::cache::fence;
use crate::cache::layout::header;
use crate::cache::reading::Relation;
use crate::cache::record::{Key, RecordHeader};
use crate::cache::segment::{self, Queue};
use crate::limits::{BUCKET_ITEMS, BUCKET_SIZE_BYTES};
use crate::metrics::{Counter, SlotMetrics};

/// An item word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item(u64);

const TAG_BITS: u32 = 14;
const TAG_SHIFT: u32 = 64 - TAG_BITS;
const USES_SHIFT: u32 = 48;
/// Uses are counted up to here.
pub const USES_MAX: u8 = 3;

impl Item {
    /// Of a record at `location`, in 8-byte units from the start of the data, in a segment's life `generation`.
    pub fn new(generation: u16, location: u32) -> Item {
        Item(u64::from(generation) << 32 | u64::from(location))
    }

    /// As it lies in a bucket.
    #[cfg(test)]
    pub fn word(self) -> u64 {
        self.0
    }

    pub fn with_tag(self, tag: u16) -> Item {
        Item(self.0 << TAG_BITS >> TAG_BITS | u64::from(tag) << TAG_SHIFT)
    }

    pub fn with_uses(self, uses: u8) -> Item {
        Item(self.0 & !(u64::from(USES_MAX) << USES_SHIFT) | u64::from(uses.min(USES_MAX)) << USES_SHIFT)
    }

    #[inline]
    pub fn tag(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    /// How often it was found since it last moved, up to [`USES_MAX`].
    #[inline]
    pub fn uses(self) -> u8 {
        (self.0 >> USES_SHIFT) as u8 & USES_MAX
    }

    #[inline]
    pub fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline]
    pub fn location(self) -> u32 {
        self.0 as u32
    }

    /// Whether both are of the same record, however often it was used.
    pub fn is_of(self, other: Item) -> bool {
        (self.0 ^ other.0) << (64 - USES_SHIFT) == 0
    }

    #[inline]
    fn is_ghost(self) -> bool {
        self.generation() == 0
    }
}

/// An item and the offset of its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub at: usize,
    pub item: Item,
}

/// The 14 bits of a hash that an item carries; the bucket takes the low ones.
#[inline]
pub fn tag(hash: u64) -> u16 {
    (hash >> (64 - TAG_BITS)) as u16
}

/// The places of `hash`'s bucket that are not empty.
///
/// ORDERING: Acquire pairs with the Release of `publish` and `replace`: who sees an item sees its record's bytes.
#[inline]
fn places(arena: &Arena, hash: u64) -> impl Iterator<Item = Place> + '_ {
    places_at(arena, arena.layout().bucket_at(hash) + 8)
}

#[inline]
fn places_at(arena: &Arena, first: usize) -> impl Iterator<Item = Place> + '_ {
    arena.words(first, BUCKET_ITEMS).iter().enumerate().filter_map(move |(n, word)| {
        let word = word.load(Ordering::Acquire);
        (word != 0).then(|| Place { at: first + n * 8, item: Item(word) })
    })
}

/// Every place of the index that is not empty, by bucket, with whether it is a ghost.
pub fn all(arena: &Arena) -> impl Iterator<Item = (Place, bool)> + '_ {
    let layout = arena.layout();
    let buckets = (0..layout.buckets).map(|n| layout.index_at + n * BUCKET_SIZE_BYTES);
    buckets.flat_map(move |bucket| places_at(arena, bucket + 8)).map(|place| (place, place.item.is_ghost()))
}

/// The places of the bucket that the word at byte `at` lies in.
pub fn all_of_bucket(arena: &Arena, at: usize) -> impl Iterator<Item = Place> + '_ {
    places_at(arena, at / BUCKET_SIZE_BYTES * BUCKET_SIZE_BYTES + 8)
}

/// Items of `hash`'s bucket that carry its tag.
#[inline]
pub fn matches(arena: &Arena, hash: u64) -> impl Iterator<Item = Place> + '_ {
    let wanted = tag(hash);
    places(arena, hash).filter(move |place| place.item.tag() == wanted && !place.item.is_ghost())
}

/// Notes that a record was found. What is found often causes no store.
#[inline]
pub fn touch(arena: &Arena, Place { at, item }: Place) {
    if item.uses() < USES_MAX {
        let used = item.with_uses(item.uses() + 1);
        // Relaxed: who sees this word sees what `publish` released, as it goes on its release sequence. Lost to another reader, it is not repeated.
        let _ = arena.swap(at, item.0, used.0, Ordering::Relaxed);
    }
}

/// What the index knows of a key before it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    /// It was evicted a short while ago.
    Evicted,
    /// A record of it is there, valid or not.
    Present(Queue, u8),
}

/// Looks what is known of `key`.
pub fn standing(arena: &Arena, key: Key) -> Standing {
    let hash = arena.hash(key);
    let mut standing = Standing::Unknown;
    for Place { item, .. } in places(arena, hash).filter(|place| place.item.tag() == tag(hash)) {
        if item.is_ghost() {
            if ghost_age(arena, item) <= ghost_age_max(arena) {
                standing = Standing::Evicted;
            }
        } else if segment::read_header(arena, item).is_some_and(|found| found.key == key) {
            let queue = segment::queue_of(arena, item).unwrap_or(Queue::Small);
            return Standing::Present(queue, item.uses());
        }
    }
    standing
}

/// What an evicted record leaves behind.
pub fn ghost(arena: &Arena, tag: u16) -> Item {
    let stamp = arena.load(header::SMALL_DRAINED, Ordering::Relaxed) as u32;
    // 0 in every field would be an empty place.
    Item::new(0, stamp.max(1)).with_tag(tag)
}

/// Small segments drained since the key was evicted.
fn ghost_age(arena: &Arena, ghost: Item) -> u32 {
    (arena.load(header::SMALL_DRAINED, Ordering::Relaxed) as u32).wrapping_sub(ghost.location())
}

/// As many keys are remembered as the main queue has records.
fn ghost_age_max(arena: &Arena) -> u32 {
    arena.layout().segments as u32
}

/// What became of an item to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Yes,
    /// The present record of the key was read from a later snapshot, under the same token.
    Overtaken,
    /// The present record of the key was read at the same time: nobody knows which is the later one.
    Crossed,
    /// The present record of the key is valid and this one is not any more.
    Voided,
    /// Every compare-and-swap was lost to others.
    Lost,
}

/// Where an item may go.
enum Choice {
    /// Over the word seen there; whether a live neighbour is lost by it.
    At {
        at: usize,
        seen: u64,
        displaces: bool,
    },
    Overtaken,
    Crossed,
    Voided,
}

/// Puts `item`, whose record has `header`, into its bucket: over an item or ghost of the same key if there is one, else into
/// an empty or dead place, over the oldest ghost, or over the neighbour least used.
///
/// One compare-and-swap decides; when it is lost the search starts again, a few times.
pub fn publish(arena: &Arena, header: &RecordHeader, item: Item, metrics: &SlotMetrics) -> Published {
    let hash = arena.hash(header.key);
    let item = item.with_tag(tag(hash));
    for _ in 0..4 * BUCKET_ITEMS {
        let (at, seen, displaces) = match choose(arena, hash, header) {
            Choice::At { at, seen, displaces } => (at, seen, displaces),
            Choice::Overtaken => return Published::Overtaken,
            Choice::Crossed => return Published::Crossed,
            Choice::Voided => return Published::Voided,
        };
        // ORDERING: Release pairs with the Acquire of `places`.
        if arena.swap(at, seen, item.0, Ordering::Release).is_ok() {
            if displaces {
                metrics.count(Counter::CacheDisplaced);
            }
            // ORDERING: pairs with the same fence of another publisher: of two who found no item of the key, one at least sees the other's.
            atomic::fence(Ordering::SeqCst);
            return settle(arena, hash, header, item);
        }
    }
    Published::Lost
}

/// How much a place is worth that is taken for another record: the least is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Its own earlier record, or a ghost that is its own as far as the tag tells.
    Own,
    /// Empty, or of an earlier life.
    Free,
    /// The younger the more.
    Ghost(u32),
    Record(u8),
}

fn choose(arena: &Arena, hash: u64, header: &RecordHeader) -> Choice {
    let first = arena.layout().bucket_at(hash) + 8;
    let mut least: Option<(Worth, usize, u64)> = None;
    for n in 0..BUCKET_ITEMS {
        let at = first + n * 8;
        // ORDERING: as in `places`.
        let seen = arena.load(at, Ordering::Acquire);
        let worth = match weigh(arena, hash, header, seen) {
            Ok(worth) => worth,
            Err(choice) => return choice,
        };
        if least.is_none_or(|(least, ..)| worth < least) {
            least = Some((worth, at, seen));
        }
    }
    let (worth, at, seen) = least.expect("a bucket has places");
    match worth {
        Worth::Record(_) => displace(arena, first, at, seen),
        _ => Choice::At { at, seen, displaces: false },
    }
}

/// A place of a bucket that is full of records: a void one's, else the one at `at`, seen as `seen`, which was used least.
#[cold]
fn displace(arena: &Arena, first: usize, at: usize, seen: u64) -> Choice {
    let is_void = |place: &Place| {
        let header = segment::read_header(arena, place.item);
        header.is_none_or(|header| fence::token(arena, header.key.fence()) != header.token)
    };
    match places_at(arena, first).find(is_void) {
        Some(Place { at, item }) => Choice::At { at, seen: item.0, displaces: false },
        None => Choice::At { at, seen, displaces: true },
    }
}

/// What the word `seen` in the bucket of `hash` is worth against a record of `header`. Err: that is not to be published.
fn weigh(arena: &Arena, hash: u64, header: &RecordHeader, seen: u64) -> Result<Worth, Choice> {
    let item = Item(seen);
    if seen == 0 {
        return Ok(Worth::Free);
    }
    if item.is_ghost() {
        let is_own = item.tag() == tag(hash);
        return Ok(if is_own { Worth::Own } else { Worth::Ghost(u32::MAX - ghost_age(arena, item)) });
    }
    if item.tag() == tag(hash) {
        let is_own =
            |found: &RecordHeader| found.key == header.key && found.is_plausible(arena.layout().segment_size);
        if let Some(found) = segment::read_header(arena, item).filter(is_own) {
            if found.token == header.token {
                return match header.reading.against(&found.reading) {
                    Relation::Earlier => Err(Choice::Overtaken),
                    Relation::Unknown => Err(Choice::Crossed),
                    Relation::Later | Relation::Same => Ok(Worth::Own),
                };
            }
            if found.token == fence::token(arena, header.key.fence()) {
                return Err(Choice::Voided);
            }
            return Ok(Worth::Own);
        }
    }
    Ok(if segment::is_current(arena, item) { Worth::Record(item.uses()) } else { Worth::Free })
}

/// Takes out what publishers leave who found no item of the key at the same time: all but the latest, be it this one.
fn settle(arena: &Arena, hash: u64, header: &RecordHeader, published: Item) -> Published {
    let mut outcome = Published::Yes;
    for Place { item, .. } in matches(arena, hash).filter(|place| !place.item.is_of(published)) {
        let Some(found) = segment::read_header(arena, item).filter(|f| f.key == header.key) else { continue };
        match header.reading.against(&found.reading) {
            Relation::Later => {
                replace(arena, hash, item, None);
            }
            Relation::Earlier if found.token == header.token => {
                replace(arena, hash, published, None);
                outcome = Published::Overtaken;
            }
            // Whichever of the two somebody has seen: neither may be what is found later.
            Relation::Unknown if found.token == header.token => {
                replace(arena, hash, item, None);
                replace(arena, hash, published, None);
                outcome = Published::Crossed;
            }
            _ => {}
        }
    }
    outcome
}

/// Headers of all records in `hash`'s bucket.
pub fn headers(arena: &Arena, hash: u64) -> impl Iterator<Item = RecordHeader> + '_ {
    let items = places(arena, hash).map(|place| place.item).filter(|item| !item.is_ghost());
    items.filter_map(|item| segment::read_header(arena, item))
}

/// The place of `item`, as it is now.
pub fn place_of(arena: &Arena, hash: u64, item: Item) -> Option<Place> {
    matches(arena, hash).find(|place| place.item.is_of(item))
}

/// Puts another item, or nothing, in the place of `item` if it is still there, however often it is used meanwhile.
pub fn replace(arena: &Arena, hash: u64, item: Item, by: Option<Item>) -> bool {
    while let Some(place) = place_of(arena, hash, item) {
        let by = by.map_or(0, |by| by.with_tag(tag(hash)).0);
        // ORDERING: Release pairs with the Acquire of `places`: the bytes of a record that was moved are there.
        if arena.swap(place.at, place.item.0, by, Ordering::Release).is_ok() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_survive_packing() {
        for (tag, uses, generation, location) in
            [(0, 0, 1, 0), (0x3FFF, 3, u16::MAX, u32::MAX), (7, 1, 300, 12345)]
        {
            let item = Item::new(generation, location).with_uses(uses).with_tag(tag);
            assert_eq!(
                (item.tag(), item.uses(), item.generation(), item.location()),
                (tag, uses, generation, location)
            );
            assert_ne!(item.0, 0);
            assert!(item.is_of(item.with_tag(9).with_uses(2)) && !item.is_of(Item::new(generation, 77)));
        }
    }
}
