//! Accepting connections, and ending them in good order.
//! Runs in: worker.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use may::coroutine::{self, JoinHandle};
use may::io::{CoIo, WaitIo, WaitIoWaker};
use parking_lot::Mutex;

use crate::connection::{turn_away, Connection};
use crate::limits::{Limits, REFUSALS_MAX, STACK_SIZE_BYTES, TICK_PERIOD};
use crate::proxy::Proxies;
use crate::request::Request;
use crate::response::Response;
use crate::tls::Tls;
use crate::transport::Transport;
use crate::turnstile::give_way;
use crate::watch::{now_ms, Watch};

/// Connections accepted in a row before those that are open get their turn.
const ACCEPTS_TURN_MAX: usize = 64;

/// Answers requests of one connection, one after the other.
pub trait HttpService {
    /// Fills `rsp`.
    ///
    /// # Errors
    /// Any error ends the connection without an answer.
    fn call(&mut self, req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()>;
}

/// Makes a service for each connection.
pub trait HttpServiceFactory: Send + Sync + Sized + 'static {
    type Service: HttpService + Send + 'static;

    /// A service for connection number `id`.
    fn new_service(&self, id: usize) -> Self::Service;

    /// Binds `addr` and serves it, with a thread that ticks.
    fn start<A: ToSocketAddrs>(self, addr: A) -> io::Result<Server<Self>> {
        self.start_with(TcpListener::bind(addr)?)
    }

    /// Serves a listener that may be shared with other processes, with a thread that ticks.
    fn start_with(self, listener: TcpListener) -> io::Result<Server<Self>> {
        let server = Server::new(self, Settings::default());
        server.accept_on(listener, None)?;
        server.tick_by_thread();
        Ok(server)
    }
}

/// A factory that clones one service.
pub struct HttpServer<T>(pub T);

impl<T: HttpService + Clone + Send + Sync + 'static> HttpServiceFactory for HttpServer<T> {
    type Service = T;

    fn new_service(&self, _id: usize) -> T {
        self.0.clone()
    }
}

/// SERVING → DRAINING: answers carry `Connection: close` → CLOSING: idle connections end too → ENDING: also those without a request yet.
const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;
const ENDING: u8 = 3;

/// What a server allows, and whom it believes.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub limits: Limits,
    pub proxies: Proxies,
}

/// What a server counts beside the requests, which its service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Connections accepted.
    Accepted,
    /// Connections turned away with 503: over the cap, or out of descriptors.
    TurnedAway,
    /// Requests refused before they reached a service: malformed, too large.
    Refused,
    /// Connections ended because a head, a body or the taking of an answer took too long.
    TimedOut,
}

const COUNTS: usize = 4;

/// What connections share with their server.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    phase: AtomicU8,
    next_id: AtomicUsize,
    open: Mutex<HashMap<usize, Arc<Watch>>>,
    accepting: Mutex<HashMap<usize, Accepting>>,
    /// Connections being turned away, among those that are open.
    turning_away: AtomicUsize,
    counts: [AtomicU64; COUNTS],
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= DRAINING
    }

    /// Whether a connection between requests ends now; `has_served`: one was answered on it.
    pub(crate) fn closes_idle(&self, has_served: bool) -> bool {
        self.phase.load(Ordering::Relaxed) >= if has_served { CLOSING } else { ENDING }
    }

    pub(crate) fn count(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn tick(&self) {
        let now = now_ms();
        self.open.lock().values().for_each(|watch| watch.look(now));
        // One that is out of descriptors waits for this.
        self.accepting.lock().values().for_each(|accepting| accepting.waker.wakeup());
    }

    fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether one more connection is served.
    fn has_room(&self) -> bool {
        let turning_away = self.turning_away.load(Ordering::Relaxed);
        self.open().saturating_sub(turning_away) < self.settings.limits.connections_max
    }
}

/// A running server; its connections live on when the handle goes.
pub struct Server<F> {
    factory: Arc<F>,
    shared: Arc<Shared>,
}

/// One listener being accepted from.
struct Accepting {
    stop: Arc<AtomicBool>,
    waker: WaitIoWaker,
    address: SocketAddr,
    coroutine: JoinHandle<()>,
}

impl Accepting {
    /// Accepts nothing more from this listener; returns when the last accept is over.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wakeup();
        let _ = self.coroutine.join();
    }
}

