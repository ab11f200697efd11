//! What this process was born with: descriptors by name, from the service manager or from the master that this one succeeds.
//! Runs in: master.
//!
//! ```text
//! socket unit, descriptor store ──┐   LISTEN_FDS, LISTEN_FDNAMES (sd_listen_fds(3)): "http" "https" "admin" "arena"
//! master before this one ─────────┴─► the same, and: "own-http" … for listeners that it made, "hold" "metrics" "throttle" "nodes",
//!                                     "master" to speak with it
//! ```
//! A listener of a socket unit stays whatever the configuration says; one that a master made stays only while that asks for its address.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{bail, Context, Result};

use crate::heritage::Heritage;
use crate::os::{passing, socket};

/// Listeners for one purpose.
#[derive(Debug, Default)]
pub struct Listeners {
    pub sockets: Vec<TcpListener>,
    /// Whether they are a socket unit's.
    pub are_units: bool,
}

impl Listeners {
    /// The one of a number, if there are so many.
    pub fn get(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.sockets.get(number).map(AsFd::as_fd)
    }

    /// Where they listen, if there are any.
    pub fn address(&self) -> Option<SocketAddr> {
        self.sockets.first().and_then(|listener| listener.local_addr().ok())
    }
}

/// Shared memory of the master before this one, and the line to it.
pub struct Estate {
    pub arena: OwnedFd,
    pub hold: OwnedFd,
    pub metrics: OwnedFd,
    pub throttle: OwnedFd,
    pub nodes: OwnedFd,
    pub master: UnixStream,
}

/// Everything this process was born with.
#[derive(Default)]
pub struct Inheritance {
    pub http: Listeners,
    pub https: Listeners,
    pub admin: Listeners,
    /// Kept by the service manager since the last server.
    pub arena: Option<OwnedFd>,
    pub estate: Option<Estate>,
}

impl Inheritance {
    /// Takes what is there. Once.
    ///
    /// # Errors
    /// A descriptor that is no listener, and its name.
    pub fn take() -> Result<Inheritance> {
        let mut found = Inheritance::default();
        let mut estate = Vec::new();
        for (name, fd) in passing::inherited() {
            match name.as_str() {
                "arena" | "hold" | "metrics" | "throttle" | "nodes" | "master" => estate.push((name, fd)),
                _ => found.take_listener(&name, fd)?,
            }
        }
        let mut take = |name: &str| {
            let at = estate.iter().position(|(n, _)| n == name)?;
            Some(estate.swap_remove(at).1)
        };
        match (take("master"), take("arena")) {
            (None, arena) => found.arena = arena,
            (Some(master), arena) => {
                let mut need = |name: &str| take(name).with_context(|| format!("no {name} was handed on"));
                found.estate = Some(Estate {
                    arena: arena.context("no arena was handed on")?,
                    hold: need("hold")?,
                    metrics: need("metrics")?,
                    throttle: need("throttle")?,
                    nodes: need("nodes")?,
                    master: UnixStream::from(master),
                });
            }
        }
        Ok(found)
    }

    fn take_listener(&mut self, name: &str, fd: OwnedFd) -> Result<()> {
        let (are_units, purpose) = match name.strip_prefix("own-") {
            Some(purpose) => (false, purpose),
            None => (true, name),
        };
        let listener = socket::adopt_listener(fd)
            .with_context(|| format!("the descriptor {name:?} that this service was given can't be served from: only listening TCP sockets can"))?;
        let listeners = match purpose {
            "https" => &mut self.https,
            "admin" => &mut self.admin,
            // A socket unit without FileDescriptorName= gives its own name.
            _ => &mut self.http,
        };
        if !listeners.sockets.is_empty() && listeners.are_units != are_units {
            bail!("listeners of two kinds were handed on for {purpose}");
        }
        listeners.are_units = are_units;
        listeners.sockets.push(listener);
        Ok(())
    }
}

/// What a successor is born with, by name.
pub fn bequest<'h>(heritage: &'h Heritage, line: &'h UnixStream) -> Vec<(&'static str, BorrowedFd<'h>)> {
    let mut all = vec![
        ("master", line.as_fd()),
        ("arena", heritage.arena.memory().fd().as_fd()),
        ("hold", heritage.hold.fd()),
        ("metrics", heritage.metrics.memory().fd().as_fd()),
        ("throttle", heritage.throttle.memory().fd().as_fd()),
        ("nodes", heritage.topology.memory().fd().as_fd()),
    ];
    let listeners = [
        (&heritage.http, ["own-http", "http"]),
        (&heritage.https, ["own-https", "https"]),
        (&heritage.admin, ["own-admin", "admin"]),
    ];
    for (listeners, names) in listeners {
        let name = names[usize::from(listeners.are_units)];
        all.extend(listeners.sockets.iter().map(|listener| (name, listener.as_fd())));
    }
    all
}
