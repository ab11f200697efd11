//! One connection: receive, serve every whole request, write, wait. Read this first.
//! Runs in: worker, one coroutine a connection.

use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::sync::Arc;

use crate::body::{BodyReader, Rest};
use crate::buffers::{self, Buffers};
use crate::limits::{OUTPUT_FLUSH_BYTES, PIPELINE_TURN_MAX};
use crate::parse::{check_partial, parse_head, Framing, Head, Refusal};
use crate::proxy::{read_preface, Preface, Proxies, HEADER_SIZE_MAX_BYTES};
use crate::request::{clock_boottime_ns, Request};
use crate::response::{BodySource, Frame, Payload, Response};
use crate::server::{Count, HttpService, Shared};
use crate::tls::Tls;
use crate::transport::Transport;
use crate::turnstile::give_way;
use crate::watch::after;

/// Nobody's word counts.
static NO_PROXIES: Proxies = Proxies { trusted: Vec::new(), speak_first: false };

pub(crate) struct Connection<S> {
    transport: Transport,
    service: S,
    shared: Arc<Shared>,
    /// The peer, or the client that a PROXY header named.
    peer: IpAddr,
    /// A PROXY header did: what the requests say about their client counts no more.
    is_named: bool,
    /// Of the wait that comes next: for a request's head, or for the next request.
    deadline_ms: u64,
    /// Part of a head has been received.
    in_head: bool,
    /// A request has been answered.
    has_served: bool,
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
    /// No further request; `linger` where the client may still be sending.
    Close {
        linger: bool,
    },
}

impl<S: HttpService> Connection<S> {
    pub(crate) fn new(transport: Transport, service: S, shared: Arc<Shared>, peer: IpAddr) -> Connection<S> {
        let deadline_ms = after(shared.settings.limits.header_timeout);
        Connection {
            transport,
            service,
            shared,
            peer,
            is_named: false,
            deadline_ms,
            in_head: false,
            has_served: false,
        }
    }

    /// Serves until either side closes.
    pub(crate) fn run(mut self, tls: Option<Arc<Tls>>) {
        if let Err(e) = self.begin(tls) {
            self.note(&e);
            return self.transport.close();
        }
        match self.serve() {
            Ok(()) => self.transport.close(),
            Err(e) => {
                self.note(&e);
                self.transport.abort();
            }
        }
    }

    fn note(&self, why: &io::Error) {
        if why.kind() == ErrorKind::TimedOut {
            self.shared.count(Count::TimedOut);
        }
        log::debug!("connection of {} ended: {why}", self.peer);
    }

    /// What comes before the first request: a PROXY header from a trusted peer, the TLS handshake.
    fn begin(&mut self, tls: Option<Arc<Tls>>) -> io::Result<()> {
        let proxies = &self.shared.settings.proxies;
        if proxies.speak_first && proxies.trusts(self.peer) {
            self.read_preface()?;
        }
        if let Some(tls) = tls {
            self.transport.secure(tls.session()?, after(crate::limits::HANDSHAKE_TIMEOUT))?;
        }
        Ok(())
    }

    /// Never inlined: its room would be touched by every connection.
    #[inline(never)]
    fn read_preface(&mut self) -> io::Result<()> {
        let bad = || io::Error::new(ErrorKind::InvalidData, "a trusted proxy sent no PROXY header");
        let mut bytes = [0u8; HEADER_SIZE_MAX_BYTES];
        loop {
            let Some(len) = self.transport.peek(&mut bytes)? else {
                self.transport.wait(self.deadline_ms)?;
                continue;
            };
            match read_preface(&bytes[..len]) {
                Preface::Whole { len, client } => {
                    self.is_named = client.is_some();
                    self.peer = client.unwrap_or(self.peer);
                    return self.transport.take(len);
                }
                Preface::Partial if len > 0 => self.transport.wait(self.deadline_ms)?,
                _ => return Err(bad()),
            }
        }
    }

