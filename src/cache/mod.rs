//! The hot-product cache that all workers share: get, fill, forget. Read README.md first.
//! Runs in: worker. No lock and no system call on `get`.

pub mod arena;
pub mod census;
pub mod evict;
pub mod fence;
pub mod floor;
pub mod index;
pub mod layout;
pub mod lease;
pub mod reading;
pub mod record;
pub mod segment;
mod touch;
pub mod verify;
pub mod watermark;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use arena::Arena;
pub use fence::Token;
use reading::Relation;
pub use reading::{Order, Reading};
use record::PackedHeader;
pub use record::{Encoding, Key, Kind, Record, RecordHeader};

use crate::metrics::{Counter, SlotMetrics};
use evict::Appender;
use index::{Item, Place, Published, Standing};
use lease::{Asked, Lease};
use segment::{Owner, Queue};
use touch::FirstTouch;

/// Repeats of a lookup that was overtaken by recycling; after them it is a miss.
const RETRIES_MAX: usize = 3;

/// Ages beyond which a record is no longer served, in ns.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub found_ns: u64,
    pub missing_ns: u64,
    /// Age of the watermark beyond which no record is trusted.
    pub watermark_ns: u64,
    /// What is granted beyond all three while no database can be reached.
    pub stale_ns: u64,
}

/// A duration in ns, as long as can be.
pub fn to_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One worker's access to the shared cache.
pub struct Cache {
    arena: Arc<Arena>,
    metrics: SlotMetrics,
    ages: Ages,
    /// Where this worker appends. In-process only: fills run on few coroutines, gets never come here.
    appender: Mutex<Appender>,
    /// Whose segments and leases these are.
    owner: Owner,
    first_touch: FirstTouch,
}

/// What a lookup found.
pub enum Lookup {
    Hit(Hit),
    /// Nothing fit to serve.
    Miss,
    /// The watermark is too old: what is there is not looked at.
    Untrusted,
}

/// A valid record, its header copied out. The body is copied when asked for, and checked again.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    packed: PackedHeader,
    item: Item,
}

impl Hit {
    #[inline]
    pub fn header(&self) -> RecordHeader {
        self.packed.unpack()
    }
}

/// What became of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    Published,
    /// The key was voided since the token was taken.
    Voided,
    /// The present record was read from a later snapshot.
    Overtaken,
    /// Nobody knows whether the present record was read from a later snapshot: this value must not be shown.
    Crossed,
    TooLarge,
    /// No segment or no place in the index could be had, or the cache is off.
    Refused,
}

