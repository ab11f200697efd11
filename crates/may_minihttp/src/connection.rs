//! One connection: receive, serve every whole request, write, wait. Read this first.
//! Runs in: worker, one coroutine a connection.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use may::coroutine;
use may::io::{CoIo, WaitIo};

use crate::body::BodyReader;
use crate::buffers::{self, Buffers};
use crate::limits::{HEADERS_MAX, OUTPUT_FLUSH_BYTES, PIPELINE_TURN_MAX};
use crate::parse::{parse_head, Framing, Refusal};
use crate::request::{clock_boottime_ns, Request};
use crate::response::{Frame, Response};
use crate::server::{HttpService, Shared};

const EPOLLIN: usize = 0x1;
const EPOLLERR_HUP_RDHUP: usize = 0x8 | 0x10 | 0x2000;

pub(crate) struct Connection<S> {
    stream: CoIo<TcpStream>,
    service: S,
    shared: Arc<Shared>,
    /// Readiness seen while waiting for something else: receive before the next wait.
    readable: bool,
    /// The peer has ended its side, or the socket failed: receive until the end shows.
    peer_ended: bool,
}

/// How a turn ended.
#[derive(PartialEq, Eq)]
enum Turn {
    Wait,
    Close,
}

/// What became of the request at the front of the input.
enum Served {
    Partial,
    KeepAlive,
    Close,
}

impl<S: HttpService> Connection<S> {
    pub(crate) fn new(stream: CoIo<TcpStream>, service: S, shared: Arc<Shared>) -> Connection<S> {
        Connection { stream, service, shared, readable: true, peer_ended: false }
    }

    /// Serves until either side closes, then leaves epoll before the descriptor's number can become another's.
    pub(crate) fn run(mut self) {
        self.serve();
        drop(self.stream.into_inner());
    }

    /// Buffers are held only while a request is under way.
    fn serve(&mut self) {
        let mut held: Option<Buffers> = None;
        loop {
            let mut working = held.take().unwrap_or_else(buffers::take);
            let turn = self.turn(&mut working);
            let idle = working.input.is_empty();
            if idle {
                buffers::put(working);
            } else {
                held = Some(working);
            }
            match turn {
                Ok(Turn::Wait) if !(idle && self.shared.closes_idle()) => self.wait(),
                Ok(_) => break,
                Err(e) => {
                    log::debug!("connection ended: {e}");
                    break;
                }
            }
        }
    }

    fn wait(&mut self) {
        if self.readable {
            return;
        }
        let flags = self.stream.wait_io();
        self.readable = flags & (EPOLLIN | EPOLLERR_HUP_RDHUP) != 0;
        self.peer_ended |= flags & EPOLLERR_HUP_RDHUP != 0;
    }

    /// Receives what is there, serves it, writes the answers.
    ///
    /// One receive is enough when it comes back short: data that arrives later raises a new edge. An end of
    /// stream that arrived in the same segment does not, so it is looked for when epoll said RDHUP.
    fn turn(&mut self, buffers: &mut Buffers) -> io::Result<Turn> {
        loop {
            if !self.readable {
                return Ok(Turn::Wait);
            }
            let spare = buffers.input.spare();
            let room = spare.len();
            match self.stream.inner().read(spare) {
                Ok(0) => return Ok(Turn::Close),
                Ok(len) => {
                    buffers.input.received(len);
                    self.readable = len == room || self.peer_ended;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if self.serve_all(buffers)? == Turn::Close {
                return Ok(Turn::Close);
            }
        }
    }

    /// Serves every whole request of the input and writes the answers out.
    fn serve_all(&mut self, buffers: &mut Buffers) -> io::Result<Turn> {
        let mut served = 0;
        loop {
            match self.serve_one(buffers)? {
                Served::Partial => {
                    self.write_out(&mut buffers.out)?;
                    return Ok(Turn::Wait);
                }
                Served::Close => {
                    self.write_out(&mut buffers.out)?;
                    self.end_politely();
                    return Ok(Turn::Close);
                }
                Served::KeepAlive => {}
            }
            served += 1;
            if buffers.out.len() >= OUTPUT_FLUSH_BYTES || served % PIPELINE_TURN_MAX == 0 {
                self.write_out(&mut buffers.out)?;
            }
            if served % PIPELINE_TURN_MAX == 0 {
                coroutine::yield_now();
            }
        }
    }

    fn serve_one(&mut self, buffers: &mut Buffers) -> io::Result<Served> {
        let Buffers { input, out, head: head_lines, body: body_bytes } = buffers;
        if input.is_empty() {
            return Ok(Served::Partial);
        }
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let bytes = input.bytes();
        let head = match parse_head(bytes, &mut space) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Served::Partial),
            Err(refusal) => {
                refuse(refusal, Response::new(head_lines, body_bytes), out);
                return Ok(Served::Close);
            }
        };
        let (head_len, mut frame) = (head.len, Frame::of(&head));
        let awaits = head.expects_continue;
        let body_is_here = match head.framing {
            Framing::None => true,
            Framing::Length(len) => len <= (bytes.len() - head_len) as u64,
            Framing::Chunked => false,
        };
        if !body_is_here {
            // The client may wait for earlier answers before it sends the rest.
            self.write_out(out)?;
        }
        let mut body = BodyReader::new(&self.stream, head.framing, &bytes[head_len..], awaits);
        let mut response = Response::new(head_lines, body_bytes);
        let request = Request { head, body: &mut body, received_at_ns: clock_boottime_ns() };
        let called = self.service.call(request, &mut response);
        frame.close |= !body.skip_rest() || self.shared.is_draining();
        let received = body.has_received();
        let (taken, beyond) = body.leftover();
        let beyond = (!beyond.is_empty()).then(|| beyond.to_vec());
        if let Err(e) = called {
            self.write_out(out)?;
            return Err(e);
        }
        self.readable |= received;
        let keep_alive = response.finish(out, frame);
        input.consume(head_len + taken);
        if let Some(bytes) = beyond {
            // The tail was used up before anything was received beyond it.
            input.refill(&bytes);
        }
        Ok(if keep_alive { Served::KeepAlive } else { Served::Close })
    }

    /// Writes everything, waiting for room as needed.
    fn write_out(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut at = 0;
        while at < out.len() {
            match self.stream.inner().write(&out[at..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => at += len,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let flags = self.stream.wait_io();
                    self.readable |= flags & (EPOLLIN | EPOLLERR_HUP_RDHUP) != 0;
                    self.peer_ended |= flags & EPOLLERR_HUP_RDHUP != 0;
                }
                Err(e) => return Err(e),
            }
        }
        out.clear();
        Ok(())
    }

    /// Ends our side first and takes in what has arrived already: bytes left unread at close(2) would make
    /// the kernel send a reset, which can destroy the answer before the client reads it (RFC 9112, 9.6).
    fn end_politely(&mut self) {
        let stream = self.stream.inner_mut();
        if stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut scrap = [0u8; 4096];
        for _ in 0..64 {
            match stream.read(&mut scrap) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
    }
}

fn refuse(refusal: Refusal, mut response: Response<'_>, out: &mut Vec<u8>) {
    let (status, reason) = refusal.status();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{status},\"detail\":\"{}\"}}",
        refusal.detail()
    );
    response.status_code(status, reason).header("Content-Type: application/problem+json").body(&body);
    response.finish(out, Frame { head_only: false, version: 1, close: true });
}
