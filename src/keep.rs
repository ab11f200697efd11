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
use crate::limits::ORPHANS_WAIT_MAX;
use crate::os::mmap::{Hold, SharedMemory};
use crate::os::{clock, passing};
use crate::runtime_directory::RuntimeDirectory;
use crate::slots::Slots;

/// Name of the memory in the store, and of the file.
const NAME: &str = "arena";
/// The arena, and this server's hold on its memory.
pub struct Kept {
    pub arena: Arc<Arena>,
    pub slots: Slots,
    pub hold: Hold,
}

/// Where memory is kept for the next server.
enum Place<'a> {
    /// The service manager's store.
    Store,
    File(&'a RuntimeDirectory),
    Nowhere,
}

impl<'a> Place<'a> {
    /// A service manager that keeps descriptors keeps this one; a file is for who has none.
    fn choose(directory: Option<&'a RuntimeDirectory>) -> Place<'a> {
        match directory {
            _ if passing::may_store() => Place::Store,
            Some(directory) if directory.is_in_memory() => Place::File(directory),
            _ => Place::Nowhere,
        }
    }

    /// What the server before this one has left.
    fn take(&self) -> Option<nix::Result<SharedMemory>> {
        match self {
            Place::Store => {
                let mut born_with = passing::inherited().into_iter();
                born_with.find(|(name, _)| name == NAME).map(|(_, fd)| SharedMemory::open(fd))
            }
            Place::File(directory) => {
                let path = directory.file(NAME);
                path.exists().then(|| SharedMemory::open_file(&path))
            }
            Place::Nowhere => None,
        }
    }

    /// Gives up what was left there: its memory is free before more is asked for.
    fn forget(&self) {
        match self {
            Place::Store => report(passing::unstore(NAME)),
            Place::File(directory) => drop(std::fs::remove_file(directory.file(NAME))),
            Place::Nowhere => {}
        }
    }

    fn create(&self, size_bytes: usize) -> nix::Result<SharedMemory> {
        let anonymous = || SharedMemory::create("catwalk-arena", size_bytes);
        match self {
            Place::File(directory) => SharedMemory::create_file(&directory.file(NAME), size_bytes).or_else(|e| {
                let (mib, path) = (size_bytes >> 20, directory.path().display());
                log::warn!("cache: a file of {mib} MiB in {path} can't be made ({e}): it won't outlive this server");
                anonymous()
            }),
            Place::Store => {
                let memory = anonymous()?;
                report(passing::store(NAME, memory.fd().as_fd()));
                Ok(memory)
            }
            Place::Nowhere => anonymous(),
        }
    }
}

/// The arena of the server before this one, or a fresh one, kept for the next. `seed`: for a fresh one's hashes.
///
/// # Errors
/// Too little memory, and what to do.
pub fn obtain(purpose: &Purpose, directory: Option<&RuntimeDirectory>, seed: u64) -> Result<Kept> {
    let place = Place::choose(directory);
    if let Some(memory) = place.take() {
        match memory.map_err(why_unmapped).and_then(|memory| adopt(memory, purpose)) {
            Ok(kept) => return Ok(kept),
            Err(why) => {
                log::warn!("cache: what was kept of the server before is not used: {why}; it starts empty");
                place.forget();
            }
        }
    }
    fresh(purpose, &place, seed)
}

fn why_unmapped(e: nix::Error) -> String {
    match e {
        nix::Error::EPERM => "it could be shortened or written to by somebody else".into(),
        nix::Error::EINVAL => "it is no shared memory".into(),
        e => format!("mapping it failed: {e}"),
    }
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
        if hold.is_some() || start.elapsed() > ORPHANS_WAIT_MAX {
            return Ok(hold);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn fresh(purpose: &Purpose, place: &Place<'_>, seed: u64) -> Result<Kept> {
    let layout = purpose.layout();
    let memory = place.create(layout.size_bytes).with_context(|| {
        let mib = layout.size_bytes >> 20;
        format!("allocating {mib} MiB of shared memory for the cache; set cache.size to less")
    })?;
    let memory = Arc::new(memory);
    let hold = memory.hold().context("locking the cache's memory")?;
    let hold = hold.context("somebody has locked the cache's memory before it was made known")?;
    let slots = Slots::new(memory.clone(), layout);
    Ok(Kept { arena: Arc::new(Arena::format(memory, purpose, seed)), slots, hold })
}
