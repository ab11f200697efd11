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

/// What a closer look brought.
enum Inspection {
    Standing(Standing),
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
        let nothing_since = Snapshot::from_xmin(u64::MAX >> 1);
        let seen = self.place.as_ref().map_or(&nothing_since, |place| &place.seen);
        let poll = changes::poll(client, seen, FEED_CHANGES_MAX + 1)?;
        self.metrics.count(Counter::FeedPolls);
        let found = match self.is_as_before(&poll) {
            true => None,
            false => match self.inspect(client, &poll)? {
                Inspection::Trouble(why) => return Ok(self.stand_back(State::Unfollowable, &why)),
                Inspection::Standing(standing) => Some(standing),
            },
        };
        let outcome = self.apply(&poll, found.as_ref());
        self.settle(poll, found);
        watermark::advance(&self.arena, now_ns);
        self.follow_on(client);
        Ok(outcome)
    }

    /// Whether the same server answered, and the same triggers were in force.
    fn is_as_before(&self, poll: &Poll) -> bool {
        let is_same_place = self.place.as_ref().is_some_and(|place| place.followed == poll.followed);
        self.trouble.is_none() && is_same_place && self.server == poll.server && !poll.in_recovery
    }

    /// Looks at what a poll can't show by its changes.
    fn inspect(&mut self, client: &Client, poll: &Poll) -> Result<Inspection, Error> {
        if poll.in_recovery {
            return Ok(Inspection::Trouble("the server is in recovery: it is no primary".into()));
        }
        let Some(problems) = changes::problems(client)? else {
            return Ok(Inspection::Standing(changes::standing(client)?));
        };
        if self.trouble.as_ref() != Some(&problems) {
            self.void(Reason::Triggers);
        }
        Ok(Inspection::Trouble(problems))
    }

    /// Why changes can't be followed from the present place on, if they can't.
    fn find_break(&self, standing: &Standing, poll: &Poll) -> Option<Reason> {
        let Some(place) = &self.place else { return Some(Reason::NoCursor) };
        if self.arena.database() != identity(standing) {
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

    /// Raises the fences of what became visible, or voids everything.
    fn apply(&mut self, poll: &Poll, found: Option<&Standing>) -> Outcome {
        let count = poll.changes.len();
        self.metrics.add(Counter::FeedChanges, count as u64);
        let is_noted = poll.changes.iter().any(|change| change.what == What::Everything);
        let reason = if is_noted {
            Some(Reason::Noted)
        } else if count > FEED_CHANGES_MAX {
            Some(Reason::TooMany)
        } else {
            found.and_then(|standing| self.find_break(standing, poll))
        };
        match reason {
            Some(reason) => self.void(reason),
            None => self.raise(&poll.changes),
        }
        if count == 0 {
            Outcome::Quiet
        } else {
            Outcome::Changes
        }
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

    /// From here on the poll's snapshot is what was seen. After the voiding: who goes on after a death in between finds the
    /// same break.
    fn settle(&mut self, poll: Poll, found: Option<Standing>) {
        if let Some(standing) = &found {
            self.arena.bind(identity(standing));
            self.server = poll.server;
        }
        let life = found.map(|standing| standing.life).or(self.place.as_ref().map(|place| place.life));
        let life = life.expect("a first look inspects");
        let cursor = Cursor { xmin: poll.snapshot.xmin, followed: poll.followed, life };
        watermark::set_cursor(&self.arena, cursor);
        self.place = Some(Place { seen: poll.snapshot, followed: poll.followed, life });
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

fn identity(standing: &Standing) -> DatabaseIdentity {
    DatabaseIdentity { system_identifier: standing.system_identifier, timeline: standing.timeline }
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
