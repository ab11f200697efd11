//! A worker's few connections to one node, each shared by many coroutines. Connecting happens on a thread of its own.
//! Runs in: worker.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use may::sync::Blocker;
use may_postgres::{Client, Config, Error, Reconnect};
use parking_lot::Mutex;

use crate::limits::DATABASE_WAIT_MAX;
use crate::metrics::{Counter, SlotMetrics};

/// How often the keeper looks after healthy connections, and after missing ones.
const KEEP_PERIOD: Duration = Duration::from_millis(250);
const KEEP_PERIOD_MISSING: Duration = Duration::from_millis(10);

/// What a connection is for: none waits behind what is slower than itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Products, their styles, related ones, characteristics: found by their ids.
    Fast,
    /// Lists, searches, carts.
    Slow,
    Write,
}

pub const LANES: [Lane; 3] = [Lane::Fast, Lane::Slow, Lane::Write];

/// Connections of each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    pub fast: usize,
    pub slow: usize,
    pub write: usize,
}

impl Places {
    /// Shares out `total` connections, at least one a lane: two fifths to writes and to what is fast each, but to the former no more than
    /// `write_max`.
    pub fn share(total: usize, write_max: usize) -> Places {
        let write = (total * 2 / 5).clamp(1, write_max);
        let slow = (total / 5).max(1);
        Places { fast: total.saturating_sub(write + slow).max(1), slow, write }
    }

    pub fn total(self) -> usize {
        self.fast + self.slow + self.write
    }

    fn of(self, lane: Lane) -> Range<usize> {
        match lane {
            Lane::Fast => 0..self.fast,
            Lane::Slow => self.fast..self.fast + self.slow,
            Lane::Write => self.fast + self.slow..self.total(),
        }
    }
}

/// Which of its places a pool may fill, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    pub fast: usize,
    /// Whether this node takes writes.
    pub writes: bool,
}

/// The connections, and who waits for one.
pub struct Pool {
    connections: Vec<Reconnect>,
    places: Places,
    allowed: Box<dyn Fn() -> Allowed + Send + Sync>,
    next: AtomicUsize,
    waiting: Mutex<Vec<Arc<Blocker>>>,
    keeper: OnceLock<Thread>,
    /// No connection lives, and the last attempt to make one failed or has taken too long.
    unreachable: AtomicBool,
    metrics: SlotMetrics,
}

impl Pool {
    /// `places` for connections as `config` says for each lane, filled by a keeper thread from now on, as far as `allowed`.
    pub fn start(
        config: impl Fn(Lane) -> Config,
        places: Places,
        allowed: impl Fn() -> Allowed + Send + Sync + 'static,
        metrics: SlotMetrics,
    ) -> Arc<Pool> {
        let lanes = LANES.into_iter().flat_map(|lane| places.of(lane).map(move |_| lane));
        let pool = Arc::new(Pool {
            connections: lanes.map(|lane| Reconnect::new(config(lane))).collect(),
            places,
            allowed: Box::new(allowed),
            next: AtomicUsize::new(0),
            waiting: Mutex::default(),
            keeper: OnceLock::new(),
            unreachable: AtomicBool::new(false),
            metrics,
        });
        let kept = pool.clone();
        let keeper = thread::Builder::new().name("db-keeper".into()).spawn(move || kept.keep());
        let keeper = keeper.expect("a worker at its start can make a thread");
        let _ = pool.keeper.set(keeper.thread().clone());
        pool
    }

    /// Connects what is missing and ends what is too many, for the life of the process. Connecting may take long; nothing else waits for
    /// it.
    fn keep(&self) {
        loop {
            let (wanted, unwanted) = self.sort_out();
            unwanted.into_iter().for_each(|at| self.connections[at].rest());
            let connected = wanted.iter().filter(|at| self.connections[**at].maintain()).count();
            self.unreachable.store(connected == 0, Ordering::Relaxed);
            self.wake_waiting();
            thread::park_timeout(if connected == wanted.len() { KEEP_PERIOD } else { KEEP_PERIOD_MISSING });
        }
    }

    /// Numbers of the connections that there should be now, and of the others.
    fn sort_out(&self) -> (Vec<usize>, Vec<usize>) {
        let allowed = (self.allowed)();
        let most = |lane| match lane {
            Lane::Fast => allowed.fast.max(1),
            Lane::Slow => usize::MAX,
            Lane::Write if allowed.writes => usize::MAX,
            Lane::Write => 0,
        };
        let wanted: Vec<usize> =
            LANES.into_iter().flat_map(|lane| self.places.of(lane).take(most(lane))).collect();
        let unwanted = (0..self.connections.len()).filter(|at| !wanted.contains(at)).collect();
        (wanted, unwanted)
    }

