//! Processes: fork, exec, reap, signal. The caller of `fork` must be single-threaded.
//! Runs in: master.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::os::fd::duplicate_from;
use crate::os::processes;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{self, ForkResult, Gid, Pid, Uid, User};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exit(i32),
    Signal(Signal),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "exited with status {code}"),
            Ending::Signal(signal) => write!(f, "was killed by {signal}"),
        }
    }
}

/// Forks; the child runs `work` and exits with what it returns.
///
/// # Panics
/// When this process has more than one thread: only one would exist in the child, and locks that another one
/// held would stay held for ever.
pub fn fork(work: impl FnOnce() -> i32) -> nix::Result<Pid> {
    assert_eq!(threads(), 1, "fork from a process with several threads");
    // SAFETY: single-threaded, asserted above, so the child may run any code.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => std::process::exit(work()),
    }
}

/// Ends this process between two instructions, as a signal from outside would: nothing is flushed, nothing is run.
pub fn end_at_once(status: i32) -> ! {
    // SAFETY: _exit runs no code of this process.
    unsafe { libc::_exit(status) }
}

/// Threads of this process, from /proc; 1 where that can't be read.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |dir| dir.count())
}

/// The next child that has ended, without waiting.
pub fn reap() -> Option<(Pid, Ending)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid, Ending::Exit(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Some((pid, Ending::Signal(signal))),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for one child.
///
/// # Errors
/// What waitpid(2) says.
pub fn wait(child: Pid) -> nix::Result<Ending> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ending::Exit(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ending::Signal(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Sends `signal` to a process, if it is there.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Whether a process runs, or has ended and was not reaped.
pub fn is_there(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// In a child: die with `signal` when the parent dies. Cleared by a change of user, so it comes after it; the
/// parent may be gone already, so that is checked.
pub fn die_with_parent(parent: Pid, signal: Signal) -> nix::Result<()> {
    prctl::set_pdeathsig(signal)?;
    if unistd::getppid() != parent {
        return Err(Errno::ESRCH);
    }
    Ok(())
}

/// This process.
pub fn own_pid() -> Pid {
    unistd::getpid()
}

/// This process and no other, as other processes find it.
pub fn own_identity() -> u64 {
    let pid = own_pid().as_raw();
    processes::identity(pid).unwrap_or(pid as u64)
}

/// Names this process as ps(1) and top(1) show it; the first 15 bytes count.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = prctl::set_name(&name);
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    unistd::geteuid().is_root()
}

/// Ids of a user by name.
pub fn user(name: &str) -> Option<(Uid, Gid)> {
    User::from_name(name).ok().flatten().map(|u| (u.uid, u.gid))
}

/// Ids of this process's user.
pub fn own_user() -> (Uid, Gid) {
    (unistd::geteuid(), unistd::getegid())
}

/// Name of this process's user, or its number where it has none.
pub fn own_user_name() -> String {
    let uid = unistd::geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name)
}

/// This machine's name.
pub fn host_name() -> String {
    unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}

/// In a child: become another user for good.
pub fn become_user(uid: Uid, gid: Gid) -> nix::Result<()> {
    unistd::setgroups(&[gid])?;
    unistd::setgid(gid)?;
    unistd::setuid(uid)
}

/// In a child: a session of its own, out of reach of the terminal's Ctrl-C.
pub fn own_session() -> nix::Result<()> {
    unistd::setsid().map(|_| ())
}

/// In a child: replaces this process by `program`. Returns only on failure.
pub fn exec(program: &Path, args: &[String]) -> Errno {
    let to_c = |s: &str| CString::new(s).map_err(|_| Errno::EINVAL);
    let Ok(path) = to_c(&program.to_string_lossy()) else { return Errno::EINVAL };
    let mut argv = vec![path.clone()];
    for arg in args {
        match to_c(arg) {
            Ok(arg) => argv.push(arg),
            Err(e) => return e,
        }
    }
    unistd::execv(&path, &argv).expect_err("execv returns only on failure")
}

/// In a child: replaces this process by `program` with this one's arguments, born with `fds` by name, as sd_listen_fds_with_names(3) finds
/// them. Returns only on failure.
pub fn exec_with(program: &Path, fds: &[(&str, BorrowedFd<'_>)]) -> std::io::Error {
    const FIRST: i32 = 3;
    let beyond = FIRST + fds.len() as i32;
    // First out of the way, then into place: a place may be another one's present number.
    let moved: Result<Vec<OwnedFd>, Errno> = fds.iter().map(|(_, fd)| duplicate_from(*fd, beyond)).collect();
    let placed = moved.and_then(|moved| {
        let places = (FIRST..).zip(&moved);
        places
            .map(|(place, fd)| replace_descriptor(fd.as_fd(), place))
            .collect::<Result<Vec<()>, Errno>>()?;
        Ok(moved)
    });
    if let Err(e) = placed {
        return e.into();
    }
    let names: Vec<&str> = fds.iter().map(|(name, _)| *name).collect();
    let pid = own_pid().to_string();
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env("LISTEN_PID", &pid);
    command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    if std::env::var_os("WATCHDOG_PID").is_some() {
        command.env("WATCHDOG_PID", &pid);
    }
    command.exec()
}

/// Makes `place` another number of `fd`, open over an exec. What was there before is closed.
fn replace_descriptor(fd: BorrowedFd<'_>, place: i32) -> nix::Result<()> {
    // SAFETY: in a child that is about to exec: nothing in it uses what `place` stood for any more.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), place) }).map(drop)
}

/// In a child: closes what is its parent's own affair.
pub fn close(fds: &[RawFd]) {
    for fd in fds {
        // SAFETY: in a child whose copies of their owners are never used, nor dropped: it ends by exit.
        unsafe { libc::close(*fd) };
    }
}

/// In a child: makes `fd` its standard output and error.
pub fn redirect_output(fd: BorrowedFd<'_>) -> nix::Result<()> {
    [1, 2].into_iter().try_for_each(|target| replace_descriptor(fd, target))
}

/// Gives `path` to a user.
pub fn give(path: &Path, uid: Uid, gid: Gid) -> nix::Result<()> {
    unistd::chown(path, Some(uid), Some(gid))
}
