//! What a handler sees of a request.
//! Runs in: worker.

use std::borrow::Cow;
use std::net::IpAddr;

use httparse::Header;

use crate::body::BodyReader;
use crate::parse::Head;
use crate::proxy::Proxies;

/// A request: its head, and its body to be read on demand.
pub struct Request<'h, 'b> {
    pub(crate) head: Head<'h, 'b>,
    pub(crate) body: &'h mut BodyReader<'b>,
    pub(crate) received_at_ns: u64,
    pub(crate) peer: IpAddr,
    pub(crate) is_secure: bool,
    pub(crate) proxies: &'h Proxies,
}

impl<'h, 'b> Request<'h, 'b> {
    pub fn method(&self) -> &'b str {
        self.head.method
    }

    /// The target's path, decoded once: no escape, dot segment or control character is left in it.
    pub fn path(&self) -> Cow<'b, str> {
        self.head.target.path()
    }

    /// What follows the `?`, as sent; empty when there is none.
    pub fn query(&self) -> &'b str {
        self.head.target.query()
    }

    /// Who asks: the peer, or where that is a trusted proxy the client that it names.
    pub fn client(&self) -> IpAddr {
        self.proxies.client(self.peer, self.head.headers)
    }

    /// Whether it came over TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Minor version of HTTP/1.
    pub fn version(&self) -> u8 {
        self.head.version
    }

    pub fn headers(&self) -> &'h [Header<'b>] {
        self.head.headers
    }

    /// The first header field of that name, in any case; values keep their bytes.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// Reads the body; transfer coding is undone. What is left unread is skipped or ends the connection.
    pub fn body(&mut self) -> &mut BodyReader<'b> {
        self.body
    }

    /// CLOCK_BOOTTIME, in ns, after the request's last byte of head was received.
    pub fn received_at_ns(&self) -> u64 {
        self.received_at_ns
    }
}

/// CLOCK_BOOTTIME in ns: goes on in suspend, so that an old value can't look fresh.
pub fn clock_boottime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec that lives on this stack; the clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
