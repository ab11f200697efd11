//! A request's body as a reader: Content-Length or chunked, taken from what was received with the
//! head first, then from the socket.
//! Runs in: worker.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use httparse::Status;
use may::io::{CoIo, WaitIo};

use crate::limits::{BODY_SIZE_MAX_BYTES, BODY_SKIP_MAX_BYTES};
use crate::parse::Framing;

/// Longest chunk-size line, extensions included, and longest trailer section.
const CHUNK_LINE_SIZE_MAX_BYTES: usize = 4096;

/// Reads a body; ends with `Ok(0)` at its end. A framing error is `InvalidData`, a body over its limit
/// `FileTooLarge`, a client that goes away `UnexpectedEof`.
pub struct BodyReader<'b> {
    stream: &'b CoIo<TcpStream>,
    /// Received with the head, not consumed yet.
    tail: &'b [u8],
    tail_len: usize,
    /// Received afterwards.
    more: Vec<u8>,
    more_at: usize,
    state: State,
    size_bytes: u64,
    awaits_continue: bool,
    /// Whether anything was received here: the socket may hold more that no new edge will tell of.
    received: bool,
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
        stream: &'b CoIo<TcpStream>,
        framing: Framing,
        tail: &'b [u8],
        awaits_continue: bool,
    ) -> BodyReader<'b> {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size,
        };
        let awaits_continue = awaits_continue && state != State::Done;
        BodyReader {
            stream,
            tail,
            tail_len: tail.len(),
            more: Vec::new(),
            more_at: 0,
            state,
            size_bytes: 0,
            awaits_continue,
            received: false,
        }
    }

    /// Reads and drops what the handler left. False when the connection can't be used any further.
    pub(crate) fn skip_rest(&mut self) -> bool {
        if self.awaits_continue {
            // The client waits for our word before it sends: nobody knows what its next bytes are.
            return false;
        }
        let mut scrap = [0u8; 2048];
        let mut skipped = 0;
        loop {
            match self.read(&mut scrap) {
                Ok(0) => return true,
                Ok(n) => skipped += n as u64,
                Err(_) => return false,
            }
            if skipped > BODY_SKIP_MAX_BYTES {
                return false;
            }
        }
    }

    /// After the end: bytes of the tail that were consumed, and what was received beyond the body.
    pub(crate) fn leftover(&self) -> (usize, &[u8]) {
        (self.tail_len - self.tail.len(), &self.more[self.more_at..])
    }

    /// Whether the socket may hold more that no new edge will tell of.
    pub(crate) fn has_received(&self) -> bool {
        self.received
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
        self.received = true;
        let got = receive_waiting(self.stream, &mut self.more[len..]);
        self.more.truncate(len + *got.as_ref().unwrap_or(&0));
        match got? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the client left in the middle of a body")),
            _ => Ok(()),
        }
    }

    fn write_continue(&mut self) -> io::Result<()> {
        let mut stream = self.stream.inner();
        match stream.write(b"HTTP/1.1 100 Continue\r\n\r\n") {
            Ok(25) => Ok(()),
            Ok(_) => Err(ErrorKind::WriteZero.into()),
            Err(e) => Err(e),
        }
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
            match httparse::parse_chunk_size(self.buffered()) {
                Ok(Status::Complete((line, size))) => {
                    if !is_size_line(&self.buffered()[..line]) {
                        return Err(bad_chunk());
                    }
                    self.consume(line);
                    if self.size_bytes.saturating_add(size) > BODY_SIZE_MAX_BYTES {
                        return Err(io::Error::new(ErrorKind::FileTooLarge, "the body is over its limit"));
                    }
                    return Ok(if size == 0 { State::Trailer } else { State::Data(size) });
                }
                Ok(Status::Partial) if self.buffered().len() < CHUNK_LINE_SIZE_MAX_BYTES => self.receive()?,
                _ => return Err(bad_chunk()),
            }
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

    /// Trailer fields are dropped (RFC 9112, 7.1.2).
    fn read_trailer(&mut self) -> io::Result<State> {
        let mut seen = 0;
        loop {
            let Some(end) = self.buffered().windows(2).position(|w| w == b"\r\n") else {
                if self.buffered().len() + seen > CHUNK_LINE_SIZE_MAX_BYTES {
                    return Err(bad_chunk());
                }
                self.receive()?;
                continue;
            };
            self.consume(end + 2);
            seen += end + 2;
            if end == 0 {
                return Ok(State::Done);
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
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }
}

/// A digit first, and no control character before the final CRLF: a line that two readers could end at different
/// places is the start of request smuggling.
fn is_size_line(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\r\n") else { return false };
    line.first().is_some_and(u8::is_ascii_hexdigit)
        && line.iter().all(|b| *b == b'\t' || !b.is_ascii_control())
}

fn bad_chunk() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the chunked framing is broken")
}

/// Receives, waiting for readiness; 0 at the end of the stream.
fn receive_waiting(stream: &CoIo<TcpStream>, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.inner().read(buf) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                stream.wait_io();
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
