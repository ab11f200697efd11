//! `catwalk cache`: a running server's cache, looked at in its own memory. Nothing stops for it.
//! Runs in: offline.

pub mod dump;
pub mod status;
pub mod top;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::ask;
use crate::cache::arena::UncheckedArena;
use crate::cache::{census, verify, Arena};
use crate::cli::{Cache, CacheVerb};
use crate::control::{self, Question};
use crate::metrics::MetricsPage;
use crate::os::mmap::SharedMemory;
use crate::slots::Slots;
use crate::topology::Topology;

/// Longest wait for a worker to void everything.
const CLEAR_MAX: Duration = Duration::from_secs(5);

/// Exit status of a verification that has found something.
const EXIT_UNSOUND: i32 = 1;

/// Runs one of the verbs. Returns the exit status.
///
/// # Errors
/// That there is no server, or what its memory is refused for.
pub fn run(args: &Cache) -> Result<i32> {
    let directory = || ask::directory(args.runtime_dir.as_deref(), args.config.as_deref());
    match &args.verb {
        CacheVerb::Status { json } => {
            let status = status::Status::take(&Server::open(&directory()?)?);
            match json {
                true => show(serde_json::to_string_pretty(&status)?)?,
                false => show(status)?,
            }
        }
        CacheVerb::Top { count, seconds } => {
            let server = Server::open(&directory()?)?;
            show(top::take(&server, *count, Duration::from_secs(*seconds)))?;
        }
        CacheVerb::Dump { key, body } => return dump::run(&Server::open(&directory()?)?.arena, *key, *body),
        CacheVerb::Verify { file } => return verify(file.as_deref(), directory),
        CacheVerb::Clear => {
            let records = clear(&directory()?)?;
            show(format!("every cached answer is void: {records} were valid"))?;
        }
    }
    Ok(0)
}

/// Prints a line or several.
fn show(text: impl Display) -> Result<()> {
    print(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are. Whoever has seen enough closes the pipe: no error of ours.
fn print(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// A running server's shared memory, to look at.
pub struct Server {
    pub arena: Arena,
    pub metrics: MetricsPage,
    pub slots: Slots,
    pub topology: Topology,
}

impl Server {
    /// Asks the server of a runtime directory for its memory.
    ///
    /// # Errors
    /// That there is none, or a gate that refuses: it is of another version.
    pub fn open(directory: &Path) -> Result<Server> {
        let mut fds = control::ask(directory, Question::Memory)?.into_iter();
        let mut next = || fds.next().context("the server sends no memory");
        let memory = Arc::new(SharedMemory::open_to_read(next()?).context("mapping the arena")?);
        let metrics = MetricsPage::open_to_read(next()?)
            .context("mapping the metrics page; a server of another version has others")?;
        let topology = Topology::open_to_read(next()?).context("mapping the page of nodes")?;
        let arena = UncheckedArena::new(memory.clone()).open().context("the server's arena")?;
        let slots = Slots::new(memory, *arena.layout());
        Ok(Server { arena, metrics, slots, topology })
    }
}

/// Walks over a server's arena, or over a file that a server has left.
fn verify(file: Option<&Path>, directory: impl FnOnce() -> Result<PathBuf>) -> Result<i32> {
    let arena = match file {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let memory = SharedMemory::open_to_read(file.into())
                .with_context(|| format!("mapping {}", path.display()))?;
            UncheckedArena::new(Arc::new(memory)).open().with_context(|| format!("{}", path.display()))?
        }
        None => Server::open(&directory()?)?.arena,
    };
    let verdict = verify::verify(&arena);
    show(&verdict)?;
    Ok(if verdict.is_sound() { 0 } else { EXIT_UNSOUND })
}

/// Has everything voided, and waits until it is. Returns how many records were valid.
fn clear(directory: &Path) -> Result<usize> {
    let server = Server::open(directory)?;
    let before = census::take(&server.arena);
    let epoch = census::epoch(&server.arena);
    control::ask(directory, Question::Clear)?;
    let start = Instant::now();
    while census::epoch(&server.arena) == epoch {
        anyhow::ensure!(start.elapsed() < CLEAR_MAX, "no worker has voided anything within {CLEAR_MAX:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(before.valid.iter().map(|group| group.records).sum())
}
