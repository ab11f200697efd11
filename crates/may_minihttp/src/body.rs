//! A request's body as a reader: Content-Length or chunked, taken from what was received with the
//! head first, then from the socket.
//! Runs in: worker.

use std::io::{self, ErrorKind, Read};

use crate::limits::{Limits, BODY_SKIP_MAX_BYTES, CHUNK_LINE_SIZE_MAX_BYTES, FRAMING_SIZE_MAX_BYTES};
use crate::parse::{parse_chunk_size, parse_trailer_line, Framing, Refusal};
use crate::request::clock_boottime_ns;
use crate::transport::Transport;
use crate::watch::after;

/// Reads a body; ends with `Ok(0)` at its end. A framing error is `InvalidData`, a body over its limit
/// `FileTooLarge`, one that comes too slowly `TimedOut`, one that ends too early `UnexpectedEof`. The server itself
/// answers all four, whatever the handler made of them.
pub struct BodyReader<'b> {
    transport: &'b mut Transport,
    limits: &'b Limits,
    /// Received with the head, not consumed yet.
    tail: &'b [u8],
    tail_len: usize,
    /// Received afterwards.
    more: Vec<u8>,
    more_at: usize,
    state: State,
    size_bytes: u64,
    awaits_continue: bool,
    /// Deadline of the first wait; what is received moves it.
    deadline_ms: Option<u64>,
    /// Bytes of chunk lines and trailers so far.
    framing_bytes: u64,
    refusal: Option<Refusal>,
    /// For the client.
    waited_ns: u64,
}

/// What became of a body that its handler is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Read to its end: what follows is the next request.
    Ended,
    /// Not worth reading, or the client waits for our word: nobody knows what its next bytes are.
    Left,
    /// It can't be read on, for a reason that the client is told.
    Refused(Refusal),
}

/// ```text
/// Length(n) ──n read──► Done
/// Size ──size line──► Data(n) ──n read──► DataEnd ──CRLF──► Size
///   └──size 0──► Trailer ──empty line──► Done
/// any ──framing error, limit, lost client──► Failed
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Length(u64),
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    Done,
    Failed,
}

