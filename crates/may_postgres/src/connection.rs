//! One socket, owned by one coroutine; many callers queue requests and wait for their own answers.
//! Runs in: worker | offline.
//!
//! ```text
//!  callers ── Request{bytes, Answer} ──► Queue ──► coroutine ── one write ──► server
//!     ▲                                               │
//!     └────────────── Answer (chunks, state) ◄── oldest first ◄── one read ──┘
//! ```

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use may::coroutine;
use may::io::{CoIo, WaitIo, WaitIoWaker};
use may::sync::Blocker;
use parking_lot::Mutex;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::prepare::Statements;
use crate::startup::{Session, Socket};
use crate::wire::{self, Scan};
use crate::{Config, Error};

/// Free space kept in the read buffer before each read.
const READ_SIZE_BYTES: usize = 32 * 1024;
/// Undelivered bytes of a streamed answer (COPY out) beyond which the socket is no longer read.
const STREAM_SIZE_MAX_BYTES: usize = 1 << 20;
/// Queued bytes beyond which a COPY sender waits.
pub(crate) const QUEUE_SIZE_MAX_BYTES: usize = 1 << 20;
/// Stack of the connection's coroutine, in bytes.
const STACK_SIZE_BYTES: usize = 256 * 1024;

const EPOLLIN: usize = 0x1;
const EPOLLERR_HUP_RDHUP: usize = 0x8 | 0x10 | 0x2000;

/// A handle on one connection. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    _last: Arc<CloseOnDrop>,
}

pub(crate) struct Shared {
    queue: Mutex<Queue>,
    waker: WaitIoWaker,
    pub(crate) statements: Statements,
    pub(crate) copying: AtomicBool,
    /// A [`crate::Transaction`] is open.
    pub(crate) in_transaction: AtomicBool,
    sweep: AtomicBool,
    suspect: AtomicBool,
    request_timeout: Option<Duration>,
    process_id: i32,
    secret_key: i32,
    config: Config,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.queue.lock().closing = true;
        self.0.waker.wakeup();
    }
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// Bytes queued and not yet written.
    size_bytes: usize,
    /// A COPY sender waiting for room.
    waiting: Option<Arc<Blocker>>,
    /// No handle is left: finish what is outstanding, then say goodbye.
    closing: bool,
    /// What a reader of an answer found wrong with it: nobody knows any more whose bytes come next.
    broken: Option<Error>,
    /// Set once the socket is gone: nothing is accepted any more.
    closed: Option<Error>,
}

struct Request {
    bytes: BytesMut,
    /// None for the data of a COPY, whose answer is that of the request before.
    answer: Option<Arc<Answer>>,
}

/// The answer to one request, filled by the connection, drained by the caller.
pub(crate) struct Answer {
    state: Mutex<AnswerState>,
    sent: Instant,
    /// Deliver what is there at once, instead of waking the caller when all has arrived.
    stream: bool,
}

#[derive(Default)]
struct AnswerState {
    chunks: VecDeque<BytesMut>,
    size_bytes: usize,
    finished: bool,
    /// Nobody reads it any more: what still comes is dropped.
    abandoned: bool,
    failed: Option<Error>,
    waiting: Option<Arc<Blocker>>,
}

impl Answer {
    fn push(&self, chunk: BytesMut, finished: bool) {
        let mut state = self.state.lock();
        if !state.abandoned {
            state.size_bytes += chunk.len();
            state.chunks.push_back(chunk);
        }
        state.finished |= finished;
        if state.finished || self.stream {
            if let Some(waiter) = state.waiting.take() {
                waiter.unpark();
            }
        }
    }

    fn fail(&self, why: Error) {
        let mut state = self.state.lock();
        if !state.finished {
            state.failed = Some(why);
            state.finished = true;
        }
        if let Some(waiter) = state.waiting.take() {
            waiter.unpark();
        }
    }

