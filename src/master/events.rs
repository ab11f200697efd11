//! The one queue of events: signals and ended children.
//! Runs in: master.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::control::Control;
use crate::os::fd::wait_any;
use crate::os::fork::{self, Ending};
use crate::os::signal::Signals;

/// What the loop reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    ChildEnded(Pid, Ending),
    Asked(Signal),
    /// Somebody asks at the control socket.
    Control,
    /// The master before this one, or the one to come, says something, or is gone.
    Line,
    Tick,
}

/// Where events come from. There is one in a process, and it reaps every child.
pub struct Events {
    signals: Signals,
    control: Option<Arc<Control>>,
    lines: Vec<UnixStream>,
}

impl Events {
    /// Blocks the signals that are handled; before any child is made.
    pub fn open() -> nix::Result<Events> {
        Ok(Events { signals: Signals::open()?, control: None, lines: Vec::new() })
    }

    /// From here on questions at `control` are events too; None: no longer.
    pub fn watch(&mut self, control: Option<Arc<Control>>) {
        self.control = control;
    }

    /// The same with the lines to other masters.
    pub fn watch_lines(&mut self, lines: Vec<UnixStream>) {
        self.lines = lines;
    }

    /// How many of them are watched.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// What is this process's own affair.
    pub fn private_descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let lines = self.lines.iter().map(AsRawFd::as_raw_fd);
        lines.chain([self.signals.fd().as_raw_fd()])
    }

    /// The next event, or `Tick` after `patience`.
    pub fn next(&mut self, patience: Duration) -> Event {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((pid, ending)) = fork::reap() {
                return Event::ChildEnded(pid, ending);
            }
            match self.signals.take() {
                // SIGCHLD tells of one child or of many: all are reaped above.
                Ok(Some(Signal::SIGCHLD)) => continue,
                Ok(Some(signal)) => return Event::Asked(signal),
                Ok(None) | Err(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Tick;
            }
            if let Some(event) = self.wait(left) {
                return event;
            }
        }
    }

    fn wait(&self, patience: Duration) -> Option<Event> {
        let control = self.control.iter().map(|control| (control.fd(), Event::Control));
        let lines = self.lines.iter().map(|line| (line.as_fd(), Event::Line));
        let (fds, events): (Vec<_>, Vec<_>) = control.chain(lines).unzip();
        let all: Vec<_> = fds.into_iter().chain([self.signals.fd()]).collect();
        let readable = wait_any(&all, patience);
        events.into_iter().zip(readable).find(|(_, readable)| *readable).map(|(event, _)| event)
    }

    /// Waits for one child, up to `limit`. None: the limit passed, or a request to stop came first.
    pub fn wait_for(&mut self, child: Pid, limit: Duration) -> Option<Ending> {
        // Nobody is there to answer questions any more, or yet.
        self.control = None;
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
