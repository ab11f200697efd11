//! The change feed, one process a box: what the database's triggers noted becomes raised fences, and the time up to which that is
//! so becomes the watermark.
//! Runs in: feed.
//!
//! Its death, a stop, or a lost connection leave the watermark as it is, and lookups stop trusting the cache: nobody has to notice.

pub mod follow;
pub mod watch;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use may_postgres::{Client, Config, Error, Reconnect};

use crate::db::lsn::Role;
use crate::db::{self, changes};
use crate::heritage::Heritage;
use crate::limits::{
    BEAT_PERIOD, FEED_CHANGES_LINGER, FEED_PAUSE_CHANGES, FEED_PAUSE_IDLE, FEED_PAUSE_LOST,
    FEED_PAUSE_REQUESTS, FEED_ROTATE_PAUSE, FEED_ROTATE_PERIOD, FEED_TIMEOUT, NODE_PERIOD_ALONE,
};
use crate::metrics::{Counter, MetricsPage};
use crate::os::commands::{Command, Commands, Order};
use crate::os::fd::wait_readable;
use crate::os::signal::Termination;
use crate::os::{clock, fork, sched};
use crate::runtime;
use crate::slots::{Phase, Slots};
use crate::topology::{Reign, Topology};
use follow::{Follower, Node, Outcome};
use watch::{Crown, Sight, Watch};

/// How often it is looked at whether requests come in.
const TRAFFIC_PERIOD: Duration = Duration::from_millis(100);

/// Runs the feed until it is told to end, or its master is gone. Returns the exit status.
pub fn run(heritage: &Heritage, slot: usize, mut commands: Commands) -> i32 {
    let slots = heritage.slots.clone();
    runtime::leave_last_words(slots.clone(), slot);
    // SIGTERM may be meant for the whole group: the master says when the last worker has drained.
    let _termination = Termination::open().expect("a fresh process can open a signalfd");
    slots.set_process(slot, fork::own_identity());
    fork::set_name("catwalk-feed");
    // It competes with workers that never sleep under load; what it waits for, answers wait for.
    sched::run_soon();
    runtime::configure();
    let addresses = match addresses(heritage) {
        Ok(addresses) => addresses,
        Err(e) => {
            log::error!("feed: {e}");
            return 1;
        }
    };
    let topology = heritage.topology.clone();
    let connections: Vec<_> =
        addresses.iter().map(|address| Arc::new(Reconnect::new(address.clone()))).collect();
    let watch =
        Watch::start(&addresses, topology.clone(), heritage.arena.clone(), heritage.config.replica_lag_max);
    let follower = Follower::new(heritage.arena.clone(), topology.clone(), heritage.metrics.slot(slot));
    let rotated = topology.clone();
    let is_needed = heritage.config.cache_size_bytes() > 0 || topology.has_replicas();
    let follow = Follow {
        follower,
        watch: watch.clone(),
        topology,
        connections: connections.clone(),
        followed: None,
        slots,
        slot,
        pace: Pace::new(heritage.metrics.clone(), is_needed),
    };
    for (name, run) in [
        ("feed", Box::new(move || follow.run()) as Box<dyn FnOnce() + Send>),
        ("rotation", Box::new(move || rotate(&rotated, &addresses))),
    ] {
        let thread = thread::Builder::new().name(name.into());
        thread.spawn(run).expect("a fresh process can make a thread");
    }
    loop {
        // A statement without an answer fails at its deadline; looked for here, because the other threads wait for it.
        connections.iter().filter_map(|c| c.client().ok()).for_each(|client| client.tick());
        watch.tick();
        let [commanded] = wait_readable([commands.fd()], BEAT_PERIOD);
        while let Some(command) = commanded.then(|| commands.take()).flatten() {
            if matches!(command, Command::Do(Order::Drain) | Command::Orphaned) {
                return 0;
            }
        }
    }
}

/// Looks after the change table's partitions, over a connection of its own: what takes long there holds up nobody.
fn rotate(topology: &Topology, addresses: &[Config]) {
    loop {
        let primary = topology.reign().map(|reign| &addresses[reign.node]);
        let rotated = primary.map(|address| {
            // Nobody looks at the clock of this one.
            let address = Config { request_timeout: None, ..address.clone() };
            may_postgres::connect(&address).and_then(|client| changes::rotate(&client))
        });
        if let Some(Err(e)) = &rotated {
            log::debug!("feed: looking after the change table's partitions: {e}");
        }
        thread::sleep(if matches!(rotated, Some(Ok(()))) { FEED_ROTATE_PERIOD } else { FEED_ROTATE_PAUSE });
    }
}

/// Where all nodes are; nobody waits long for one.
fn addresses(heritage: &Heritage) -> Result<Vec<Config>, Error> {
    let mut addresses = db::addresses(&heritage.config.nodes(), "catwalk feed")?;
    for address in &mut addresses {
        address.request_timeout = Some(FEED_TIMEOUT);
        address.connect_timeout = address.connect_timeout.min(FEED_TIMEOUT);
    }
    Ok(addresses)
}