    fn is_full(&self) -> bool {
        self.stream && self.state.lock().size_bytes > STREAM_SIZE_MAX_BYTES
    }
}

/// Reads the messages of one answer in order, waiting as needed.
pub(crate) struct Responses {
    answer: Arc<Answer>,
    chunk: BytesMut,
    /// Tag that the first message must have, unless it is an error.
    expected: Option<u8>,
    shared: Arc<Shared>,
}

impl Responses {
    /// The next message; None after ReadyForQuery. An ErrorResponse is returned as `Error::Sql`.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(&tag) = self.chunk.first() {
                let expected = self.expected.take();
                if expected.is_some_and(|expected| tag != expected && tag != b'E') {
                    let why = format!("an answer began with {:?}: it is not this request's", tag as char);
                    return Err(self.shared.break_off(Error::Protocol(why)));
                }
                match Message::parse(&mut self.chunk) {
                    Ok(Some(Message::ErrorResponse(body))) => {
                        return Err(Error::Sql(Box::new(crate::SqlError::read(body.fields()))))
                    }
                    Ok(Some(Message::ReadyForQuery(body))) => {
                        let in_transaction = self.shared.in_transaction.load(Ordering::Relaxed);
                        if body.status() != b'I' && !in_transaction {
                            let why = "a transaction is open that nobody asked for".to_string();
                            return Err(self.shared.break_off(Error::Protocol(why)));
                        }
                        return Ok(None);
                    }
                    Ok(Some(message)) => return Ok(Some(message)),
                    Ok(None) => {
                        return Err(self.shared.break_off(Error::Protocol("a message was cut".into())))
                    }
                    Err(e) => return Err(self.shared.break_off(e.into())),
                }
            }
            if !self.wait()? {
                return Ok(None);
            }
        }
    }

    /// Hands `read` on. What can't be read of a message leaves the whole connection in doubt, and it is closed.
    pub(crate) fn checked<T>(&self, read: Result<T, impl Into<Error>>) -> Result<T, Error> {
        read.map_err(|e| match e.into() {
            e @ Error::Protocol(_) => self.shared.break_off(e),
            e => e,
        })
    }

    /// Takes the next chunk, parking until there is one; false when the answer has ended.
    fn wait(&mut self) -> Result<bool, Error> {
        loop {
            let waiter = {
                let mut state = self.answer.state.lock();
                if let Some(chunk) = state.chunks.pop_front() {
                    let was_full = state.size_bytes > STREAM_SIZE_MAX_BYTES;
                    state.size_bytes -= chunk.len();
                    let wake = was_full && state.size_bytes <= STREAM_SIZE_MAX_BYTES;
                    drop(state);
                    if wake {
                        self.shared.waker.wakeup();
                    }
                    self.chunk = chunk;
                    return Ok(true);
                }
                if let Some(why) = &state.failed {
                    return Err(why.clone());
                }
                if state.finished {
                    return Ok(false);
                }
                let waiter = Blocker::current();
                state.waiting = Some(waiter.clone());
                waiter
            };
            // A spurious return is harmless: the state is looked at again.
            let _ = waiter.park(None);
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let mut state = self.answer.state.lock();
        let was_full = state.size_bytes > STREAM_SIZE_MAX_BYTES;
        state.abandoned = true;
        state.chunks.clear();
        state.size_bytes = 0;
        drop(state);
        if was_full {
            self.shared.waker.wakeup();
        }
    }
}

impl Shared {
    /// Queues `bytes` and wakes the connection; the answer comes through the returned reader.
    pub(crate) fn send(self: &Arc<Self>, request: wire::Outgoing, stream: bool) -> Result<Responses, Error> {
        let wire::Outgoing { bytes, expected } = request;
        if self.copying.load(Ordering::Relaxed) {
            return Err(Error::Protocol("this connection is in the middle of a COPY".into()));
        }
        let answer = Arc::new(Answer { state: Mutex::default(), sent: Instant::now(), stream });
        self.enqueue(Request { bytes, answer: Some(answer.clone()) })?;
        Ok(Responses { answer, chunk: BytesMut::new(), expected, shared: self.clone() })
    }

