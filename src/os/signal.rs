//! Signals as readable events: the master blocks what it handles and reads it from a signalfd.
//! Runs in: master; workers undo the mask.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the master listens to.
const HANDLED: [Signal; 6] =
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR2];

/// A blocked set of signals and the descriptor they are read from.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the handled signals in this process and opens the descriptor.
    pub fn open() -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        HANDLED.iter().for_each(|&s| set.add(s));
        set.thread_block()?;
        // TTIN and TTOU come for real to a background job that touches its terminal; a write then fails instead.
        for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE] {
            ignore(signal)?;
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&set, flags).map(Signals)
    }

    /// The next pending signal, if there is one.
    pub fn take(&mut self) -> nix::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        Ok(info.and_then(|i| Signal::try_from(i.ssi_signo as i32).ok()))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn ignore(signal: Signal) -> nix::Result<()> {
    // SAFETY: SIG_IGN installs no handler code.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }.map(|_| ())
}

/// A worker's own SIGTERM, read when its main thread gets to it.
pub struct Termination(SignalFd);

impl Termination {
    /// Undoes the master's mask but for SIGTERM, before any thread is started. A worker ignores what a terminal
    /// sends to the whole group: its master decides.
    pub fn open() -> nix::Result<Termination> {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR2] {
            ignore(signal)?;
        }
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_set_mask()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Termination)
    }

    pub fn is_asked(&mut self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// In a child that is about to exec another program: everything back to its default.
pub fn reset_for_exec() -> nix::Result<()> {
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE] {
        // SAFETY: SIG_DFL installs no handler code.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
    }
    SigSet::all().thread_unblock()
}
