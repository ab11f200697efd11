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
use crate::front::Front;
use crate::keep::{self, Kept};
use crate::limits::workers_room;
use crate::metrics::MetricsPage;
use crate::os::mmap::Hold;
use crate::os::{clock, fork, socket};
use crate::runtime_directory::{self, RuntimeDirectory};
use crate::slots::Slots;
use crate::succession::{Inheritance, Listeners};
use crate::throttle::Throttle;
use crate::topology::Topology;

/// Settings, with the certificate and the front end that were read for them.
pub struct InForce {
    pub config: Config,
    tls: Option<Arc<Tls>>,
    front: Arc<Front>,
    version: u64,
}

/// Everything a worker is born with.
pub struct Heritage {
    pub config: Config,
    /// Which settings are in force: each reload's have a number of their own.
    pub version: u64,
    reloads: u64,
    pub arena: Arc<Arena>,
    /// Says to a later server that this one's processes use the arena.
    pub hold: Hold,
    /// Whether a master before this one uses the arena too, until it hands over.
    pub is_joined: bool,
    /// The arena lies where a successor's does, until that is the server.
    pub is_next: bool,
    /// None: there is none, or another server has it.
    pub directory: Option<RuntimeDirectory>,
    pub slots: Slots,
    pub metrics: MetricsPage,
    pub throttle: Throttle,
    pub topology: Topology,
    /// All on the same address, all owned by the master: a worker's death closes none. One a worker, or those of a socket unit.
    pub http: Listeners,
    pub address: SocketAddr,
    /// The same for HTTPS; empty where none is served.
    pub https: Listeners,
    pub tls: Option<Arc<Tls>>,
    pub front: Arc<Front>,
    /// For whoever runs this server; every worker accepts from each.
    pub admin: Listeners,
    /// Workers to begin with.
    pub workers: usize,
    /// CPUs to pin workers to, in turn.
    pub cpus: Vec<usize>,
}

impl Heritage {
    /// Listeners that are shared out among workers: each number stands for one of HTTP, of HTTPS, or one of both.
    pub fn listeners(&self) -> usize {
        self.http.sockets.len().max(self.https.sockets.len())
    }

    /// Opens another listener of each kind, for one more worker, where they are this server's own.
    ///
    /// # Errors
    /// Why there is none: workers go on sharing those that are there.
    pub fn add_listeners(&mut self) -> nix::Result<()> {
        for listeners in [&mut self.http, &mut self.https] {
            if let (Some(address), false) = (listeners.address(), listeners.are_units) {
                listeners.sockets.extend(socket::listen_beside(address, 1, may_minihttp::limits::BACKLOG)?);
            }
        }
        Ok(())
    }

    /// Arena, metrics page and page of nodes, opened anew to look at only.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn reopen_memory(&self) -> std::io::Result<[File; 3]> {
        Ok([self.arena.memory().reopen()?, self.metrics.memory().reopen()?, self.topology.memory().reopen()?])
    }

    /// Takes settings over for the workers that are forked from now on, with certificate, key and front end as they are now; returns those in force
    /// until now.
    ///
    /// # Errors
    /// Why certificate, key or front end can't be used; nothing has changed then.
    pub fn renew(&mut self, config: Config) -> Result<InForce> {
        let tls = match (&self.tls, &config.tls) {
            (Some(_), Some(files)) => Some(Arc::new(read_tls(files)?)),
            _ => self.tls.clone(),
        };
        let front = Arc::new(Front::load(&config, Some(&self.front))?);
        self.reloads += 1;
        Ok(self.replace(InForce { config, tls, front, version: self.reloads }))
    }

    /// The same with a certificate that was read.
    pub fn replace(&mut self, by: InForce) -> InForce {
        InForce {
            config: std::mem::replace(&mut self.config, by.config),
            tls: std::mem::replace(&mut self.tls, by.tls),
            front: std::mem::replace(&mut self.front, by.front),
            version: std::mem::replace(&mut self.version, by.version),
        }
    }
}

