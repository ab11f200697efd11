//! The nodes, looked at by a thread each: who is the primary, how far the replicas are behind it.
//! Runs in: feed.
//!
//! ```text
//! primary   asked at T ─► snapshot S, then position L: a mark      whoever has replayed L shows everything that S showed,
//! replica   asked     ─► replayed R                                 and all that was committed before T
//! ```
//! So no clock of another machine is needed to say how old a replica's state is: the newest mark that it has passed says it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use may_postgres::{Client, Config, Error, Reconnect};
use parking_lot::Mutex;

use crate::db::changes::{self, Snapshot};
use crate::db::lsn::{self, Probe, Role, Room};
use crate::limits::{
    FEED_ROTATE_PERIOD, NODE_BEAT_PERIOD, NODE_PERIOD, NODE_PERIOD_ALONE, NODE_ROOM_PERIOD, NODE_SILENCE_MAX,
};
use crate::os::clock;
use crate::topology::{State, Topology};

/// Marks kept: as many seconds as a replica may lag behind and still have its lag known.
const MARKS_MAX: usize = 4096;

/// What the primary showed once.
#[derive(Debug, Clone)]
pub struct Mark {
    /// CLOCK_BOOTTIME before it was asked.
    pub at_ns: u64,
    pub lsn: u64,
    pub snapshot: Snapshot,
}

/// A node as it was last seen.
#[derive(Debug, Clone)]
pub struct Sight {
    pub probe: Probe,
    heard: Instant,
}

/// Who takes writes, as the watchers need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crown {
    pub node: usize,
    pub timeline: u64,
    pub life: u64,
    pub server: String,
}

/// When a watcher last did what it does less often than it looks.
#[derive(Default)]
struct Last {
    roomed: Option<Instant>,
    beaten: Option<Instant>,
    rotated: Option<Instant>,
}

fn is_due(last: Option<Instant>, period: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= period)
}

struct Node {
    sight: Option<Sight>,
    /// What was last told of it.
    told: State,
}

/// All nodes.
pub struct Watch {
    nodes: Mutex<Vec<Node>>,
    connections: Vec<Arc<Reconnect>>,
    marks: Mutex<VecDeque<Mark>>,
    /// The last one, be it gone by now.
    crown: Mutex<Option<Crown>>,
    topology: Topology,
    lag_max: Duration,
}

impl Watch {
    /// Looks at the nodes at `addresses` from now on.
    pub fn start(addresses: &[Config], topology: Topology, lag_max: Duration) -> Arc<Watch> {
        let watched =
            |address: &Config| Config { application_name: "catwalk watch".into(), ..address.clone() };
        let connections: Vec<_> =
            addresses.iter().map(|address| Arc::new(Reconnect::new(watched(address)))).collect();
        let node = |_| Node { sight: None, told: State::Unknown };
        let watch = Arc::new(Watch {
            nodes: Mutex::new(connections.iter().map(node).collect()),
            connections,
            marks: Mutex::default(),
            crown: Mutex::default(),
            topology,
            lag_max,
        });
        for number in 0..watch.connections.len() {
            let watch = watch.clone();
            let watcher = thread::Builder::new().name(format!("watch-{number}"));
            watcher.spawn(move || watch.run(number)).expect("a fresh process can make a thread");
        }
        watch
    }

    /// Lets deadlines of statements be looked at.
    pub fn tick(&self) {
        self.connections.iter().filter_map(|c| c.client().ok()).for_each(|client| client.tick());
    }

    fn run(&self, number: usize) {
        let period = if self.topology.has_replicas() { NODE_PERIOD } else { NODE_PERIOD_ALONE };
        let connection = &self.connections[number];
        let mut last = Last::default();
        loop {
            let started = Instant::now();
            let looked = match connection.maintain() {
                true => connection.client().and_then(|client| {
                    if is_due(last.roomed, NODE_ROOM_PERIOD) {
                        self.saw_room(number, lsn::room(&client)?);
                        last.roomed = Some(started);
                    }
                    self.look(number, &client, &mut last)
                }),
                false => connection.client().map(|_| ()),
            };
            if let Err(e) = looked {
                log::debug!("node {number}: {e}");
                last.roomed = None;
            }
            self.judge();
            thread::sleep(period.saturating_sub(started.elapsed()).max(period / 4));
        }
    }

    fn saw_room(&self, number: usize, room: Room) {
        self.topology.set_room(number, (room.connections / room.boxes).max(1));
        self.topology.set_segment_size(room.segment_size_bytes);
    }

    fn look(&self, number: usize, client: &Client, last: &mut Last) -> Result<(), Error> {
        let at_ns = clock::boottime_ns();
        let probe = lsn::probe(client)?;
        let heard = Instant::now();
        let before = self.nodes.lock()[number].sight.replace(Sight { probe: probe.clone(), heard });
        match probe.role {
            Role::Replica => {
                if before.is_some_and(|before| before.probe.server != probe.server) {
                    self.topology.forget_replayed(number);
                }
                self.topology.saw_replayed(number, probe.lsn);
            }
            Role::Primary { flushed, .. } if self.is_crowned(number, &probe) => {
                let lsn = self.topology.end_of_record(probe.lsn);
                self.topology.set_written(lsn);
                let wanted = self.mark(Mark { at_ns, lsn, snapshot: probe.snapshot.clone() });
                // What nobody has had flushed stays where it is, and replicas with it.
                if self.topology.has_replicas() && flushed < wanted && is_due(last.beaten, NODE_BEAT_PERIOD) {
                    last.beaten = Some(heard);
                    lsn::beat(client)?;
                }
            }
            Role::Primary { .. } => {}
        }
        let is_primary = matches!(probe.role, Role::Primary { .. });
        if is_primary
            && self.topology.reign().is_some_and(|reign| reign.node == number)
            && is_due(last.rotated, FEED_ROTATE_PERIOD)
        {
            last.rotated = Some(heard);
            if let Err(e) = changes::rotate(client) {
                log::warn!("feed: looking after the change table's partitions: {e}");
            }
        }
        Ok(())
    }

