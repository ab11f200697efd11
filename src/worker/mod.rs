//! One worker: prepare, serve, drain. Its scheduler thread runs every coroutine; its main thread watches the master.
//! Runs in: worker.

pub mod beat;
mod self_check;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use may_minihttp::{Count, Limits, Server, Settings};

use crate::api::fetch::Fetcher;
use crate::api::shape::Shaper;
use crate::api::writer::Writer;
use crate::api::{AdminFactory, Factory, Shared, Site};
use crate::cache::watermark::Reason;
use crate::cache::{to_ns, Ages, Cache};
use crate::config::Config;
use crate::db::pool::{Lane, Places};
use crate::db::{self, trace, writes, Nodes};
use crate::heritage::Heritage;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, BEAT_PERIOD, DATABASE_CHECK_PERIOD, DATABASE_WAIT_MAX, DRAIN_FRESH_GRACE,
    DRAIN_IDLE_GRACE, ORPHAN_DRAIN_MAX, WRITE_LANES,
};
use crate::metrics::{Counter, Level};
use crate::os::commands::{Command, Commands, Order};
use crate::os::fd::wait_readable;
use crate::os::signal::Termination;
use crate::os::{clock, fd, fork, sched};
use crate::runtime;
use crate::slots::Phase;

/// Where a worker sits: its number, its slot, and the epoch of this life.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    pub number: usize,
    pub slot: usize,
    pub epoch: u32,
}

/// Runs a worker until it is told to drain, or its master is gone. Returns the exit status.
pub fn run(heritage: &Heritage, seat: Seat, commands: Commands) -> i32 {
    let slots = heritage.slots.clone();
    runtime::leave_last_words(slots.clone(), seat.slot);
    let termination = Termination::open().expect("a fresh process can open a signalfd");
    slots.set_process(seat.slot, fork::own_identity());
    fork::set_name(&format!("catwalk-work-{}", seat.number));
    let descriptors = fd::raise_limit();
    let cpu = heritage.cpus[seat.number % heritage.cpus.len()];
    if let Err(e) = sched::pin(cpu) {
        log::debug!("worker {}: not pinned to CPU {cpu}: {e}", seat.number);
    }
    runtime::configure();
    match Worker::prepare(heritage, seat, descriptors) {
        Ok(worker) => worker.serve(heritage, commands, termination),
        Err(e) => {
            log::error!("worker {}: {e:#}", seat.number);
            1
        }
    }
}

/// Where all nodes are; nobody waits for one without end.
fn addresses(config: &Config) -> Result<Vec<may_postgres::Config>, may_postgres::Error> {
    let mut addresses = db::addresses(&config.nodes(), "catwalk")?;
    for address in &mut addresses {
        address.request_timeout = Some(config.database_timeout);
        address.connect_timeout = address.connect_timeout.min(DATABASE_WAIT_MAX);
    }
    Ok(addresses)
}

/// Removes what shoppers left behind and nobody will ask for again, a little at a time.
fn trim(site: &Site) {
    loop {
        match site.nodes.any_client(Lane::Slow).and_then(|client| writes::trim(&client)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) => return log::debug!("trimming old carts, interactions and keys: {e}"),
        }
    }
}

/// How often the database is looked at while it was found wrong.
const CHECK_PERIOD_FAILED: Duration = Duration::from_millis(250);

struct Worker {
    seat: Seat,
    server: Server<Factory>,
    admin: Server<AdminFactory>,
    site: Arc<Site>,
    /// Listeners accepted from, by number; two each where HTTPS is served.
    accepting: HashMap<usize, Vec<usize>>,
    exported: [u64; EXPORTS.len()],
}

/// What the server counts, and where that is shown.
const EXPORTS: [(Count, Counter); 4] = [
    (Count::Accepted, Counter::ConnectionsAccepted),
    (Count::TurnedAway, Counter::ConnectionsTurnedAway),
    (Count::Refused, Counter::RequestsRefused),
    (Count::TimedOut, Counter::ConnectionsTimedOut),
];