/// Makes the listeners and the shared memory, or takes over what this process was born with. Nothing here reads a record or starts a
/// thread.
///
/// # Errors
/// A taken port or too little memory, with what to do about it.
pub fn create(mut config: Config, born_with: Inheritance) -> Result<Heritage> {
    let workers = config.workers();
    let Inheritance { http, https, admin, arena, estate } = born_with;
    let http = listeners(http, Some(config.listen), workers, "--listen")?;
    let https = listeners(https, config.tls.as_ref().map(|files| files.listen), workers, "tls.listen =")?;
    let tls = config.tls.as_ref().map(|files| read_tls(files).map(Arc::new)).transpose()?;
    let front = Arc::new(Front::load(&config, None)?);
    // Made here, where there is room: compressing goes deep.
    Front::status();
    let admin = admin_listener(admin, &config)?;
    let address = http.address().context("asking for the listener's address")?;
    config.set_address(address);
    let directory = runtime_directory(&config, estate.is_some())?;
    let purpose = Purpose {
        cache_size_bytes: config.cache_size_bytes(),
        workers: workers_room(workers),
        settings: config.settings_hash(),
        nodes: config.nodes_hash(),
    };
    let Kept { arena, slots, hold, joined, is_next } =
        keep::obtain(&purpose, directory.as_ref(), arena, estate, seed())?;
    let is_joined = joined.is_some();
    let joined = joined.unwrap_or_default();
    let metrics =
        MetricsPage::join_or_create(joined.metrics, slots.count()).context("allocating the metrics page")?;
    // In development the only client is whoever develops.
    let includes_loopback = !config.is_development();
    let throttle = Throttle::join_or_create(joined.throttle, includes_loopback, arena.seed())
        .context("allocating the table of client addresses")?;
    let topology = Topology::join_or_create(joined.nodes, config.nodes().len(), config.nodes_hash())
        .context("allocating the page of database nodes")?;
    Ok(Heritage {
        slots,
        topology,
        arena,
        hold,
        is_joined,
        is_next,
        directory,
        metrics,
        throttle,
        http,
        address,
        https,
        tls,
        front,
        admin,
        workers,
        cpus: config.machine().cpus.clone(),
        config,
        version: 0,
        reloads: 0,
    })
}

/// Listeners that were inherited, if they are where they are to be; else new ones, one a worker. A successor has no more than there were,
/// which its workers share, until it is the server: what nobody accepts from yet would take its share of connections.
fn listeners(
    inherited: Listeners,
    address: Option<SocketAddr>,
    workers: usize,
    setting: &str,
) -> Result<Listeners> {
    let Some(address) = address else { return Ok(Listeners::default()) };
    match inherited.address() {
        Some(found) if inherited.are_units => {
            log::info!("{found} is a socket unit's: {setting} is not looked at");
            Ok(inherited)
        }
        Some(found) if found == address || (address.port() == 0 && found.ip() == address.ip()) => {
            Ok(inherited)
        }
        // The port is this server's own: nobody else is there.
        Some(found) if found.port() == address.port() => {
            let sockets = socket::listen_beside(address, workers, may_minihttp::limits::BACKLOG);
            let sockets = sockets.with_context(|| format!("listening on {address} instead of {found}"))?;
            Ok(Listeners { sockets, are_units: false })
        }
        _ => Ok(Listeners { sockets: listen(address, workers, setting)?, are_units: false }),
    }
}

/// One listener that all workers accept from. A place that nobody has asked for may be taken.
fn admin_listener(inherited: Listeners, config: &Config) -> Result<Listeners> {
    match listeners(inherited, config.admin_listen, 1, "admin.listen =") {
        Err(e) if !config.is_given("admin.listen") => {
            log::warn!("/metrics is not served: {e:#}");
            Ok(Listeners::default())
        }
        done => done,
    }
}

/// The configured directory, if it is to be had: who has none serves all the same.
fn runtime_directory(config: &Config, is_successor: bool) -> Result<Option<RuntimeDirectory>> {
    let Some(path) = runtime_directory::path(&config.runtime_dir) else { return Ok(None) };
    if is_successor {
        // The master before this one has it still, and leaves it to this one.
        return RuntimeDirectory::open(&path).map(Some).or_else(|e| match config.runtime_dir {
            RuntimeDir::Auto => {
                log::warn!("{e:#}; `catwalk cache`, `reload` and `upgrade` won't find this server");
                Ok(None)
            }
            _ => Err(e),
        });
    }
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
