//! The shared mapping with its layout: formatted fresh, or opened after its gates have been passed.
//! Runs in: master (format), worker (open).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::cache::layout::{abi_hash, header, slot, Layout, MAGIC, SCHEMA_VERSION};
use crate::cache::record::Key;
use crate::os::mmap::SharedMemory;

/// A mapping nobody has looked at yet.
pub struct UncheckedArena(Arc<SharedMemory>);

/// A mapping whose header has passed the gates.
pub struct Arena {
    memory: Arc<SharedMemory>,
    layout: Layout,
    seed: u64,
    adopted_ns: u64,
}

/// No cache is larger: what a header says is checked before anything is computed from it.
const CACHE_SIZE_MAX_BYTES: u64 = 1 << 46;

/// Which gate refused a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    Size {
        found: usize,
        expected: usize,
    },
    Magic,
    Schema(u64),
    Abi,
    /// Its header tells of a size or of workers that no arena has.
    Purpose,
    /// It is for another size or number of workers.
    Layout,
    /// Answers were made with other settings.
    Settings,
    /// It is filled from other database nodes.
    Nodes,
    /// Its watermark lies ahead of the clock: it is of another life of this machine.
    Clock,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gate::Size { found, expected } => {
                write!(f, "the size is {found} bytes, its layout needs {expected}")
            }
            Gate::Magic => write!(f, "the magic number is wrong: this is not an arena"),
            Gate::Schema(found) => {
                write!(f, "the schema version is {found}, this binary's is {SCHEMA_VERSION}")
            }
            Gate::Abi => write!(f, "the binary interface differs: another build wrote it"),
            Gate::Purpose => write!(f, "its header tells of a cache.size or of workers that can't be"),
            Gate::Layout => write!(f, "the layout differs: cache.size or workers was another one"),
            Gate::Settings => write!(f, "the settings differ that answers are made with"),
            Gate::Nodes => write!(f, "the database nodes differ"),
            Gate::Clock => write!(f, "its times lie ahead of the clock"),
        }
    }
}

impl std::error::Error for Gate {}

/// Which database records come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatabaseIdentity {
    pub system_identifier: u64,
    pub timeline: u64,
}

impl Arena {
    /// Writes a fresh arena into zeroed memory of the size that `purpose` has.
    pub fn format(memory: Arc<SharedMemory>, purpose: &Purpose, seed: u64) -> Arena {
        let layout = purpose.layout();
        assert_eq!(memory.size_bytes(), layout.size_bytes, "the memory was made for another layout");
        let set = |at: usize, value: u64| memory.word(at).store(value, Ordering::Relaxed);
        set(header::SCHEMA_VERSION, SCHEMA_VERSION);
        set(header::ABI_HASH, abi_hash());
        set(header::SIZE_BYTES, layout.size_bytes as u64);
        set(header::CACHE_SIZE_BYTES, purpose.cache_size_bytes as u64);
        set(header::WORKERS, purpose.workers as u64);
        set(header::SETTINGS, purpose.settings);
        set(header::NODES, purpose.nodes);
        set(header::SEED, seed);
        set(header::EPOCH, 1);
        for segment in 0..layout.segments {
            // Generations start at 1: an item word is never 0, and a generation of 0 says "not here any more".
            set(layout.generation_at(segment), 1);
        }
        // ORDERING: Release pairs with the Acquire of `UncheckedArena::open`: who sees the magic sees the rest.
        memory.word(header::MAGIC).store(MAGIC, Ordering::Release);
        Arena { memory, layout, seed, adopted_ns: 0 }
    }

    /// When the arena was last taken over from a server that was gone (CLOCK_BOOTTIME); 0: never.
    #[inline]
    pub fn adopted_ns(&self) -> u64 {
        self.adopted_ns
    }

    /// Fresh for each arena.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub fn load(&self, at: usize, order: Ordering) -> u64 {
        self.memory.word(at).load(order)
    }

    /// Words to be read, one by one.
    #[inline]
    pub fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        self.memory.words(at, count)
    }

    /// Stores a word. With [`Arena::swap`], [`Arena::add`] and [`Arena::write`] the only way to change the arena while others use it:
    /// each call is a point at which a process may die, and tests let it die at every one.
    pub fn store(&self, at: usize, value: u64, order: Ordering) {
        crash_point();
        self.memory.word(at).store(value, order);
    }

    /// Puts `new` in the place of `seen`, or tells what is there instead.
    pub fn swap(&self, at: usize, seen: u64, new: u64, order: Ordering) -> Result<(), u64> {
        crash_point();
        let done = self.memory.word(at).compare_exchange(seen, new, order, Ordering::Relaxed);
        done.map(|_| ())
    }

    /// Adds to a word, and returns what was there.
    pub fn add(&self, at: usize, n: u64, order: Ordering) -> u64 {
        crash_point();
        self.memory.word(at).fetch_add(n, order)
    }

    /// Stores words one behind the other, Relaxed: nobody may find them yet.
    pub fn write(&self, at: usize, values: impl ExactSizeIterator<Item = u64>) {
        crash_point();
        let half = values.len() / 2;
        for (n, (word, value)) in self.memory.words(at, values.len()).iter().zip(values).enumerate() {
            if n == half {
                crash_point();
            }
            word.store(value, Ordering::Relaxed);
        }
    }

    pub fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }

    /// Hash of `key`, under this arena's seed.
    #[inline]
    pub fn hash(&self, key: Key) -> u64 {
        mix(
            key.id as u64 ^ self.seed,
            (u64::from(key.variant) << 8 | key.kind as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
                ^ self.seed.rotate_left(32),
        )
    }

    pub fn database(&self) -> DatabaseIdentity {
        DatabaseIdentity {
            system_identifier: self.load(header::SYSTEM_IDENTIFIER, Ordering::Relaxed),
            timeline: self.load(header::TIMELINE, Ordering::Relaxed),
        }
    }

    /// Binds the arena to the database its records come from. Those of another one have been voided before.
    pub fn bind(&self, identity: DatabaseIdentity) {
        self.store(header::TIMELINE, identity.timeline, Ordering::Relaxed);
        self.store(header::SYSTEM_IDENTIFIER, identity.system_identifier, Ordering::Relaxed);
    }
}

