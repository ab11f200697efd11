//! A request's head from bytes, and how its body is framed (RFC 9112). No I/O, no allocation, no panic.
//! Runs in: worker.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use crate::limits::{BODY_SIZE_MAX_BYTES, HEADERS_MAX, HEAD_SIZE_MAX_BYTES, REQUEST_LINE_SIZE_MAX_BYTES};

/// Room for the header fields of one request.
pub type HeaderSpace<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

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
    /// The request target as sent, without scheme and authority of the absolute form.
    pub target: &'b str,
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
    UnknownVersion,
}

impl Refusal {
    /// Status code and reason phrase (RFC 9110, 15; RFC 6585).
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Refusal::Malformed(_) | Refusal::UnknownTransferCoding => (400, "Bad Request"),
            Refusal::RequestLineTooLong => (414, "URI Too Long"),
            Refusal::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Refusal::BodyTooLarge => (413, "Content Too Large"),
            Refusal::UnknownVersion => (505, "HTTP Version Not Supported"),
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Refusal::Malformed(why) => why,
            Refusal::RequestLineTooLong => "the request line is too long",
            Refusal::HeadTooLarge => "the header fields are too many or too large",
            Refusal::BodyTooLarge => "the body is too large",
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
    space: &'h mut HeaderSpace<'b>,
) -> Result<Option<Head<'h, 'b>>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(buf, space) {
        Ok(Status::Complete(len)) if len > HEAD_SIZE_MAX_BYTES => Err(Refusal::HeadTooLarge),
        Ok(Status::Complete(len)) => finish(request, len).map(Some),
        Ok(Status::Partial) => check_partial(buf).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => Err(Refusal::UnknownVersion),
        Err(httparse::Error::Token) => Err(Refusal::Malformed("a byte that no method or target may hold")),
        Err(httparse::Error::HeaderName) => Err(Refusal::Malformed("a bad header field name")),
        Err(httparse::Error::HeaderValue) => Err(Refusal::Malformed("a bad header field value")),
        Err(_) => Err(Refusal::Malformed("the request can't be parsed")),
    }
}

fn check_partial(buf: &[u8]) -> Result<(), Refusal> {
    let line_ended = buf.iter().take(REQUEST_LINE_SIZE_MAX_BYTES).any(|&b| b == b'\n');
    if buf.len() >= REQUEST_LINE_SIZE_MAX_BYTES && !line_ended {
        return Err(Refusal::RequestLineTooLong);
    }
    if buf.len() >= HEAD_SIZE_MAX_BYTES {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

fn finish<'h, 'b>(request: httparse::Request<'h, 'b>, len: usize) -> Result<Head<'h, 'b>, Refusal> {
    let version = request.version.unwrap_or(1);
    let method = request.method.unwrap_or("");
    let target = request.path.unwrap_or("/");
    if target.len() > REQUEST_LINE_SIZE_MAX_BYTES {
        return Err(Refusal::RequestLineTooLong);
    }
    let headers: &'h [Header<'b>] = request.headers;
    let mut fields = Fields::default();
    for header in headers {
        fields.read(header)?;
    }
    if version == 1 && fields.hosts != 1 {
        return Err(Refusal::Malformed("HTTP/1.1 needs exactly one Host"));
    }
    Ok(Head {
        method,
        target: origin_form(target),
        version,
        headers,
        len,
        framing: fields.framing(version)?,
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
}

impl Fields {
    fn read(&mut self, header: &Header<'_>) -> Result<(), Refusal> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => self.hosts += 1,
            6 if is("expect") => self.expects_continue = header.value.eq_ignore_ascii_case(b"100-continue"),
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

    fn framing(&self, version: u8) -> Result<Framing, Refusal> {
        match (self.codings, self.length) {
            (0, None | Some(0)) => Ok(Framing::None),
            (0, Some(n)) if n > BODY_SIZE_MAX_BYTES => Err(Refusal::BodyTooLarge),
            (0, Some(n)) => Ok(Framing::Length(n)),
            (_, Some(_)) => Err(Refusal::Malformed("Content-Length together with Transfer-Encoding")),
            (1, None) if self.chunked && version == 1 => Ok(Framing::Chunked),
            _ => Err(Refusal::UnknownTransferCoding),
        }
    }
}

/// `http://host/path` → `/path`; everything else as it stands (RFC 9112, 3.2).
fn origin_form(target: &str) -> &str {
    if target.starts_with('/') {
        return target;
    }
    let Some((_, rest)) = target.split_once("://") else { return target };
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => &rest[at..],
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(String, Framing, bool, usize)>, Refusal> {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let parsed = parse_head(text.as_bytes(), &mut space)?;
        Ok(parsed.map(|h| (h.target.to_string(), h.framing, h.keep_alive, h.len)))
    }

    fn refusal(text: &str) -> Refusal {
        head(text).expect_err(text)
    }

    #[test]
    fn plain_get() {
        let text = "GET /products?page=2 HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let (target, framing, keep, len) = head(text).unwrap().unwrap();
        assert_eq!(
            (target.as_str(), framing, keep, len),
            ("/products?page=2", Framing::None, true, text.len() - 4)
        );
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
    fn absolute_form_loses_its_authority() {
        let target = |t: &str| head(&format!("GET {t} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap().unwrap().0;
        assert_eq!(target("http://shop.example/products/1?x"), "/products/1?x");
        assert_eq!(target("http://shop.example"), "/");
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
