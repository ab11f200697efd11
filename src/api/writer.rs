//! What shoppers and administrators write. Writes of one kind gather while one before them is under way, and go to the
//! database together: one statement, one commit. Whatever needs a transaction of its own gets one.
//! Runs in: worker.
//!
//! ```text
//! connection ── submit(write) ──► queue ──► lane, with a connection of its own: one statement a batch, COMMIT
//!      ▲                            ▲                     │                                     │
//!      │                            └── rows that others hold ◄┘              raise the fences ◄┘
//!      └──────────────────────────────── outcome ◄──────────────────────────────────┘
//! ```
//! A fence is raised after COMMIT and before anybody is answered, and also when nobody knows whether it came to a commit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use may::coroutine;
use may::sync::Blocker;
use may_postgres::{Client, Error};
use parking_lot::Mutex;

use crate::api::batch::{answer, touched, Batch};
use crate::api::fetch::{is_late, FetchError};
use crate::api::outcome::{
    made_way, refusal, refusal_before_commit, Idempotency, Refusal, Stop, Work, Written,
};
use crate::api::waits::Waits;
use crate::cache::{floor, Cache, Key, Kind};
use crate::catalogue::Change;
use crate::db::changes;
use crate::db::nodes::Pen;
use crate::db::pool::Lane;
use crate::db::trace::{self, Notes};
use crate::db::writes::{self, Claim, KeptAnswer, Opinion, Outcome, Vote};
use crate::db::Nodes;
use crate::limits::{
    BATCH_WRITES_MAX, BATCH_WRITES_SIZE_MAX_BYTES, BUSY_RETRIES_MAX, LANE_STACK_SIZE_BYTES,
    WRITE_LOCK_WAIT_MAX,
};
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;
use crate::topology::Reign;

/// What is written: writes of one kind go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    Vote(Opinion, Vote),
    Review,
    Question,
    Answer,
    CartItem,
    Interaction,
}

/// A write as it came in: what the path names, and the body.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// What is voted on, or answered; of a review in the path, its product.
    pub id: Option<i64>,
    pub body: Vec<u8>,
    /// Whose cart.
    pub session: Vec<u8>,
    pub is_shared: bool,
    /// Header lines of the answer if it is written.
    pub head: String,
}

enum Task {
    /// Goes with others.
    Batch(Write, Sent),
    /// Taken by the lane that does it.
    Alone(Mutex<Option<Work>>, Option<Idempotency>),
}

/// A write and who waits for it.
struct Pending {
    task: Task,
    born_ns: u64,
    landing: Mutex<Option<(Result<Written, Refusal>, Notes)>>,
    waiter: Arc<Blocker>,
}

impl Pending {
    fn new(task: Task) -> Arc<Pending> {
        let (landing, waiter) = (Mutex::new(None), Blocker::current());
        Arc::new(Pending { task, born_ns: clock::boottime_ns(), landing, waiter })
    }

    fn size_bytes(&self) -> usize {
        match &self.task {
            Task::Batch(_, sent) => sent.body.len(),
            Task::Alone(..) => 0,
        }
    }

    fn kind(&self) -> Option<Write> {
        match &self.task {
            Task::Batch(kind, _) => Some(*kind),
            Task::Alone(..) => None,
        }
    }

    /// The answer to a write that was made.
    fn answer(&self) -> Written {
        match &self.task {
            Task::Batch(kind, sent) => answer(*kind, sent),
            Task::Alone(..) => Written::new(204, ""),
        }
    }

    fn land(&self, outcome: Result<Written, Refusal>) {
        *self.landing.lock() = Some((outcome, trace::current()));
        self.waiter.unpark();
    }

    fn wait(&self) -> Result<Written, Refusal> {
        loop {
            if let Some((outcome, notes)) = self.landing.lock().take() {
                trace::waited(self.born_ns, notes);
                return outcome;
            }
            let _ = self.waiter.park(None);
        }
    }
}

/// A write in the queue: how often rows of its were held by others, and whether no lane was idle when it came.
struct Queued {
    pending: Arc<Pending>,
    retries: u32,
    waited: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Rows of theirs are held for long: looked at again a few times a second.
    later: Vec<Queued>,
    /// A batch of these kinds is under way; others gather meanwhile.
    under_way: HashSet<Write>,
    idle: Vec<Arc<Blocker>>,
    keys: HashSet<[u8; 32]>,
}