    /// Has the connection closed, with everybody who waits for it told `why`. Returns it.
    pub(crate) fn break_off(&self, why: Error) -> Error {
        self.queue.lock().broken.get_or_insert_with(|| why.clone());
        self.waker.wakeup();
        why
    }

    fn cancel(&self) -> Result<(), Error> {
        let mut socket = crate::startup::open_plain(&self.config)?;
        let mut buf = BytesMut::new();
        frontend::cancel_request(self.process_id, self.secret_key, &mut buf);
        socket.write_all(&buf).map_err(|e| Error::Connect(e.to_string()))
    }

    /// Queues data of a COPY that is under way, waiting while too much is queued already.
    pub(crate) fn send_data(&self, bytes: BytesMut) -> Result<(), Error> {
        loop {
            let waiter = {
                let mut queue = self.queue.lock();
                if let Some(why) = &queue.closed {
                    return Err(why.clone());
                }
                if queue.size_bytes <= QUEUE_SIZE_MAX_BYTES {
                    break;
                }
                let waiter = Blocker::current();
                queue.waiting = Some(waiter.clone());
                waiter
            };
            let _ = waiter.park(None);
        }
        self.enqueue(Request { bytes, answer: None })
    }

    fn enqueue(&self, request: Request) -> Result<(), Error> {
        {
            let mut queue = self.queue.lock();
            if let Some(why) = queue.closed.as_ref().or(queue.broken.as_ref()) {
                return Err(why.clone());
            }
            queue.size_bytes += request.bytes.len();
            queue.requests.push_back(request);
        }
        self.waker.wakeup();
        Ok(())
    }
}

impl Client {
    /// Whether the connection is gone; every request fails at once then.
    pub fn is_closed(&self) -> bool {
        self.closed_because().is_some()
    }

    /// Why the connection is gone, once it is.
    pub fn closed_because(&self) -> Option<Error> {
        let queue = self.shared.queue.lock();
        queue.closed.clone().or_else(|| queue.broken.clone())
    }

    /// Whether a request was given up and nothing has been heard of the server since it was sent: better not to wait for
    /// it. The next byte ends the suspicion.
    pub fn is_suspect(&self) -> bool {
        self.shared.suspect.load(Ordering::Relaxed)
    }

    /// Process id of the backend, as in `pg_stat_activity`.
    pub fn process_id(&self) -> i32 {
        self.shared.process_id
    }

    /// Requests queued or sent whose answer has not been read from the socket.
    pub fn queued(&self) -> usize {
        self.shared.queue.lock().requests.len()
    }

    /// Asks the connection to look at its clock: requests older than `Config::request_timeout` fail with
    /// [`Error::Timeout`] and their late replies are discarded. Call it a few times a second from a
    /// timer; requests themselves then need none.
    pub fn tick(&self) {
        if self.shared.request_timeout.is_some() {
            self.shared.sweep.store(true, Ordering::Relaxed);
            self.shared.waker.wakeup();
        }
    }

    /// Asks the server to cancel whatever this connection runs, over a connection of its own. On a
    /// pipelined connection that may be somebody else's statement: use it on connections of one's own.
    pub fn cancel(&self) -> Result<(), Error> {
        self.shared.cancel()
    }
}