impl<'b> BodyReader<'b> {
    pub(crate) fn new(
        transport: &'b mut Transport,
        limits: &'b Limits,
        framing: Framing,
        tail: &'b [u8],
        awaits_continue: bool,
    ) -> BodyReader<'b> {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size,
        };
        // A client that has sent some of it did not wait.
        let awaits_continue = awaits_continue && state != State::Done && tail.is_empty();
        BodyReader {
            transport,
            limits,
            tail,
            tail_len: tail.len(),
            more: Vec::new(),
            more_at: 0,
            state,
            size_bytes: 0,
            awaits_continue,
            deadline_ms: None,
            framing_bytes: 0,
            refusal: None,
            waited_ns: 0,
        }
    }

    /// How long the client was waited for so far.
    pub fn waited_ns(&self) -> u64 {
        self.waited_ns
    }

    /// Reads and drops what the handler left.
    pub(crate) fn skip_rest(&mut self) -> Rest {
        if self.state == State::Done {
            return Rest::Ended;
        }
        if self.awaits_continue {
            return Rest::Left;
        }
        let mut skipped = 0;
        loop {
            match self.skip() {
                Ok(0) => return Rest::Ended,
                Ok(n) => skipped += n as u64,
                Err(_) => return self.refusal.map_or(Rest::Left, Rest::Refused),
            }
            if skipped > BODY_SKIP_MAX_BYTES {
                return Rest::Left;
            }
        }
    }

    /// Not inlined: its room would be touched by every request.
    #[inline(never)]
    fn skip(&mut self) -> io::Result<usize> {
        self.read(&mut [0u8; 2048])
    }

    /// After the end: bytes of the tail that were consumed, and what was received beyond the body.
    pub(crate) fn leftover(&self) -> (usize, &[u8]) {
        (self.tail_len - self.tail.len(), &self.more[self.more_at..])
    }

    fn buffered(&self) -> &[u8] {
        if self.tail.is_empty() {
            &self.more[self.more_at..]
        } else {
            self.tail
        }
    }

    fn consume(&mut self, len: usize) {
        if self.tail.is_empty() {
            self.more_at += len;
        } else {
            self.tail = &self.tail[len..];
        }
    }

    /// Receives more. Where part of a line is still in the tail, it moves over so that it is contiguous.
    fn receive(&mut self) -> io::Result<()> {
        if self.awaits_continue {
            self.awaits_continue = false;
            self.write_continue()?;
        }
        let mut kept = self.more.split_off(self.more_at.min(self.more.len()));
        if !self.tail.is_empty() {
            let mut joined = self.tail.to_vec();
            joined.append(&mut kept);
            kept = joined;
            self.tail = &[];
        }
        self.more_at = 0;
        self.more = kept;
        let len = self.more.len();
        self.more.resize(len + 8 * 1024, 0);
        let got = self.receive_waiting(len);
        self.more.truncate(len + *got.as_ref().unwrap_or(&0));
        match got? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the client left in the middle of a body")),
            _ => Ok(()),
        }
    }

    /// Receives into `more` from `at` on, waiting until the body's deadline; 0 at the end of the stream.
    fn receive_waiting(&mut self, at: usize) -> io::Result<usize> {
        loop {
            if let Some(len) = self.transport.receive(&mut self.more[at..])? {
                return Ok(len);
            }
            let start = *self.deadline_ms.get_or_insert_with(|| after(self.limits.body_timeout));
            let earned = self.size_bytes.saturating_mul(1000) / self.limits.body_rate_min_bytes.max(1);
            let since_ns = clock_boottime_ns();
            let arrival = self.transport.wait_readable(start.saturating_add(earned));
            self.waited_ns += clock_boottime_ns().saturating_sub(since_ns);
            arrival?;
        }
    }

    fn write_continue(&mut self) -> io::Result<()> {
        self.transport.send(b"HTTP/1.1 100 Continue\r\n\r\n", self.limits.write_timeout)
    }

    fn read_data(&mut self, buf: &mut [u8], left: u64) -> io::Result<usize> {
        while self.buffered().is_empty() {
            self.receive()?;
        }
        let data = self.buffered();
        let len = data.len().min(buf.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        buf[..len].copy_from_slice(&data[..len]);
        self.consume(len);
        self.size_bytes += len as u64;
        Ok(len)
    }

    fn read_size(&mut self) -> io::Result<State> {
        loop {
            let Some((len, size)) = parse_chunk_size(self.buffered()).map_err(|_| bad_chunk())? else {
                self.receive()?;
                continue;
            };
            self.consume(len);
            self.count_framing(len)?;
            if self.size_bytes.saturating_add(size) > self.limits.body_size_max_bytes {
                return Err(io::Error::new(ErrorKind::FileTooLarge, "the body is over its limit"));
            }
            return Ok(if size == 0 { State::Trailer } else { State::Data(size) });
        }
    }

    /// A body may not be mostly framing: that is work for us and none for the client.
    fn count_framing(&mut self, len: usize) -> io::Result<()> {
        self.framing_bytes += len as u64 + 2;
        match self.framing_bytes > FRAMING_SIZE_MAX_BYTES + self.size_bytes * 8 {
            true => Err(bad_chunk()),
            false => Ok(()),
        }
    }

    fn read_data_end(&mut self) -> io::Result<State> {
        while self.buffered().len() < 2 {
            self.receive()?;
        }
        if &self.buffered()[..2] != b"\r\n" {
            return Err(bad_chunk());
        }
        self.consume(2);
        Ok(State::Size)
    }

    fn read_trailer(&mut self) -> io::Result<State> {
        let mut seen = 0;
        loop {
            let Some(len) = parse_trailer_line(self.buffered()).map_err(|_| bad_chunk())? else {
                self.receive()?;
                continue;
            };
            self.consume(len);
            seen += len;
            match len {
                2 => return Ok(State::Done),
                _ if seen > CHUNK_LINE_SIZE_MAX_BYTES => return Err(bad_chunk()),
                _ => {}
            }
        }
    }

    fn step(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Failed => return Err(ErrorKind::InvalidData.into()),
                State::Length(0) => self.state = State::Done,
                State::Length(left) => {
                    let n = self.read_data(buf, left)?;
                    self.state = State::Length(left - n as u64);
                    return Ok(n);
                }
                State::Data(0) => self.state = State::DataEnd,
                State::Data(left) => {
                    let n = self.read_data(buf, left)?;
                    self.state = State::Data(left - n as u64);
                    return Ok(n);
                }
                State::Size => self.state = self.read_size()?,
                State::DataEnd => self.state = self.read_data_end()?,
                State::Trailer => self.state = self.read_trailer()?,
            }
        }
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let result = self.step(buf);
        if let Err(e) = &result {
            self.refusal = self.refusal.or(match e.kind() {
                ErrorKind::InvalidData => Some(Refusal::Malformed("the chunked framing is broken")),
                ErrorKind::UnexpectedEof => {
                    Some(Refusal::Malformed("the body is not as long as it had said"))
                }
                ErrorKind::FileTooLarge => Some(Refusal::BodyTooLarge),
                ErrorKind::TimedOut => Some(Refusal::TooSlow),
                _ => None,
            });
            self.state = State::Failed;
        }
        result
    }
}

fn bad_chunk() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the chunked framing is broken")
}
