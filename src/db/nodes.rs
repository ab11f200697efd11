//! The primary and its replicas: which one a read or a write goes to.
//! Runs in: worker.
//!
//! ```text
//! read ──► fit replicas that have replayed up to the floor ──► the least loaded ─┐ failed: left alone for a second
//!            └─ none: one is asked how far it is, again and again for a moment   ▼
//! write ──► primary ◄── none: all who may have seen a commit first ◄── the next one, at last the primary
//! ```
//! A replica shows commits in the order of the WAL. A primary does not: what is in the WAL already may still be open there, while a replica
//! shows it. So the primary is read from only after everything that was open when the read came has ended.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use may_postgres::{Client, Config, Error};
use parking_lot::Mutex;

use crate::db::lsn::{self, Role};
use crate::db::pacer::Pacer;
use crate::db::pool::{Allowed, Lane, Places, Pool};
use crate::db::products::Read;
use crate::limits::{
    HEADLESS_WAIT_MAX, NODE_OUT, NODE_SEARCH_MAX, OPEN_WAIT_MAX, REPLICA_TIMEOUT_MAX, REPLICA_WAIT_MAX,
    ROOM_RESERVED,
};
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;
use crate::topology::{Reign, State, Topology};

struct Node {
    pool: Arc<Pool>,
    /// Reads under way of this worker.
    busy: AtomicUsize,
}

/// What a read asks of the node.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub lane: Lane,
    /// Position up to which a replica must have replayed.
    pub floor: u64,
    /// Only the primary will do, if there is one.
    pub primary: bool,
}

/// What a read has seen of the WAL, where there are replicas: everything up to `since`, nothing behind `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub since: u64,
    pub upto: u64,
    /// Nothing can be missing that anybody was shown before.
    pub is_settled: bool,
}

/// What was read, and what the read has seen where there are replicas.
pub type Sighted<T> = (Read<T>, Option<Seen>);

/// A connection to write over, and the reign under which.
pub struct Pen {
    pub client: Client,
    pub reign: Reign,
}

/// A worker's way to all nodes.
pub struct Nodes {
    nodes: Vec<Node>,
    topology: Topology,
    pacer: Arc<Pacer>,
    /// A floor that no replica came to, without a primary.
    unreached: AtomicU64,
    /// Transactions on the primary that were waited for in vain.
    outlasted: Mutex<HashSet<u64>>,
    metrics: SlotMetrics,
}

