//! The one queue of events: signals and ended children.
//! Runs in: master.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::os::fd::wait_readable;
use crate::os::fork::{self, Ending};
use crate::os::signal::Signals;

/// What the loop reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    ChildEnded(Pid, Ending),
    Asked(Signal),
    Tick,
}

/// Where events come from. There is one in a process, and it reaps every child.
pub struct Events(Signals);

impl Events {
    /// Blocks the signals that are handled; before any child is made.
    pub fn open() -> nix::Result<Events> {
        Signals::open().map(Events)
    }

    /// The next event, or `Tick` after `patience`.
    pub fn next(&mut self, patience: Duration) -> Event {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((pid, ending)) = fork::reap() {
                return Event::ChildEnded(pid, ending);
            }
            match self.0.take() {
                // SIGCHLD tells of one child or of many: all are reaped above.
                Ok(Some(Signal::SIGCHLD)) => continue,
                Ok(Some(signal)) => return Event::Asked(signal),
                Ok(None) | Err(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Tick;
            }
            wait_readable([self.0.fd()], left);
        }
    }

    /// Waits for one child, up to `limit`. None: the limit passed, or a request to stop came first.
    pub fn wait_for(&mut self, child: Pid, limit: Duration) -> Option<Ending> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Event::ChildEnded(pid, ending) if pid == child => return Some(ending),
                Event::Asked(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) | Event::Tick => {
                    return None
                }
                _ => {}
            }
        }
    }
}
