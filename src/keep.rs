//! Where the cache's memory comes from and how it outlives its server: systemd's descriptor store, a file, or neither.
//! Runs in: master, before anything is forked.
//!
//! ```text
//! started ──► in the store? ──► in a file? ──► adopt: in use? size, magic, schema, interface, layout, settings, clock ──► served from
//!                 └──────────────┴─ no, or a gate refuses: fresh memory, and one line that says which        once the feed has
//!                                                                                                            caught up
//! ```
//! The database's identity is the last gate; the change feed minds it, and voids what another database's are.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cache::arena::{Gate, Purpose, UncheckedArena};
use crate::cache::Arena;
use crate::os::mmap::{Hold, SharedMemory};
use crate::os::{clock, passing};
use crate::runtime_directory::RuntimeDirectory;
use crate::slots::Slots;

/// Name of the memory in the store, and of the file.
const NAME: &str = "arena";
/// Longest wait for processes of a server that is gone to let go of its memory.
const ORPHANS_MAX: Duration = Duration::from_secs(2);

/// The arena, and this server's hold on its memory.
pub struct Kept {
    pub arena: Arc<Arena>,
    pub slots: Slots,
    pub hold: Hold,
}

/// The arena of the server before this one, or a fresh one, kept for the next. `seed`: for a fresh one's hashes.
///
/// # Errors
/// Too little memory, and what to do.
pub fn obtain(purpose: &Purpose, directory: Option<&RuntimeDirectory>, seed: u64) -> Result<Kept> {
    let stored = passing::inherited().into_iter().find(|(name, _)| name == NAME).map(|(_, fd)| fd);
    let was_stored = stored.is_some();
    // A service manager that keeps descriptors keeps this one; a file is for who has none.
    let directory = directory.filter(|d| !passing::has_manager() && d.is_in_memory());
    let earlier = match (stored, directory) {
        (Some(fd), _) => Some(SharedMemory::open(fd)),
        (None, Some(directory)) => {
            let path = directory.file(NAME);
            path.exists().then(|| SharedMemory::open_file(&path))
        }
        (None, None) => None,
    };
    if let Some(memory) = earlier {
        match memory.map_err(|e| format!("mapping it failed: {e}")).and_then(|m| adopt(m, purpose)) {
            Ok(kept) => return Ok(kept),
            Err(why) => {
                log::warn!("cache: what was kept of the server before is not used: {why}; it starts empty")
            }
        }
    }
    let kept = fresh(purpose, directory, seed)?;
    if was_stored {
        report(passing::unstore(NAME));
    }
    report(passing::store(NAME, kept.arena.memory().fd().as_fd()));
    Ok(kept)
}

fn report(told: nix::Result<bool>) {
    if let Err(e) = told {
        log::warn!("cache: the service manager can't be told to keep it over a restart: {e}");
    }
}

fn adopt(memory: SharedMemory, purpose: &Purpose) -> Result<Kept, String> {
    let memory = Arc::new(memory);
    let hold = wait_for_hold(&memory).map_err(|e| format!("locking it failed: {e}"))?;
    let hold = hold.ok_or("processes of that server still use it")?;
    let mib = memory.size_bytes() >> 20;
    let arena = UncheckedArena::new(memory)
        .adopt(purpose, clock::boottime_ns())
        .map_err(|gate: Gate| gate.to_string())?;
    let slots = Slots::new(arena.memory().clone(), *arena.layout());
    // Nobody lives in them: the hold says so.
    slots.end_all_lives();
    log::info!("cache: {mib} MiB of the server before are gone on with, once the change feed has caught up");
    Ok(Kept { arena: Arc::new(arena), slots, hold })
}

/// The hold on memory that others may be about to let go of.
fn wait_for_hold(memory: &SharedMemory) -> std::io::Result<Option<Hold>> {
    let start = Instant::now();
    loop {
        let hold = memory.hold()?;
        if hold.is_some() || start.elapsed() > ORPHANS_MAX {
            return Ok(hold);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn fresh(purpose: &Purpose, directory: Option<&RuntimeDirectory>, seed: u64) -> Result<Kept> {
    let layout = purpose.layout();
    let made = match directory {
        Some(directory) => SharedMemory::create_file(&directory.file(NAME), layout.size_bytes),
        None => SharedMemory::create("catwalk-arena", layout.size_bytes),
    };
    let memory = made.with_context(|| {
        let mib = layout.size_bytes >> 20;
        let place = directory.map_or(String::new(), |d| format!(" in {}", d.path().display()));
        format!("allocating {mib} MiB of shared memory{place} for the cache; set cache.size to less")
    })?;
    let memory = Arc::new(memory);
    let hold = memory.hold().context("locking the cache's memory")?;
    let hold = hold.context("somebody has locked the cache's memory before it was made known")?;
    let slots = Slots::new(memory.clone(), layout);
    Ok(Kept { arena: Arc::new(Arena::format(memory, purpose, seed)), slots, hold })
}