    /// Adds a mark; the position of the one before it.
    fn mark(&self, mark: Mark) -> u64 {
        let mut marks = self.marks.lock();
        let before = marks.back().map_or(0, |mark| mark.lsn);
        if marks.len() == MARKS_MAX {
            marks.pop_front();
        }
        marks.push_back(mark);
        before
    }

    /// The newest mark that a replica has passed which has replayed up to `lsn`.
    pub fn passed(&self, lsn: u64) -> Option<Mark> {
        let marks = self.marks.lock();
        let behind = marks.partition_point(|mark| mark.lsn <= lsn);
        behind.checked_sub(1).map(|at| marks[at].clone())
    }

    fn is_crowned(&self, number: usize, probe: &Probe) -> bool {
        let is_it = |crown: &Crown| {
            crown.node == number && probe.life == Some(crown.life) && probe.server == crown.server
        };
        self.crown.lock().as_ref().is_some_and(is_it)
    }

    /// States of all nodes, from what was last heard of them.
    fn judge(&self) {
        if !self.topology.has_replicas() {
            return;
        }
        let mut nodes = self.nodes.lock();
        let crown = self.crown.lock().clone();
        let now_ns = clock::boottime_ns();
        for (number, node) in nodes.iter_mut().enumerate() {
            let state = self.judge_one(number, node, crown.as_ref(), now_ns);
            self.topology.set_state(number, state);
            if state != node.told {
                log::info!("node {number}: {state}");
                node.told = state;
            }
            let reigns = self.topology.reign().is_some_and(|reign| reign.node == number);
            if reigns && state != State::Primary {
                log::error!("node {number} was the primary: {state}; nobody takes writes");
                self.topology.lose_primary();
            }
        }
    }

    fn judge_one(&self, number: usize, node: &Node, crown: Option<&Crown>, now_ns: u64) -> State {
        let Some(sight) = &node.sight else { return State::Unknown };
        if sight.heard.elapsed() > NODE_SILENCE_MAX {
            return State::Unreachable;
        }
        let Some(crown) = crown else { return State::Unknown };
        match sight.probe.role {
            Role::Primary { timeline, .. } if timeline < crown.timeline => State::Foreign,
            Role::Primary { .. } if self.is_crowned(number, &sight.probe) => State::Primary,
            Role::Primary { .. } => State::Unknown,
            Role::Replica if sight.probe.life != Some(crown.life) => State::Foreign,
            // Nobody can say how far it is behind.
            Role::Replica if self.topology.reign().is_none() => State::Fit,
            Role::Replica => {
                let passed = self.passed(self.topology.replayed(number));
                let lag_ns = passed.map_or(u64::MAX, |mark| now_ns.saturating_sub(mark.at_ns));
                self.topology.set_lag(number, lag_ns);
                // Who has fallen behind comes back when it has really caught up.
                let bound = if node.told == State::Behind { self.lag_max / 2 } else { self.lag_max };
                if lag_ns <= bound.as_nanos() as u64 {
                    State::Fit
                } else {
                    State::Behind
                }
            }
        }
    }

    /// A node that says it is the primary, and is not the one that is crowned: of several the one with the latest timeline. One of an older
    /// timeline than the last is a former primary.
    pub fn pretender(&self) -> Option<(usize, Sight)> {
        let crown = self.crown.lock().clone();
        let nodes = self.nodes.lock();
        let recent =
            |node: &Node| node.sight.clone().filter(|sight| sight.heard.elapsed() <= NODE_SILENCE_MAX);
        let claims = nodes.iter().enumerate().filter_map(|(n, node)| {
            let sight = recent(node)?;
            let Role::Primary { timeline, .. } = sight.probe.role else { return None };
            Some((timeline, n, sight))
        });
        let is_crowned = |n: usize, sight: &Sight| {
            let is_it = |crown: &Crown| {
                crown.node == n && sight.probe.life == Some(crown.life) && sight.probe.server == crown.server
            };
            self.topology.reign().is_some_and(|reign| reign.node == n) && crown.as_ref().is_some_and(is_it)
        };
        // Of two with the same timeline the one that reigns.
        let (timeline, n, sight) = claims
            .max_by_key(|(timeline, n, sight)| (*timeline, is_crowned(*n, sight), std::cmp::Reverse(*n)))?;
        let is_former = crown.as_ref().is_some_and(|crown| timeline < crown.timeline);
        (!is_former && !is_crowned(n, &sight)).then_some((n, sight))
    }

    /// A node whose first look has been taken: it takes writes from now on.
    pub fn inaugurate(&self, crown: Crown) {
        let Crown { node, timeline, .. } = crown;
        let before = self.crown.lock().replace(crown.clone());
        if before != Some(crown) {
            self.marks.lock().clear();
        }
        // Who was fit under the last one may not be under this one.
        self.judge();
        log::info!("node {node} is the primary, timeline {timeline}");
        self.topology.inaugurate(node, timeline);
    }

    /// The life of the present primary, or of the last one.
    pub fn life(&self) -> Option<u64> {
        self.crown.lock().as_ref().map(|crown| crown.life)
    }

    /// The furthest of the replicas that may be read from.
    pub fn furthest(&self) -> Option<usize> {
        let now_ns = clock::boottime_ns();
        let fit = (0..self.topology.nodes()).filter(|n| self.topology.is_fit(*n, now_ns));
        fit.max_by_key(|n| self.topology.replayed(*n))
    }
}
