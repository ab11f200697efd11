//! A worker's few connections, each shared by many coroutines. Connecting happens on a thread of its own.
//! Runs in: worker.

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

/// The connections, and who waits for one.
pub struct Pool {
    connections: Vec<Reconnect>,
    next: AtomicUsize,
    waiting: Mutex<Vec<Arc<Blocker>>>,
    keeper: OnceLock<Thread>,
    /// No connection lives, and the last attempt to make one failed or has taken too long.
    unreachable: AtomicBool,
    metrics: SlotMetrics,
}

impl Pool {
    /// `count` places, filled by a keeper thread from now on.
    pub fn start(config: Config, count: usize, metrics: SlotMetrics) -> Arc<Pool> {
        let pool = Arc::new(Pool {
            connections: (0..count).map(|_| Reconnect::new(config.clone())).collect(),
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

    /// Connects what is missing, for the life of the process. Connecting may take long; nothing else waits for it.
    fn keep(&self) {
        loop {
            let connected = self.connections.iter().filter(|c| c.maintain()).count();
            self.unreachable.store(connected == 0, Ordering::Relaxed);
            self.wake_waiting();
            let all = connected == self.connections.len();
            thread::park_timeout(if all { KEEP_PERIOD } else { KEEP_PERIOD_MISSING });
        }
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

    /// The connection of one place, for whoever has it alone. Waits as [`Pool::client`] does.
    ///
    /// # Errors
    /// Why the last attempt to connect failed.
    pub fn own(&self, place: usize) -> Result<Client, Error> {
        self.wait_for(|| self.try_place(place))
    }

    /// A live connection, in turn. While a lost one is being replaced this waits for it, but not longer than
    /// `DATABASE_WAIT_MAX`; once that has failed it fails at once, until a connection is there again.
    ///
    /// # Errors
    /// Why the last attempt to connect failed.
    pub fn client(&self) -> Result<Client, Error> {
        self.wait_for(|| self.try_client())
    }

    fn wait_for(&self, find: impl Fn() -> Result<Client, Error>) -> Result<Client, Error> {
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
            if !self.is_reachable() {
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

    /// A live connection if there is one now.
    pub fn try_client(&self) -> Result<Client, Error> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last = Error::Connect("no connection is configured".into());
        for n in 0..self.connections.len() {
            match self.try_place((start + n) % self.connections.len()) {
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
    pub fn read<T>(&self, work: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let mut lost = None;
        for _ in 0..self.connections.len() + 2 {
            match work(&self.client()?) {
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

    /// Counts a statement that fetches `keys` keys.
    pub fn count_statement(&self, keys: usize) {
        self.metrics.count(Counter::DatabaseStatements);
        self.metrics.add(Counter::DatabaseKeys, keys as u64);
    }

    /// Connections live now, and places.
    pub fn occupancy(&self) -> (usize, usize) {
        let live = self.connections.iter().filter(|c| c.client().is_ok()).count();
        (live, self.connections.len())
    }
}
