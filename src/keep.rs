//! Where the cache's memory comes from and how it outlives its server: systemd's descriptor store, a file, or neither.
//! Runs in: master, before anything is forked.
//!
//! ```text
//! started ──► in the store? ──► in a file? ──► adopt: in use? size, magic, schema, interface, layout, settings, clock ──► served from
//!                 └──────────────┴─ no, or a gate refuses: fresh memory, and one line that says which        once the feed has
//!                                                                                                            caught up
//! ```
//! A successor that an upgrade has started uses its predecessor's arena beside it, if the gates let it pass; else it has one of its own, which
//! is kept in the other's place once it is the server.
//!
//! The database's identity is the last gate; the change feed minds it, and voids what another database's are.

use std::os::fd::{AsFd, OwnedFd};
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
use crate::succession::Estate;

/// Name of the memory in the store, and of the file.
const NAME: &str = "arena";
/// Name of a successor's file, until it is the server.
const NEXT: &str = "arena-next";

/// The arena, and this server's hold on its memory.
pub struct Kept {
    pub arena: Arc<Arena>,
    pub slots: Slots,
    pub hold: Hold,
    /// What else of the master before this one is gone on with; None where its arena is not.
    pub joined: Option<Joined>,
    /// It lies where a successor's does, until that is the server.
    pub is_next: bool,
}

/// Shared memory of the master before this one, beside its arena.
#[derive(Default)]
pub struct Joined {
    pub metrics: Option<OwnedFd>,
    pub throttle: Option<OwnedFd>,
    pub nodes: Option<OwnedFd>,
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

    /// What the server before this one has left; `stored`: what was in the store.
    fn take(&self, stored: Option<OwnedFd>) -> Option<nix::Result<SharedMemory>> {
        match self {
            Place::Store => stored.map(SharedMemory::open),
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

    /// Fresh memory; `name`: of its file, where it lies in one.
    fn create(&self, name: &str, size_bytes: usize) -> nix::Result<SharedMemory> {
        let anonymous = || SharedMemory::create("catwalk-arena", size_bytes);
        match self {
            Place::File(directory) => SharedMemory::create_file(&directory.file(name), size_bytes).or_else(|e| {
                let (mib, path) = (size_bytes >> 20, directory.path().display());
                log::warn!("cache: a file of {mib} MiB in {path} can't be made ({e}): it won't outlive this server");
                anonymous()
            }),
            Place::Store | Place::Nowhere => anonymous(),
        }
    }
}

/// The arena of the server before this one, or a fresh one, kept for the next. `stored`: what the service manager has kept; `estate`: what
/// the master before this one has handed on; `seed`: for a fresh one's hashes.
///
/// # Errors
/// Too little memory, and what to do.
pub fn obtain(
    purpose: &Purpose,
    directory: Option<&RuntimeDirectory>,
    stored: Option<OwnedFd>,
    estate: Option<Estate>,
    seed: u64,
) -> Result<Kept> {
    let place = Place::choose(directory);
    if let Some(estate) = estate {
        return join(estate, purpose).or_else(|why| {
            log::warn!("cache: that of the master before this one is not used: {why}; it starts empty");
            fresh(purpose, &place, NEXT, seed)
        });
    }
    forget_next(directory);
    if let Some(memory) = place.take(stored) {
        match memory.map_err(why_unmapped).and_then(|memory| adopt(memory, purpose)) {
            Ok(kept) => return Ok(kept),
            Err(why) => {
                log::warn!("cache: what was kept of the server before is not used: {why}; it starts empty");
                place.forget();
            }
        }
    }
    let kept = fresh(purpose, &place, NAME, seed)?;
    if let Place::Store = place {
        report(passing::store(NAME, kept.arena.memory().fd().as_fd()));
    }
    Ok(kept)
}

/// Has an arena kept for the next server from now on, in the place of its predecessor's, which has handed over. `is_next`: it was made
/// beside that.
pub fn settle(arena: &Arena, directory: Option<&RuntimeDirectory>, is_next: bool) {
    match Place::choose(directory) {
        // The same memory or another: what is there under this name goes, and this comes.
        Place::Store => {
            report(passing::unstore(NAME));
            report(passing::store(NAME, arena.memory().fd().as_fd()));
        }
        Place::File(directory) if is_next => {
            if let Err(e) = std::fs::rename(directory.file(NEXT), directory.file(NAME)) {
                log::warn!("cache: it can't be kept over a restart: {e}");
            }
        }
        Place::File(_) | Place::Nowhere => {}
    }
}

/// Removes what a successor has left that did not become the server.
pub fn forget_next(directory: Option<&RuntimeDirectory>) {
    let Some(directory) = directory else { return };
    for name in [NEXT, "arena-next.new", "arena.new"] {
        // Nearly always there is none.
        let _ = std::fs::remove_file(directory.file(name));
    }
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
    Ok(Kept { arena: Arc::new(arena), slots, hold, joined: None, is_next: false })
}

/// Uses the arena of a master that is still there, beside it.
fn join(estate: Estate, purpose: &Purpose) -> Result<Kept, String> {
    // Its owner is this process's user, who has handed it on; a file has no seals.
    let memory = SharedMemory::open_trusted(estate.arena).map_err(why_unmapped)?;
    let arena = UncheckedArena::new(Arc::new(memory)).join(purpose).map_err(|gate| gate.to_string())?;
    let slots = Slots::new(arena.memory().clone(), *arena.layout());
    let joined =
        Joined { metrics: Some(estate.metrics), throttle: Some(estate.throttle), nodes: Some(estate.nodes) };
    Ok(Kept {
        arena: Arc::new(arena),
        slots,
        hold: Hold::handed_on(estate.hold),
        joined: Some(joined),
        is_next: false,
    })
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

fn fresh(purpose: &Purpose, place: &Place<'_>, name: &str, seed: u64) -> Result<Kept> {
    let layout = purpose.layout();
    let memory = place.create(name, layout.size_bytes).with_context(|| {
        let mib = layout.size_bytes >> 20;
        format!("allocating {mib} MiB of shared memory for the cache; set cache.size to less")
    })?;
    let memory = Arc::new(memory);
    let hold = memory.hold().context("locking the cache's memory")?;
    let hold = hold.context("somebody has locked the cache's memory before it was made known")?;
    let slots = Slots::new(memory.clone(), layout);
    let arena = Arc::new(Arena::format(memory, purpose, seed));
    Ok(Kept { arena, slots, hold, joined: None, is_next: name == NEXT })
}
