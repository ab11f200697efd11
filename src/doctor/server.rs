//! The running server, as its shared memory shows it.
//! Runs in: offline.

use std::path::Path;
use std::time::Duration;

use super::{Finding, Level};
use crate::cache::watermark::{self, State};
use crate::config::Config;
use crate::inspect::Server;
use crate::limits::BEAT_STUCK_AFTER;
use crate::metrics::Counter;

/// Over how long a count is looked at.
const SAMPLE: Duration = Duration::from_secs(1);
/// Lookups from which on a hit ratio says something.
const LOOKUPS_MIN: u64 = 10_000;

/// Returns a process of the running server too, if there is one.
pub fn examine(config: &Config, directory: Option<&Path>) -> (Option<u64>, Vec<Finding>) {
    let Some(server) = directory.and_then(|directory| Server::open(directory).ok()) else {
        let none = "none was found, or it is another user's: run this as root, or as the server's user";
        return (None, vec![Finding::new(Level::Note, "server", none, "", "")]);
    };
    let process = (0..server.slots.count()).find_map(|slot| server.slots.pid(slot));
    let mut all = vec![workers(&server), feed(config, &server), hit_ratio(&server), lanes(&server)];
    all.extend(must_stay_0(&server));
    (process, all)
}

fn workers(server: &Server) -> Finding {
    let serving = server.slots.serving(BEAT_STUCK_AFTER.as_nanos() as u64);
    let wanted = server.slots.wanted();
    let found = format!("{serving} of {wanted} serve");
    match server.slots.crash_loops() {
        0 if serving >= wanted => Finding::ok("workers", found),
        0 => Finding::new(
            Level::Warn,
            "workers",
            found,
            "journalctl -u catwalk -p warning",
            "one may be being replaced: again in ten seconds",
        ),
        n => Finding::new(
            Level::Fail,
            "workers",
            format!("{found}; {n} keep dying"),
            "journalctl -u catwalk -p warning",
            "the log has each one's last words",
        ),
    }
}

fn feed(config: &Config, server: &Server) -> Finding {
    let state = watermark::state(&server.arena);
    match state == State::Following || config.cache_size_bytes() == 0 {
        true => Finding::ok("change feed", state.to_string()),
        false => Finding::new(
            Level::Fail,
            "change feed",
            state.to_string(),
            "catwalk check --database",
            "while changes can't be followed, every answer comes from the database",
        ),
    }
}

fn hit_ratio(server: &Server) -> Finding {
    let total = |counter| server.metrics.total(counter);
    let (hits, misses) = (total(Counter::CacheHits), total(Counter::CacheMisses));
    let (lookups, evicted) = (hits + misses, total(Counter::CacheEvicted));
    let ratio = hits as f64 * 100.0 / lookups.max(1) as f64;
    let found = format!("{ratio:.1} % of {lookups} lookups were hits; {evicted} records were evicted");
    match lookups >= LOOKUPS_MIN && ratio < 80.0 && evicted > lookups / 20 {
        false => Finding::ok("cache", found),
        true => Finding::new(
            Level::Note,
            "cache",
            found,
            "a larger cache.size, then systemctl restart catwalk",
            "it is full, and what it evicts is asked for again",
        ),
    }
}

fn lanes(server: &Server) -> Finding {
    let refused = || server.metrics.total(Counter::LaneRefused);
    let before = refused();
    if before > 0 {
        std::thread::sleep(SAMPLE);
    }
    let now = refused();
    let found = format!(
        "{now} reads and writes were answered 503 because the database took too long, {} of them in the last second",
        now - before
    );
    match (now, now - before) {
        (0, _) => Finding::ok("database waits", found),
        (_, 0) => Finding::new(Level::Note, "database waits", found, "", "while it does not grow, it is past"),
        _ => Finding::new(
            Level::Warn,
            "database waits",
            found,
            "catwalk_db_lane_waits_total in /metrics says which lane: raise database.connections, or give PostgreSQL what this report says below",
            "a request waits for a connection for two seconds at most",
        ),
    }
}

fn must_stay_0(server: &Server) -> Vec<Finding> {
    let bad = [
        (
            Counter::CacheInconsistent,
            "hits differed from the database",
            "catwalk cache clear; and report it, with the log",
        ),
        (
            Counter::CacheDamaged,
            "cached records had a wrong checksum",
            "catwalk cache verify; check the memory (memtester)",
        ),
    ];
    let found = bad.into_iter().filter(|(counter, ..)| server.metrics.total(*counter) > 0);
    found
        .map(|(counter, what, fix)| {
            let n = server.metrics.total(counter);
            Finding::new(Level::Fail, "cache", format!("{n} {what}"), fix, "this must never happen")
        })
        .collect()
}