impl Worker {
    fn prepare(heritage: &Heritage, seat: Seat, descriptors: u64) -> anyhow::Result<Worker> {
        let config = &heritage.config;
        let metrics = heritage.metrics.slot(seat.slot);
        trace::start(metrics.clone());
        let ages = Ages {
            found_ns: to_ns(config.cache_max_age),
            missing_ns: to_ns(config.cache_missing_max_age),
            watermark_ns: to_ns(config.cache_staleness_max),
            stale_ns: to_ns(config.cache_stale_if_error),
        };
        let cache = Cache::new(heritage.arena.clone(), seat.slot, seat.epoch, ages, metrics.clone());
        let cache = Arc::new(cache);
        let places = Places::share(config.connections_per_worker(), WRITE_LANES);
        let nodes = Nodes::start(
            addresses(config)?,
            places,
            config.workers(),
            config.connections_are_auto(),
            heritage.topology.clone(),
            metrics.clone(),
        );
        let writer = Writer::start(nodes.clone(), cache.clone(), places.write, metrics.clone());
        let fetcher = Fetcher::start(nodes, cache, Shaper::new(config), metrics.clone());
        let id_seed = clock::boottime_ns().rotate_left(20) ^ (u64::from(seat.epoch) << 48) ^ seat.slot as u64;
        let shared = Shared {
            throttle: heritage.throttle.clone(),
            slots: heritage.slots.clone(),
            metrics,
            front: heritage.front.clone(),
        };
        let site = Arc::new(Site::new(config, fetcher, writer, shared, id_seed));
        let limits = Limits {
            connections_max: config.http_connections_per_worker(descriptors),
            ..config.limits.clone()
        };
        let settings = Settings { limits, proxies: config.proxies.clone() };
        let server = Server::new(Factory(site.clone()), settings);
        let limits = Limits { connections_max: ADMIN_CONNECTIONS_MAX, ..config.limits.clone() };
        let settings = Settings { limits, proxies: Default::default() };
        let admin = Server::new(AdminFactory(site.clone()), settings);
        Ok(Worker { seat, server, admin, site, accepting: HashMap::new(), exported: Default::default() })
    }

    fn serve(mut self, heritage: &Heritage, mut commands: Commands, mut termination: Termination) -> i32 {
        let beat = beat::start(self.site.slots.clone(), self.seat.slot);
        if let Err(e) = self_check::run(&self.admin) {
            log::error!("worker {}: it does not answer its own request: {e}", self.seat.number);
            return 1;
        }
        self.accept_admin(heritage);
        self.site.slots.set_phase(self.seat.slot, Phase::Serving);
        let site = self.site.clone();
        std::thread::spawn(move || check_database(&site));
        let drain_max = heritage.config.shutdown_timeout;
        loop {
            let [commanded, terminated] = wait_readable([commands.fd(), termination.fd()], BEAT_PERIOD);
            self.tick(&beat);
            if terminated && termination.is_asked() {
                return self.drain(Drain::for_good(drain_max), commands, termination, &beat);
            }
            while let Some(command) = commanded.then(|| commands.take()).flatten() {
                match command {
                    Command::Do(Order::Drain) => {
                        return self.drain(Drain::for_good(drain_max), commands, termination, &beat)
                    }
                    Command::Do(Order::Retire) => {
                        return self.drain(Drain::with_successor(drain_max), commands, termination, &beat)
                    }
                    Command::Orphaned => {
                        return self.drain(Drain::of_orphan(drain_max), commands, termination, &beat)
                    }
                    Command::Adopt { number, http, https } => self.adopt(heritage, number, http, https),
                    Command::Do(Order::Release(number)) => self.release(number),
                    Command::Do(Order::Clear) => {
                        log::info!("every cached answer is void: it was asked for");
                        self.site.cache.forget_all(Reason::Asked);
                    }
                }
            }
        }
    }

    /// Every worker accepts from each: whoever asks is answered for all.
    fn accept_admin(&self, heritage: &Heritage) {
        for listener in &heritage.admin.sockets {
            if let Err(e) = listener.try_clone().and_then(|l| self.admin.accept_on(l, None)) {
                log::error!("worker {}: can't accept for administration: {e}", self.seat.number);
            }
        }
    }

    /// What is done a few times a second: beat, deadlines, counts.
    fn tick(&mut self, beat: &beat::Beat) {
        beat.nudge();
        self.site.nodes.tick();
        self.site.fetcher.tick();
        self.site.writer.tick();
        self.site.audit.tick(&self.site.fetcher);
        self.site.access.tick();
        self.site.slow.tick();
        self.server.tick();
        self.admin.tick();
        self.export();
    }

    /// What /metrics shows of this worker.
    fn export(&mut self) {
        let metrics = &self.site.metrics;
        let (open, wanted) = self.site.nodes.occupancy();
        metrics.set_level(Level::HttpConnections, self.server.connections() as u64);
        metrics.set_level(Level::DatabaseConnections, open as u64);
        metrics.set_level(Level::DatabaseConnectionsWanted, wanted as u64);
        for ((count, counter), exported) in EXPORTS.into_iter().zip(&mut self.exported) {
            let now = self.server.count(count);
            self.site.metrics.add(counter, now - *exported);
            *exported = now;
        }
    }