/// What an arena must be for, to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    pub cache_size_bytes: usize,
    pub workers: usize,
    /// The settings that answers are made with, as one number.
    pub settings: u64,
    /// Addresses of the database nodes, as one number.
    pub nodes: u64,
}

impl Purpose {
    pub fn layout(&self) -> Layout {
        Layout::new(self.cache_size_bytes, self.workers)
    }
}

impl UncheckedArena {
    pub fn new(memory: Arc<SharedMemory>) -> UncheckedArena {
        UncheckedArena(memory)
    }

    /// Passes the gates in order: size, magic, schema, binary interface.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn open(self) -> Result<Arena, Gate> {
        let memory = self.0;
        let found = memory.size_bytes();
        if found < slot::PANIC_TEXT + crate::limits::ARENA_HEADER_SIZE_BYTES {
            return Err(Gate::Size { found, expected: crate::limits::ARENA_HEADER_SIZE_BYTES });
        }
        let get = |at: usize| memory.word(at).load(Ordering::Relaxed);
        // ORDERING: Acquire pairs with the Release of `Arena::format`.
        if memory.word(header::MAGIC).load(Ordering::Acquire) != MAGIC {
            return Err(Gate::Magic);
        }
        if get(header::SCHEMA_VERSION) != SCHEMA_VERSION {
            return Err(Gate::Schema(get(header::SCHEMA_VERSION)));
        }
        if get(header::ABI_HASH) != abi_hash() {
            return Err(Gate::Abi);
        }
        // Hostile numbers must not overflow the arithmetic: anything beyond the mapping is refused first.
        let (cache, workers) = (get(header::CACHE_SIZE_BYTES), get(header::WORKERS));
        if cache > CACHE_SIZE_MAX_BYTES || workers > crate::limits::WORKERS_MAX as u64 || workers == 0 {
            return Err(Gate::Purpose);
        }
        let layout = Layout::new(cache as usize, workers as usize);
        if layout.size_bytes != found || get(header::SIZE_BYTES) != found as u64 {
            return Err(Gate::Size { found, expected: layout.size_bytes });
        }
        let (seed, adopted_ns) = (get(header::SEED), get(header::ADOPTED_NS));
        Ok(Arena { memory, layout, seed, adopted_ns })
    }

    /// Takes an arena over from a master that is gone with all its children, at `now_ns` (CLOCK_BOOTTIME): all gates are passed.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn adopt(self, purpose: &Purpose, now_ns: u64) -> Result<Arena, Gate> {
        let mut arena = self.open_for(purpose)?;
        let get = |at: usize| arena.load(at, Ordering::Relaxed);
        let watermark_ns = get(header::WATERMARK_NS);
        if watermark_ns > now_ns {
            return Err(Gate::Clock);
        }
        let set = |at: usize, value: u64| arena.memory.word(at).store(value, Ordering::Relaxed);
        // What it says of freshness was said of the database that its server followed: this one's feed has to say it again. Where no
        // database can be asked, it counts for as long as such answers may be stale, if it was the same one.
        let is_same = get(header::NODES) == purpose.nodes;
        set(header::LEFT_NS, if is_same { watermark_ns.max(get(header::LEFT_NS)) } else { 0 });
        set(header::NODES, purpose.nodes);
        set(header::WATERMARK_NS, 0);
        set(header::FOLLOWED_NS, 0);
        set(header::APPLIED, 0);
        set(header::CHECKED_NS, 0);
        set(header::ADOPTED_NS, now_ns);
        arena.adopted_ns = now_ns;
        Ok(arena)
    }

    /// Uses an arena together with the master that this one is to succeed: what it says holds.
    ///
    /// # Errors
    /// The first gate that refuses.
    pub fn join(self, purpose: &Purpose) -> Result<Arena, Gate> {
        let arena = self.open_for(purpose)?;
        // Two masters that fill it from two databases would serve each other's.
        match arena.load(header::NODES, Ordering::Relaxed) == purpose.nodes {
            true => Ok(arena),
            false => Err(Gate::Nodes),
        }
    }

    fn open_for(self, purpose: &Purpose) -> Result<Arena, Gate> {
        let arena = self.open()?;
        if arena.layout != purpose.layout() {
            return Err(Gate::Layout);
        }
        match arena.load(header::SETTINGS, Ordering::Relaxed) == purpose.settings {
            true => Ok(arena),
            false => Err(Gate::Settings),
        }
    }
}

/// Where a process may die: nothing, but in the tests that let it.
#[inline]
fn crash_point() {
    #[cfg(test)]
    super::tests::crash::reach();
}

/// Multiplies to 128 bits and folds: every input bit reaches every output bit.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xA076_1D64_78BD_642F) * u128::from(b ^ 0xE703_7ED1_A0B4_28DB);
    let folded = (product as u64) ^ ((product >> 64) as u64);
    let product = u128::from(folded ^ 0x8EBC_6AF0_9C88_C6E3) * 0x5899_65CC_7537_4CC3_u128;
    (product as u64) ^ ((product >> 64) as u64)
}
