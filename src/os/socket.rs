//! Listening sockets: one a worker on the same address, all owned by the master.
//! Runs in: master.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::limits::SOCKET_UNSENT_MAX_BYTES;
use nix::errno::Errno;
use nix::sys::socket::{
    bind, getsockname, getsockopt, listen, setsockopt, socket, sockopt, AddressFamily, Backlog, SockFlag,
    SockType, SockaddrStorage,
};

/// Opens `count` listeners on `address` that share its port (SO_REUSEPORT). Port 0 takes a free one.
///
/// A port that anything else listens on is refused: sharing would hide a second server of ours, so the first
/// bind is tried without it.
///
/// # Errors
/// EADDRINUSE, EACCES, EADDRNOTAVAIL as bind(2) says.
pub fn listen_shared(address: SocketAddr, count: usize, backlog: i32) -> nix::Result<Vec<TcpListener>> {
    let probe = open(address, false)?;
    listen(&probe, Backlog::new(1)?)?;
    let address = local_address(&probe)?;
    drop(probe);
    listen_beside(address, count, backlog)
}

/// Opens `count` more listeners on an address that this server, or the one before it, listens on already.
///
/// # Errors
/// As bind(2) says.
pub fn listen_beside(address: SocketAddr, count: usize, backlog: i32) -> nix::Result<Vec<TcpListener>> {
    let open_one = |_| {
        let fd = open(address, true)?;
        tune(&fd)?;
        listen(&fd, Backlog::new(backlog).or_else(|_| Backlog::new(128))?)?;
        Ok(TcpListener::from(fd))
    };
    (0..count).map(open_one).collect()
}

/// A listener that somebody else has made, for use as if it was one of ours.
///
/// # Errors
/// ENOTSOCK, EINVAL for what does not listen, EAFNOSUPPORT for what is no TCP socket.
pub fn adopt_listener(fd: OwnedFd) -> nix::Result<TcpListener> {
    local_address(&fd)?;
    if !getsockopt(&fd, sockopt::AcceptConn)? {
        return Err(Errno::EINVAL);
    }
    tune(&fd)?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true).map_err(|_| Errno::EINVAL)?;
    Ok(listener)
}

/// What accepted sockets inherit: no Nagle, and no system call per connection.
fn tune(fd: &OwnedFd) -> nix::Result<()> {
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    limit_unsent(fd)
}

fn open(address: SocketAddr, shared: bool) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if shared {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Has the kernel take no more than `SOCKET_UNSENT_MAX_BYTES` of an answer beyond what it can send: it would keep megabytes
/// for a client that takes nothing. Accepted sockets inherit it.
fn limit_unsent(fd: &OwnedFd) -> nix::Result<()> {
    let limit = SOCKET_UNSENT_MAX_BYTES as libc::c_int;
    // SAFETY: a live descriptor, and an option of the size that is given.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const limit).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(set).map(drop)
}

fn local_address(fd: &OwnedFd) -> nix::Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
    let v6 = name.as_sockaddr_in6().map(|a| SocketAddr::from((a.ip(), a.port())));
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_a_port_but_not_with_strangers() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let ours = listen_shared(any, 3, 16).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(ours.iter().all(|l| l.local_addr().unwrap() == address));
        assert_eq!(listen_shared(address, 1, 16).unwrap_err(), Errno::EADDRINUSE);
    }
}
