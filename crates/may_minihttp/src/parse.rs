//! A request's head from bytes, and how its body is framed (RFC 9112). No I/O, no allocation, no panic.
//! Runs in: worker.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use crate::limits::{Limits, CHUNK_LINE_SIZE_MAX_BYTES, EMPTY_LINES_MAX_BYTES};
use crate::target::{is_authority, Target};

/// How the body's end is found (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A parsed head; everything borrows from the input.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    pub method: &'b str,
    pub target: Target<'b>,
    /// Minor version: 0 or 1.
    pub version: u8,
    pub headers: &'h [Header<'b>],
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub framing: Framing,
    /// Whether the client lets the connection live on.
    pub keep_alive: bool,
    /// `Expect: 100-continue` was sent.
    pub expects_continue: bool,
}

/// Why a request is not served; the connection closes after saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Malformed(&'static str),
    RequestLineTooLong,
    HeadTooLarge,
    BodyTooLarge,
    UnknownTransferCoding,
    UnknownExpectation,
    UnknownVersion,
    /// CONNECT: this server is no proxy.
    NotATunnel,
    /// The head or the body did not arrive in time.
    TooSlow,
    /// More connections than the server takes.
    TooManyConnections,
}

impl Refusal {
    /// Status code and reason phrase (RFC 9110, 15; RFC 6585).
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Refusal::Malformed(_) | Refusal::UnknownTransferCoding => (400, "Bad Request"),
            Refusal::TooSlow => (408, "Request Timeout"),
            Refusal::BodyTooLarge => (413, "Content Too Large"),
            Refusal::RequestLineTooLong => (414, "URI Too Long"),
            Refusal::UnknownExpectation => (417, "Expectation Failed"),
            Refusal::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Refusal::NotATunnel => (501, "Not Implemented"),
            Refusal::TooManyConnections => (503, "Service Unavailable"),
            Refusal::UnknownVersion => (505, "HTTP Version Not Supported"),
        }
    }

    /// A stable word for programs (RFC 9457, 3.2).
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed-request",
            Refusal::UnknownTransferCoding => "unknown-transfer-coding",
            Refusal::TooSlow => "request-timeout",
            Refusal::BodyTooLarge => "body-too-large",
            Refusal::RequestLineTooLong => "uri-too-long",
            Refusal::UnknownExpectation => "expectation-failed",
            Refusal::HeadTooLarge => "headers-too-large",
            Refusal::NotATunnel => "not-implemented",
            Refusal::TooManyConnections => "too-many-connections",
            Refusal::UnknownVersion => "version-not-supported",
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Refusal::Malformed(why) => why,
            Refusal::TooSlow => "the request did not arrive in time",
            Refusal::BodyTooLarge => "the body is too large",
            Refusal::RequestLineTooLong => "the request line is too long",
            Refusal::UnknownExpectation => "the expectation is not known",
            Refusal::HeadTooLarge => "the header fields are too many or too large",
            Refusal::NotATunnel => "this server is no proxy",
            Refusal::TooManyConnections => "the server has as many connections as it takes",
            Refusal::UnknownTransferCoding => "the transfer coding is not supported",
            Refusal::UnknownVersion => "the HTTP version is not supported",
        }
    }
}

/// Parses the head at the front of `buf`; None when more bytes are needed.
///
/// # Errors
/// The reason for which this connection can't go on.
pub fn parse_head<'h, 'b>(
    buf: &'b [u8],
    space: &'h mut [MaybeUninit<Header<'b>>],
    limits: &Limits,
) -> Result<Option<Head<'h, 'b>>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(buf, space) {
        Ok(Status::Complete(len)) if len > limits.head_size_max_bytes => Err(Refusal::HeadTooLarge),
        Ok(Status::Complete(len)) => {
            check_lines(&buf[..len], &request)?;
            finish(request, len, limits).map(Some)
        }
        Ok(Status::Partial) => check_partial(buf, limits).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => refuse_version(buf).map(|()| None),
        Err(httparse::Error::Token) => Err(Refusal::Malformed("a byte that no method or target may hold")),
        Err(httparse::Error::HeaderName) => Err(Refusal::Malformed("a bad header field name")),
        Err(httparse::Error::HeaderValue) => Err(Refusal::Malformed("a bad header field value")),
        Err(_) => Err(Refusal::Malformed("the request can't be parsed")),
    }
}