    /// Lets deadlines be looked at, of statements and of those who wait for a connection. A few times a second.
    pub fn tick(&self) {
        self.connections.iter().filter_map(|c| c.client().ok()).for_each(|client| client.tick());
        self.wake_waiting();
    }

    /// Whoever waits looks for itself: at a connection, or at its deadline.
    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().for_each(|waiter| waiter.unpark());
    }

    /// Whether a database answers, as far as is known.
    pub fn is_reachable(&self) -> bool {
        !self.unreachable.load(Ordering::Relaxed) && !self.is_silent()
    }

    /// Whether no server takes connections: more than silence, which a lock on a table may be as well.
    pub fn is_gone(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Whether every connection that lives is one of which nothing has been heard since a request was given up.
    fn is_silent(&self) -> bool {
        let mut living = self.connections.iter().filter_map(|c| c.client().ok()).peekable();
        living.peek().is_some() && living.all(|client| client.is_suspect())
    }

    /// The connection of one writing place, for whoever has it alone. Waits as [`Pool::client`] does, while it is wanted.
    ///
    /// # Errors
    /// Why the last attempt to connect failed.
    pub fn own(&self, place: usize, is_wanted: impl Fn() -> bool) -> Result<Client, Error> {
        let place = self.places.of(Lane::Write).start + place;
        self.wait_for(|| self.try_place(place), || !is_wanted())
    }

    /// A live connection, in turn. While a lost one is being replaced this waits for it, but not longer than
    /// `DATABASE_WAIT_MAX`; once that has failed it fails at once, until a connection is there again.
    ///
    /// # Errors
    /// Why the last attempt to connect failed.
    pub fn client(&self, lane: Lane) -> Result<Client, Error> {
        self.wait_for(|| self.try_client(lane), || false)
    }

    fn wait_for(
        &self,
        find: impl Fn() -> Result<Client, Error>,
        is_in_vain: impl Fn() -> bool,
    ) -> Result<Client, Error> {
        let mut deadline = None;
        loop {
            let last = match find() {
                Ok(client) => return Ok(client),
                Err(e) => e,
            };
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + DATABASE_WAIT_MAX) {
                self.unreachable.store(true, Ordering::Relaxed);
            }
            if !self.is_reachable() || is_in_vain() {
                return Err(last);
            }
            self.metrics.count(Counter::DatabaseWaits);
            let waiter = Blocker::current();
            self.waiting.lock().push(waiter.clone());
            if let Some(keeper) = self.keeper.get() {
                keeper.unpark();
            }
            // Woken by the keeper; no timer, whose thread would run this coroutine.
            let _ = waiter.park(None);
        }
    }

    /// A live connection of a lane if there is one now.
    pub fn try_client(&self, lane: Lane) -> Result<Client, Error> {
        let places = self.places.of(lane);
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last = Error::Connect("no connection is configured".into());
        for n in 0..places.len() {
            match self.try_place(places.start + (start + n) % places.len()) {
                Ok(client) => return Ok(client),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn try_place(&self, place: usize) -> Result<Client, Error> {
        match self.connections[place].client() {
            Ok(client) if client.is_suspect() => Err(Error::Connect("the database is silent".into())),
            found => found,
        }
    }

    /// Runs a read, again when its connection is lost under it or its statement has to be prepared anew.
    pub fn read<T>(&self, lane: Lane, work: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let mut lost = None;
        for _ in 0..self.connections.len() + 2 {
            match work(&self.client(lane)?) {
                Err(e) if e.is_connection() && !matches!(e, Error::Timeout) => lost = Some(e),
                Err(e) if e.is_about_statement() => lost = Some(e),
                Err(e) => {
                    self.metrics.count(Counter::DatabaseErrors);
                    return Err(e);
                }
                Ok(value) => return Ok(value),
            }
        }
        self.metrics.count(Counter::DatabaseErrors);
        Err(lost.unwrap_or(Error::Timeout))
    }

    /// Connections live now, and places for some.
    pub fn occupancy(&self) -> (usize, usize) {
        let live = self.connections.iter().filter(|c| c.client().is_ok()).count();
        (live, self.sort_out().0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_connection_and_writes_have_no_more_than_they_use() {
        let share = |total| {
            let Places { fast, slow, write } = Places::share(total, 2);
            (fast, slow, write)
        };
        assert_eq!(share(1), (1, 1, 1));
        assert_eq!(share(3), (1, 1, 1));
        assert_eq!(share(5), (2, 1, 2));
        assert_eq!(share(20), (14, 4, 2));
    }
}
