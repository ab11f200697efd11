//! Descriptors: limits, locks, waiting for several at once.
//! Runs in: both.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
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

/// A second descriptor for the same open file, with a number from `least` on, closed on exec.
pub fn duplicate_from(fd: BorrowedFd<'_>, least: i32) -> nix::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: fcntl(2) has just made it for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
