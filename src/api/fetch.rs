//! What the cache misses: joined by key, gathered into batches, fetched, shaped and published by a few coroutines
//! with large stacks ("lanes"), so that nothing deep ever runs on a connection's own stack.
//! Runs in: worker.
//!
//! ```text
//! connection ── fetch(key) ──► flight (one a key and token) ──lease──► queue ──► lane: one statement a batch
//!      ▲                          └─ another worker has it: wait (elsewhere)              │ shape, gzip, archive
//!      └───────────────── outcome, for all who joined ◄── publish to the cache ◄──────────┘
//! ```
//! A lone miss finds an idle lane and goes at once. While all lanes wait for the database, misses gather, and the
//! next lane takes them together.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use may::coroutine;
use may::sync::Blocker;
use may_postgres::{Client, Error};
use parking_lot::Mutex;

use crate::api::elsewhere::Elsewhere;
use crate::api::flight::{Boarded, Flight, Landed};
use crate::api::read::{lane, Found, Reader};
use crate::api::shape::{Shaped, Shaper};
use crate::api::waits::Waits;
use crate::cache::lease::Asked;
use crate::cache::{Cache, Filled, Key, Kind, Lookup, Reading, Record};
use crate::catalogue::{Meta, View};
use crate::db::pool::Lane;
use crate::db::products::Read;
use crate::db::trace::{self, Notes};
use crate::db::Nodes;
use crate::limits::{BATCH_KEYS_MAX, DATABASE_WAIT_MAX, LANES_FAST, LANES_SLOW, LANE_STACK_SIZE_BYTES};
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;

/// Fetches of one key for one request, each because the one before was voided on its way.
const FETCHES_MAX: usize = 3;

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum FetchError {
    Unavailable(String),
    Failed(String),
    /// A write that may have been committed, or may yet be.
    Unknown(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Unavailable(why) | FetchError::Failed(why) | FetchError::Unknown(why) => {
                f.write_str(why)
            }
        }
    }
}

impl std::error::Error for FetchError {}

impl FetchError {
    /// Of a write: a connection lost under it leaves open whether it was committed.
    pub fn from_write(error: &Error) -> FetchError {
        let is_known = match error {
            Error::Connect(_) | Error::Config(_) => true,
            Error::Sql(_) => !error.is_connection(),
            _ => false,
        };
        if is_known {
            return FetchError::from(error);
        }
        log_failure(error);
        FetchError::Unknown(
            "the database was lost before it said whether the change is made: read it again".into(),
        )
    }

    /// Nothing could be done for it in time.
    pub fn too_busy() -> FetchError {
        FetchError::Unavailable("the database is too busy at the moment".into())
    }
}

/// Says why a fetch failed, once a second: while the database is away every request fails for the same reason.
fn log_failure(error: &Error) {
    static LOGGED_S: AtomicU64 = AtomicU64::new(0);
    let now_s = clock::boottime_ns() / 1_000_000_000;
    if LOGGED_S.swap(now_s, Ordering::Relaxed) != now_s {
        log::warn!("fetching: {error}");
    }
}

impl From<&Error> for FetchError {
    fn from(error: &Error) -> FetchError {
        log_failure(error);
        match error.is_connection() {
            true => FetchError::Unavailable("the database can't be reached at the moment".into()),
            false => {
                FetchError::Failed("the database could not answer; the server's log has the reason".into())
            }
        }
    }
}

/// The outcome of a fetch, and how it came about.
pub struct Fetched {
    pub outcome: Result<Arc<Record>, FetchError>,
    joined: bool,
    stored: bool,
}

impl Fetched {
    /// Parameters of Cache-Status (RFC 9211, 2).
    pub fn cache_status(&self) -> &'static str {
        match (self.stored, self.joined) {
            (true, true) => "fwd=miss; stored; collapsed",
            (true, false) => "fwd=miss; stored",
            (false, true) => "fwd=miss; collapsed",
            (false, false) => "fwd=miss",
        }
    }
}