/// What can be said of a head before its end is there.
pub(crate) fn check_partial(buf: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if count_empty_lines(buf) > EMPTY_LINES_MAX_BYTES {
        return Err(Refusal::Malformed("too many empty lines before the request"));
    }
    let line_max = limits.request_line_size_max_bytes;
    if buf.len() > line_max && !buf[..line_max].contains(&b'\n') {
        return Err(Refusal::RequestLineTooLong);
    }
    if buf.len() >= limits.head_size_max_bytes {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// Bytes of line ends at the front.
fn count_empty_lines(buf: &[u8]) -> usize {
    buf.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count()
}

/// What a version that failed to parse is: part of one (None), one of HTTP that is not spoken here, or no version.
fn refuse_version(buf: &[u8]) -> Result<(), Refusal> {
    let front = &buf[count_empty_lines(buf)..];
    let line = front.split(|b| *b == b'\r').next().unwrap_or(b"");
    let mut words = line.split(|b| *b == b' ').skip(2);
    let version = words.next().unwrap_or(b"");
    let fits = |(n, b): (usize, &u8)| match b"HTTP/0.0".get(n) {
        Some(b'0') => b.is_ascii_digit(),
        Some(expected) => b == expected,
        None => false,
    };
    let is_version = words.next().is_none() && version.iter().enumerate().all(fits);
    match is_version {
        true if version.len() == 8 => Err(Refusal::UnknownVersion),
        true if line.len() == front.len() => Ok(()),
        _ => Err(Refusal::Malformed("no version of HTTP")),
    }
}

/// Every line ends with CRLF. A bare LF is read as a line end by some and as a byte of the value by others.
fn check_lines(head: &[u8], request: &httparse::Request<'_, '_>) -> Result<(), Refusal> {
    let bare = Refusal::Malformed("a line that does not end with CR LF");
    let before = count_empty_lines(head);
    if before > EMPTY_LINES_MAX_BYTES || head[..before].chunks(2).any(|line| line != b"\r\n") {
        return Err(bare);
    }
    let ends_whole = |name: &str| {
        let at = name.as_ptr() as usize - head.as_ptr() as usize;
        head[..at].ends_with(b"\r\n")
    };
    match head.ends_with(b"\r\n\r\n") && request.headers.iter().all(|h| ends_whole(h.name)) {
        true => Ok(()),
        false => Err(bare),
    }
}

fn finish<'h, 'b>(
    request: httparse::Request<'h, 'b>,
    len: usize,
    limits: &Limits,
) -> Result<Head<'h, 'b>, Refusal> {
    let version = request.version.unwrap_or(1);
    let method = request.method.unwrap_or("");
    let target = request.path.unwrap_or("");
    if method.len() + target.len() + " HTTP/1.1".len() + 1 > limits.request_line_size_max_bytes {
        return Err(Refusal::RequestLineTooLong);
    }
    let headers: &'h [Header<'b>] = request.headers;
    let mut fields = Fields::default();
    for header in headers {
        fields.read(header)?;
    }
    if fields.hosts > 1 || (version == 1 && fields.hosts == 0) {
        return Err(Refusal::Malformed("HTTP/1.1 needs exactly one Host"));
    }
    if fields.expects_other && version == 1 {
        return Err(Refusal::UnknownExpectation);
    }
    Ok(Head {
        method,
        target: Target::read(method, target)?,
        version,
        headers,
        len,
        framing: fields.framing(version, limits.body_size_max_bytes)?,
        keep_alive: !fields.close && (version == 1 || fields.keep_alive),
        expects_continue: fields.expects_continue && version == 1,
    })
}

/// The header fields that concern the connection itself.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl Fields {
    fn read(&mut self, header: &Header<'_>) -> Result<(), Refusal> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => {
                self.hosts += 1;
                if !is_authority(header.value) {
                    return Err(Refusal::Malformed("a bad Host"));
                }
            }
            6 if is("expect") => {
                let known = header.value.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_other |= !known;
            }
            10 if is("connection") => self.read_connection(header.value),
            14 if is("content-length") => self.read_length(header.value)?,
            17 if is("transfer-encoding") => {
                self.codings += 1;
                self.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        Ok(())
    }

    fn read_connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Digits only; repeated values must agree (RFC 9112, 6.3, rule 5).
    fn read_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let bad = Refusal::Malformed("a bad Content-Length");
        for item in value.split(|&b| b == b',') {
            let item = item.trim_ascii();
            if item.is_empty() || item.len() > 19 || !item.iter().all(u8::is_ascii_digit) {
                return Err(bad);
            }
            let length = item.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
            if self.length.is_some_and(|before| before != length) {
                return Err(bad);
            }
            self.length = Some(length);
        }
        Ok(())
    }

    fn framing(&self, version: u8, size_max_bytes: u64) -> Result<Framing, Refusal> {
        match (self.codings, self.length) {
            (0, None | Some(0)) => Ok(Framing::None),
            (0, Some(n)) if n > size_max_bytes => Err(Refusal::BodyTooLarge),
            (0, Some(n)) => Ok(Framing::Length(n)),
            (_, Some(_)) => Err(Refusal::Malformed("Content-Length together with Transfer-Encoding")),
            (1, None) if self.chunked && version == 1 => Ok(Framing::Chunked),
            _ => Err(Refusal::UnknownTransferCoding),
        }
    }
}