impl Cache {
    /// Access for the worker in `slot`, whose epoch is `epoch`.
    pub fn new(arena: Arc<Arena>, slot: usize, epoch: u32, ages: Ages, metrics: SlotMetrics) -> Cache {
        let slot = u16::try_from(slot).expect("slots are fewer than 65536");
        let owner = Owner { slot, epoch };
        let appender = Mutex::new(Appender::new(owner, metrics.clone()));
        let first_touch = FirstTouch::new(&arena);
        Cache { arena, metrics, ages, appender, owner, first_touch }
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Whether there is a cache at all (`--cache-size 0` turns it off).
    pub fn is_on(&self) -> bool {
        self.arena.layout().segments > 0
    }

    /// The present token of `key`: take it before the SELECT is sent.
    pub fn token(&self, key: Key) -> Token {
        fence::token(&self.arena, key.fence())
    }

    /// Looks `key` up. `now_ns` is CLOCK_BOOTTIME after the request was received.
    pub fn get(&self, key: Key, now_ns: u64) -> Lookup {
        // The watermark first: it says which changes the fence loaded after it has seen.
        let trusted = self.is_trusted(now_ns);
        if !self.is_on() || !key.fits() {
            return Lookup::Miss;
        }
        if !trusted {
            return Lookup::Untrusted;
        }
        for _ in 0..RETRIES_MAX {
            match self.find(key, now_ns, 0) {
                Found::Hit(hit, place) => {
                    index::touch(&self.arena, place);
                    return Lookup::Hit(hit);
                }
                Found::Nothing => return Lookup::Miss,
                Found::Overtaken => {
                    self.metrics.count(Counter::CacheRetries);
                }
            }
        }
        Lookup::Miss
    }

    /// Whether every change committed until `now_ns`, less the bound, is applied to the fences.
    #[inline]
    pub fn is_trusted(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(watermark::watermark_ns(&self.arena)) <= self.ages.watermark_ns
    }

    /// Whether what was read at `born_ns` is within the bound for a request of `now_ns`, whatever was committed since.
    pub fn is_recent(&self, born_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(born_ns) <= self.ages.watermark_ns
    }

    /// Looks up a value that nobody has voided, past age and watermark by at most what is granted while no database can
    /// be reached.
    pub fn get_stale(&self, key: Key, now_ns: u64) -> Option<Hit> {
        let is_looked_for = self.is_on() && key.fits() && self.ages.stale_ns > 0;
        let age_ns = now_ns.saturating_sub(watermark::left_ns(&self.arena));
        if !is_looked_for || age_ns > self.ages.watermark_ns.saturating_add(self.ages.stale_ns) {
            return None;
        }
        match self.find(key, now_ns, self.ages.stale_ns) {
            Found::Hit(hit, _) => Some(hit),
            Found::Nothing | Found::Overtaken => None,
        }
    }

    /// Looks up a value while nobody takes writes: one of which the node that is followed knows no change, whatever others know.
    pub fn get_followed(&self, key: Key, now_ns: u64) -> Option<Hit> {
        let age_ns = now_ns.saturating_sub(watermark::followed_ns(&self.arena));
        let is_looked_for = self.is_on() && key.fits() && age_ns <= self.ages.watermark_ns;
        match is_looked_for.then(|| self.find(key, now_ns, 0))? {
            Found::Hit(hit, _) => Some(hit),
            Found::Nothing | Found::Overtaken => None,
        }
    }

    /// The record of `key` under the present token, if it is not older than its bound and `grace_ns`.
    #[inline(always)]
    fn find(&self, key: Key, now_ns: u64, grace_ns: u64) -> Found {
        let hash = self.arena.hash(key);
        let fence = key.fence();
        let token =
            fence::token_of_hash(&self.arena, if fence == key { hash } else { self.arena.hash(fence) });
        let mut latest: Option<(Place, PackedHeader)> = None;
        for place in index::matches(&self.arena, hash) {
            let Some(found) = segment::read_packed(&self.arena, place.item) else {
                // Its segment has another life: whoever drained it has taken the item out, or it is dead for good. It may have
                // been the latest: looked up once more.
                index::replace(&self.arena, hash, place.item, None);
                return Found::Overtaken;
            };
            if found.is_of(key) && found.token() == token {
                // Two publishers at the same time may both have found a place: the later snapshot's record is the one.
                latest = match latest {
                    Some(other) => self.take_later(hash, other, (place, found)),
                    None => Some((place, found)),
                };
            }
        }
        let Some((place, found)) = latest else { return Found::Nothing };
        match self.is_fit(hash, place, &found, now_ns.saturating_sub(grace_ns)) {
            true => Found::Hit(Hit { packed: found, item: place.item }, place),
            false => Found::Nothing,
        }
    }

    /// The later of two records of a key. The other one goes: when this one is evicted, nobody must find it in its place. Where nobody
    /// knows which is the later one, both go.
    #[cold]
    fn take_later(
        &self,
        hash: u64,
        one: (Place, PackedHeader),
        other: (Place, PackedHeader),
    ) -> Option<(Place, PackedHeader)> {
        let relation = one.1.reading().against(&other.1.reading());
        let (later, earlier) = if relation == Relation::Later { (one, other) } else { (other, one) };
        index::replace(&self.arena, hash, earlier.0.item, None);
        if relation == Relation::Unknown {
            index::replace(&self.arena, hash, later.0.item, None);
            return None;
        }
        Some(later)
    }

    #[inline(always)]
    fn is_fit(&self, hash: u64, place: Place, found: &PackedHeader, now_ns: u64) -> bool {
        let age_max = if found.is_missing() { self.ages.missing_ns } else { self.ages.found_ns };
        let holds = found.is_plausible(self.arena.layout().segment_size)
            && self.first_touch.holds(&self.arena, place, found, now_ns);
        if !holds {
            self.metrics.count(Counter::CacheDamaged);
            index::replace(&self.arena, hash, place.item, None);
        }
        holds && found.reading().age_ns(now_ns) <= age_max
    }

    /// Appends the hit's body to `out`. False, with `out` as before, when the record was recycled meanwhile.
    pub fn copy_body(&self, hit: &Hit, encoding: Encoding, out: &mut Vec<u8>) -> bool {
        let (offset, len) = hit.header().body(encoding);
        segment::copy_out(&self.arena, hit.item, offset, len, out)
    }

    /// Appends the hit's head lines to `out`. False, with `out` as before, when the record was recycled meanwhile.
    pub fn copy_head(&self, hit: &Hit, out: &mut Vec<u8>) -> bool {
        let (offset, len) = hit.header().head();
        segment::copy_out(&self.arena, hit.item, offset, len, out)
    }

    /// The whole record, copied out and checked, for whoever wants its typed fields.
    pub fn read_record(&self, hit: &Hit) -> Option<Record> {
        let mut bytes = Vec::new();
        let len = hit.header().len_bytes as usize;
        segment::copy_out(&self.arena, hit.item, 0, len, &mut bytes).then(|| Record::open(&bytes)).flatten()
    }

    /// Asks to be the one who fills `key`, over all workers, for a fetch under `token`.
    pub fn ask_lease(&self, key: Key, token: Token, now_ns: u64) -> Asked {
        match self.is_on() {
            true => lease::ask(&self.arena, key, token, self.owner, now_ns),
            false => Asked::OpenToAll,
        }
    }

    /// Ends a lease; `kept`: what was fetched is there for all.
    pub fn end_lease(&self, lease: Lease, kept: bool, now_ns: u64) {
        lease::end(&self.arena, lease, kept, now_ns);
    }

    /// Publishes `record` if its token is still the present one.
    pub fn fill(&self, record: &Record) -> Filled {
        let filled = self.try_fill(record);
        let key = record.header().key;
        // Whoever has seen this value must not be served an older one afterwards. A refusal is rare; a value too large is not,
        // and its fence may be that of all lists.
        let is_lost = match filled {
            Filled::Refused => self.is_on(),
            Filled::TooLarge => self.is_present(key),
            _ => false,
        };
        if is_lost {
            self.forget(key);
        }
        self.metrics.count(match filled {
            Filled::Published => Counter::CacheFills,
            Filled::Voided | Filled::Overtaken | Filled::Crossed => Counter::CacheFillsVoided,
            Filled::TooLarge => Counter::CacheFillsTooLarge,
            Filled::Refused => Counter::CacheFillsRefused,
        });
        filled
    }

    /// Whether the index holds a record of `key` that nobody has voided.
    pub fn is_present(&self, key: Key) -> bool {
        let present = self.token(key);
        let mut headers = index::headers(&self.arena, self.arena.hash(key));
        headers.any(|found| found.key == key && found.token == present)
    }

    fn try_fill(&self, record: &Record) -> Filled {
        let header = record.header();
        if !self.is_on() {
            return Filled::Refused;
        }
        let Some(words) = record.words() else { return Filled::TooLarge };
        if self.token(header.key) != header.token {
            return Filled::Voided;
        }
        let (queue, uses) = match index::standing(&self.arena, header.key) {
            Standing::Unknown => (Queue::Small, 0),
            Standing::Evicted => (Queue::Main, 0),
            Standing::Present(queue, uses) => (queue, uses),
        };
        // Held until the item is published: once it is let go, another fill may seal the segment, and another worker drain it.
        let mut appender = self.appender.lock();
        let Some(item) = appender.append(&self.arena, words, queue) else { return Filled::Refused };
        match index::publish(&self.arena, header, item.with_uses(uses), &self.metrics) {
            Published::Yes => Filled::Published,
            Published::Overtaken => Filled::Overtaken,
            Published::Crossed => Filled::Crossed,
            Published::Voided => Filled::Voided,
            Published::Lost => Filled::Refused,
        }
    }

    /// Voids every record under `key`'s fence, and every fill of it that is under way.
    pub fn forget(&self, key: Key) {
        fence::raise(&self.arena, key.fence(), &self.metrics);
    }

    /// Voids everything.
    pub fn forget_all(&self, reason: watermark::Reason) {
        self.metrics.count(Counter::CacheVoidedAll);
        watermark::void_everything(&self.arena, reason);
    }
}

enum Found {
    Hit(Hit, Place),
    Nothing,
    Overtaken,
}

#[cfg(test)]
mod tests;
