//! A connection's bytes in and out: a socket, with or without TLS, that never blocks the thread and waits with a deadline.
//! Runs in: worker.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use may::io::{CoIo, WaitIo};

use crate::limits::{LINGER_SIZE_MAX_BYTES, LINGER_TIMEOUT, RECEIVE_TURN_MAX_BYTES};
use crate::tls::Session;
use crate::turnstile::give_way;
use crate::watch::{after, Watch};

const EPOLLIN: usize = 0x1;
const EPOLLERR_HUP_RDHUP: usize = 0x8 | 0x10 | 0x2000;

pub(crate) struct Transport {
    io: CoIo<TcpStream>,
    tls: Option<Box<Session>>,
    watch: Arc<Watch>,
    /// The socket may hold something: receive before the next wait.
    unread: bool,
    /// The peer has ended its side, or the socket failed: receive until the end shows.
    peer_ended: bool,
    /// Bytes received since this connection last waited.
    received_bytes: usize,
}

impl Transport {
    pub(crate) fn new(io: CoIo<TcpStream>, watch: Arc<Watch>) -> Transport {
        Transport { io, tls: None, watch, unread: true, peer_ended: false, received_bytes: 0 }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Says goodbye where TLS wants that (RFC 9112, 9.8), without waiting; then leaves epoll before the descriptor's
    /// number can become another's.
    pub(crate) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye();
            let _ = tls.send(self.io.inner(), &[]);
        }
        drop(self.io.into_inner());
    }

    /// Ends with a reset: what is not sent yet is dropped instead of being kept by the kernel for a client that takes
    /// nothing, and a body that was cut does not look whole.
    pub(crate) fn abort(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let stream = self.io.into_inner();
        // SAFETY: a live descriptor, and an option of the size that is given. A refusal leaves an ordinary close.
        unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
    }

    /// Receives what is there; None when that is nothing, 0 at the end of the stream. `buf` must have room.
    ///
    /// One receive is enough when it comes back short: data that arrives later raises a new edge. An end of stream
    /// that arrived in the same segment does not, so it is looked for when epoll said RDHUP.
    pub(crate) fn receive(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        while self.unread {
            let got = match &mut self.tls {
                None => self.io.inner().read(buf),
                Some(tls) => tls.receive(self.io.inner(), buf),
            };
            match got {
                Ok(len) => {
                    self.received_bytes += len;
                    if self.received_bytes > RECEIVE_TURN_MAX_BYTES {
                        self.received_bytes = 0;
                        give_way();
                    }
                    self.unread = len == buf.len() || self.peer_ended || self.tls.is_some();
                    return Ok(Some(len));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.unread = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The next receive looks at the socket, whatever epoll has said so far.
    pub(crate) fn look_again(&mut self) {
        self.unread = true;
    }

    /// Waits until there may be something to receive.
    ///
    /// # Errors
    /// TimedOut at the deadline.
    pub(crate) fn wait_readable(&mut self, deadline_ms: u64) -> io::Result<()> {
        match self.unread {
            true => Ok(()),
            false => self.wait(deadline_ms),
        }
    }

    /// Waits for whatever comes first: an edge, a wake from outside, the deadline.
    pub(crate) fn wait(&mut self, deadline_ms: u64) -> io::Result<()> {
        self.received_bytes = 0;
        self.watch.arm(deadline_ms);
        let flags = self.io.wait_io();
        self.unread |= flags & (EPOLLIN | EPOLLERR_HUP_RDHUP) != 0;
        self.peer_ended |= flags & EPOLLERR_HUP_RDHUP != 0;
        match self.watch.has_passed() {
            true => Err(ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Sends everything, waiting for room as needed.
    ///
    /// # Errors
    /// TimedOut when the peer takes not a byte for `timeout`, whatever else it does meanwhile.
    pub(crate) fn send(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let mut at = 0;
        let mut deadline_ms = None;
        while at < bytes.len() || self.has_unsent() {
            let taken_before = self.tls.as_ref().map_or(0, |tls| tls.taken_bytes());
            let sent = match &mut self.tls {
                None => self.io.inner().write(&bytes[at..]),
                Some(tls) => tls.send(self.io.inner(), &bytes[at..]),
            };
            if self.tls.as_ref().is_some_and(|tls| tls.taken_bytes() > taken_before) {
                deadline_ms = None;
            }
            match sent {
                Ok(0) if self.tls.is_none() => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => {
                    at += len;
                    deadline_ms = None;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // An edge comes at latest when there is room again.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(*deadline_ms.get_or_insert_with(|| after(timeout)))?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    /// Speaks TLS from here on. Waits for the handshake.
    pub(crate) fn secure(&mut self, mut tls: Box<Session>, deadline_ms: u64) -> io::Result<()> {
        loop {
            match tls.shake(self.io.inner()) {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.unread = false;
                    self.wait(deadline_ms)?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.tls = Some(tls);
        self.unread = true;
        Ok(())
    }

    /// Looks at the first bytes without taking them; None when nothing is there yet, 0 at the end of the stream.
    pub(crate) fn peek(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.io.inner().peek(buf) {
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.unread = false;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Takes `len` bytes that were peeked at.
    pub(crate) fn take(&mut self, len: usize) -> io::Result<()> {
        self.unread = true;
        self.io.inner().read_exact(&mut vec![0; len])
    }

    /// Ends our side, and takes in what has arrived: bytes left unread at close(2) would make the kernel send a
    /// reset, which can destroy the answer before the client reads it (RFC 9112, 9.6). With `linger`, that goes on
    /// for a while: more is on its way.
    pub(crate) fn end(&mut self, linger: bool) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye();
            let _ = self.send(&[], LINGER_TIMEOUT);
        }
        // From here on nobody decrypts: bytes are only taken in.
        self.tls = None;
        if self.io.inner().shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline_ms = after(LINGER_TIMEOUT);
        let mut scrap = [0u8; 2048];
        let mut taken = 0;
        self.unread = true;
        while taken < LINGER_SIZE_MAX_BYTES {
            match self.receive(&mut scrap) {
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(len)) => taken += len,
                Ok(None) if linger && self.wait(deadline_ms).is_ok() => {}
                Ok(None) => return,
            }
        }
    }
}
