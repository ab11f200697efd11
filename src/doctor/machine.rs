//! The machine: descriptors, backlog, memory, clock, disk, stolen time.
//! Runs in: offline.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::{Finding, Level};
use crate::config::Config;
use crate::limits::DESCRIPTORS_RESERVED;
use crate::machine::instance::{self, Burstable};
use crate::machine::load::{self, Ticks};
use crate::os::clock;

/// Over how long shares of time are measured.
const SAMPLE: Duration = Duration::from_secs(1);
/// A cache from which on large pages show.
const CACHE_LARGE_BYTES: usize = 256 << 20;

/// `server`: a process of the running one.
pub fn examine(config: &Config, server: Option<u64>) -> Vec<Finding> {
    let mut all =
        vec![descriptors(config, server), backlog(), memory(config), huge_pages(config), clock_is_set()];
    all.extend(disks());
    all.extend(conntrack());
    all.extend(processor(server));
    all.extend(entitlement());
    all
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn descriptors(config: &Config, server: Option<u64>) -> Finding {
    const SUBJECT: &str = "descriptors";
    let of = server.map_or("/proc/self/limits".to_string(), |pid| format!("/proc/{pid}/limits"));
    let whose = if server.is_some() { "the running server" } else { "a server started from this shell" };
    // Max open files            1024                 524288               files
    let hard = read(&of).and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("Max open files"))?.to_string();
        line.split_whitespace().nth(4)?.parse::<u64>().ok()
    });
    let Some(hard) = hard else {
        return Finding::new(
            Level::Note,
            SUBJECT,
            format!("the limit of {whose} can't be read"),
            "run this as root",
            "",
        );
    };
    let wanted = (config.http_connections_per_worker(u64::MAX) + DESCRIPTORS_RESERVED) as u64;
    let found = format!("{whose} may open {hard} in each process; {wanted} are wanted");
    match hard >= wanted.min(65_536) {
        true => Finding::ok(SUBJECT, found),
        false => Finding::new(
            Level::Warn,
            SUBJECT,
            found,
            "systemctl edit catwalk, and there [Service] LimitNOFILE=1048576, then systemctl restart catwalk; in a shell of root: ulimit -Hn 1048576",
            "each connection is a descriptor; beyond the limit clients are turned away with 503. limits.d does not reach services",
        ),
    }
}

/// Connections wait in the listener's queue, which is the smaller of what is asked for and what the kernel grants.
fn backlog() -> Finding {
    const SUBJECT: &str = "listen backlog";
    let granted = number("/proc/sys/net/core/somaxconn").unwrap_or(4096);
    let asked = may_minihttp::limits::BACKLOG as u64;
    let found = format!("{} of {asked} asked for, for each listener", granted.min(asked));
    let overflows = counter("TcpExt", "ListenOverflows").unwrap_or(0);
    match (granted < asked, overflows) {
        (false, 0) => Finding::ok(SUBJECT, format!("{found}; none has overflowed since this machine was started")),
        (false, n) => Finding::new(
            Level::Note,
            SUBJECT,
            format!("{found}; listeners of this machine have overflowed {n} times since it was started"),
            "nstat -z TcpExtListenOverflows, again a minute later: while it grows, see `catwalk doctor` for stolen time and CPUs",
            "a queue overflows when nobody accepts for long: the CPUs are too busy, or it was another program's",
        ),
        (true, _) => Finding::new(
            Level::Warn,
            SUBJECT,
            found,
            format!("sysctl -w net.core.somaxconn={asked}, and the same line in /etc/sysctl.d/61-catwalk.conf; then systemctl restart catwalk"),
            "a burst of new connections beyond the queue is dropped, and its clients wait a second for their next try",
        ),
    }
}