    /// Buffers are held only while a request is under way.
    fn serve(&mut self) -> io::Result<()> {
        let mut held: Option<Buffers> = None;
        loop {
            let mut working = held.take().unwrap_or_else(buffers::take);
            // Looked at before the last turn: a request that has come in since is still answered.
            let is_last = self.shared.closes_idle(self.has_served);
            if is_last {
                self.transport.look_again();
            }
            let turn = self.turn(&mut working);
            let idle = working.input.is_empty();
            if turn? == Turn::Close || (idle && is_last) {
                buffers::put(working);
                return Ok(());
            }
            if idle {
                buffers::put(working);
            } else {
                held = Some(working);
            }
            match self.transport.wait_readable(self.deadline_ms) {
                Err(e) if e.kind() == ErrorKind::TimedOut => return self.time_out(held),
                other => other?,
            }
        }
    }

    /// Says why, where a request had begun; an idle connection just ends.
    fn time_out(&mut self, held: Option<Buffers>) -> io::Result<()> {
        let Some(mut working) = held else { return Ok(()) };
        self.shared.count(Count::TimedOut);
        let Buffers { out, head, body, .. } = &mut working;
        refuse(Refusal::TooSlow, Response::new(head, body), out);
        if self.write_out(out).is_ok() {
            self.transport.end(true);
        }
        buffers::put(working);
        Ok(())
    }

    /// Receives what is there, serves it, writes the answers.
    fn turn(&mut self, buffers: &mut Buffers) -> io::Result<Turn> {
        let mut served = 0;
        loop {
            let spare = buffers.input.spare(self.shared.settings.limits.head_size_max_bytes);
            match self.transport.receive(spare)? {
                None => break,
                Some(0) => return Ok(Turn::Close),
                Some(len) => buffers.input.received(len),
            }
            if self.serve_all(buffers, &mut served)? == Turn::Close {
                return Ok(Turn::Close);
            }
        }
        let limits = &self.shared.settings.limits;
        let in_head = !buffers.input.is_empty();
        if in_head && (served > 0 || !self.in_head) {
            self.deadline_ms = after(limits.header_timeout);
        } else if !in_head && served > 0 {
            self.deadline_ms = after(limits.idle_timeout);
        }
        self.in_head = in_head;
        self.has_served |= served > 0;
        Ok(Turn::Wait)
    }

    /// Serves every whole request of the input and writes the answers out. Whoever sends more than a turn's worth lets
    /// the others go first.
    fn serve_all(&mut self, buffers: &mut Buffers, served: &mut usize) -> io::Result<Turn> {
        loop {
            match self.serve_one(buffers)? {
                Served::Partial => {
                    self.write_out(&mut buffers.out)?;
                    return Ok(Turn::Wait);
                }
                Served::Close { linger } => {
                    self.write_out(&mut buffers.out)?;
                    self.transport.end(linger);
                    return Ok(Turn::Close);
                }
                Served::KeepAlive => {}
            }
            *served += 1;
            if buffers.out.len() >= OUTPUT_FLUSH_BYTES {
                self.write_out(&mut buffers.out)?;
            }
            if served.is_multiple_of(PIPELINE_TURN_MAX) {
                self.write_out(&mut buffers.out)?;
                give_way();
            }
        }
    }

