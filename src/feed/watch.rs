//! The nodes, looked at by a thread each: who is the primary, how far the replicas are behind it.
//! Runs in: feed.
//!
//! ```text
//! primary   asked at T ─► snapshot S, then position L: a mark      whoever has replayed L shows everything that S showed,
//! replica   asked     ─► replayed R                                 and all that was committed before T
//! ```
//! So no clock of another machine is needed to say how old a replica's state is: the newest mark that it has passed says it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use may_postgres::{Client, Config, Error, Reconnect};
use parking_lot::Mutex;

use crate::cache::arena::DatabaseIdentity;
use crate::cache::{floor, Arena};
use crate::db::changes::Snapshot;
use crate::db::lsn::{self, Probe, Role, Room};
use crate::limits::{NODE_BEAT_PERIOD, NODE_PERIOD, NODE_PERIOD_ALONE, NODE_ROOM_PERIOD, NODE_SILENCE_MAX};
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
}

/// What the last feed of this server has left on the page: who reigned, but not since when.
fn left_crown(topology: &Topology) -> Option<Crown> {
    let reign = topology.reign().filter(|_| topology.has_replicas())?;
    Some(Crown {
        node: reign.node,
        timeline: topology.timeline(),
        life: topology.life(),
        server: String::new(),
    })
}

fn is_due(last: Option<Instant>, period: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= period)
}

impl Crown {
    /// Whether it is this node's, as it shows itself.
    fn is_of(&self, number: usize, probe: &Probe) -> bool {
        self.node == number && probe.life == Some(self.life) && probe.server == self.server
    }
}

struct Node {
    sight: Option<Sight>,
    system: Option<u64>,
    /// What was last told of it.
    told: State,
}

/// All nodes.
pub struct Watch {
    nodes: Mutex<Vec<Node>>,
    connections: Vec<Reconnect>,
    marks: Mutex<VecDeque<Mark>>,
    /// The last one, be it gone by now.
    crown: Mutex<Option<Crown>>,
    /// Everything is made void for a new primary.
    is_interregnum: AtomicBool,
    /// What this box followed before.
    known: DatabaseIdentity,
    arena: Arc<Arena>,
    started: Instant,
    topology: Topology,
    lag_max: Duration,
}