/// A counter of /proc/net/netstat, which has a line of names before each line of values.
fn counter(group: &str, name: &str) -> Option<u64> {
    let text = read("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|n| n == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

fn memory(config: &Config) -> Finding {
    const SUBJECT: &str = "memory";
    let (cache, total) = (config.cache_size_bytes() as u64, config.machine().memory_bytes);
    let found = format!("{} MiB for the cache, of {} MiB that this server may use", cache >> 20, total >> 20);
    match cache <= total / 2 {
        true => Finding::ok(SUBJECT, found),
        false => Finding::new(
            Level::Warn,
            SUBJECT,
            found,
            "cache.size = \"auto\", which takes a quarter",
            "PostgreSQL and the kernel's page cache need the rest; what does not fit is killed (OOM)",
        ),
    }
}

fn huge_pages(config: &Config) -> Finding {
    const SUBJECT: &str = "large pages";
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Some(text) = read(FILE) else {
        return Finding::ok(SUBJECT, "this kernel has none for shared memory");
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("never").to_string();
    let matters =
        config.cache_size_bytes() >= CACHE_LARGE_BYTES && matches!(chosen.as_str(), "never" | "deny");
    match matters {
        false => Finding::ok(SUBJECT, format!("shared memory: {chosen}")),
        true => Finding::new(
            Level::Note,
            SUBJECT,
            format!("shared memory: {chosen}"),
            format!("echo advise > {FILE}, and the line of /usr/lib/tmpfiles.d/catwalk.conf, without its #, in /etc/tmpfiles.d/catwalk.conf; then systemctl stop catwalk (from systemd 254 on also systemctl clean --what=fdstore catwalk), and start it: a restart would go on with the memory as it is"),
            "a cache of hundreds of MiB is read at random; pages of 2 MiB spare the CPU most of its table look-ups, the more so on a virtual machine",
        ),
    }
}

fn clock_is_set() -> Finding {
    const SUBJECT: &str = "clock";
    match clock::is_synchronised() {
        Some(true) => Finding::ok(SUBJECT, "synchronised"),
        Some(false) => Finding::new(
            Level::Note,
            SUBJECT,
            "nobody keeps it right",
            "systemctl enable --now chrony (chronyd on Amazon Linux), or systemd-timesyncd",
            "dates of reviews, of answers and of the log are wrong without; how fresh an answer is does not depend on it",
        ),
        None => Finding::ok(SUBJECT, "can't be asked here"),
    }
}

fn disks() -> Vec<Finding> {
    const SUBJECT: &str = "disk";
    let places = ["/", "/var/lib/postgresql", "/var/lib/pgsql", "/var/log"]
        .into_iter()
        .filter(|p| Path::new(p).exists());
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    for place in places {
        let Ok(stat) = statvfs(place) else { continue };
        if seen.contains(&stat.filesystem_id()) {
            continue;
        }
        seen.push(stat.filesystem_id());
        let free = stat.blocks_available() as f64 / stat.blocks().max(1) as f64;
        let gib = stat.blocks_available() as f64 * stat.fragment_size() as f64 / (1u64 << 30) as f64;
        let found = format!("{place}: {gib:.1} GiB free, {:.0} %", free * 100.0);
        findings.push(match free >= 0.1 {
            true => Finding::ok(SUBJECT, found),
            false => Finding::new(
                if free < 0.03 { Level::Fail } else { Level::Warn },
                SUBJECT,
                found,
                format!("make room: du -xh --max-depth 2 {place} | sort -h | tail"),
                "PostgreSQL stops when its disk is full, and a load needs the catalogue's size again",
            ),
        });
    }
    findings
}

fn conntrack() -> Option<Finding> {
    const SUBJECT: &str = "conntrack";
    let count = number("/proc/sys/net/netfilter/nf_conntrack_count")?;
    let max = number("/proc/sys/net/netfilter/nf_conntrack_max")?.max(1);
    let found = format!("{count} of {max} connections tracked");
    Some(match count * 10 <= max * 7 {
        true => Finding::ok(SUBJECT, found),
        false => Finding::new(
            Level::Warn,
            SUBJECT,
            found,
            format!("sysctl -w net.netfilter.nf_conntrack_max={}, or take this port out of the firewall's tracking (notrack)", max * 4),
            "a full table drops new connections, and the log of the kernel alone says so",
        ),
    })
}

/// Stolen time, and time that the server's quota has taken.
fn processor(server: Option<u64>) -> Vec<Finding> {
    let pid = server.map_or("self".to_string(), |pid| pid.to_string());
    let throttled = || load::throttled_us(&pid);
    let (before, throttled_before) = (load::ticks(), throttled());
    std::thread::sleep(SAMPLE);
    let mut findings = Vec::new();
    if let (Some(before), Some(after)) = (before, load::ticks()) {
        let Ticks { all, idle, stolen } = after.since(before);
        let share = |part: u64| part as f64 * 100.0 / all.max(1) as f64;
        let found = format!("{:.0} % idle, {:.1} % stolen", share(idle), share(stolen));
        findings.push(match share(stolen) < 5.0 {
            true => Finding::ok("CPU", found),
            false => Finding::new(
                Level::Warn,
                "CPU",
                found,
                "on a burstable instance: wait for credits, switch unlimited mode on, or take a larger one (`catwalk capacity` says which); else ask the provider",
                "time is stolen when the machine below gives it to others: a t3 without credits is held at its baseline",
            ),
        });
    }
    if let (Some(before), Some(after)) = (throttled_before, throttled()) {
        if after > before {
            findings.push(Finding::new(
                Level::Warn,
                "CPU quota",
                format!("the server was held back for {} ms in the last second", (after - before) / 1000),
                "raise CPUQuota= of the service or its slice, or the container's limit",
                "a quota stops all workers at once for the rest of each period",
            ));
        }
    }
    findings
}

fn entitlement() -> Option<Finding> {
    let name = instance::name()?;
    let Some(t3) = Burstable::of(&name) else {
        return Some(Finding::ok(
            "instance",
            format!("{name}: none of t3, t3a and t4g, whose credits run out"),
        ));
    };
    Some(Finding::new(
        Level::Note,
        "instance",
        format!(
            "{name}: {:.1} of {} cores for ever, more while credits last ({} an hour); {} Mbit/s for ever",
            t3.sustained_cores(),
            t3.vcpus,
            t3.credits_per_hour,
            t3.network_baseline_mbit
        ),
        "",
        "`catwalk capacity` says what that comes to in requests; the credits that are left show in CloudWatch alone (CPUCreditBalance)",
    ))
}
