//! What a handler makes: status, header fields, body. Written out in one piece when it is done.
//! Runs in: worker.

use crate::date;
use crate::parse::Head;

/// A response under way. Without a call to anything it is `200 OK` with an empty body.
pub struct Response<'a> {
    status: u16,
    reason: &'static str,
    head: &'a mut Vec<u8>,
    body: &'a mut Vec<u8>,
    close: bool,
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
        Response { status: 200, reason: "OK", head, body, close: false }
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

    /// Appends the response to `out`; returns whether the connection lives on.
    pub(crate) fn finish(self, out: &mut Vec<u8>, frame: Frame) -> bool {
        let close = frame.close || self.close;
        write_status(out, self.status, self.reason);
        date::write(out);
        out.extend_from_slice(self.head);
        let bodiless = self.status == 204 || self.status == 304 || self.status < 200;
        if !bodiless {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match (close, frame.version) {
            (true, _) => out.extend_from_slice(b"Connection: close\r\n\r\n"),
            (false, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
            (false, _) => out.extend_from_slice(b"\r\n"),
        }
        if !bodiless && !frame.head_only {
            out.extend_from_slice(self.body);
        }
        !close
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
