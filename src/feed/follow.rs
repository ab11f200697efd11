//! One look after the other: changes to fences, then the watermark. What can't be followed voids everything.
//! Runs in: feed.
//!
//! ```text
//! nowhere ──poll, void everything──► at a snapshot ──poll──► raise what became visible since ──► the next snapshot
//!    ▲                                     │
//!    └── another database, life, trigger, time gone back; changes dropped, or too many
//! ```
//! Voiding comes after a poll and before its watermark: a fill that takes its token afterwards reads a later snapshot than the
//! poll's, from which on changes are followed.

use std::sync::Arc;
use std::time::Instant;

use may_postgres::{Client, Error};

use crate::cache::arena::DatabaseIdentity;
use crate::cache::watermark::{self, Cursor, Reason, State};
use crate::cache::{fence, Arena, Key, Kind};
use crate::catalogue::{Change, What};
use crate::db::changes::{self, Snapshot, Surroundings};
use crate::limits::FEED_ROTATE_PERIOD;
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Quiet,
    Changes,
    /// The watermark stays where it is.
    Lost,
}

/// Follows one database for one arena.
pub struct Follower {
    arena: Arc<Arena>,
    metrics: SlotMetrics,
    place: Option<Place>,
    /// The connection that was made ready.
    backend: i32,
    rotated: Option<Instant>,
    /// What was wrong last: told once.
    trouble: Option<String>,
}

/// Up to where changes are applied, and in which surroundings and life they were noted.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    seen: Snapshot,
    followed: u64,
    life: u64,
    /// None: whoever was here before has not looked at it.
    dropped_xid: Option<u64>,
}

/// What a closer look brought.
enum Inspection {
    Identity(DatabaseIdentity),
    /// It can't be followed, and why.
    Trouble(String),
}

impl Follower {
    /// Goes on where the arena's last feed stood.
    pub fn new(arena: Arc<Arena>, metrics: SlotMetrics) -> Follower {
        let place = watermark::cursor(&arena).map(|Cursor { xmin, followed, life }| Place {
            seen: Snapshot::from_xmin(xmin),
            followed,
            life,
            dropped_xid: None,
        });
        Follower { arena, metrics, place, backend: 0, rotated: None, trouble: None }
    }

    /// Looks once.
    pub fn look(&mut self, client: &Client) -> Outcome {
        match self.try_look(client) {
            Ok(outcome) => outcome,
            Err(e) => self.lose(&e.to_string()),
        }
    }

    /// There is nothing to look at.
    pub fn lose(&mut self, why: &str) -> Outcome {
        self.stand_back(State::CutOff, why)
    }

    fn try_look(&mut self, client: &Client) -> Result<Outcome, Error> {
        let is_new = self.make_ready(client)?;
        let now_ns = clock::boottime_ns();
        let nothing_since = Snapshot::from_xmin(u64::MAX >> 1);
        let mut poll =
            changes::poll(client, self.place.as_ref().map_or(&nothing_since, |place| &place.seen))?;
        let surroundings = changes::surroundings(client)?;
        self.metrics.count(Counter::FeedPolls);
        let Some(life) = poll.life else {
            changes::begin_life(client)?;
            return Ok(Outcome::Lost);
        };
        let next = Place {
            followed: surroundings.followed,
            // A server that was stopped may have been put back to what it was: its start is part of its life.
            life: rapidhash::v3::rapidhash_v3(format!("{life} {}", surroundings.server).as_bytes()),
            dropped_xid: Some(poll.dropped_xid),
            seen: poll.snapshot,
        };
        poll.changes = poll.changes.and_then(|changes| resolve(client, changes));
        let mut reason = noted(poll.changes.as_deref());
        let is_odd = is_new || self.trouble.is_some() || surroundings.in_recovery;
        if is_odd || self.find_break(&next).is_some() {
            match inspect(client, &surroundings)? {
                Inspection::Trouble(why) => return Ok(self.meet_trouble(&why)),
                Inspection::Identity(identity) => {
                    let other = self.place.is_some() && self.arena.database() != identity;
                    reason = reason.or(other.then_some(Reason::Identity)).or(self.find_break(&next));
                    self.settle(reason, &poll.changes, next);
                    self.arena.bind(identity);
                }
            }
        } else {
            self.settle(reason, &poll.changes, next);
        }
        watermark::advance(&self.arena, now_ns);
        self.follow_on(client);
        Ok(if poll.changes.is_some_and(|changes| changes.is_empty()) {
            Outcome::Quiet
        } else {
            Outcome::Changes
        })
    }

    /// Why changes can't be followed from the present place to the next, if they can't.
    fn find_break(&self, next: &Place) -> Option<Reason> {
        let Some(place) = &self.place else { return Some(Reason::NoCursor) };
        let (seen, now) = (&place.seen, &next.seen);
        let is_new_drop = next.dropped_xid != place.dropped_xid;
        if place.life != next.life || now.xmin < seen.xmin || now.xmax < seen.xmax {
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
    fn settle(&mut self, reason: Option<Reason>, changes: &Option<Vec<Change>>, next: Place) {
        let changes = changes.as_deref().unwrap_or_default();
        self.metrics.add(Counter::FeedChanges, changes.len() as u64);
        match reason {
            Some(reason) => self.void(reason),
            None => self.raise(changes),
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

    /// All is well.
    fn follow_on(&mut self, client: &Client) {
        watermark::set_state(&self.arena, State::Following);
        if self.trouble.take().is_some() {
            log::info!("feed: changes are followed again");
        }
        if self.rotated.is_none_or(|rotated| rotated.elapsed() >= FEED_ROTATE_PERIOD) {
            self.rotated = Some(Instant::now());
            if let Err(e) = changes::rotate(client) {
                log::warn!("feed: looking after the change table's partitions: {e}");
            }
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

/// Looks at what neither changes nor surroundings show.
fn inspect(client: &Client, surroundings: &Surroundings) -> Result<Inspection, Error> {
    if surroundings.in_recovery {
        return Ok(Inspection::Trouble("the server is in recovery: it is no primary".into()));
    }
    if let Some(problems) = changes::problems(client)? {
        return Ok(Inspection::Trouble(problems));
    }
    let (system_identifier, timeline) = changes::identity(client)?;
    Ok(Inspection::Identity(DatabaseIdentity { system_identifier, timeline }))
}
