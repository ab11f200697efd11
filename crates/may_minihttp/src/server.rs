//! Accepting connections, and ending them in good order.
//! Runs in: worker.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use may::coroutine::{self, JoinHandle};
use may::io::{CoIo, WaitIo, WaitIoWaker};
use parking_lot::Mutex;

use crate::connection::Connection;
use crate::limits::STACK_SIZE_BYTES;
use crate::request::Request;
use crate::response::Response;

/// Pause after accept(2) failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

    /// Binds `addr` and serves it.
    fn start<A: ToSocketAddrs>(self, addr: A) -> io::Result<Server<Self>> {
        let server = Server::new(self);
        server.accept_on(TcpListener::bind(addr)?)?;
        Ok(server)
    }

    /// Serves a listener that may be shared with other processes.
    fn start_with(self, listener: TcpListener) -> io::Result<Server<Self>> {
        let server = Server::new(self);
        server.accept_on(listener)?;
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

/// SERVING → DRAINING: answers carry `Connection: close` → CLOSING: idle connections end too.
const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;

/// What connections share with their server.
pub(crate) struct Shared {
    phase: AtomicU8,
    next_id: AtomicUsize,
    open: Mutex<HashMap<usize, WaitIoWaker>>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= DRAINING
    }

    pub(crate) fn closes_idle(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= CLOSING
    }
}

/// A running server; its connections live on when the handle goes.
pub struct Server<F> {
    factory: Arc<F>,
    shared: Arc<Shared>,
    accepting: Mutex<HashMap<usize, Accepting>>,
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
    pub fn new(factory: F) -> Server<F> {
        let shared =
            Shared { phase: AtomicU8::new(SERVING), next_id: AtomicUsize::new(0), open: Mutex::default() };
        Server { factory: Arc::new(factory), shared: Arc::new(shared), accepting: Mutex::default() }
    }

    /// Accepts from one more listener; returns its id, for [`Server::release`].
    pub fn accept_on(&self, listener: TcpListener) -> io::Result<usize> {
        let address = listener.local_addr()?;
        let listener = CoIo::new(listener)?;
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), listener.waker());
        let acceptor = Acceptor {
            listener,
            factory: self.factory.clone(),
            shared: self.shared.clone(),
            stop: stop.clone(),
        };
        // SAFETY: the loop keeps nothing in thread-local storage across a yield and its frames are small.
        let coroutine = unsafe { coroutine::Builder::new().spawn(move || acceptor.run()) }?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        self.accepting.lock().insert(id, Accepting { stop, waker, address, coroutine });
        Ok(id)
    }

    /// Addresses accepted from.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.accepting.lock().values().map(|a| a.address).collect()
    }

    /// Stops accepting from a listener. Other descriptors of it stay open, and what waits in it waits on.
    pub fn release(&self, id: usize) {
        let released = self.accepting.lock().remove(&id);
        if let Some(accepting) = released {
            accepting.stop();
        }
    }

    /// Stops accepting; from here on every answer closes its connection. Idle ones stay until
    /// [`Server::close_idle`], so that a request already on its way is still answered.
    pub fn drain(&self) {
        self.shared.phase.store(DRAINING, Ordering::Relaxed);
        let accepting = std::mem::take(&mut *self.accepting.lock());
        accepting.into_values().for_each(Accepting::stop);
    }

    /// Ends the connections that are between requests.
    pub fn close_idle(&self) {
        self.shared.phase.store(CLOSING, Ordering::Relaxed);
        self.shared.open.lock().values().for_each(WaitIoWaker::wakeup);
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.open.lock().len()
    }

    /// Waits for the listeners to end, which they do when drained.
    pub fn wait(&self) {
        while !self.accepting.lock().is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

struct Acceptor<F> {
    listener: CoIo<TcpListener>,
    factory: Arc<F>,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
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
                coroutine::yield_now();
            }
            match self.listener.inner().accept() {
                Ok((stream, _)) => self.open(stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.listener.wait_io();
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    log::warn!("accept: {e}; waiting {ACCEPT_PAUSE:?} before the next one");
                    coroutine::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn open(&self, stream: TcpStream) {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let stream = match CoIo::new(stream) {
            Ok(stream) => stream,
            Err(e) => return log::warn!("epoll refused a connection: {e}"),
        };
        self.shared.open.lock().insert(id, stream.waker());
        let connection = Connection::new(stream, self.factory.new_service(id), self.shared.clone());
        let shared = self.shared.clone();
        let builder = coroutine::Builder::new().stack_size(STACK_SIZE_BYTES / 8);
        // SAFETY: thread-locals are touched only inside functions that are never inlined and don't yield;
        // the stack holds a header table and no buffers.
        let spawned = unsafe {
            builder.spawn(move || {
                connection.run();
                shared.open.lock().remove(&id);
            })
        };
        if let Err(e) = spawned {
            self.shared.open.lock().remove(&id);
            log::warn!("no coroutine for a connection: {e}");
        }
    }
}
