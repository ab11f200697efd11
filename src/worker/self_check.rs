//! A new worker's first request is its own: what does not answer that serves nobody.
//! Runs in: worker.
//!
//! It comes over a pair of sockets: a sandbox may forbid connecting anywhere, and a listener may be shared with others who would answer. And it
//! goes to the server for administration, whose requests are counted nowhere.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use may_minihttp::{HttpServiceFactory, Server};

use crate::limits::SELF_CHECK_MAX;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: self-check\r\nConnection: close\r\n\r\n";
/// From nobody in particular.
const PEER: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Looks at deadlines while it waits: nobody else does yet.
const TICK: Duration = Duration::from_millis(250);

/// Sends `server` a request, and waits for its answer.
///
/// # Errors
/// What came instead, or that nothing did.
pub fn run<F: HttpServiceFactory>(server: &Server<F>) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    server.serve(theirs.into(), PEER);
    ours.write_all(REQUEST)?;
    ours.set_read_timeout(Some(TICK))?;
    let (start, mut answer) = (Instant::now(), Vec::new());
    let mut piece = [0; 1024];
    loop {
        match ours.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && start.elapsed() < SELF_CHECK_MAX => {
                server.tick()
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(io::Error::other(format!("{:?}", String::from_utf8_lossy(&answer)))),
    }
}