/// Spawns the coroutine that owns the socket from here on.
pub(crate) fn start(session: Session, config: &Config) -> Result<Client, Error> {
    let stream = CoIo::new(session.socket).map_err(|e| Error::Connect(format!("epoll refused: {e}")))?;
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        waker: stream.waker(),
        statements: Statements::default(),
        copying: AtomicBool::new(false),
        in_transaction: AtomicBool::new(false),
        sweep: AtomicBool::new(false),
        suspect: AtomicBool::new(false),
        request_timeout: config.request_timeout,
        process_id: session.process_id,
        secret_key: session.secret_key,
        config: config.clone(),
    });
    let connection = Connection {
        stream,
        shared: shared.clone(),
        outstanding: VecDeque::new(),
        inbox: session.leftover,
        outbox: BytesMut::with_capacity(READ_SIZE_BYTES),
        peer_ended: false,
        read_at: Instant::now(),
    };
    let builder = coroutine::Builder::new().stack_size(STACK_SIZE_BYTES / 8);
    // SAFETY: `run` keeps nothing in thread-local storage across a yield, and its stack holds no buffers.
    let spawned = unsafe { builder.spawn(move || connection.run()) };
    spawned.map_err(|e| Error::Connect(format!("no coroutine for the connection: {e}")))?;
    let last = Arc::new(CloseOnDrop(shared.clone()));
    Ok(Client { shared, _last: last })
}

struct Connection {
    stream: CoIo<Socket>,
    shared: Arc<Shared>,
    /// Requests written whose answer has not ended, oldest first.
    outstanding: VecDeque<Arc<Answer>>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// The peer has ended its side: read until the end shows.
    peer_ended: bool,
    read_at: Instant,
}

impl Connection {
    fn run(mut self) {
        let why = match self.serve() {
            Ok(()) => Error::Closed("closed by this side".into()),
            // Whose answer it was that could not be read is not known to the others: for them the connection is lost.
            Err(Error::Protocol(why)) => Error::Closed(format!("the server broke the protocol: {why}")),
            Err(e) => e,
        };
        self.fail_all(why);
        // Leaves epoll before the descriptor's number can become another's.
        drop(self.stream.into_inner());
    }

    /// Turns until closed: take requests, write, read what came, wait.
    fn serve(&mut self) -> Result<(), Error> {
        let mut readable = true;
        loop {
            let closing = self.take_requests()?;
            self.write()?;
            if readable {
                readable = self.read()?;
            }
            self.sweep()?;
            if closing && self.outstanding.is_empty() && self.outbox.is_empty() {
                return self.say_goodbye();
            }
            let flags = self.stream.wait_io();
            readable |= flags & (EPOLLIN | EPOLLERR_HUP_RDHUP) != 0;
            self.peer_ended |= flags & EPOLLERR_HUP_RDHUP != 0;
        }
    }

    fn take_requests(&mut self) -> Result<bool, Error> {
        let mut queue = self.shared.queue.lock();
        if let Some(why) = &queue.broken {
            return Err(why.clone());
        }
        while let Some(request) = queue.requests.pop_front() {
            self.outbox.extend_from_slice(&request.bytes);
            self.outstanding.extend(request.answer);
        }
        Ok(queue.closing)
    }

