//! The hot-product cache that all workers share: get, fill, forget. Read README.md first.
//! Runs in: worker. No lock and no system call on `get`.

pub mod arena;
pub mod evict;
pub mod fence;
pub mod index;
pub mod layout;
pub mod record;
pub mod segment;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use arena::Arena;
pub use fence::Token;
pub use record::{Encoding, Key, Kind, Record, RecordHeader};

use crate::limits::RECORD_SIZE_MAX_BYTES;
use crate::metrics::{Counter, SlotMetrics};
use index::{Item, Published};
use segment::Appender;

/// Repeats of a lookup that was overtaken by recycling; after them it is a miss.
const RETRIES_MAX: usize = 3;

/// Ages beyond which a record is no longer served, in ns.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub found_ns: u64,
    pub missing_ns: u64,
    /// What is granted beyond either while no database can be reached.
    pub stale_ns: u64,
}

/// Ages as configured.
pub fn cache_ages(found: Duration, missing: Duration, stale: Duration) -> Ages {
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    Ages { found_ns: ns(found), missing_ns: ns(missing), stale_ns: ns(stale) }
}

/// One worker's access to the shared cache.
pub struct Cache {
    arena: Arc<Arena>,
    metrics: SlotMetrics,
    ages: Ages,
    /// Where this worker appends. In-process only: fills run on few coroutines, gets never come here.
    appender: Mutex<Appender>,
}

/// What a lookup found.
pub enum Lookup {
    Hit(Hit),
    /// Nothing fit to serve; a fill must carry this token, taken before its SELECT.
    Miss(Token),
}

/// A valid record, its header copied out. The body is copied when asked for, and checked again.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    pub header: RecordHeader,
    item: Item,
}

/// What became of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    Published,
    /// The key was voided since the token was taken.
    Voided,
    /// The present record was read from the database later.
    Overtaken,
    TooLarge,
    /// No segment or no place in the index could be had, or the cache is off.
    Refused,
}

impl Cache {
    /// Access for the worker in `slot`, whose epoch is `epoch`.
    pub fn new(arena: Arc<Arena>, slot: usize, epoch: u32, ages: Ages, metrics: SlotMetrics) -> Cache {
        Cache { arena, metrics, ages, appender: Mutex::new(Appender::new(slot, epoch)) }
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
        let token = self.token(key);
        if !self.is_on() {
            return Lookup::Miss(token);
        }
        for _ in 0..RETRIES_MAX {
            match self.find(key, token, now_ns, 0) {
                Found::Hit(hit) => return Lookup::Hit(hit),
                Found::Nothing => return Lookup::Miss(token),
                Found::Overtaken => self.metrics.count(Counter::CacheRetries),
            }
        }
        Lookup::Miss(token)
    }

    /// Looks up a value that nobody has voided, past its age by at most what is granted while no database can be
    /// reached.
    pub fn get_stale(&self, key: Key, now_ns: u64) -> Option<Hit> {
        if !self.is_on() || self.ages.stale_ns == 0 {
            return None;
        }
        match self.find(key, self.token(key), now_ns, self.ages.stale_ns) {
            Found::Hit(hit) => Some(hit),
            Found::Nothing | Found::Overtaken => None,
        }
    }

    fn find(&self, key: Key, token: Token, now_ns: u64, grace_ns: u64) -> Found {
        let hash = self.arena.hash(key);
        let mut overtaken = false;
        for item in index::matches(&self.arena, hash) {
            match self.inspect(item, key, token, now_ns.saturating_sub(grace_ns)) {
                Inspected::Valid(header) => return Found::Hit(Hit { header, item }),
                Inspected::Other => {}
                Inspected::Overtaken => overtaken = true,
            }
        }
        if overtaken {
            Found::Overtaken
        } else {
            Found::Nothing
        }
    }

    fn inspect(&self, item: Item, key: Key, token: Token, now_ns: u64) -> Inspected {
        let Some(header) = segment::read_header(&self.arena, item) else { return Inspected::Overtaken };
        if header.key != key || !header.is_plausible(self.arena.layout().segment_size) {
            return Inspected::Other;
        }
        let age_max = if header.status == 404 { self.ages.missing_ns } else { self.ages.found_ns };
        // A record born after the request came in is as fresh as can be.
        let age = now_ns.saturating_sub(header.born_ns);
        if header.token != token || age > age_max {
            return Inspected::Other;
        }
        Inspected::Valid(header)
    }

    /// Appends the hit's body to `out`. False, with `out` as before, when the record was recycled meanwhile.
    pub fn copy_body(&self, hit: &Hit, encoding: Encoding, out: &mut Vec<u8>) -> bool {
        let (offset, len) = hit.header.body(encoding);
        segment::copy_out(&self.arena, hit.item, offset, len, out)
    }

    /// The whole record, copied out and checked, for whoever wants its typed fields.
    pub fn read_record(&self, hit: &Hit) -> Option<Record> {
        let mut bytes = Vec::new();
        let len = hit.header.len_bytes as usize;
        segment::copy_out(&self.arena, hit.item, 0, len, &mut bytes).then(|| Record::open(&bytes)).flatten()
    }

    /// Publishes `record` if its token is still the present one.
    pub fn fill(&self, record: &Record) -> Filled {
        let filled = self.try_fill(record);
        self.metrics.count(match filled {
            Filled::Published => Counter::CacheFills,
            Filled::Voided | Filled::Overtaken => Counter::CacheFillsVoided,
            Filled::TooLarge => Counter::CacheFillsTooLarge,
            Filled::Refused => Counter::CacheFillsRefused,
        });
        filled
    }

    fn try_fill(&self, record: &Record) -> Filled {
        let header = record.header();
        if !self.is_on() {
            return Filled::Refused;
        }
        if record.words().len() * 8 > RECORD_SIZE_MAX_BYTES {
            return Filled::TooLarge;
        }
        if self.token(header.key) != header.token {
            return Filled::Voided;
        }
        let mut appender = self.appender.lock();
        let Some(item) = appender.append(&self.arena, record, &self.metrics) else { return Filled::Refused };
        drop(appender);
        match index::publish(&self.arena, header, item, &self.metrics) {
            Published::Yes => Filled::Published,
            Published::Overtaken => Filled::Overtaken,
            Published::Lost => Filled::Refused,
        }
    }

    /// Voids every record under `key`'s fence, and every fill of it that is under way.
    pub fn forget(&self, key: Key) {
        fence::raise(&self.arena, key.fence());
    }

    /// Binds the arena to the database that fills come from. Records of another one, or of another timeline of it,
    /// are voided.
    pub fn bind(&self, identity: arena::DatabaseIdentity) {
        let before = self.arena.bind(identity);
        if before != identity && before != arena::DatabaseIdentity::default() {
            log::warn!(
                "the database is another one than before ({before:?}, now {identity:?}): the cache is voided"
            );
            self.forget_all();
        }
    }

    /// Voids everything.
    pub fn forget_all(&self) {
        fence::raise_epoch(&self.arena);
    }
}

enum Found {
    Hit(Hit),
    Nothing,
    Overtaken,
}

enum Inspected {
    Valid(RecordHeader),
    Other,
    Overtaken,
}

#[cfg(test)]
mod tests;
