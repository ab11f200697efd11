//! What this machine's CPUs do, and what is taken from them.
//! Runs in: worker | offline.

use std::fs;

use serde::Serialize;

/// CPU time of all CPUs since boot, in clock ticks (proc(5), /proc/stat).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ticks {
    pub all: u64,
    pub idle: u64,
    /// Given to other machines by the one below.
    pub stolen: u64,
}

impl Ticks {
    pub fn since(self, before: Ticks) -> Ticks {
        Ticks {
            all: self.all.saturating_sub(before.all),
            idle: self.idle.saturating_sub(before.idle),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }

    fn read(text: &str) -> Option<Ticks> {
        let fields: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        let idle = fields.get(3)? + fields.get(4)?;
        Some(Ticks { all: fields.iter().take(8).sum(), idle, stolen: *fields.get(7)? })
    }
}

/// None: this process may not know.
pub fn ticks() -> Option<Ticks> {
    Ticks::read(&fs::read_to_string("/proc/stat").ok()?)
}

/// How long a process's group was held back by its quota so far, in µs; `pid` may be self.
pub fn throttled_us(pid: &str) -> Option<u64> {
    // 0::/system.slice/catwalk.service
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let stat = fs::read_to_string(format!("/sys/fs/cgroup{group}/cpu.stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_those_of_all_cpus() {
        let text = "cpu  10 1 20 300 5 0 4 7 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let ticks = Ticks::read(text).unwrap();
        assert_eq!(ticks, Ticks { all: 347, idle: 305, stolen: 7 });
        assert_eq!(
            ticks.since(Ticks { all: 47, idle: 5, stolen: 7 }),
            Ticks { all: 300, idle: 300, stolen: 0 }
        );
    }
}
