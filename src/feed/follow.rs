//! One look after the other: changes to fences, then the watermark. What can't be followed voids everything.
//! Runs in: feed.
//!
//! ```text
//! nowhere ──poll, void everything──► at a snapshot ──poll──► raise what became visible since ──► the next snapshot
//!    ▲                                     │
//!    └── another database, life, trigger, time gone back; changes dropped, or too many
//! ```
//! Voiding comes after a poll and before its watermark: a fill that takes its token afterwards reads a later snapshot than the
//! poll's, from which on changes are followed; with replicas the floor, raised before, sees to that.
//!
//! A replica's snapshots don't tell what is open. There the place is a mark of the primary's that the replica has passed, and the
//! transactions beyond it whose changes were seen already; the watermark is the mark's time.

use std::sync::Arc;

use may_postgres::{Client, Error};

use crate::cache::arena::DatabaseIdentity;
use crate::cache::watermark::{self, Cursor, Reason, State};
use crate::cache::{fence, floor, Arena, Key, Kind};
use crate::catalogue::{Change, What};
use crate::db::changes::{self, Poll, Snapshot, Surroundings};
use crate::feed::watch::Mark;
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;
use crate::topology::Topology;

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Quiet,
    Changes,
    /// The watermark stays where it is.
    Lost,
}

/// What is followed.
pub enum Node {
    /// Whoever takes writes, or is to.
    Primary,
    /// One that had replayed up to a position before the look, with the newest mark that it had passed, None while nobody
    /// takes writes. It has to show the life that the primary was inaugurated in.
    Replica { replayed: u64, mark: Option<Mark>, life: u64 },
}

/// Follows one database for one arena.
pub struct Follower {
    arena: Arc<Arena>,
    topology: Topology,
    metrics: SlotMetrics,
    place: Option<Place>,
    /// The connection that was made ready, and the statement's server.
    backend: i32,
    /// The primary's, when it was last looked at.
    server: String,
    life: u64,
    /// Position that the primary had written when the last look at it was over.
    written: u64,
    /// What was wrong last: told once.
    trouble: Option<String>,
}

/// Up to where changes are applied, and in which surroundings and life they were noted.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    seen: Snapshot,
    /// Transactions that `seen` does not show, whose changes are applied.
    beyond: Vec<u64>,
    followed: u64,
    life: u64,
    /// None: whoever was here before has not looked at it.
    dropped_xid: Option<u64>,
}

/// What a closer look brought.
enum Inspection {
    Identity(DatabaseIdentity, [u8; 32]),
    /// It can't be followed, and why.
    Trouble(String),
}

impl Follower {
    /// Goes on where the arena's last feed stood.
    pub fn new(arena: Arc<Arena>, topology: Topology, metrics: SlotMetrics) -> Follower {
        let place = watermark::cursor(&arena).map(|Cursor { xmin, followed, life }| Place {
            seen: Snapshot::from_xmin(xmin),
            beyond: Vec::new(),
            followed,
            life,
            dropped_xid: None,
        });
        Follower {
            arena,
            topology,
            metrics,
            place,
            backend: 0,
            server: String::new(),
            life: 0,
            written: 0,
            trouble: None,
        }
    }

    /// The primary's server, when it was last looked at.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The life that it was in then.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The next look voids everything.
    pub fn begin_anew(&mut self) {
        self.place = None;
    }

    /// Looks once.
    pub fn look(&mut self, client: &Client, node: &Node) -> Outcome {
        match self.try_look(client, node) {
            Ok(outcome) => outcome,
            Err(e) => self.lose(&e.to_string()),
        }
    }

    /// There is nothing to look at.
    pub fn lose(&mut self, why: &str) -> Outcome {
        self.stand_back(State::CutOff, why)
    }