impl<F: HttpServiceFactory> Server<F> {
    /// A server that listens nowhere yet, and has no clock: whoever makes it calls [`Server::tick`].
    pub fn new(factory: F, settings: Settings) -> Server<F> {
        let shared = Shared {
            settings,
            phase: AtomicU8::new(SERVING),
            next_id: AtomicUsize::new(0),
            open: Mutex::default(),
            accepting: Mutex::default(),
            turning_away: AtomicUsize::new(0),
            counts: Default::default(),
        };
        Server { factory: Arc::new(factory), shared: Arc::new(shared) }
    }

    /// Looks at the deadlines of all connections. Called every [`TICK_PERIOD`] or so, from any thread.
    pub fn tick(&self) {
        self.shared.tick();
    }

    fn tick_by_thread(&self) {
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        std::thread::spawn(move || loop {
            std::thread::sleep(TICK_PERIOD);
            match shared.upgrade() {
                Some(shared) => shared.tick(),
                None => return,
            }
        });
    }

    /// How often `count` has happened.
    pub fn count(&self, count: Count) -> u64 {
        self.shared.counts[count as usize].load(Ordering::Relaxed)
    }

    /// Accepts from one more listener, and speaks TLS on it if told to; returns its id, for [`Server::release`].
    pub fn accept_on(&self, listener: TcpListener, tls: Option<Arc<Tls>>) -> io::Result<usize> {
        let address = listener.local_addr()?;
        let listener = CoIo::new(listener)?;
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), listener.waker());
        let acceptor = Acceptor {
            listener,
            opener: self.opener(tls),
            stop: stop.clone(),
            reserve: Mutex::new(open_reserve()),
        };
        // SAFETY: the loop keeps nothing in thread-local storage across a yield and its frames are small.
        let coroutine = unsafe { coroutine::Builder::new().spawn(move || acceptor.run()) }?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        self.shared.accepting.lock().insert(id, Accepting { stop, waker, address, coroutine });
        Ok(id)
    }

    fn opener(&self, tls: Option<Arc<Tls>>) -> Opener<F> {
        Opener { factory: self.factory.clone(), shared: self.shared.clone(), tls }
    }

    /// Serves a connection that was made elsewhere, of `peer`: any stream socket, such as one end of a pair.
    pub fn serve(&self, stream: OwnedFd, peer: IpAddr) {
        self.opener(None).open(TcpStream::from(stream), peer);
    }

    /// Addresses accepted from.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.accepting.lock().values().map(|a| a.address).collect()
    }

    /// Stops accepting from a listener. Other descriptors of it stay open, and what waits in it waits on.
    pub fn release(&self, id: usize) {
        let released = self.shared.accepting.lock().remove(&id);
        if let Some(accepting) = released {
            accepting.stop();
        }
    }

    /// Stops accepting; from here on every answer closes its connection. Idle ones stay until
    /// [`Server::close_idle`], so that a request already on its way is still answered.
    pub fn drain(&self) {
        self.shared.phase.store(DRAINING, Ordering::Relaxed);
        let accepting = std::mem::take(&mut *self.shared.accepting.lock());
        accepting.into_values().for_each(Accepting::stop);
    }

    /// Ends the connections that are between requests. Those on which none has come yet stay until [`Server::close_fresh`]: whoever has
    /// only just connected is about to send one.
    pub fn close_idle(&self) {
        self.close(CLOSING);
    }

    /// Ends the connections without a request too.
    pub fn close_fresh(&self) {
        self.close(ENDING);
    }

    fn close(&self, phase: u8) {
        self.shared.phase.store(phase, Ordering::Relaxed);
        self.shared.open.lock().values().for_each(|watch| watch.wake());
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.open()
    }

    /// Waits for the listeners to end, which they do when drained.
    pub fn wait(&self) {
        while !self.shared.accepting.lock().is_empty() {
            std::thread::sleep(TICK_PERIOD);
        }
    }
}

/// Has connections served, each by a coroutine of its own.
struct Opener<F> {
    factory: Arc<F>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
}

