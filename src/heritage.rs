//! What crosses fork(2), and nothing else: shared memory, listeners, configuration.
//! Runs in: master (create), worker (receive).

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use may_minihttp::Tls;

use crate::cache::arena::Purpose;
use crate::cache::Arena;
use crate::config::{Config, RuntimeDir, TlsFiles};
use crate::keep::{self, Kept};
use crate::metrics::MetricsPage;
use crate::os::mmap::Hold;
use crate::os::{clock, fork, socket};
use crate::runtime_directory::{self, RuntimeDirectory};
use crate::slots::Slots;
use crate::throttle::Throttle;
use crate::topology::Topology;

/// Everything a worker is born with.
pub struct Heritage {
    pub config: Config,
    pub arena: Arc<Arena>,
    /// Says to a later server that this one's processes use the arena.
    _hold: Hold,
    /// None: there is none, or another server has it.
    pub directory: Option<RuntimeDirectory>,
    pub slots: Slots,
    pub metrics: MetricsPage,
    pub throttle: Throttle,
    pub topology: Topology,
    /// One listener a worker, all on the same address, all owned by the master: a worker's death closes none.
    pub listeners: Vec<TcpListener>,
    pub address: SocketAddr,
    /// The same for HTTPS; empty where none is served.
    pub tls_listeners: Vec<TcpListener>,
    pub tls: Option<Arc<Tls>>,
    pub workers: usize,
    /// CPUs to pin workers to, in turn.
    pub cpus: Vec<usize>,
}

impl Heritage {
    /// Where HTTPS is served.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_listeners.first().and_then(|listener| listener.local_addr().ok())
    }

    /// Arena and metrics page, opened anew to look at only.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn reopen_memory(&self) -> std::io::Result<[File; 2]> {
        Ok([self.arena.memory().reopen()?, self.metrics.memory().reopen()?])
    }

    /// Reads certificate and key anew: workers born from now on have them, those that live read them themselves.
    ///
    /// # Errors
    /// Why the files can't be used; what was read before stays in force.
    pub fn reload_tls(&self) -> Result<()> {
        if let (Some(tls), Some(files)) = (&self.tls, &self.config.tls) {
            tls.replace(&read_tls(files)?);
        }
        Ok(())
    }
}

/// Makes the listeners and the shared memory. Nothing here reads a record or starts a thread.
///
/// # Errors
/// A taken port or too little memory, with what to do about it.
pub fn create(mut config: Config) -> Result<Heritage> {
    let workers = config.workers();
    let listeners = listen(config.listen, workers, "--listen")?;
    let (tls, tls_listeners) = match &config.tls {
        Some(files) => (Some(Arc::new(read_tls(files)?)), listen(files.listen, workers, "tls.listen =")?),
        None => (None, Vec::new()),
    };
    let address = listeners[0].local_addr().context("asking for the listener's address")?;
    config.set_address(address);
    let cache_size_bytes = config.cache_size_bytes();
    let directory = runtime_directory(&config)?;
    let purpose = Purpose { cache_size_bytes, workers, settings: config.settings_hash() };
    let Kept { arena, slots, hold } = keep::obtain(&purpose, directory.as_ref(), seed())?;
    let metrics = MetricsPage::create(slots.count()).context("allocating the metrics page")?;
    // In development the only client is whoever develops.
    let includes_loopback = !config.is_development();
    let throttle = Throttle::create(config.write_rate, config.write_burst, includes_loopback, seed())
        .context("allocating the table of client addresses")?;
    let topology = Topology::create(config.nodes().len()).context("allocating the page of database nodes")?;
    Ok(Heritage {
        slots,
        topology,
        arena,
        _hold: hold,
        directory,
        metrics,
        throttle,
        listeners,
        address,
        tls_listeners,
        tls,
        workers,
        cpus: config.machine().cpus.clone(),
        config,
    })
}

/// The configured directory, if it is to be had: who has none serves all the same.
fn runtime_directory(config: &Config) -> Result<Option<RuntimeDirectory>> {
    let Some(path) = runtime_directory::path(&config.runtime_dir) else { return Ok(None) };
    match RuntimeDirectory::take(&path) {
        Ok(None) => {
            log::warn!(
                "{} is another server's: `catwalk cache` speaks with that one; set runtime_dir to have one for this",
                path.display()
            );
            Ok(None)
        }
        // Nobody has asked for it.
        Err(e) if config.runtime_dir == RuntimeDir::Auto => {
            log::warn!("{e:#}; `catwalk cache` won't find this server");
            Ok(None)
        }
        taken => taken,
    }
}

/// Opens `workers` listeners on `address`.
///
/// # Errors
/// Why the address can't be had, and what to do.
pub fn listen(address: SocketAddr, workers: usize, setting: &str) -> Result<Vec<TcpListener>> {
    let refused = |e: nix::Error| match e {
        nix::Error::EADDRINUSE => anyhow::anyhow!(
            "{address} is taken by another program; stop it (`ss -ltnp 'sport = :{}'` names it), or listen \
             elsewhere with {setting} {}:{}",
            address.port(),
            address.ip(),
            address.port().wrapping_add(1).max(1024)
        ),
        nix::Error::EACCES => {
            anyhow::anyhow!("{address} needs a right this user lacks; choose a port from 1024 up")
        }
        e => anyhow::anyhow!("listening on {address}: {e}"),
    };
    socket::listen_shared(address, workers, may_minihttp::limits::BACKLOG).map_err(refused)
}

/// Reads and checks certificate and key.
///
/// # Errors
/// The file that can't be read or used, and why.
pub fn read_tls(files: &TlsFiles) -> Result<Tls> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    Tls::read(&read(&files.certificate)?, &read(&files.key)?)
        .map_err(|why| anyhow::anyhow!("{} and {}: {why}", files.certificate.display(), files.key.display()))
}

/// Not guessable from outside: keys are hashed with it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(clock::boottime_ns());
    hasher.write_i32(fork::own_pid().as_raw());
    hasher.finish()
}