impl State {
    /// The oldest work that can be done now, with all that goes along.
    fn take(&mut self) -> Option<Vec<Queued>> {
        let is_free = |q: &Queued| q.pending.kind().is_none_or(|kind| !self.under_way.contains(&kind));
        let at = self.queue.iter().position(is_free)?;
        let first = self.queue.remove(at)?;
        let Some(kind) = first.pending.kind() else { return Some(vec![first]) };
        self.under_way.insert(kind);
        let mut size_bytes = first.pending.size_bytes();
        let mut batch = vec![first];
        let mut at = 0;
        while at < self.queue.len()
            && batch.len() < BATCH_WRITES_MAX
            && size_bytes < BATCH_WRITES_SIZE_MAX_BYTES
        {
            if self.queue[at].pending.kind() == Some(kind) {
                size_bytes += self.queue[at].pending.size_bytes();
                batch.extend(self.queue.remove(at));
            } else {
                at += 1;
            }
        }
        Some(batch)
    }
}

/// A worker's writes.
pub struct Writer {
    state: Mutex<State>,
    nodes: Arc<Nodes>,
    cache: Arc<Cache>,
    waits: Waits,
    metrics: SlotMetrics,
}

impl Writer {
    /// Starts `lanes` lanes, each with a connection to the primary of its own.
    pub fn start(nodes: Arc<Nodes>, cache: Arc<Cache>, lanes: usize, metrics: SlotMetrics) -> Arc<Writer> {
        let waits = Waits::new(metrics.clone());
        let writer = Arc::new(Writer { state: Mutex::default(), nodes, cache, waits, metrics });
        for lane in 0..lanes {
            let writer = writer.clone();
            let builder = coroutine::Builder::new().stack_size(LANE_STACK_SIZE_BYTES / 8);
            // SAFETY: a lane keeps nothing in thread-local storage across a yield; its stack holds the deepest JSON that
            // serde_json reads, 128 levels, several times.
            let lane = unsafe { builder.spawn(move || writer.run_lane(lane)) };
            lane.expect("a worker at its start can make coroutines");
        }
        writer
    }

    /// Has `sent` written together with others of its kind, and waits.
    pub fn write(&self, kind: Write, sent: Sent) -> Result<Written, Refusal> {
        let pending = Pending::new(Task::Batch(kind, sent));
        self.push(pending.clone());
        pending.wait()
    }

    /// Has `work` done in a transaction of its own, once for each Idempotency-Key, and waits.
    pub fn run(
        &self,
        idempotency: Option<Idempotency>,
        work: impl Fn(&Client) -> Result<(Written, Vec<Change>), Stop> + Send + 'static,
    ) -> Result<Written, Refusal> {
        if let Some(Idempotency { key, .. }) = idempotency {
            if !self.state.lock().keys.insert(key) {
                return Err(Refusal::KeyInFlight);
            }
        }
        let pending = Pending::new(Task::Alone(Mutex::new(Some(Box::new(work))), idempotency));
        self.push(pending.clone());
        let outcome = pending.wait();
        if let Some(Idempotency { key, .. }) = idempotency {
            self.state.lock().keys.remove(&key);
        }
        outcome
    }

    fn push(&self, pending: Arc<Pending>) {
        let mut state = self.state.lock();
        let lane = state.idle.pop();
        let waited = lane.is_none();
        if waited {
            self.waits.begin(Lane::Write);
        }
        state.queue.push_back(Queued { pending, retries: 0, waited });
        lane.into_iter().for_each(|lane| lane.unpark());
    }

