//! Processes as /proc shows them (proc(5)).
//! Runs in: both.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Bits of a process's number: the kernel gives none from 2^22 on (PID_MAX_LIMIT).
const PID_BITS: u32 = 22;

/// What /proc/PID/stat says of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: u64,
    pub name: String,
    pub parent: u64,
    /// CPU time, its own and the kernel's for it, in clock ticks.
    pub cpu_ticks: u64,
    /// Clock ticks from boot to its start.
    pub started_ticks: u64,
    /// It has ended, and nobody has waited for it.
    pub is_zombie: bool,
}

impl Stat {
    /// None: no such process, or not for this one to see.
    pub fn of(pid: u64) -> Option<Stat> {
        Stat::read(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn read(text: &str) -> Option<Stat> {
        // The name is in parentheses, and may have any in it.
        let (head, rest) = text.rsplit_once(')')?;
        let (pid, name) = head.split_once(" (")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            pid: pid.parse().ok()?,
            name: name.to_string(),
            parent: number(1)?,
            cpu_ticks: number(11)? + number(12)?,
            started_ticks: number(19)?,
            is_zombie: matches!(fields.first(), Some(&"Z" | &"X")),
        })
    }
}

/// All that this process may see.
pub fn all() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Stat::of(entry.file_name().to_str()?.parse().ok()?))
}

/// A word for one process and no other: its number, which is another one's some day, and its start. None: it is gone.
pub fn identity(pid: i32) -> Option<u64> {
    match Stat::of(pid as u64) {
        Some(stat) => (!stat.is_zombie).then(|| word(&stat)),
        // Without /proc its number has to do.
        None => has_number(pid).then_some(pid as u64),
    }
}

/// The number of a process with this identity.
pub fn pid_of(identity: u64) -> u64 {
    identity & ((1 << PID_BITS) - 1)
}

/// Whether the process with this identity has not ended. One that can't be looked at counts as there while its number is anybody's.
pub fn is_there(process: u64) -> bool {
    let pid = pid_of(process);
    match Stat::of(pid) {
        // Of one whose start was not known when it was noted the number has to do.
        Some(stat) => !stat.is_zombie && (process == pid || word(&stat) == process),
        None => has_number(pid as i32),
    }
}

fn word(stat: &Stat) -> u64 {
    stat.started_ticks << PID_BITS | stat.pid
}

fn has_number(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let text = "77 (a) b (c) Z 5 77 77 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0 99 1 1";
        let stat = Stat::read(text).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.parent), (77, "a) b (c", 5));
        assert_eq!((stat.cpu_ticks, stat.started_ticks, stat.is_zombie), (42, 99, true));
    }

    #[test]
    fn a_number_that_is_another_ones_by_now_is_not_the_process() {
        let own = identity(std::process::id() as i32).unwrap();
        assert_eq!(pid_of(own), u64::from(std::process::id()));
        assert!(is_there(own) && !is_there(own + (1 << PID_BITS)));
        assert!(is_there(pid_of(own)), "noted without its start");
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let known = identity(child.id() as i32).unwrap();
        assert!(is_there(known));
        child.kill().unwrap();
        let stat = || Stat::of(u64::from(child.id()));
        while !stat().is_some_and(|stat| stat.is_zombie) {
            std::thread::yield_now();
        }
        assert!(!is_there(known) && stat().is_some());
        child.wait().unwrap();
        assert!(!is_there(known));
    }
}