/// Work that is no flight; called without a lane when it has waited for one too long.
type Job = Box<dyn FnOnce(Option<(&Fetcher, &mut Shaper)>) + Send>;

/// What lanes do.
enum Work {
    Flight(Arc<Flight>),
    Job { job: Job, born_ns: u64 },
}

/// Work that waits for a lane; `waited`: none was idle when it came.
struct Queued {
    work: Work,
    waited: bool,
}

impl Work {
    /// The key, of a flight.
    fn key(&self) -> Option<Key> {
        match self {
            Work::Flight(flight) => Some(flight.key),
            Work::Job { .. } => None,
        }
    }

    /// Which lanes do it.
    fn lane(&self) -> Lane {
        self.key().map_or(Lane::Slow, |key| lane(key.kind))
    }

    fn is_late(&self, now_ns: u64) -> bool {
        let born_ns = match self {
            Work::Flight(flight) => flight.born_ns,
            Work::Job { born_ns, .. } => *born_ns,
        };
        is_late(born_ns, now_ns)
    }
}

/// Whether one statement can fetch both: pages of products are found one by one, and each order of reviews has a statement.
fn travel_together(one: Key, other: Key) -> bool {
    let order = |key: Key| if key.kind == Kind::Reviews { key.variant >> 8 } else { 0 };
    one != other && one.kind == other.kind && order(one) == order(other) && one.kind != Kind::List
}

/// Whether what was asked for at `born_ns` has waited too long.
pub fn is_late(born_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(born_ns) > DATABASE_WAIT_MAX.as_nanos() as u64
}

#[derive(Default)]
struct State {
    flights: HashMap<Key, Arc<Flight>>,
    queue: VecDeque<Queued>,
    /// Lanes that have nothing to do, and what they do.
    idle: Vec<(Lane, Arc<Blocker>)>,
}

impl State {
    fn push(&mut self, work: Work, waits: &Waits) {
        let lane = work.lane();
        let idle = self.idle.iter().position(|(does, _)| *does == lane);
        let waited = idle.is_none();
        if waited {
            waits.begin(lane);
        }
        self.queue.push_back(Queued { work, waited });
        if let Some(at) = idle {
            self.idle.swap_remove(at).1.unpark();
        }
    }

    /// The oldest work of a lane.
    fn pop(&mut self, lane: Lane, waits: &Waits) -> Option<Work> {
        let at = self.queue.iter().position(|queued| queued.work.lane() == lane)?;
        self.take(at, waits)
    }

    fn take(&mut self, at: usize, waits: &Waits) -> Option<Work> {
        let Queued { work, waited } = self.queue.remove(at)?;
        if waited {
            waits.end(work.lane());
        }
        Some(work)
    }
}

/// Where a job leaves what it made.
struct Tray<T> {
    made: Mutex<Option<(T, Notes)>>,
    waiter: Arc<Blocker>,
}

/// A worker's fetches.
pub struct Fetcher {
    state: Mutex<State>,
    elsewhere: Arc<Elsewhere>,
    reader: Reader,
    cache: Arc<Cache>,
    waits: Waits,
    metrics: SlotMetrics,
}