impl Nodes {
    /// Connects to the nodes at `addresses`, with at most `places` connections each, for one of `workers` workers; `is_auto`: with fewer
    /// where the server has not as many for all.
    pub fn start(
        addresses: Vec<Config>,
        places: Places,
        workers: usize,
        is_auto: bool,
        topology: Topology,
        metrics: SlotMetrics,
    ) -> Arc<Nodes> {
        let has_replicas = topology.has_replicas();
        let start = |(number, address): (usize, Config)| {
            let config = move |lane| Config {
                request_timeout: timeout(&address, lane, has_replicas),
                ..address.clone()
            };
            let (looked_at, least) = (topology.clone(), places.slow + places.write);
            let allowed = move || Allowed {
                fast: match looked_at.room(number).filter(|_| is_auto) {
                    Some(room) => (room.saturating_sub(ROOM_RESERVED) / workers).saturating_sub(least),
                    None => usize::MAX,
                },
                writes: looked_at.reign().is_some_and(|reign| reign.node == number),
            };
            Node { pool: Pool::start(config, places, allowed, metrics.clone()), busy: AtomicUsize::new(0) }
        };
        let nodes = addresses.into_iter().enumerate().map(start).collect();
        let pacer = if has_replicas { Pacer::start() } else { Arc::default() };
        Arc::new(Nodes {
            nodes,
            topology,
            pacer,
            unreached: AtomicU64::new(0),
            outlasted: Mutex::default(),
            metrics,
        })
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Lets deadlines be looked at. A few times a second.
    pub fn tick(&self) {
        self.nodes.iter().for_each(|node| node.pool.tick());
    }

    /// Counts a statement that fetches `keys` keys.
    pub fn count_statement(&self, keys: usize) {
        self.metrics.count(Counter::DatabaseStatements);
        self.metrics.add(Counter::DatabaseKeys, keys as u64);
    }

    /// Whether a node to read from answers, as far as is known.
    pub fn is_reachable(&self) -> bool {
        self.nodes.iter().any(|node| node.pool.is_reachable())
    }

    /// Whether no node takes connections: more than silence, which a lock on a table may be as well.
    pub fn is_gone(&self) -> bool {
        self.nodes.iter().all(|node| node.pool.is_gone())
    }

    /// Whether there is nobody who takes writes, while replicas may still be read from.
    pub fn is_headless(&self) -> bool {
        self.topology.has_replicas() && self.topology.reign().is_none()
    }

    /// Each node's state, lag, connections that live and places for some.
    pub fn describe(&self) -> Vec<(State, u64, (usize, usize))> {
        let of = |(n, node): (usize, &Node)| {
            let state = match self.topology.has_replicas() {
                true => self.topology.state(n),
                false => State::Primary,
            };
            (state, self.topology.lag_ns(n), node.pool.occupancy())
        };
        self.nodes.iter().enumerate().map(of).collect()
    }

    /// Connections to all nodes that live, and places for some.
    pub fn occupancy(&self) -> (usize, usize) {
        let each = self.nodes.iter().map(|node| node.pool.occupancy());
        each.fold((0, 0), |(live, places), (l, p)| (live + l, places + p))
    }

    /// Some live connection: the primary's if it is to be had, for which this waits as [`Pool::client`] does.
    pub fn any_client(&self, lane: Lane) -> Result<Client, Error> {
        let of_primary = self.topology.reign().map(|reign| self.nodes[reign.node].pool.client(lane));
        match of_primary {
            Some(Ok(client)) => Ok(client),
            Some(Err(e)) => self.try_any_client(lane).map_err(|_| e),
            None => self.try_any_client(lane),
        }
    }

    /// Some connection that lives now.
    pub fn try_any_client(&self, lane: Lane) -> Result<Client, Error> {
        let mut last = Err(no_node());
        for node in &self.nodes {
            last = node.pool.try_client(lane);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// The primary's connection of one writing place, for whoever has it alone.
    ///
    /// # Errors
    /// There is no primary, or why the last attempt to connect failed.
    pub fn pen(&self, place: usize) -> Result<Pen, Error> {
        let reign = self.topology.reign().ok_or_else(no_primary)?;
        let client = self.nodes[reign.node].pool.own(place, || self.is_present(reign))?;
        Ok(Pen { client, reign })
    }

    /// Whether whoever took writes then still does.
    pub fn is_present(&self, reign: Reign) -> bool {
        !self.topology.has_replicas() || self.topology.reign() == Some(reign)
    }

    /// Makes sure that a new connection leads to the primary that reigns: an address may lead elsewhere by now, and a former primary may
    /// have come back.
    pub fn check_reign(&self, client: &Client) -> Result<(), Error> {
        if !self.topology.has_replicas() {
            return Ok(());
        }
        match lsn::probe(client)?.role {
            Role::Primary { timeline, .. } if timeline >= self.topology.timeline() => Ok(()),
            Role::Primary { .. } => {
                Err(Error::Connect("this node has been replaced as primary: nothing is written to it".into()))
            }
            Role::Replica => Err(no_primary()),
        }
    }

    /// Position in the WAL behind a commit that has just returned on `client`.
    pub fn written(&self, client: &Client) -> Result<u64, Error> {
        Ok(self.topology.end_of_record(lsn::written(client)?))
    }

    /// Runs a read on a node that will do, and tells what it has seen; on another one when it fails for a reason of the node's. Without
    /// replicas there is nothing to tell.
    pub fn read<T>(
        &self,
        wanted: Wanted,
        work: impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Result<Sighted<T>, Error> {
        if !self.topology.has_replicas() {
            return self.nodes[0].pool.read(wanted.lane, work).map(|read| (read, None));
        }
        let start = Instant::now();
        loop {
            let reign = self.topology.reign();
            if let Some(outcome) = self.read_replicas(wanted, reign.is_none(), &work) {
                return outcome;
            }
            let outcome = match reign {
                Some(reign) => self.read_primary(reign, wanted, &work),
                None => Err(no_node()),
            };
            match outcome {
                // Soon the watchers will say that there is none, or another one.
                Err(e)
                    if is_of_node(&e, wanted.lane)
                        && !self.is_gone()
                        && start.elapsed() < NODE_SEARCH_MAX =>
                {
                    self.pacer.pause();
                }
                outcome => return outcome,
            }
        }
    }

    /// Tries one replica after the other; None when none would do.
    fn read_replicas<T>(
        &self,
        wanted: Wanted,
        is_headless: bool,
        work: &impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Option<Result<Sighted<T>, Error>> {
        if wanted.primary && !is_headless {
            return None;
        }
        for _ in 0..self.nodes.len() {
            let node = self.choose(wanted, is_headless)?;
            match self.read_replica(node, wanted, work) {
                Err(e) if is_of_node(&e, wanted.lane) => self.take_out(node, &e),
                Err(e) => {
                    self.metrics.count(Counter::DatabaseErrors);
                    return Some(Err(e));
                }
                read => return Some(read),
            }
        }
        None
    }

    /// The least loaded replica that has replayed up to the floor. Where none is known to have, one of them is asked for a moment: the
    /// others have not come much further. While there is no primary nobody knows whether any of them ever gets there: one that may is waited
    /// for longer, once, and then the furthest will do.
    fn choose(&self, wanted: Wanted, is_headless: bool) -> Option<usize> {
        if !is_headless {
            self.unreached.store(0, Ordering::Relaxed);
        }
        let is_there = |n: &usize| self.topology.replayed(*n) >= wanted.floor;
        let fit = self.fit();
        if let Some(node) = fit.iter().copied().find(is_there) {
            return Some(node);
        }
        if !is_headless && fit.is_empty() {
            return None;
        }
        self.metrics.count(Counter::ReplicaWaits);
        let start = Instant::now();
        let patience = match is_headless {
            true if self.unreached.load(Ordering::Relaxed) >= wanted.floor => Duration::ZERO,
            true => HEADLESS_WAIT_MAX,
            false => REPLICA_WAIT_MAX,
        };
        while start.elapsed() < patience {
            // Another primary, or one again, changes everything.
            if self.topology.reign().is_none() != is_headless {
                return None;
            }
            let node = self.furthest();
            match node.map(|node| (node, self.ask(node, wanted.lane))) {
                Some((node, Ok(()))) if is_there(&node) => return Some(node),
                Some((node, Err(e))) => self.take_out(node, &e),
                _ => {}
            }
            self.pacer.pause();
        }
        let furthest = self.furthest().filter(|_| is_headless)?;
        self.unreached.fetch_max(wanted.floor, Ordering::Relaxed);
        Some(furthest)
    }

    fn furthest(&self) -> Option<usize> {
        self.fit().into_iter().max_by_key(|node| self.topology.replayed(*node))
    }

    /// Asks a replica how far it is.
    fn ask(&self, node: usize, lane: Lane) -> Result<(), Error> {
        let (replayed, _) = lsn::replayed(&self.nodes[node].pool.try_client(lane)?)?;
        self.topology.saw_replayed(node, replayed);
        Ok(())
    }

    /// Replicas that may be read from, the least loaded first.
    fn fit(&self) -> Vec<usize> {
        let now_ns = clock::boottime_ns();
        let mut fit: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.topology.is_fit(*n, now_ns) && self.nodes[*n].pool.is_reachable())
            .collect();
        fit.sort_by_key(|n| self.nodes[*n].busy.load(Ordering::Relaxed));
        fit
    }

    fn read_replica<T>(
        &self,
        number: usize,
        wanted: Wanted,
        work: impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Result<Sighted<T>, Error> {
        let node = &self.nodes[number];
        let since = self.topology.replayed(number);
        let _busy = Busy::at(node);
        self.metrics.count(Counter::ReplicaReads);
        let client = node.pool.try_client(wanted.lane)?;
        let read = match work(&client) {
            Err(e) if e.is_about_statement() => work(&client)?,
            read => read?,
        };
        // Not every read says itself what it may have seen.
        let upto = match read.position {
            0 => Some(lsn::replayed(&client)?.1),
            position => lsn::of_replica(position),
        };
        // It has been promoted meanwhile, or has begun anew, further back.
        let Some(upto) = upto.filter(|upto| *upto >= since) else {
            self.topology.set_replayed(number, 0);
            return Err(Error::Connect("the replica is no longer what it was".into()));
        };
        Ok((read, Some(Seen { since, upto, is_settled: since >= wanted.floor })))
    }

    fn read_primary<T>(
        &self,
        reign: Reign,
        wanted: Wanted,
        work: impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Result<Sighted<T>, Error> {
        let node = &self.nodes[reign.node];
        let _busy = Busy::at(node);
        self.metrics.count(Counter::PrimaryReads);
        node.pool.read(wanted.lane, |client| {
            let since = self.topology.written();
            let is_settled = self.outwait_open(client)?;
            let read = work(client)?;
            let upto = self.written(client)?;
            Ok((read, Some(Seen { since, upto, is_settled })))
        })
    }

    /// Waits until what is open now has ended: of that a replica may show something already. Not for long, and for each only once: what has
    /// been open for a while is a long transaction. Whether all of it has ended.
    fn outwait_open(&self, client: &Client) -> Result<bool, Error> {
        let start = Instant::now();
        let mut open = lsn::open(client)?;
        let outlasted: HashSet<u64> = self.outlasted.lock().intersection(&open).copied().collect();
        let mut vain = HashSet::new();
        while open.iter().any(|xid| !outlasted.contains(xid)) {
            if start.elapsed() > OPEN_WAIT_MAX {
                vain.clone_from(&open);
                break;
            }
            self.pacer.pause();
            let now = lsn::open(client)?;
            open.retain(|xid| now.contains(xid));
        }
        vain.extend(outlasted);
        *self.outlasted.lock() = vain;
        Ok(open.is_empty())
    }

    fn take_out(&self, node: usize, why: &Error) {
        let now_ns = clock::boottime_ns();
        if !self.topology.is_out(node, now_ns) {
            log::warn!("node {node} is left alone for {NODE_OUT:?}: {why}");
            self.metrics.count(Counter::ReplicaOuts);
        }
        self.topology.take_out(node, now_ns + NODE_OUT.as_nanos() as u64);
    }
}

/// Counts a read while it is under way.
struct Busy<'a>(&'a Node);

impl Busy<'_> {
    fn at(node: &Node) -> Busy<'_> {
        node.busy.fetch_add(1, Ordering::Relaxed);
        Busy(node)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// With another node to ask nobody waits long for a hung one.
fn timeout(address: &Config, lane: Lane, has_replicas: bool) -> Option<Duration> {
    let timeout = address.request_timeout?;
    Some(if has_replicas && lane == Lane::Fast { timeout.min(REPLICA_TIMEOUT_MAX) } else { timeout })
}

/// Whether another node may answer: this one is lost, or has cancelled the read because it was in the way of replaying (40001, "conflict
/// with recovery"). What takes long among lists takes long on every node.
fn is_of_node(error: &Error, lane: Lane) -> bool {
    match error {
        Error::Timeout => lane == Lane::Fast,
        error => error.is_connection() || matches!(error.code(), Some("40001" | "40P01")),
    }
}

fn no_primary() -> Error {
    Error::Connect("no node is known to be the primary at the moment".into())
}

fn no_node() -> Error {
    Error::Connect("no node can be read from at the moment".into())
}
