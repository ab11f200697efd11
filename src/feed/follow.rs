//! One look after the other: changes to fences, then the watermark. What can't be followed voids everything.
//! Runs in: feed.
//!
//! ```text
//! nowhere ──poll, void everything──► at a snapshot ──poll──► raise what became visible since ──► the next snapshot
//!    ▲                                     │
//!    └── another database, life, trigger; changes dropped, or too many
//! ```
//! Voiding comes after a poll and before its watermark: a fill that takes its token afterwards reads a later snapshot than the
//! poll's, from which on changes are followed.

use std::sync::Arc;
use std::time::Instant;

use may_postgres::{Client, Error};

use crate::cache::arena::DatabaseIdentity;
use crate::cache::watermark::{self, Cursor, Reason, State};
use crate::cache::{fence, Arena, Key, Kind};
use crate::db::changes::{self, Change, Poll, Snapshot, Standing, What};
use crate::limits::{FEED_CHANGES_MAX, FEED_ROTATE_PERIOD};
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
    /// The server process that was looked at and found right.
    server: String,
    rotated: Option<Instant>,
    /// What was wrong last: told once.
    trouble: Option<String>,
}

/// Up to where changes are applied, and under which triggers and life they were noted.
struct Place {
    seen: Snapshot,
    followed: u64,
    life: u64,
}

impl Follower {
    /// Goes on where the arena's last feed stood.
    pub fn new(arena: Arc<Arena>, metrics: SlotMetrics) -> Follower {
        let place = watermark::cursor(&arena).map(|Cursor { xmin, followed, life }| Place {
            seen: Snapshot::from_xmin(xmin),
            followed,
            life,
        });
        Follower { arena, metrics, place, server: String::new(), rotated: None, trouble: None }
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
        self.server.clear();
        self.stand_back(State::CutOff, why)
    }

    fn try_look(&mut self, client: &Client) -> Result<Outcome, Error> {
        let now_ns = clock::boottime_ns();
        let everything_since = Snapshot::from_xmin(u64::MAX >> 1);
        let seen = self.place.as_ref().map_or(&everything_since, |place| &place.seen);
        let poll = changes::poll(client, seen, FEED_CHANGES_MAX + 1)?;
        self.metrics.count(Counter::FeedPolls);
        if let Some(trouble) = self.check(client, &poll)? {
            // Whatever is put right: the next look finds the triggers changed, or the server another one.
            self.server.clear();
            return Ok(self.stand_back(State::Unfollowable, &trouble));
        }
        let outcome = self.apply(&poll);
        self.settle(poll);
        watermark::advance(&self.arena, now_ns);
        self.follow_on(client);
        Ok(outcome)
    }

    /// Looks at what the poll can't show by its changes. Some: it can't be followed, and why.
    fn check(&mut self, client: &Client, poll: &Poll) -> Result<Option<String>, Error> {
        let is_same_server = self.server == poll.server;
        let is_same_place = self.place.as_ref().is_some_and(|place| place.followed == poll.followed);
        if is_same_server && is_same_place {
            return Ok(None);
        }
        if poll.in_recovery {
            return Ok(Some("the server is in recovery: it is no primary".into()));
        }
        if let Some(problems) = changes::problems(client)? {
            if self.trouble.as_ref() != Some(&problems) {
                self.void(Reason::Triggers);
            }
            return Ok(Some(problems));
        }
        let standing = changes::standing(client)?;
        let Standing { system_identifier, timeline, life, .. } = standing;
        let identity = DatabaseIdentity { system_identifier, timeline };
        // Voided before anything is noted: whoever goes on after a death in between finds the same break.
        if let Some(reason) = self.find_break(identity, &standing, poll) {
            self.void(reason);
        }
        self.arena.bind(identity);
        self.server.clone_from(&poll.server);
        let seen = self.place.take().map_or_else(|| poll.snapshot.clone(), |place| place.seen);
        self.place = Some(Place { seen, followed: poll.followed, life });
        Ok(None)
    }

    /// Why changes can't be followed from the present place on, if they can't.
    fn find_break(&self, identity: DatabaseIdentity, standing: &Standing, poll: &Poll) -> Option<Reason> {
        let Some(place) = &self.place else { return Some(Reason::NoCursor) };
        if self.arena.database() != identity {
            Some(Reason::Identity)
        } else if place.life != standing.life {
            Some(Reason::Life)
        } else if place.followed != poll.followed {
            Some(Reason::Triggers)
        } else if place.seen.xmin <= standing.dropped_xid {
            Some(Reason::Dropped)
        } else {
            None
        }
    }

    /// Raises the fences of what became visible.
    fn apply(&mut self, poll: &Poll) -> Outcome {
        if poll.changes.is_empty() {
            return Outcome::Quiet;
        }
        self.metrics.add(Counter::FeedChanges, poll.changes.len() as u64);
        if poll.changes.iter().any(|change| change.what == What::Everything) {
            self.void(Reason::Noted);
        } else if poll.changes.len() > FEED_CHANGES_MAX {
            self.void(Reason::TooMany);
        } else {
            self.raise(&poll.changes);
        }
        Outcome::Changes
    }

    fn raise(&self, changes: &[Change]) {
        let raise = |kind, id| fence::raise(&self.arena, Key::new(kind, id).fence(), &self.metrics);
        for change in changes {
            kinds(change.what).iter().for_each(|kind| raise(*kind, change.product_id));
        }
        // All lists share a fence: raised once.
        if changes.iter().any(|change| matches!(change.what, What::Product | What::Existence)) {
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

    /// From here on the poll's snapshot is what was seen.
    fn settle(&mut self, poll: Poll) {
        let Some(place) = &mut self.place else { return };
        place.seen = poll.snapshot;
        let Place { seen, followed, life } = place;
        watermark::set_cursor(&self.arena, Cursor { xmin: seen.xmin, followed: *followed, life: *life });
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

/// Kinds of answers, beside lists, that a change makes void.
fn kinds(what: What) -> &'static [Kind] {
    match what {
        What::Product | What::Features => &[Kind::Product],
        What::Existence => &[Kind::Product, Kind::Styles, Kind::Related],
        What::Styles => &[Kind::Styles],
        What::Related => &[Kind::Related],
        What::Everything => &[],
    }
}