    /// Gives up what has waited too long, and lets those be tried again whose rows were held. A few times a second.
    pub fn tick(&self) {
        let now_ns = clock::boottime_ns();
        let late: VecDeque<Queued> = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.queue.extend(state.later.drain(..));
            let (late, kept) = state.queue.drain(..).partition(|q| is_late(q.pending.born_ns, now_ns));
            state.queue = kept;
            if !state.queue.is_empty() {
                state.idle.drain(..).for_each(|lane| lane.unpark());
            }
            late
        };
        for mut queued in late {
            self.end_wait(&mut queued);
            self.metrics.count(Counter::LaneRefused);
            queued.pending.land(Err(Refusal::Database(FetchError::too_busy())));
        }
    }

    fn end_wait(&self, queued: &mut Queued) {
        if std::mem::take(&mut queued.waited) {
            self.waits.end(Lane::Write);
        }
    }

    fn run_lane(&self, place: usize) {
        let blocker = Blocker::current();
        // The connection that was made ready, and under whom.
        let mut ready = None;
        loop {
            let Some(mut taken) = self.take(&blocker) else {
                let _ = blocker.park(None);
                continue;
            };
            taken.iter_mut().for_each(|queued| self.end_wait(queued));
            trace::take();
            let kind = taken[0].pending.kind();
            match self.make_ready(place, &mut ready) {
                Ok(pen) => self.serve(&pen, taken),
                Err(e) => taken.iter().for_each(|q| q.pending.land(Err(refusal_before_commit(&e)))),
            }
            if let Some(kind) = kind {
                self.finish(kind);
            }
        }
    }

    fn take(&self, blocker: &Arc<Blocker>) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        let taken = state.take();
        if taken.is_none() && !state.idle.iter().any(|lane| Arc::ptr_eq(lane, blocker)) {
            state.idle.push(blocker.clone());
        }
        taken
    }

    /// Lets the next batch of `kind` go.
    fn finish(&self, kind: Write) {
        let mut state = self.state.lock();
        state.under_way.remove(&kind);
        if state.queue.iter().any(|q| q.pending.kind() == Some(kind)) {
            if let Some(lane) = state.idle.pop() {
                lane.unpark();
            }
        }
    }

    /// The lane's connection. Nobody waits for a lock without end: the next write waits behind.
    fn make_ready(&self, place: usize, ready: &mut Option<(Reign, i32)>) -> Result<Pen, Error> {
        let pen = self.nodes.pen(place)?;
        let present = (pen.reign, pen.client.process_id());
        if *ready != Some(present) {
            self.nodes.check_reign(&pen.client)?;
            pen.client.batch_execute(&format!("set lock_timeout = {}", WRITE_LOCK_WAIT_MAX.as_millis()))?;
            *ready = Some(present);
        }
        Ok(pen)
    }

    /// What has been committed over `pen` may be seen by everybody from now on: how far a replica must be for that. An error when nobody
    /// knows: the connection is lost, or another node has taken over meanwhile, which may lack it.
    fn note_commit(&self, pen: &Pen) -> Result<u64, Error> {
        let lsn = match self.nodes.written(&pen.client) {
            Ok(lsn) => lsn,
            // With one node nothing depends on it but what other boxes are told.
            Err(_) if !self.nodes.topology().has_replicas() => return Ok(0),
            Err(e) => return Err(Error::Closed(e.to_string())),
        };
        if !self.nodes.is_present(pen.reign) {
            return Err(Error::Closed("another node has become the primary meanwhile".into()));
        }
        floor::raise(self.cache.arena(), lsn);
        Ok(lsn)
    }

    fn serve(&self, pen: &Pen, taken: Vec<Queued>) {
        self.nodes.count_statement(taken.len());
        match &taken[0].pending.task {
            Task::Alone(work, idempotency) => {
                let work = work.lock().take();
                let outcome = work.map(|work| self.transact(pen, work, *idempotency));
                outcome.into_iter().for_each(|outcome| taken[0].pending.land(outcome));
            }
            Task::Batch(kind, _) => self.serve_batch(pen, *kind, taken),
        }
    }

    fn serve_batch(&self, pen: &Pen, kind: Write, taken: Vec<Queued>) {
        let client = &pen.client;
        let (mut batch, mut waiting) = (Batch::of(kind), Vec::with_capacity(taken.len()));
        for queued in taken {
            let Task::Batch(_, sent) = &queued.pending.task else { continue };
            match batch.push(sent) {
                Ok(()) => waiting.push(queued),
                Err(invalid) => queued.pending.land(Err(invalid.into())),
            }
        }
        if waiting.is_empty() {
            return;
        }
        match with_statement_anew(|| batch.apply(client)) {
            Ok(outcomes) => self.land(pen, kind, &batch, waiting, outcomes),
            // One of them did it; alone, each gets what is its own.
            Err(Error::Sql(_)) if waiting.len() > 1 && !client.is_closed() => {
                self.serve_one_by_one(pen, kind, &batch, waiting);
            }
            Err(e) => self.fail(&batch, waiting, &e),
        }
    }

    fn serve_one_by_one(&self, pen: &Pen, kind: Write, batch: &Batch, waiting: Vec<Queued>) {
        let client = &pen.client;
        let mut lost = None;
        for (n, queued) in waiting.into_iter().enumerate() {
            if lost.is_some() || is_late(queued.pending.born_ns, clock::boottime_ns()) {
                let why = lost.clone().unwrap_or_else(FetchError::too_busy);
                queued.pending.land(Err(Refusal::Database(why)));
                continue;
            }
            let alone = batch.only(n);
            match with_statement_anew(|| alone.apply(client)) {
                Ok(outcomes) => self.land(pen, kind, &alone, vec![queued], outcomes),
                Err(e) => {
                    if !matches!(e, Error::Sql(_)) || client.is_closed() {
                        lost = Some(FetchError::from(&e));
                    }
                    self.fail(&alone, vec![queued], &e);
                }
            }
        }
    }

    /// Raises what was touched, then tells everybody.
    fn land(&self, pen: &Pen, kind: Write, batch: &Batch, waiting: Vec<Queued>, outcomes: Vec<Outcome>) {
        let lsn = match self.note_commit(pen) {
            Ok(lsn) => lsn,
            Err(e) => return self.fail(batch, waiting, &e),
        };
        let changes: HashSet<Change> = outcomes.iter().flat_map(|outcome| touched(kind, *outcome)).collect();
        self.raise(changes);
        let mut state = None;
        for (mut queued, outcome) in waiting.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done { .. } => queued.pending.land(Ok(Written { lsn, ..queued.pending.answer() })),
                Outcome::Missing => queued.pending.land(Err(Refusal::Missing)),
                Outcome::Busy => {
                    queued.retries += 1;
                    let state = state.get_or_insert_with(|| self.state.lock());
                    match queued.retries <= BUSY_RETRIES_MAX {
                        true => state.queue.push_back(queued),
                        false => state.later.push(queued),
                    }
                }
            }
        }
    }

    /// Tells everybody why not; and if it may have been committed, voids what it would have touched.
    fn fail(&self, batch: &Batch, waiting: Vec<Queued>, error: &Error) {
        let refusal = refusal(error);
        if matches!(refusal, Refusal::Database(FetchError::Unknown(_))) {
            self.raise_parts(batch.parts());
        }
        waiting.iter().for_each(|queued| queued.pending.land(Err(refusal.clone())));
    }

    fn raise_parts(&self, parts: Vec<Change>) {
        // Where that can't be found out, the change feed is cut off as well, and nothing is trusted.
        let owners =
            self.nodes.any_client(Lane::Slow).and_then(|client| changes::of_parents(&client, &parts));
        if let Ok(owners) = owners {
            self.raise(owners);
        }
        self.raise(parts);
    }

    fn raise(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            Kind::made_from(change.what)
                .iter()
                .for_each(|kind| self.cache.forget(Key::new(*kind, change.id)));
        }
    }

    fn transact(&self, pen: &Pen, work: Work, idempotency: Option<Idempotency>) -> Result<Written, Refusal> {
        let client = &pen.client;
        let begin = || {
            let transaction = client.transaction()?;
            let done = match idempotency {
                Some(idempotency) => once(client, &work, idempotency),
                None => work(client),
            };
            match done {
                Ok(done) => Ok((transaction, done)),
                Err(stop) => {
                    // A connection that can't roll back is closed, which does.
                    let _ = transaction.rollback();
                    Err(stop)
                }
            }
        };
        let begun = match begin() {
            // Nothing was done: its statements are prepared anew; or it made way for another transaction, once.
            Err(Stop::Sql(e)) if e.is_about_statement() || made_way(&e) => begin(),
            begun => begun,
        };
        let (transaction, (written, changes)) = begun.map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal,
            Stop::Sql(e) => refusal_before_commit(&e),
        })?;
        let committed = transaction.commit().and_then(|()| self.note_commit(pen));
        self.raise(changes);
        committed.map(|lsn| Written { lsn, ..written }).map_err(|e| refusal(&e))
    }
}