    fn write(&mut self) -> Result<(), Error> {
        while !self.outbox.is_empty() {
            match self.stream.inner_mut().write(&self.outbox) {
                Ok(0) => return Err(Error::Closed("the socket takes no more".into())),
                Ok(n) => self.outbox.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        match self.stream.inner_mut().flush() {
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Err(e.into())
            }
            _ => {}
        }
        let mut queue = self.shared.queue.lock();
        queue.size_bytes = self.outbox.len() + queue.requests.iter().map(|r| r.bytes.len()).sum::<usize>();
        if queue.size_bytes <= QUEUE_SIZE_MAX_BYTES {
            if let Some(waiter) = queue.waiting.take() {
                waiter.unpark();
            }
        }
        Ok(())
    }

    fn is_blocked_by_reader(&self) -> bool {
        self.outstanding.front().is_some_and(|answer| answer.is_full())
    }

    /// Reads until the socket has nothing more, dispatching whole messages; true when it stopped earlier, because
    /// a streamed answer is not taken. A short read is the last one unless the peer has ended: a farewell and the end
    /// of the stream behind it raise one edge.
    fn read(&mut self) -> Result<bool, Error> {
        while !self.is_blocked_by_reader() {
            let len = self.inbox.len();
            self.inbox.resize(len + READ_SIZE_BYTES, 0);
            let got = self.stream.inner_mut().read(&mut self.inbox[len..]);
            self.inbox.truncate(len + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return Err(Error::Closed("the server closed it".into())),
                Ok(n) => {
                    self.read_at = Instant::now();
                    self.shared.suspect.store(false, Ordering::Relaxed);
                    self.dispatch()?;
                    if n < READ_SIZE_BYTES && !self.peer_ended && self.stream.inner().reads_whole() {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn dispatch(&mut self) -> Result<(), Error> {
        loop {
            match wire::scan(&self.inbox)? {
                Scan::Stray { len, tag } => self.take_stray(len, tag),
                Scan::More { len: 0 } => return Ok(()),
                Scan::More { len } => self.deliver(len, false)?,
                Scan::Finished { len } => self.deliver(len, true)?,
            }
        }
    }

    fn deliver(&mut self, len: usize, finished: bool) -> Result<(), Error> {
        let chunk = self.inbox.split_to(len);
        let Some(answer) = self.outstanding.front() else { return Err(unasked(chunk)) };
        answer.push(chunk, finished);
        if finished {
            self.outstanding.pop_front();
        }
        Ok(())
    }

    fn take_stray(&mut self, len: usize, tag: u8) {
        let mut message = self.inbox.split_to(len);
        if tag == b'N' {
            if let Ok(Some(Message::NoticeResponse(body))) = Message::parse(&mut message) {
                let notice = crate::SqlError::read(body.fields());
                log::debug!("postgres {}: {}", notice.severity, notice.message);
            }
        }
    }

    /// Fails what has waited too long. Only a prefix can be too old: answers come in the order of sending. A peer
    /// that has said nothing at all for twice that time is taken for dead.
    fn sweep(&mut self) -> Result<(), Error> {
        if !self.shared.sweep.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let Some(limit) = self.shared.request_timeout else { return Ok(()) };
        let late = self.outstanding.iter().take_while(|a| a.sent.elapsed() > limit);
        for answer in late.filter(|a| !a.stream) {
            answer.fail(Error::Timeout);
            if self.read_at < answer.sent {
                self.shared.suspect.store(true, Ordering::Relaxed);
            }
        }
        let oldest = self.outstanding.front().filter(|a| !a.stream).map(|a| a.sent.elapsed());
        if oldest.is_some_and(|age| age > limit * 2) && self.read_at.elapsed() > limit * 2 {
            self.cancel_behind();
            return Err(Error::Closed("the server has been silent for too long".into()));
        }
        Ok(())
    }

    /// Has the server end what it still runs for this connection: everybody who waited for it has been told, and a backend
    /// that goes on would be one more each time. On a thread: connecting blocks.
    fn cancel_behind(&self) {
        let shared = self.shared.clone();
        std::thread::spawn(move || shared.cancel());
    }

    fn say_goodbye(&mut self) -> Result<(), Error> {
        frontend::terminate(&mut self.outbox);
        self.write()
    }

    fn fail_all(&mut self, why: Error) {
        let waiting = {
            let mut queue = self.shared.queue.lock();
            queue.closed = Some(why.clone());
            let unsent: Vec<Request> = queue.requests.drain(..).collect();
            self.outstanding.extend(unsent.into_iter().filter_map(|r| r.answer));
            queue.waiting.take()
        };
        self.outstanding.drain(..).for_each(|answer| answer.fail(why.clone()));
        if let Some(waiter) = waiting {
            waiter.unpark();
        }
    }
}

/// A message without a request: usually the server's farewell (`57P01`, "terminating connection").
fn unasked(mut chunk: BytesMut) -> Error {
    match Message::parse(&mut chunk) {
        Ok(Some(Message::ErrorResponse(body))) => Error::Closed(crate::SqlError::read(body.fields()).message),
        _ => Error::Protocol("an answer to nothing that was asked".into()),
    }
}
