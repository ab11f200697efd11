//! The shared mapping with its layout: formatted fresh, or opened after its gates have been passed.
//! Runs in: master (format), worker (open).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::cache::layout::{self, abi_hash, header, Layout, MAGIC, SCHEMA_VERSION};
use crate::cache::record::Key;
use crate::os::mmap::SharedMemory;

/// A mapping nobody has looked at yet.
pub struct UncheckedArena(Arc<SharedMemory>);

/// A mapping whose header has passed the gates.
pub struct Arena {
    memory: Arc<SharedMemory>,
    layout: Layout,
    seed: u64,
}

/// Which gate refused a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    Size { found: usize, expected: usize },
    Magic,
    Schema(u64),
    Abi,
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
    /// Writes a fresh arena into zeroed memory of `Layout::new(cache_size_bytes, workers).size_bytes`.
    pub fn format(memory: Arc<SharedMemory>, cache_size_bytes: usize, workers: usize, seed: u64) -> Arena {
        let layout = Layout::new(cache_size_bytes, workers);
        assert_eq!(memory.size_bytes(), layout.size_bytes, "the memory was made for another layout");
        let set = |at: usize, value: u64| memory.word(at).store(value, Ordering::Relaxed);
        set(header::SCHEMA_VERSION, SCHEMA_VERSION);
        set(header::ABI_HASH, abi_hash());
        set(header::SIZE_BYTES, layout.size_bytes as u64);
        set(header::CACHE_SIZE_BYTES, cache_size_bytes as u64);
        set(header::WORKERS, workers as u64);
        set(header::SEED, seed);
        set(header::EPOCH, 1);
        for segment in 0..layout.segments {
            // Generations start at 1: an item word is never 0.
            set(layout.segment_header_at(segment) + layout::segment::GENERATION, 1);
        }
        // ORDERING: Release pairs with the Acquire of `UncheckedArena::open`: who sees the magic sees the rest.
        memory.word(header::MAGIC).store(MAGIC, Ordering::Release);
        Arena { memory, layout, seed }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub fn word(&self, offset_bytes: usize) -> &AtomicU64 {
        self.memory.word(offset_bytes)
    }

    #[inline]
    pub fn words(&self, offset_bytes: usize, count: usize) -> &[AtomicU64] {
        self.memory.words(offset_bytes, count)
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
            system_identifier: self.word(header::SYSTEM_IDENTIFIER).load(Ordering::Relaxed),
            timeline: self.word(header::TIMELINE).load(Ordering::Relaxed),
        }
    }

    /// Binds the arena to the database its records come from. Those of another one have been voided before.
    pub fn bind(&self, identity: DatabaseIdentity) {
        self.word(header::TIMELINE).store(identity.timeline, Ordering::Relaxed);
        self.word(header::SYSTEM_IDENTIFIER).store(identity.system_identifier, Ordering::Relaxed);
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
        if found < layout::slot::PANIC_TEXT + crate::limits::ARENA_HEADER_SIZE_BYTES {
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
        if cache > found as u64 * 2 || workers > crate::limits::WORKERS_MAX as u64 || workers == 0 {
            return Err(Gate::Size { found, expected: 0 });
        }
        let layout = Layout::new(cache as usize, workers as usize);
        if layout.size_bytes != found || get(header::SIZE_BYTES) != found as u64 {
            return Err(Gate::Size { found, expected: layout.size_bytes });
        }
        let seed = get(header::SEED);
        Ok(Arena { memory, layout, seed })
    }
}

/// Multiplies to 128 bits and folds: every input bit reaches every output bit.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xA076_1D64_78BD_642F) * u128::from(b ^ 0xE703_7ED1_A0B4_28DB);
    let folded = (product as u64) ^ ((product >> 64) as u64);
    let product = u128::from(folded ^ 0x8EBC_6AF0_9C88_C6E3) * 0x5899_65CC_7537_4CC3_u128;
    (product as u64) ^ ((product >> 64) as u64)
}