struct Acceptor<F> {
    listener: CoIo<TcpListener>,
    opener: Opener<F>,
    stop: Arc<AtomicBool>,
    /// A descriptor to give up when there is no other: with it whoever waits can be told so.
    reserve: Mutex<Option<File>>,
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

impl<F: HttpServiceFactory> Acceptor<F> {
    /// Accepts until stopped. Leaves epoll before closing: other descriptors keep the listener alive, and with it
    /// a registration that points to freed memory.
    fn run(self) {
        self.accept();
        drop(self.listener.into_inner());
    }

    fn accept(&self) {
        for turn in 1usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if turn.is_multiple_of(ACCEPTS_TURN_MAX) {
                give_way();
            }
            match self.listener.inner().accept() {
                Ok((stream, peer)) => self.opener.open(stream, peer.ip()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.listener.wait_io();
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) if is_exhaustion(&e) => self.make_do(&e),
                // The network's errors on the connection that would have been next (accept(2)).
                Err(e) => {
                    log::debug!("accept: {e}");
                    give_way();
                }
            }
        }
    }

    /// Out of descriptors or memory: turns one connection away with the reserve, or waits for the next tick, in which
    /// others may have ended. Accepting again at once would spin.
    fn make_do(&self, error: &io::Error) {
        let reserve = self.reserve.lock().take();
        if reserve.is_none() {
            log::warn!("accept: {error}; waiting for a tick");
            self.listener.wait_io();
            *self.reserve.lock() = open_reserve();
            return;
        }
        drop(reserve);
        let accepted = self.listener.inner().accept();
        if let Ok((stream, _)) = &accepted {
            self.opener.shared.count(Count::TurnedAway);
            let _ = stream.set_nonblocking(true);
            if self.opener.tls.is_none() {
                say_no(stream);
            }
        }
        let waits_for_more = matches!(&accepted, Err(e) if e.kind() == ErrorKind::WouldBlock);
        drop(accepted);
        *self.reserve.lock() = open_reserve();
        // Out of descriptors, accept(2) fails before it looks whether anybody is there.
        match waits_for_more {
            true => drop(self.listener.wait_io()),
            false => give_way(),
        }
    }
}

impl<F: HttpServiceFactory> Opener<F> {
    fn open(&self, stream: TcpStream, peer: IpAddr) {
        self.shared.count(Count::Accepted);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let stream = match CoIo::new(stream) {
            Ok(stream) => stream,
            Err(e) => return log::warn!("epoll refused a connection: {e}"),
        };
        let welcome = self.shared.has_room();
        if !welcome && !self.may_be_told() {
            // Leaves epoll before the descriptor's number can become another's.
            return drop(stream.into_inner());
        }
        let watch = Arc::new(Watch::new(stream.waker()));
        let transport = Transport::new(stream, watch.clone());
        self.shared.open.lock().insert(id, watch);
        let shared = self.shared.clone();
        let builder = coroutine::Builder::new().stack_size(STACK_SIZE_BYTES / 8);
        // SAFETY: thread-locals are touched only inside functions that are never inlined and don't yield;
        // the stack holds no buffers.
        let spawned = unsafe {
            if welcome {
                let service = self.factory.new_service(id);
                let connection = Connection::new(transport, service, shared.clone(), peer);
                let tls = self.tls.clone();
                builder.spawn(move || {
                    connection.run(tls);
                    shared.open.lock().remove(&id);
                })
            } else {
                builder.spawn(move || {
                    turn_away(transport, &shared);
                    shared.turning_away.fetch_sub(1, Ordering::Relaxed);
                    shared.open.lock().remove(&id);
                })
            }
        };
        if let Err(e) = spawned {
            if !welcome {
                self.shared.turning_away.fetch_sub(1, Ordering::Relaxed);
            }
            self.shared.open.lock().remove(&id);
            log::warn!("no coroutine for a connection: {e}");
        }
    }

    /// Counts a connection as turned away; true if it gets an answer. Over TLS it would take a handshake first.
    fn may_be_told(&self) -> bool {
        self.shared.count(Count::TurnedAway);
        if self.tls.is_some() || self.shared.turning_away.load(Ordering::Relaxed) >= REFUSALS_MAX {
            return false;
        }
        self.shared.turning_away.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// No descriptor, of the process or of the system, or no memory.
fn is_exhaustion(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// The shortest answer there is, for one that can't be kept for a moment.
fn say_no(mut stream: &TcpStream) {
    use std::io::{Read, Write};
    const NO: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.write(NO);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0u8; 4096]);
}
