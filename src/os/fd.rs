//! Descriptors: limits, pipes between master and worker, waiting for several at once.
//! Runs in: both.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::resource::{getrlimit, setrlimit, Resource};

/// Raises the descriptor limit as far as it goes and returns it.
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Waits until one of `fds` is readable or `timeout` has passed; says which are.
pub fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Duration) -> [bool; N] {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut polled, rounded_up(timeout)) {
        Ok(_) => polled.map(|p| p.any().unwrap_or(false)),
        // Interrupted: the caller looks again.
        Err(_) => [false; N],
    }
}

/// The same for any number of descriptors.
pub fn wait_any(fds: &[BorrowedFd<'_>], timeout: Duration) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let readable = |p: &PollFd<'_>| p.any().unwrap_or(false);
    match poll(&mut polled, rounded_up(timeout)) {
        Ok(_) => polled.iter().map(readable).collect(),
        // Interrupted: the caller looks again.
        Err(_) => vec![false; fds.len()],
    }
}

/// A wait that ends before its deadline would spin.
fn rounded_up(timeout: Duration) -> PollTimeout {
    PollTimeout::from(u16::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u16::MAX))
}

/// Locks a file for this process alone: its children don't inherit the lock, and it goes when the process ends or closes any descriptor
/// of the file (F_SETLK, fcntl(2)). False: another process has it.
///
/// # Errors
/// What fcntl(2) says.
pub fn lock_for_process(file: &File) -> nix::Result<bool> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A command from the master to a worker: one byte and an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop accepting, finish what is under way, end.
    Drain,
    /// A successor serves already: the same, and take the time that is granted.
    Retire,
    /// The master is gone: as `Drain`, and soon.
    Orphaned,
    /// Accept from listener `n` too: the worker it belongs to is in back-off.
    Adopt(u8),
    /// Give listener `n` back.
    Release(u8),
    /// Void every cached answer.
    Clear,
}

/// The master's end of a worker's command channel.
pub struct Commander(UnixStream);

/// The worker's end. Its end of stream means that the master is gone.
pub struct Commands(UnixStream);

/// A channel for commands; both ends close on exec.
pub fn command_channel() -> std::io::Result<(Commander, Commands)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Commander(ours), Commands(theirs)))
}

impl Commander {
    /// Sends a command; a worker that is gone or doesn't read is dealt with elsewhere.
    pub fn send(&mut self, command: Command) {
        let bytes = match command {
            Command::Drain | Command::Orphaned => [b'D', 0],
            Command::Adopt(n) => [b'A', n],
            Command::Release(n) => [b'R', n],
            Command::Retire => [b'T', 0],
            Command::Clear => [b'C', 0],
        };
        let _ = self.0.write_all(&bytes);
    }
}

impl Commands {
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }

    /// The next command. None when there is none yet; `Orphaned` when the master is gone.
    pub fn take(&mut self) -> Option<Command> {
        let mut bytes = [0u8; 2];
        match self.0.read(&mut bytes) {
            Ok(2) => match bytes[0] {
                b'A' => Some(Command::Adopt(bytes[1])),
                b'R' => Some(Command::Release(bytes[1])),
                b'T' => Some(Command::Retire),
                b'C' => Some(Command::Clear),
                _ => Some(Command::Drain),
            },
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => None,
            _ => Some(Command::Orphaned),
        }
    }
}

/// A second descriptor for the same open file, closed on exec.
pub fn duplicate(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}