    fn try_look(&mut self, client: &Client, node: &Node) -> Result<Outcome, Error> {
        let is_new = self.make_ready(client)?;
        let now_ns = clock::boottime_ns();
        let floor_before = floor::floor(&self.arena);
        let nothing_since = Snapshot::from_xmin(u64::MAX >> 1);
        let is_replica = matches!(node, Node::Replica { .. });
        // What a replica has shown already the primary may show only later, when somebody has read what was before: seen again there.
        let (seen, beyond) = match &self.place {
            Some(place) if is_replica => (&place.seen, place.beyond.as_slice()),
            Some(place) => (&place.seen, &[][..]),
            None => (&nothing_since, &[][..]),
        };
        let mut poll = changes::poll(client, seen, beyond)?;
        let surroundings = changes::surroundings(client)?;
        self.metrics.count(Counter::FeedPolls);
        let is_other_life = matches!(node, Node::Replica { life, .. } if poll.life != Some(*life));
        if is_other_life || (is_replica != surroundings.in_recovery && self.topology.has_replicas()) {
            // It has just been promoted, or put back: the watchers will say what it is.
            return Ok(Outcome::Lost);
        }
        if matches!(node, Node::Replica { replayed, .. } if surroundings.lsn < *replayed) {
            // It has begun anew, further back: what it had replayed by now is not known.
            return Ok(Outcome::Lost);
        }
        let Some(life) = poll.life else {
            if !surroundings.in_recovery {
                changes::begin_life(client)?;
            }
            return Ok(Outcome::Lost);
        };
        if !is_replica {
            self.server.clone_from(&surroundings.server);
            self.life = life;
            floor::heal(&self.arena, floor_before, self.topology.end_of_record(surroundings.lsn));
        }
        poll.changes = poll.changes.and_then(|changes| resolve(client, changes));
        let next = self.next_place(node, &poll, life, surroundings.followed);
        let mut reason = noted(poll.changes.as_deref());
        let is_odd = is_new || self.trouble.is_some() || (surroundings.in_recovery && !is_replica);
        if is_odd || self.find_break(node, &next, &poll).is_some() {
            match self.inspect(client, &surroundings, is_replica)? {
                Inspection::Trouble(why) => return Ok(self.meet_trouble(&why)),
                Inspection::Identity(identity, secret) => {
                    let other = self.place.is_some() && self.arena.database() != identity;
                    reason = reason.or(other.then_some(Reason::Identity));
                    reason = reason.or(self.find_break(node, &next, &poll));
                    self.settle(reason, &poll.changes, next, surroundings.lsn);
                    self.arena.bind(identity);
                    self.topology.set_secret(life.max(1), &secret);
                }
            }
        } else {
            self.settle(reason, &poll.changes, next, surroundings.lsn);
        }
        self.advance(node, now_ns, &surroundings);
        self.follow_on();
        Ok(if poll.changes.is_some_and(|changes| changes.is_empty()) {
            Outcome::Quiet
        } else {
            Outcome::Changes
        })
    }

    fn next_place(&self, node: &Node, poll: &Poll, life: u64, followed: u64) -> Place {
        // A server that was stopped may have been put back to what it was: its start is part of its life.
        let life = rapidhash::v3::rapidhash_v3(format!("{life} {}", self.server).as_bytes());
        let (seen, beyond) = match (node, &self.place) {
            (Node::Primary, _) => (poll.snapshot.clone(), Vec::new()),
            (Node::Replica { .. }, None) => (Snapshot::from_xmin(poll.snapshot.xmin), Vec::new()),
            (Node::Replica { mark, .. }, Some(place)) => {
                let ahead = mark
                    .as_ref()
                    .map(|mark| &mark.snapshot)
                    .filter(|s| s.xmax >= place.seen.xmax && s.xmin >= place.seen.xmin);
                let seen = ahead.unwrap_or(&place.seen).clone();
                let mut beyond: Vec<u64> = place.beyond.iter().chain(&poll.xids).copied().collect();
                beyond.retain(|xid| *xid >= seen.xmax || seen.open.contains(xid));
                (seen, beyond)
            }
        };
        Place { seen, beyond, followed, life, dropped_xid: Some(poll.dropped_xid) }
    }

    /// Says how fresh everything is. Of two nodes that are followed in turn one may be behind the other: the watermark never goes back.
    fn advance(&mut self, node: &Node, now_ns: u64, surroundings: &Surroundings) {
        let (at_ns, applied) = match node {
            Node::Primary => {
                // What has returned from its commit before something else was written was seen by a poll after that; who wrote last may
                // not have returned yet.
                let applied = self.written.saturating_sub(1);
                self.written = self.topology.end_of_record(surroundings.lsn);
                (Some(now_ns), applied)
            }
            Node::Replica { replayed, mark, .. } => (mark.as_ref().map(|mark| mark.at_ns), *replayed),
        };
        if let Some(at_ns) = at_ns.filter(|at_ns| *at_ns > watermark::watermark_ns(&self.arena)) {
            watermark::advance(&self.arena, at_ns);
        }
        floor::set_applied(&self.arena, applied);
        watermark::set_followed(&self.arena, now_ns);
    }

    /// Why changes can't be followed from the present place to the next, if they can't.
    fn find_break(&self, node: &Node, next: &Place, poll: &Poll) -> Option<Reason> {
        let Some(place) = &self.place else { return Some(Reason::NoCursor) };
        let (seen, now) = (&place.seen, &poll.snapshot);
        let is_new_drop = next.dropped_xid != place.dropped_xid;
        // A replica may be behind another one that was followed before.
        let went_back = matches!(node, Node::Primary) && (now.xmin < seen.xmin || now.xmax < seen.xmax);
        if place.life != next.life || went_back {
            Some(Reason::Life)
        } else if place.followed != next.followed {
            Some(Reason::Triggers)
        } else if is_new_drop && next.dropped_xid.is_some_and(|xid| xid >= seen.xmin && xid < now.xmax) {
            Some(Reason::Dropped)
        } else {
            None
        }
    }