impl Fetcher {
    /// Starts the lanes.
    pub fn start(nodes: Arc<Nodes>, cache: Arc<Cache>, shaper: Shaper, metrics: SlotMetrics) -> Arc<Fetcher> {
        let reader = Reader::new(nodes, cache.clone());
        let elsewhere = Arc::new(Elsewhere::default());
        let fetcher = Arc::new(Fetcher {
            state: Mutex::default(),
            elsewhere: elsewhere.clone(),
            reader,
            cache,
            waits: Waits::new(metrics.clone()),
            metrics,
        });
        let looking = fetcher.clone();
        elsewhere.start(move |flight| looking.look_again(flight));
        // Long lists hold a lane, and its connection, for long: what many wait for goes its own way.
        let lanes = [(Lane::Fast, LANES_FAST), (Lane::Slow, LANES_SLOW)];
        for lane in lanes.into_iter().flat_map(|(lane, count)| std::iter::repeat_n(lane, count)) {
            let (fetcher, shaper) = (fetcher.clone(), shaper.clone());
            let builder = coroutine::Builder::new().stack_size(LANE_STACK_SIZE_BYTES / 8);
            // SAFETY: a lane keeps nothing in thread-local storage across a yield; its stack is measured to be
            // several times what archiving and compressing the largest record takes.
            let started = unsafe { builder.spawn(move || fetcher.run_lane(shaper, lane)) };
            started.expect("a worker at its start can make coroutines");
        }
        fetcher
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub fn nodes(&self) -> &Arc<Nodes> {
        self.reader.nodes()
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Fetches `key` for a request received at `asked_ns`, or joins a fetch of it that may answer it: never one under an
    /// older token, which may have read before a write that this reader must see.
    ///
    /// What was read is answered with only if nobody can have been answered with something later that the cache has lost sight
    /// of: a value that was voided while it was fetched is fetched again, and who joined after the SELECT was sent takes
    /// it only if it was published.
    pub fn fetch(&self, key: Key, asked_ns: u64) -> Fetched {
        let mut any_joined = false;
        for attempt in 0..FETCHES_MAX {
            let (flight, boarded) = self.board(key, asked_ns, attempt == 0);
            if boarded != Boarded::First {
                self.metrics.count(Counter::CacheJoined);
                any_joined = true;
            }
            let Landed { outcome, filled, elsewhere } = flight.wait();
            any_joined |= elsewhere;
            let is_last_word = match filled {
                Filled::Published => true,
                Filled::Voided | Filled::Crossed => false,
                _ => boarded != Boarded::Underway,
            };
            if is_last_word || outcome.is_err() {
                return Fetched { outcome, joined: any_joined, stored: filled == Filled::Published };
            }
            if attempt + 1 == FETCHES_MAX {
                // Written to faster than it can be read: what others have of it is void, so that none is older than this.
                self.cache.forget(key);
                return Fetched { outcome, joined: any_joined, stored: false };
            }
        }
        unreachable!("the last attempt returns")
    }

    fn board(&self, key: Key, asked_ns: u64, may_be_underway: bool) -> (Arc<Flight>, Boarded) {
        // The watermark before the token, as in a lookup: it says which changes the token has seen.
        let trusted = self.cache.is_trusted(asked_ns);
        let token = self.cache.token(key);
        let mut state = self.state.lock();
        if let Some(flight) = state.flights.get(&key).filter(|f| f.token == token) {
            if !flight.is_sent() {
                return (flight.clone(), Boarded::Waiting);
            }
            let recent = trusted || self.cache.is_recent(flight.born_ns, asked_ns);
            if may_be_underway && recent && self.cache.is_on() {
                return (flight.clone(), Boarded::Underway);
            }
        }
        let flight = Arc::new(Flight::new(key, token, clock::boottime_ns()));
        state.flights.insert(key, flight.clone());
        drop(state);
        // Without trust nobody is served by what another worker publishes.
        match trusted {
            true => self.depart(&flight),
            false => self.push(Work::Flight(flight.clone())),
        }
        (flight, Boarded::First)
    }

    /// Sends a flight off, or has it wait for the worker that fetches its key already.
    fn depart(&self, flight: &Arc<Flight>) {
        if !self.try_depart(flight) {
            self.metrics.count(Counter::CacheElsewhere);
            self.elsewhere.add(flight.clone());
        }
    }

    /// False while another worker has the lease.
    fn try_depart(&self, flight: &Arc<Flight>) -> bool {
        match self.cache.ask_lease(flight.key, flight.token, clock::boottime_ns()) {
            Asked::Granted(lease) => {
                flight.hold(lease);
                // Whoever had it before may have published since this worker looked.
                if !self.land_published(flight) {
                    self.push(Work::Flight(flight.clone()));
                }
                true
            }
            Asked::OpenToAll => {
                self.push(Work::Flight(flight.clone()));
                true
            }
            Asked::Elsewhere => false,
        }
    }

    /// Whether a flight need no longer wait for another worker.
    fn look_again(&self, flight: &Arc<Flight>) -> bool {
        if is_late(flight.born_ns, clock::boottime_ns()) {
            self.land(flight, Landed::failed(FetchError::too_busy()));
            return true;
        }
        self.land_published(flight) || self.try_depart(flight)
    }

    /// Lands a flight with the record that another worker has published, if it is there.
    fn land_published(&self, flight: &Arc<Flight>) -> bool {
        let Lookup::Hit(hit) = self.cache.get(flight.key, clock::boottime_ns()) else { return false };
        let Some(record) = self.cache.read_record(&hit) else { return false };
        self.land(
            flight,
            Landed { outcome: Ok(Arc::new(record)), filled: Filled::Published, elsewhere: true },
        );
        true
    }

    /// Has a lane do `work`, and waits: for what goes deep or asks the database and is no record. None when no lane was
    /// free for `DATABASE_WAIT_MAX`.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Fetcher, &mut Shaper) -> T + Send + 'static,
    ) -> Option<T> {
        let tray = Arc::new(Tray { made: Mutex::new(None), waiter: Blocker::current() });
        let filled = tray.clone();
        let job = move |lane: Option<(&Fetcher, &mut Shaper)>| {
            let made = lane.map(|(fetcher, shaper)| work(fetcher, shaper));
            *filled.made.lock() = Some((made, trace::current()));
            filled.waiter.unpark();
        };
        let start_ns = clock::boottime_ns();
        self.push_job(Box::new(job));
        loop {
            if let Some((made, notes)) = tray.made.lock().take() {
                trace::waited(start_ns, notes);
                return made;
            }
            let _ = tray.waiter.park(None);
        }
    }

    /// Has a lane read the database, with one statement for `keys` keys, and waits. `primary`: from nowhere else, if there is one.
    pub fn ask<T: Send + 'static>(
        &self,
        keys: usize,
        primary: bool,
        read: impl Fn(&Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, FetchError> {
        let asked = self.run(move |fetcher, _| {
            let read = |client: &Client| Ok(Read { found: read(client)?, position: 0 });
            let asked = fetcher.reader.read_at(Lane::Slow, primary, keys, read);
            asked.map(|read| read.found).map_err(|e| FetchError::from(&e))
        });
        asked.unwrap_or_else(|| Err(FetchError::too_busy()))
    }

    /// Has a lane do `work` some time, without a lane if none was free for long; nobody waits for it.
    pub fn run_behind(&self, work: impl FnOnce(Option<(&Fetcher, &mut Shaper)>) + Send + 'static) {
        self.push_job(Box::new(work));
    }

    fn push(&self, work: Work) {
        self.state.lock().push(work, &self.waits);
    }

    fn push_job(&self, job: Job) {
        self.push(Work::Job { job, born_ns: clock::boottime_ns() });
    }

    /// Gives up what has waited for a lane too long. A few times a second.
    pub fn tick(&self) {
        let now_ns = clock::boottime_ns();
        let late = {
            let mut state = self.state.lock();
            let (late, kept): (VecDeque<Queued>, VecDeque<Queued>) =
                state.queue.drain(..).partition(|queued| queued.work.is_late(now_ns));
            state.queue = kept;
            late
        };
        for Queued { work, waited } in late {
            if waited {
                self.waits.end(work.lane());
            }
            self.metrics.count(Counter::LaneRefused);
            match work {
                Work::Flight(flight) => self.land(&flight, Landed::failed(FetchError::too_busy())),
                Work::Job { job, .. } => job(None),
            }
        }
    }

    fn run_lane(&self, mut shaper: Shaper, lane: Lane) {
        let blocker = Blocker::current();
        loop {
            trace::take();
            match self.take_work(&blocker, lane) {
                Some(Work::Flight(first)) => {
                    let batch = self.gather(first);
                    self.serve(&batch, &mut shaper);
                }
                Some(Work::Job { job, .. }) => job(Some((self, &mut shaper))),
                None => {
                    let _ = blocker.park(None);
                }
            }
        }
    }

    fn take_work(&self, blocker: &Arc<Blocker>, lane: Lane) -> Option<Work> {
        let mut state = self.state.lock();
        let work = state.pop(lane, &self.waits);
        if work.is_none() && !state.idle.iter().any(|(_, idle)| Arc::ptr_eq(idle, blocker)) {
            state.idle.push((lane, blocker.clone()));
        }
        work
    }

    /// `first` and all others that wait and fit beside it.
    fn gather(&self, first: Arc<Flight>) -> Vec<Arc<Flight>> {
        let mut batch = vec![first];
        let mut state = self.state.lock();
        let mut at = 0;
        while at < state.queue.len() && batch.len() < BATCH_KEYS_MAX {
            // A second flight of one key, under a later token, waits for a statement of its own.
            let fits = state.queue[at]
                .work
                .key()
                .is_some_and(|key| batch.iter().all(|f| travel_together(f.key, key)));
            match fits.then(|| state.take(at, &self.waits)).flatten() {
                Some(Work::Flight(flight)) => batch.push(flight),
                _ => at += 1,
            }
        }
        batch
    }

    /// Fetches a batch, less what has waited too long already.
    fn serve(&self, batch: &[Arc<Flight>], shaper: &mut Shaper) {
        let now_ns = clock::boottime_ns();
        let (late, batch): (Vec<_>, Vec<_>) = batch.iter().partition(|f| is_late(f.born_ns, now_ns));
        late.iter().for_each(|flight| self.land(flight, Landed::failed(FetchError::too_busy())));
        if !batch.is_empty() {
            self.fetch_batch(&batch, shaper);
        }
    }

    fn fetch_batch(&self, batch: &[&Arc<Flight>], shaper: &mut Shaper) {
        let keys: Vec<Key> = batch.iter().map(|f| f.key).collect();
        batch.iter().for_each(|flight| flight.set_sent());
        match self.reader.views(&keys).map_err(|e| FetchError::from(&e)) {
            Ok(mut read) => {
                for flight in batch {
                    let view = read.found.remove(&flight.key).unwrap_or_else(|| nothing(flight.key.kind));
                    self.finish(flight, view, &read, shaper);
                }
            }
            Err(error) => {
                batch.iter().for_each(|flight| self.land(flight, Landed::failed(error.clone())));
            }
        }
    }

    /// Shapes, archives, publishes, hands out.
    fn finish<T>(&self, flight: &Flight, view: View, read: &Found<T>, shaper: &mut Shaper) {
        let Shaped { view, bodies } = shaper.shape(flight.key, view);
        let reading = Reading { born_ns: flight.born_ns, position: read.position, order: read.order };
        match Record::make(flight.key, flight.token, reading, view, &bodies) {
            Ok(record) => {
                let filled =
                    if read.is_settled { self.cache.fill(&record) } else { self.pass_by(flight.key) };
                self.land(flight, Landed { outcome: Ok(Arc::new(record)), filled, elsewhere: false });
            }
            Err(error) => {
                log::error!("making a record for {:?}: {error}", flight.key);
                let error = FetchError::Failed("the answer could not be shaped".into());
                self.land(flight, Landed::failed(error));
            }
        }
    }

    /// What may lack something that somebody has been shown is for whoever asked; and nobody is served something older than that.
    fn pass_by(&self, key: Key) -> Filled {
        if self.cache.is_present(key) {
            self.cache.forget(key);
        }
        Filled::Refused
    }

    fn land(&self, flight: &Flight, landed: Landed) {
        {
            let mut state = self.state.lock();
            if state.flights.get(&flight.key).is_some_and(|f| std::ptr::eq(&**f, flight)) {
                state.flights.remove(&flight.key);
            }
        }
        if let Some(lease) = flight.take_lease() {
            let is_there = matches!(landed.filled, Filled::Published | Filled::Overtaken);
            self.cache.end_lease(lease, is_there, clock::boottime_ns());
        }
        flight.land(landed);
    }
}

/// What a key has of which the database has nothing.
pub fn nothing(kind: Kind) -> View {
    match kind {
        Kind::Meta => View::Meta(Meta::default()),
        _ => View::Missing,
    }
}
