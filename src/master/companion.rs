//! A server that lives and dies with this one: the private PostgreSQL of `dev`.
//! Runs in: master.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::master::events::Events;
use crate::os::fork::{self, Ending};

/// Longest wait for an orderly end.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Pause before it is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How to start it, and its process while it runs.
pub struct Companion {
    name: &'static str,
    start: Box<dyn Fn() -> anyhow::Result<Pid>>,
    pid: Option<Pid>,
    start_at: Instant,
    /// Signal for an orderly end, and for one that no longer waits.
    stop: Signal,
    kill: Signal,
}

impl Companion {
    /// A companion that runs already, as `pid`.
    pub fn new(
        name: &'static str,
        pid: Pid,
        stop: Signal,
        kill: Signal,
        start: impl Fn() -> anyhow::Result<Pid> + 'static,
    ) -> Companion {
        Companion { name, start: Box::new(start), pid: Some(pid), start_at: Instant::now(), stop, kill }
    }

    /// A child has ended that was no worker.
    pub fn take_ended(&mut self, pid: Pid, ending: Ending) {
        if self.pid == Some(pid) {
            log::error!("{} (pid {pid}) {ending}; starting it again", self.name);
            self.pid = None;
            self.start_at = Instant::now() + RESTART_PAUSE;
        }
    }

    /// Starts it again when it is gone and due.
    pub fn keep(&mut self, now: Instant) {
        if self.pid.is_some() || now < self.start_at {
            return;
        }
        match (self.start)() {
            Ok(pid) => self.pid = Some(pid),
            Err(e) => {
                log::error!("starting {}: {e:#}", self.name);
                self.start_at = now + Duration::from_secs(1);
            }
        }
    }

    /// Ends it and waits until it has.
    pub fn stop(self, events: &mut Events) {
        let Some(pid) = self.pid.filter(|pid| fork::is_there(*pid)) else { return };
        fork::signal(pid, self.stop);
        if events.wait_for(pid, STOP_MAX).is_none() {
            log::warn!("{} (pid {pid}) does not end; told to end at once", self.name);
            fork::signal(pid, self.kill);
            events.wait_for(pid, STOP_MAX);
        }
    }
}