    fn adopt(&mut self, heritage: &Heritage, number: usize, http: Option<OwnedFd>, https: Option<OwnedFd>) {
        if self.accepting.contains_key(&number) {
            return;
        }
        let secure = https.map(|listener| (listener, heritage.tls.clone()));
        let mut ids = Vec::new();
        for (listener, tls) in http.map(|listener| (listener, None)).into_iter().chain(secure) {
            match self.server.accept_on(listener.into(), tls) {
                Ok(id) => ids.push(id),
                Err(e) => {
                    log::error!("worker {}: can't accept from listener {number}: {e}", self.seat.number)
                }
            }
        }
        self.accepting.insert(number, ids);
    }

    fn release(&mut self, number: usize) {
        let ids = self.accepting.remove(&number).unwrap_or_default();
        ids.into_iter().for_each(|id| self.server.release(id));
    }

    /// No new connections; answers from here on close theirs; idle ones end after a grace, in which requests
    /// already on their way are still answered; at the timeout the rest is left behind. Whoever wants it done sooner says so meanwhile.
    fn drain(
        mut self,
        mut drain: Drain,
        mut commands: Commands,
        mut termination: Termination,
        beat: &beat::Beat,
    ) -> i32 {
        self.server.drain();
        self.admin.drain();
        self.site.slots.set_phase(self.seat.slot, Phase::Draining);
        let start = Instant::now();
        let (mut idle_closed, mut fresh_closed) = (false, false);
        let is_over = |worker: &Worker| worker.server.connections() + worker.admin.connections() == 0;
        while !is_over(&self) && start.elapsed() < drain.timeout {
            match commands.take() {
                Some(Command::Do(Order::Drain)) => drain.hasten(&Drain::for_good(drain.timeout)),
                Some(Command::Orphaned) => drain.hasten(&Drain::of_orphan(drain.timeout)),
                _ if termination.is_asked() => drain.hasten(&Drain::for_good(drain.timeout)),
                _ => {}
            }
            if !idle_closed && start.elapsed() >= drain.idle {
                idle_closed = true;
                self.server.close_idle();
            }
            if !fresh_closed && start.elapsed() >= drain.fresh {
                fresh_closed = true;
                self.server.close_fresh();
            }
            // Whoever looks after the server keeps nobody waiting.
            match start.elapsed() {
                waited if waited >= DRAIN_FRESH_GRACE => self.admin.close_fresh(),
                waited if waited >= DRAIN_IDLE_GRACE => self.admin.close_idle(),
                _ => {}
            }
            self.tick(beat);
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.server.connections();
        if left > 0 {
            log::warn!(
                "worker {}: {left} connections were still busy after {:?}",
                self.seat.number,
                drain.timeout
            );
        }
        self.tick(beat);
        0
    }
}

/// How much time a draining worker has.
struct Drain {
    timeout: Duration,
    /// Until connections between requests end, and those without one yet.
    idle: Duration,
    fresh: Duration,
}

impl Drain {
    /// Nobody comes after: whoever waits for the end of this server waits for this.
    fn for_good(timeout: Duration) -> Drain {
        Drain { timeout, idle: DRAIN_IDLE_GRACE, fresh: DRAIN_FRESH_GRACE }
    }

    /// Whoever comes after this server waits for its memory.
    fn of_orphan(timeout: Duration) -> Drain {
        Drain::for_good(timeout.min(ORPHAN_DRAIN_MAX))
    }

    /// Takes no longer than `other`.
    fn hasten(&mut self, other: &Drain) {
        self.timeout = self.timeout.min(other.timeout);
        self.idle = self.idle.min(other.idle);
        self.fresh = self.fresh.min(other.fresh);
    }

    /// A successor serves already, and nobody waits: idle connections get their next answer with `Connection: close`. Those that are left
    /// end a while before the timeout, so that whoever sends a request just then gets its answer.
    fn with_successor(timeout: Duration) -> Drain {
        let late = timeout.saturating_sub(DRAIN_IDLE_GRACE);
        Drain { timeout, idle: late, fresh: late }
    }
}

/// Checks schema and identity of the database, again and again, and says so to `/readyz`.
fn check_database(site: &Site) {
    loop {
        let outcome = site
            .nodes
            .any_client(Lane::Slow)
            .map_err(anyhow::Error::from)
            .and_then(|client| db::check(&client));
        let failed = outcome.is_err();
        if !failed {
            site.slots.set_checked();
        }
        *site.database_state.lock() = Some(outcome.map_err(|e| format!("{e:#}")));
        if !failed && !site.nodes.is_headless() {
            trim(site);
        }
        std::thread::sleep(if failed { CHECK_PERIOD_FAILED } else { DATABASE_CHECK_PERIOD });
    }
}