/// A chunk-size line at the front of `buf`, extensions included: its length and the chunk's size; None when more
/// bytes are needed (RFC 9112, 7.1).
///
/// A digit comes first, and no control character before the final CRLF: a line that two readers could end at different
/// places is the start of request smuggling.
///
/// # Errors
/// A line that is none, or longer than `CHUNK_LINE_SIZE_MAX_BYTES`.
pub fn parse_chunk_size(buf: &[u8]) -> Result<Option<(usize, u64)>, Refusal> {
    match httparse::parse_chunk_size(buf) {
        Ok(Status::Complete((len, size))) if is_size_line(&buf[..len]) => Ok(Some((len, size))),
        Ok(Status::Partial) if buf.len() < CHUNK_LINE_SIZE_MAX_BYTES => Ok(None),
        _ => Err(BAD_CHUNK),
    }
}

fn is_size_line(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\r\n") else { return false };
    let is_text = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    line.len() < CHUNK_LINE_SIZE_MAX_BYTES
        && line.first().is_some_and(u8::is_ascii_hexdigit)
        && line.iter().all(is_text)
}

/// A line of the trailer section at the front of `buf`: its length with its CRLF, 2 for the empty one that ends it.
/// Its content is dropped (RFC 9112, 7.1.2).
///
/// # Errors
/// A line that is no field, or longer than `CHUNK_LINE_SIZE_MAX_BYTES`.
pub fn parse_trailer_line(buf: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(end) = buf.iter().position(|b| *b == b'\n') else {
        let partial = buf.len() < CHUNK_LINE_SIZE_MAX_BYTES;
        return if partial { Ok(None) } else { Err(BAD_CHUNK) };
    };
    let Some(line) = buf[..end].strip_suffix(b"\r") else { return Err(BAD_CHUNK) };
    let name = line.split(|b| *b == b':').next().unwrap_or(b"");
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_field = name.len() < line.len() && !name.is_empty() && name.iter().all(is_token);
    let is_text = line.iter().all(|b| *b == b'\t' || !b.is_ascii_control());
    match line.is_empty() || (is_field && is_text && line.len() < CHUNK_LINE_SIZE_MAX_BYTES) {
        true => Ok(Some(end + 1)),
        false => Err(BAD_CHUNK),
    }
}

const BAD_CHUNK: Refusal = Refusal::Malformed("the chunked framing is broken");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HEADERS_MAX, HEAD_SIZE_MAX_BYTES, REQUEST_LINE_SIZE_MAX_BYTES};

    fn head(text: &str) -> Result<Option<(String, Framing, bool, usize)>, Refusal> {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let parsed = parse_head(text.as_bytes(), &mut space, &Limits::default())?;
        Ok(parsed.map(|h| (h.target.path().into_owned(), h.framing, h.keep_alive, h.len)))
    }

    fn refusal(text: &str) -> Refusal {
        head(text).expect_err(text)
    }

    #[test]
    fn plain_get() {
        let text = "GET /products?page=2 HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let (target, framing, keep, len) = head(text).unwrap().unwrap();
        assert_eq!((target.as_str(), framing, keep, len), ("/products", Framing::None, true, text.len() - 4));
    }

    #[test]
    fn every_prefix_is_partial() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for n in 0..text.len() {
            assert_eq!(head(&text[..n]).unwrap(), None, "{n}");
        }
    }

    #[test]
    fn versions_and_connection_options_decide_who_closes() {
        let keep = |text: &str| head(text).unwrap().unwrap().2;
        assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
        assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn framing_that_two_readers_could_take_differently_is_refused() {
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: ",
            "Content-Length: 99999999999999999999999",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ] {
            assert!(matches!(refusal(&with(fields)), Refusal::Malformed(_)), "{fields}");
        }
        assert_eq!(refusal(&with("Transfer-Encoding: gzip, chunked")), Refusal::UnknownTransferCoding);
        assert_eq!(
            refusal(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
            Refusal::UnknownTransferCoding
        );
        assert_eq!(refusal(&with("Content-Length: 1048577")), Refusal::BodyTooLarge);
        assert_eq!(head(&with("Content-Length: 5, 5")).unwrap().unwrap().1, Framing::Length(5));
        assert_eq!(head(&with("Transfer-Encoding: chunked")).unwrap().unwrap().1, Framing::Chunked);
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n\u{0}",
            "GET / HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTQ/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(matches!(refusal(text), Refusal::Malformed(_)), "{text:?}");
        }
        assert_eq!(refusal("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Refusal::UnknownVersion);
    }

    #[test]
    fn a_hundred_headers_pass_and_one_more_does_not() {
        let with = |n: usize| {
            let fields: String = (1..n).map(|i| format!("X-{i}: y\r\n")).collect();
            format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
        };
        assert!(head(&with(100)).unwrap().is_some());
        assert_eq!(refusal(&with(101)), Refusal::HeadTooLarge);
    }

    #[test]
    fn sizes_are_bounded_before_the_head_ends() {
        assert_eq!(
            refusal(&format!("GET /{}", "a".repeat(REQUEST_LINE_SIZE_MAX_BYTES))),
            Refusal::RequestLineTooLong
        );
        let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(HEAD_SIZE_MAX_BYTES));
        assert_eq!(refusal(&long), Refusal::HeadTooLarge);
    }
}