impl Watch {
    /// Looks at the nodes at `addresses` from now on.
    pub fn start(
        addresses: &[Config],
        topology: Topology,
        arena: Arc<Arena>,
        lag_max: Duration,
    ) -> Arc<Watch> {
        let watched =
            |address: &Config| Config { application_name: "catwalk watch".into(), ..address.clone() };
        let connections: Vec<_> = addresses.iter().map(|address| Reconnect::new(watched(address))).collect();
        let node = |_| Node { sight: None, system: None, told: State::Unknown };
        let watch = Arc::new(Watch {
            nodes: Mutex::new(connections.iter().map(node).collect()),
            connections,
            marks: Mutex::default(),
            crown: Mutex::new(left_crown(&topology)),
            is_interregnum: AtomicBool::new(false),
            known: arena.database(),
            arena,
            started: Instant::now(),
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
        self.nodes.lock()[number].system = Some(room.system_identifier);
    }

    fn look(&self, number: usize, client: &Client, last: &mut Last) -> Result<(), Error> {
        let (at_ns, floor) = (clock::boottime_ns(), floor::floor(&self.arena));
        let probe = lsn::probe(client)?;
        let heard = Instant::now();
        self.nodes.lock()[number].sight = Some(Sight { probe: probe.clone(), heard });
        match probe.role {
            Role::Replica => self.topology.set_replayed(number, probe.lsn),
            Role::Primary { flushed, .. } => {
                let lsn = self.topology.end_of_record(probe.lsn);
                let mark = Mark { at_ns, lsn, snapshot: probe.snapshot.clone() };
                let Some(before) = self.mark(number, &probe, mark) else { return Ok(()) };
                floor::heal(&self.arena, floor, lsn);
                self.topology.set_written(lsn);
                // What nobody has had flushed stays where it is, and replicas with it; and whether the feed has come to the last record
                // is not known until there is another one.
                let is_stuck = self.topology.has_replicas() && flushed < before;
                let is_asked = self.topology.wanted_written() >= lsn;
                if (is_stuck || is_asked) && is_due(last.beaten, NODE_BEAT_PERIOD) {
                    last.beaten = Some(heard);
                    lsn::beat(client)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a mark of the present primary; the position of the one before it. None: it is another one's.
    fn mark(&self, number: usize, probe: &Probe, mark: Mark) -> Option<u64> {
        // Held: a mark of the last one must not come after the present one's first.
        let crown = self.crown.lock();
        let is_alone = !self.topology.has_replicas();
        if !is_alone && !crown.as_ref().is_some_and(|crown| crown.is_of(number, probe)) {
            return None;
        }
        let mut marks = self.marks.lock();
        let before = marks.back().map_or(0, |mark| mark.lsn);
        if marks.len() == MARKS_MAX || is_alone {
            marks.pop_front();
        }
        marks.push_back(mark);
        Some(before)
    }

    /// The newest mark that a replica has passed which has replayed up to `lsn`.
    pub fn passed(&self, lsn: u64) -> Option<Mark> {
        let marks = self.marks.lock();
        let behind = marks.partition_point(|mark| mark.lsn <= lsn);
        behind.checked_sub(1).map(|at| marks[at].clone())
    }

    /// States of all nodes, from what was last heard of them.
    fn judge(&self) {
        if !self.topology.has_replicas() {
            return;
        }
        let mut nodes = self.nodes.lock();
        // Until there is one, what the last feed has left on the page holds.
        let Some(crown) = self.crown.lock().clone() else { return };
        let now_ns = clock::boottime_ns();
        for (number, node) in nodes.iter_mut().enumerate() {
            let state = self.judge_one(number, node, &crown, now_ns);
            self.topology.set_state(number, state);
            if state != node.told {
                log::info!("node {number}: {state}");
                node.told = state;
            }
            let reigns = self.topology.reign().is_some_and(|reign| reign.node == number);
            // One that the last feed has left behind is looked at anew first.
            let is_left = crown.server.is_empty() && state == State::Unknown;
            if reigns && state != State::Primary && !is_left {
                log::error!("node {number} was the primary: {state}; nobody takes writes");
                self.topology.lose_primary();
            }
        }
    }

    fn judge_one(&self, number: usize, node: &Node, crown: &Crown, now_ns: u64) -> State {
        let Some(sight) = &node.sight else {
            return match self.started.elapsed() > NODE_SILENCE_MAX {
                true => State::Unreachable,
                false => self.topology.state(number),
            };
        };
        if sight.heard.elapsed() > NODE_SILENCE_MAX {
            return State::Unreachable;
        }
        match sight.probe.role {
            Role::Primary { timeline, .. } if timeline < crown.timeline => State::Foreign,
            Role::Primary { .. } if crown.is_of(number, &sight.probe) => State::Primary,
            Role::Primary { .. } => State::Unknown,
            // Nobody reads from those of the last one while everything is made void for the next.
            Role::Replica if self.is_interregnum.load(Ordering::Acquire) => State::Unknown,
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
            self.topology.reign().is_some_and(|reign| reign.node == n)
                && crown.as_ref().is_some_and(|crown| crown.is_of(n, &sight.probe))
        };
        // Of two with the same timeline the one that reigns.
        let (timeline, n, sight) = claims
            .max_by_key(|(timeline, n, sight)| (*timeline, is_crowned(*n, sight), std::cmp::Reverse(*n)))?;
        let is_former = crown.as_ref().is_some_and(|crown| timeline < crown.timeline)
            || self.was_replaced(nodes[n].system, timeline);
        (!is_former && !is_crowned(n, &sight)).then_some((n, sight))
    }

    /// Whether this box has followed a later timeline of the same database before this feed began.
    fn was_replaced(&self, system: Option<u64>, timeline: u64) -> bool {
        // Not known yet: looked at again soon.
        system.is_none_or(|system| system == self.known.system_identifier && timeline < self.known.timeline)
    }

    /// Begins to make everything void for a new primary: from now on nobody writes to the last one, or reads from its replicas, under what
    /// was void before.
    pub fn depose(&self) {
        // Held: nobody judges by what was before.
        let _nodes = self.nodes.lock();
        self.is_interregnum.store(true, Ordering::Release);
        self.topology.lose_primary();
        self.topology.forget_positions();
        (0..self.topology.nodes()).for_each(|node| self.topology.set_state(node, State::Unknown));
    }

    /// Ends that, be there a new one or not.
    pub fn settle(&self) {
        self.is_interregnum.store(false, Ordering::Release);
        self.judge();
    }

    /// A node whose first look has been taken: it takes writes from now on.
    pub fn inaugurate(&self, crown: Crown) {
        let Crown { node, timeline, .. } = crown;
        let _nodes = self.nodes.lock();
        let mut present = self.crown.lock();
        if present.as_ref() != Some(&crown) {
            self.marks.lock().clear();
        }
        *present = Some(crown);
        log::info!("node {node} is the primary, timeline {timeline}");
        self.topology.inaugurate(node, timeline);
    }

    /// Whether a node is the primary as it was: nothing that it showed is void, and nobody has to be kept from anything.
    pub fn is_same(&self, node: usize, sight: &Sight) -> bool {
        let crown = self.crown.lock();
        crown.as_ref().is_some_and(|crown| {
            let is_server = crown.server.is_empty() || crown.server == sight.probe.server;
            crown.node == node && sight.probe.life == Some(crown.life) && is_server
        })
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