/// The thread that follows.
struct Follow {
    follower: Follower,
    watch: Arc<Watch>,
    topology: Topology,
    /// One a node, opened when that one is followed.
    connections: Vec<Arc<Reconnect>>,
    /// The replica that is followed at the moment.
    followed: Option<usize>,
    slots: Slots,
    slot: usize,
    pace: Pace,
}

impl Follow {
    fn run(mut self) {
        loop {
            self.slots.beat(self.slot);
            let outcome = match self.watch.pretender() {
                _ if !self.topology.has_replicas() => self.look_at_primary(0),
                Some((node, sight)) => self.inaugurate(node, &sight),
                None => self.follow(),
            };
            if outcome != Outcome::Lost {
                self.slots.set_phase(self.slot, Phase::Following);
            }
            thread::sleep(self.pace.pause(outcome));
        }
    }

    fn client(&self, node: usize) -> Option<Client> {
        self.connections[node].maintain().then(|| self.connections[node].client().ok()).flatten()
    }

    fn look_at_primary(&mut self, node: usize) -> Outcome {
        match self.client(node) {
            Some(client) => self.follower.look(&client, &Node::Primary),
            None => self.follower.lose("the database can't be reached"),
        }
    }

    /// Looks at a new primary; from then on it takes writes. What there was to void has been voided before anybody writes there.
    fn inaugurate(&mut self, node: usize, sight: &Sight) -> Outcome {
        // Before anybody is kept waiting: connecting may take long.
        if self.client(node).is_none() {
            return self.follower.lose("the new primary can't be reached");
        }
        if self.watch.is_same(node, sight) {
            return self.look_and_crown(node, sight);
        }
        let start = Instant::now();
        self.watch.depose();
        let outcome = self.look_and_crown(node, sight);
        self.watch.settle();
        if outcome == Outcome::Lost {
            // Readers get as much time as this has taken from them.
            thread::sleep(start.elapsed());
        }
        outcome
    }

    fn look_and_crown(&mut self, node: usize, sight: &Sight) -> Outcome {
        let outcome = self.look_at_primary(node);
        let Role::Primary { timeline, .. } = sight.probe.role else { return outcome };
        if outcome == Outcome::Lost {
            return outcome;
        }
        let (life, server) = (self.follower.life(), self.follower.server().to_string());
        if server != sight.probe.server {
            // Another server than the one that was seen: that is looked at again, as if nothing had been void for it.
            self.follower.begin_anew();
            return Outcome::Lost;
        }
        self.watch.inaugurate(Crown { node, timeline, life, server });
        outcome
    }

    /// The replica that was followed, while it is fit; else the furthest; else the primary.
    fn follow(&mut self) -> Outcome {
        let is_fit = |node: &usize| self.topology.is_fit(*node, clock::boottime_ns());
        let reign = self.topology.reign();
        match (self.followed.filter(is_fit).or_else(|| self.watch.furthest()), reign) {
            (Some(node), _) => {
                self.followed = Some(node);
                self.look_at_replica(node, reign)
            }
            (None, Some(reign)) => self.look_at_primary(reign.node),
            // The watchers have only just begun.
            (None, None) if self.watch.life().is_none() => Outcome::Lost,
            (None, None) => self.follower.lose("no node can be reached that may be followed"),
        }
    }

    fn look_at_replica(&mut self, node: usize, reign: Option<Reign>) -> Outcome {
        let Some(client) = self.client(node) else {
            self.followed = None;
            return self.follower.lose("a replica can't be reached");
        };
        // Before the poll: whatever it has replayed by now the poll sees.
        let replayed = self.topology.replayed(node);
        let mark = reign.and_then(|_| self.watch.passed(replayed));
        let Some(life) = self.watch.life() else {
            return self.follower.lose("no primary was ever seen");
        };
        let outcome = self.follower.look(&client, &Node::Replica { replayed, mark, life });
        if outcome == Outcome::Lost {
            self.followed = None;
        }
        outcome
    }
}

/// How long to wait for the next look: less while there is something to see, or somebody to see it.
struct Pace {
    metrics: MetricsPage,
    /// Without a cache and without replicas nothing gets stale.
    is_needed: bool,
    changed: Option<Instant>,
    counted: Instant,
    requests: u64,
    busy: bool,
}

impl Pace {
    fn new(metrics: MetricsPage, is_needed: bool) -> Pace {
        Pace { metrics, is_needed, changed: None, counted: Instant::now(), requests: 0, busy: false }
    }

    fn pause(&mut self, outcome: Outcome) -> Duration {
        let now = Instant::now();
        match outcome {
            Outcome::Lost => return FEED_PAUSE_LOST,
            _ if !self.is_needed => return NODE_PERIOD_ALONE,
            Outcome::Changes => self.changed = Some(now),
            Outcome::Quiet => {}
        }
        if now - self.counted >= TRAFFIC_PERIOD {
            let requests = self.metrics.total(Counter::Requests);
            self.busy = requests != self.requests;
            (self.requests, self.counted) = (requests, now);
        }
        match self.changed {
            Some(changed) if now - changed < FEED_CHANGES_LINGER => FEED_PAUSE_CHANGES,
            _ if self.busy => FEED_PAUSE_REQUESTS,
            _ => FEED_PAUSE_IDLE,
        }
    }
}
