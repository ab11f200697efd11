//! What a handler makes: status, header fields, body. Written out in one piece when it is done.
//! Runs in: worker.

use std::io;

use crate::date;
use crate::limits::PIECE_SIZE_BYTES;
use crate::parse::{Head, Refusal};

/// A response under way. Without a call to anything it is `200 OK` with an empty body.
pub struct Response<'a> {
    status: u16,
    reason: &'static str,
    head: &'a mut Vec<u8>,
    body: &'a mut Vec<u8>,
    source: Option<Box<dyn BodySource>>,
    close: bool,
}

/// A body that is made while it is sent, piece by piece: the next one is asked for when the client has taken the last.
/// Called on the connection's stack: deep work belongs elsewhere.
pub trait BodySource: Send {
    /// Bytes of the whole body, where they are known beforehand; else it goes out chunked.
    fn size_bytes(&self) -> Option<u64>;

    /// Appends the next piece to `out`, some 32 KiB; false after the last one.
    ///
    /// # Errors
    /// Any error ends the connection, so that the client sees that the body is cut.
    fn next_piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;
}

/// What is left to be sent once a response's head is in the output buffer.
pub(crate) enum Payload {
    Nothing,
    /// The response's buffer, too large to be copied into the output.
    Buffer,
    Source {
        source: Box<dyn BodySource>,
        chunked: bool,
    },
}

/// What the response must respect of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) head_only: bool,
    pub(crate) version: u8,
    pub(crate) close: bool,
}

impl Frame {
    pub(crate) fn of(head: &Head<'_, '_>) -> Frame {
        Frame { head_only: head.method == "HEAD", version: head.version, close: !head.keep_alive }
    }
}

impl<'a> Response<'a> {
    pub(crate) fn new(head: &'a mut Vec<u8>, body: &'a mut Vec<u8>) -> Response<'a> {
        head.clear();
        body.clear();
        Response { status: 200, reason: "OK", head, body, source: None, close: false }
    }

    /// Status code and reason phrase.
    pub fn status_code(&mut self, code: u16, reason: &'static str) -> &mut Self {
        self.status = code;
        self.reason = reason;
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// One header field, `Name: value`, without line end. Content-Length, Date and Connection are
    /// the server's own.
    pub fn header(&mut self, line: &str) -> &mut Self {
        debug_assert!(!line.contains(['\r', '\n']), "a header field may not hold a line end");
        self.head.extend_from_slice(line.as_bytes());
        self.head.extend_from_slice(b"\r\n");
        self
    }

    /// Whole header lines, each ended by CRLF, for those who build them ahead.
    pub fn header_block(&mut self, lines: &[u8]) -> &mut Self {
        debug_assert!(lines.ends_with(b"\r\n"));
        self.head.extend_from_slice(lines);
        self
    }

    /// The buffer of header lines, to append whole lines to.
    pub fn head_mut(&mut self) -> &mut Vec<u8> {
        self.head
    }

    pub fn body(&mut self, text: &str) -> &mut Self {
        self.body.clear();
        self.body.extend_from_slice(text.as_bytes());
        self
    }

    pub fn body_vec(&mut self, bytes: Vec<u8>) -> &mut Self {
        *self.body = bytes;
        self
    }

    /// The buffer of the body, to append to.
    pub fn body_mut(&mut self) -> &mut Vec<u8> {
        self.body
    }

    /// Closes the connection once this response is written.
    pub fn close(&mut self) -> &mut Self {
        self.close = true;
        self
    }

    /// Sends what `source` makes instead of a buffer.
    pub fn stream(&mut self, source: Box<dyn BodySource>) -> &mut Self {
        self.source = Some(source);
        self
    }

    /// Replaces what the handler made by a refusal.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        let (status, reason) = refusal.status();
        self.head.clear();
        self.source = None;
        self.status_code(status, reason).header("Content-Type: application/problem+json");
        if refusal == Refusal::TooManyConnections {
            self.header("Retry-After: 1");
        }
        self.body(&format!(
            "{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{status},\"code\":\"{}\",\"detail\":\"{}\"}}",
            refusal.code(),
            refusal.detail()
        ));
    }

    /// Appends the response to `out`, but for what is returned to be sent after it; and whether the connection lives
    /// on then.
    pub(crate) fn finish(self, out: &mut Vec<u8>, frame: Frame) -> (Payload, bool) {
        let bodiless = self.status == 204 || self.status == 304 || self.status < 200;
        let size = match &self.source {
            Some(source) => source.size_bytes(),
            None => Some(self.body.len() as u64),
        };
        let chunked = size.is_none() && frame.version > 0;
        let close = frame.close || self.close || (size.is_none() && frame.version == 0);
        write_status(out, self.status, self.reason);
        date::write(out);
        out.extend_from_slice(self.head);
        match size {
            _ if bodiless => {}
            Some(size) => {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            None if chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            None => {}
        }
        match (close, frame.version) {
            (true, _) => out.extend_from_slice(b"Connection: close\r\n\r\n"),
            (false, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
            (false, _) => out.extend_from_slice(b"\r\n"),
        }
        let payload = match self.source {
            _ if bodiless || frame.head_only => Payload::Nothing,
            Some(source) => Payload::Source { source, chunked },
            None if self.body.len() > PIECE_SIZE_BYTES => Payload::Buffer,
            None => {
                out.extend_from_slice(self.body);
                Payload::Nothing
            }
        };
        (payload, !close)
    }
}

fn write_status(out: &mut Vec<u8>, status: u16, reason: &str) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}
