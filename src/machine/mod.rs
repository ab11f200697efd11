//! What this box has, as far as this process may use it: what "sized by the instance" means.
//! Runs in: both, before anything is forked.

pub mod budget;
pub mod instance;
pub mod load;

use std::fs;
use std::path::{Path, PathBuf};

use crate::os::sched;

/// Cores and memory available to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// CPUs of the affinity mask, in order.
    pub cpus: Vec<usize>,
    /// Workers to run: affinity ∩ cgroup quota, rounded up.
    pub cores: usize,
    /// Bytes: the smaller of physical memory and the cgroup's limits.
    pub memory_bytes: u64,
}

impl Machine {
    /// Reads affinity, cgroup limits (v2 and v1) and `/proc/meminfo`.
    pub fn detect() -> Machine {
        let cpus = sched::affinity();
        let limits = Limits::read();
        let quota = limits.cpu_quota.map_or(usize::MAX, |q| q.ceil().max(1.0) as usize);
        let physical = meminfo_total_bytes().unwrap_or(1 << 30);
        Machine {
            cores: cpus.len().min(quota).max(1),
            cpus,
            memory_bytes: limits.memory_bytes.map_or(physical, |limit| limit.min(physical)),
        }
    }
}

/// The tightest limits on the way from this process's cgroup to the root.
#[derive(Default)]
struct Limits {
    cpu_quota: Option<f64>,
    memory_bytes: Option<u64>,
}

impl Limits {
    fn read() -> Limits {
        let mut limits = Limits::default();
        for group in cgroup_directories() {
            for dir in group.ancestors().take_while(|d| d.starts_with("/sys/fs/cgroup")) {
                limits.tighten(dir);
            }
        }
        limits
    }

    fn tighten(&mut self, dir: &Path) {
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let quota = read("cpu.max").and_then(|t| parse_cpu_max(&t)).or_else(|| {
            let quota: f64 = read("cpu.cfs_quota_us")?.trim().parse().ok()?;
            let period: f64 = read("cpu.cfs_period_us")?.trim().parse().ok()?;
            (quota > 0.0 && period > 0.0).then_some(quota / period)
        });
        let memory = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
        let memory = memory.and_then(|t| t.trim().parse::<u64>().ok());
        self.cpu_quota = tighter(self.cpu_quota, quota);
        self.memory_bytes = tighter(self.memory_bytes, memory);
    }
}

fn tighter<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b < a { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Directories of this process's cgroups: the v2 one, and v1's cpu and memory controllers.
fn cgroup_directories() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines().filter_map(parse_cgroup_line).collect()
}

fn parse_cgroup_line(line: &str) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    match controllers {
        "" => Some(Path::new("/sys/fs/cgroup").join(path)),
        "cpu,cpuacct" | "cpu" => Some(Path::new("/sys/fs/cgroup/cpu").join(path)),
        "memory" => Some(Path::new("/sys/fs/cgroup/memory").join(path)),
        _ => None,
    }
}

/// `150000 100000` → 1.5; `max 100000` → none.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (period > 0.0).then_some(quota / period)
}

fn meminfo_total_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_in_cores() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
    }

    #[test]
    fn cgroup_lines_of_both_versions() {
        assert_eq!(parse_cgroup_line("0::/a/b"), Some("/sys/fs/cgroup/a/b".into()));
        assert_eq!(parse_cgroup_line("4:memory:/x"), Some("/sys/fs/cgroup/memory/x".into()));
        assert_eq!(parse_cgroup_line("7:pids:/x"), None);
    }

    #[test]
    fn the_tighter_limit_wins() {
        assert_eq!(tighter(Some(2), Some(1)), Some(1));
        assert_eq!(tighter(None, Some(1)), Some(1));
        assert_eq!(tighter::<u64>(None, None), None);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::detect();
        assert!(machine.cores >= 1 && machine.cores <= machine.cpus.len() && machine.memory_bytes > 1 << 20);
    }
}