/// Does `work` unless it was done for the same key before: then that answer is given again.
fn once(
    client: &Client,
    work: &Work,
    Idempotency { key, body }: Idempotency,
) -> Result<(Written, Vec<Change>), Stop> {
    match writes::claim_key(client, &key)? {
        Claim::InFlight => Err(Refusal::KeyInFlight.into()),
        Claim::Kept(kept) if kept.body != body => Err(Refusal::KeyReused.into()),
        Claim::Kept(KeptAnswer { status, head, answer, .. }) => {
            let written = Written { is_replayed: true, head, ..Written::new(status as u16, answer) };
            Ok((written, Vec::new()))
        }
        Claim::Ours => {
            let (written, changes) = work(client)?;
            let kept = KeptAnswer {
                body: body.to_vec(),
                status: i64::from(written.status),
                head: written.head.clone(),
                answer: written.body.clone(),
            };
            match writes::keep_answer(client, &key, &kept) {
                // Kept by somebody whose commit came between our look and our lock.
                Err(e) if e.code() == Some("23505") => Err(Refusal::KeyInFlight.into()),
                kept => kept.map(|()| (written, changes)).map_err(Stop::Sql),
            }
        }
    }
}

/// Runs it again if only its statement had to be prepared anew.
fn with_statement_anew<T>(run: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    match run() {
        Err(e) if e.is_about_statement() => run(),
        outcome => outcome,
    }
}

/// One write in the transaction of whoever calls: for requests with an Idempotency-Key.
pub fn write_alone(client: &Client, kind: Write, sent: &Sent) -> Result<(Written, Vec<Change>), Stop> {
    let mut batch = Batch::of(kind);
    batch.push(sent)?;
    match batch.apply(client)?.first() {
        Some(outcome @ Outcome::Done { .. }) => Ok((answer(kind, sent), touched(kind, *outcome))),
        Some(Outcome::Busy) => Err(Refusal::Database(FetchError::too_busy()).into()),
        Some(Outcome::Missing) | None => Err(Refusal::Missing.into()),
    }
}