    /// Raises the fences of what became visible, or voids everything; then, and not before, this is the place where whoever comes
    /// next goes on: after a death in between it finds the same.
    fn settle(&mut self, reason: Option<Reason>, changes: &Option<Vec<Change>>, next: Place, lsn: u64) {
        let changes = changes.as_deref().unwrap_or_default();
        self.metrics.add(Counter::FeedChanges, changes.len() as u64);
        if self.topology.has_replicas() && (reason.is_some() || !changes.is_empty()) {
            floor::raise(&self.arena, self.topology.end_of_record(lsn));
        }
        match reason {
            Some(reason) => self.void(reason),
            None => self.raise(changes),
        }
        if matches!(reason, Some(Reason::Life | Reason::Identity)) {
            // A position of another history.
            self.written = 0;
        }
        let cursor = Cursor { xmin: next.seen.xmin, followed: next.followed, life: next.life };
        watermark::set_cursor(&self.arena, cursor);
        self.place = Some(next);
    }

    /// Plans of the feed's statements don't depend on what they are asked for: made once a connection. True: it is a new one.
    fn make_ready(&mut self, client: &Client) -> Result<bool, Error> {
        let is_new = self.backend != client.process_id();
        if is_new {
            client.batch_execute("set plan_cache_mode = force_generic_plan")?;
            self.backend = client.process_id();
        }
        Ok(is_new)
    }

    /// What it does not know of is void; it goes on once this has been put right.
    fn meet_trouble(&mut self, why: &str) -> Outcome {
        if self.trouble.as_deref() != Some(why) {
            self.void(Reason::Triggers);
        }
        // Whatever goes by meanwhile, it begins anew, and so does whoever comes after it.
        self.place = None;
        watermark::forget_cursor(&self.arena);
        self.stand_back(State::Unfollowable, why)
    }

    fn raise(&self, changes: &[Change]) {
        let raise = |kind, id| fence::raise(&self.arena, Key::new(kind, id).fence(), &self.metrics);
        let mut touches_lists = false;
        for change in changes {
            for kind in Kind::made_from(change.what) {
                match kind {
                    // All lists share a fence: raised once.
                    Kind::List => touches_lists = true,
                    kind => raise(*kind, change.id),
                }
            }
        }
        if touches_lists {
            raise(Kind::List, 0);
        }
    }

    fn void(&self, reason: Reason) {
        self.metrics.count(Counter::CacheVoidedAll);
        watermark::void_everything(&self.arena, reason);
        match reason {
            // A fresh start voids nothing that anybody had.
            Reason::NoCursor => log::debug!("feed: {reason}"),
            _ => log::warn!("feed: every cached answer is void: {reason}"),
        }
    }

    /// The watermark stays; what is wrong is told once.
    fn stand_back(&mut self, state: State, why: &str) -> Outcome {
        watermark::set_state(&self.arena, state);
        if self.trouble.as_deref() != Some(why) {
            self.metrics.count(Counter::FeedLost);
            log::error!("feed: {why}; answers come from the database until changes can be followed");
            self.trouble = Some(why.to_string());
        }
        Outcome::Lost
    }

    /// Looks at what neither changes nor surroundings show.
    fn inspect(
        &self,
        client: &Client,
        surroundings: &Surroundings,
        is_replica: bool,
    ) -> Result<Inspection, Error> {
        if surroundings.in_recovery && !is_replica {
            return Ok(Inspection::Trouble("the server is in recovery: it is no primary".into()));
        }
        if let Some(problems) = changes::problems(client)? {
            return Ok(Inspection::Trouble(problems));
        }
        let changes::Identity { system_identifier, timeline, secret } = changes::identity(client)?;
        let timeline = timeline.unwrap_or_else(|| self.arena.database().timeline);
        Ok(Inspection::Identity(DatabaseIdentity { system_identifier, timeline }, secret))
    }

    /// All is well.
    fn follow_on(&mut self) {
        watermark::set_state(&self.arena, State::Following);
        if self.trouble.take().is_some() {
            log::info!("feed: changes are followed again");
        }
    }
}

/// Changes of parts become those of what they belong to. None: it can't be asked for, as while somebody holds a lock on the table;
/// then nobody waits for it.
fn resolve(client: &Client, mut changes: Vec<Change>) -> Option<Vec<Change>> {
    let is_part =
        |change: &Change| matches!(change.what, What::Style | What::Review | What::Question | What::Answer);
    let parts: Vec<Change> = changes.iter().copied().filter(is_part).collect();
    if parts.is_empty() {
        return Some(changes);
    }
    match changes::of_parents(client, &parts) {
        Ok(parents) => {
            changes.retain(|change| !is_part(change));
            changes.extend(parents);
            Some(changes)
        }
        Err(e) => {
            log::debug!("feed: finding what {} changed parts belong to: {e}", parts.len());
            None
        }
    }
}

/// What the changes themselves say about following them one by one.
fn noted(changes: Option<&[Change]>) -> Option<Reason> {
    match changes {
        None => Some(Reason::TooMany),
        Some(changes) => {
            changes.iter().any(|change| change.what == What::Everything).then_some(Reason::Noted)
        }
    }
}