    fn serve_one(&mut self, buffers: &mut Buffers) -> io::Result<Served> {
        let limits = &self.shared.settings.limits;
        let Buffers { input, out, head: head_lines, body: body_bytes, fields } = buffers;
        if input.is_empty() {
            return Ok(Served::Partial);
        }
        let parsed = match input.is_worth_a_look() {
            true => parse_head(input.bytes(), fields.space(limits.headers_max), limits),
            false => check_partial(input.bytes(), limits).map(|()| None),
        };
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => {
                input.is_partial();
                return Ok(Served::Partial);
            }
            Err(refusal) => {
                self.shared.count(Count::Refused);
                log::debug!("refused {}: {}", self.peer, refusal.detail());
                refuse(refusal, Response::new(head_lines, body_bytes), out);
                return Ok(Served::Close { linger: true });
            }
        };
        let (head_len, mut frame) = (head.len, Frame::of(&head));
        let tail = &input.bytes()[head_len..];
        if !is_here(&head, tail) {
            // The client may wait for earlier answers before it sends the rest.
            write_all(&mut self.transport, out, &self.shared)?;
        }
        let is_secure = self.transport.is_secure();
        let mut body =
            BodyReader::new(&mut self.transport, limits, head.framing, tail, head.expects_continue);
        let mut response = Response::new(head_lines, body_bytes);
        let request = Request {
            head,
            body: &mut body,
            received_at_ns: clock_boottime_ns(),
            peer: self.peer,
            is_secure,
            proxies: if self.is_named { &NO_PROXIES } else { &self.shared.settings.proxies },
        };
        let called = self.service.call(request, &mut response);
        let rest = body.skip_rest();
        let (taken, beyond) = body.leftover();
        let beyond = (!beyond.is_empty()).then(|| beyond.to_vec());
        if let Err(e) = called {
            self.write_out(out)?;
            return Err(e);
        }
        if let Rest::Refused(refusal) = rest {
            self.shared.count(if refusal == Refusal::TooSlow { Count::TimedOut } else { Count::Refused });
            response.refuse(refusal);
        }
        frame.close |= rest != Rest::Ended || self.shared.is_draining();
        let (payload, keep_alive) = response.finish(out, frame);
        input.consume(head_len + taken);
        if let Some(bytes) = beyond {
            // The tail was used up before anything was received beyond it.
            input.refill(&bytes);
        }
        self.write_payload(payload, out, body_bytes)?;
        Ok(if keep_alive { Served::KeepAlive } else { Served::Close { linger: rest != Rest::Ended } })
    }

    /// Sends a body that is not in the output buffer already.
    fn write_payload(&mut self, payload: Payload, out: &mut Vec<u8>, body: &mut Vec<u8>) -> io::Result<()> {
        match payload {
            Payload::Nothing => Ok(()),
            Payload::Buffer => {
                self.write_out(out)?;
                self.write_out(body)
            }
            Payload::Source { mut source, chunked } => self.write_pieces(&mut *source, chunked, out, body),
        }
    }

    /// Asks for piece after piece, each when the one before is on its way.
    fn write_pieces(
        &mut self,
        source: &mut dyn BodySource,
        chunked: bool,
        out: &mut Vec<u8>,
        piece: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.write_out(out)?;
        let mut left = source.size_bytes();
        loop {
            piece.clear();
            let more = source.next_piece(piece)?;
            left = left.map(|left| left.wrapping_sub(piece.len() as u64));
            if chunked && !piece.is_empty() {
                write!(out, "{:x}\r\n", piece.len())?;
                self.write_out(out)?;
                piece.extend_from_slice(b"\r\n");
            }
            self.write_out(piece)?;
            if !more {
                break;
            }
            give_way();
        }
        if chunked {
            out.extend_from_slice(b"0\r\n\r\n");
            // The client need not wait for the answer to its next request to see the end of this one.
            self.write_out(out)?;
        }
        match left {
            None | Some(0) => Ok(()),
            Some(_) => Err(io::Error::new(ErrorKind::InvalidData, "a body was not as long as it had said")),
        }
    }

    /// Writes everything, waiting for room as needed.
    fn write_out(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        write_all(&mut self.transport, out, &self.shared)
    }
}

fn write_all(transport: &mut Transport, out: &mut Vec<u8>, shared: &Shared) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    transport.send(out, shared.settings.limits.write_timeout)?;
    out.clear();
    Ok(())
}

/// Whether all of the body was received with the head.
fn is_here(head: &Head<'_, '_>, tail: &[u8]) -> bool {
    match head.framing {
        Framing::None => true,
        Framing::Length(len) => len <= tail.len() as u64,
        Framing::Chunked => false,
    }
}

fn refuse(refusal: Refusal, mut response: Response<'_>, out: &mut Vec<u8>) {
    response.refuse(refusal);
    response.finish(out, Frame { head_only: false, version: 1, close: true });
}

/// Tells a client for which there is no room, and ends. Waits for nothing but its end, for a moment.
pub(crate) fn turn_away(mut transport: Transport, shared: &Shared) {
    let (mut out, mut head, mut body) = (Vec::new(), Vec::new(), Vec::new());
    refuse(Refusal::TooManyConnections, Response::new(&mut head, &mut body), &mut out);
    if write_all(&mut transport, &mut out, shared).is_ok() {
        transport.end(true);
    }
    transport.close();
}
