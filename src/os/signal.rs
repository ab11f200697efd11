//! Signals as readable events: the master blocks what it handles and reads it from a signalfd.
//! Runs in: master; workers undo the mask.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the master listens to.
const HANDLED: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// A blocked set of signals and the descriptor they are read from.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the handled signals in this process and opens the descriptor.
    pub fn open() -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        HANDLED.iter().for_each(|&s| set.add(s));
        set.thread_block()?;
        ignore(Signal::SIGPIPE)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&set, flags).map(Signals)
    }

    /// The next pending signal, if there is one. A terminal sends TTIN and TTOU to all of a background job when one of it touches it: only
    /// those count that a process has sent.
    pub fn take(&mut self) -> nix::Result<Option<Signal>> {
        while let Some(info) = self.0.read_signal()? {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            let is_terminals = info.ssi_code == libc::SI_KERNEL;
            if !is_terminals || !matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
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
        // Ignoring SIGCHLD would have the kernel reap; SIGTERM is its own.
        let is_masters = |signal: &Signal| !matches!(signal, Signal::SIGCHLD | Signal::SIGTERM);
        HANDLED.into_iter().filter(is_masters).try_for_each(ignore)?;
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
    // SAFETY: SIG_DFL installs no handler code.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }?;
    SigSet::all().thread_unblock()
}
