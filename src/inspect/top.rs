//! `catwalk cache top`: what is hit most, from samples that workers keep.
//! Runs in: offline.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use crate::cache::{census, Key};
use crate::inspect::Server;
use crate::metrics::Counter;
use crate::overview::count_keys;

/// The `count` keys hit most, with hits a second over `period`.
pub fn take(server: &Server, count: usize, period: Duration) -> String {
    let hits = || server.metrics.total(Counter::CacheHits);
    let before = hits();
    thread::sleep(period);
    let rate = (hits() - before) as f64 / period.as_secs_f64().max(1e-3);
    let samples: Vec<Key> = server.metrics.samples().into_iter().filter_map(Key::from_words).collect();
    let mut out = format!("{rate:.0} hits/s; shares of the last {} samples\n\n", samples.len());
    let _ = write!(out, "{:>7} {:>9} {:>9} {:>6}  key", "share", "hits/s", "bytes", "valid");
    for (key, times) in count_keys(&samples).into_iter().take(count) {
        let share = times as f64 / samples.len() as f64;
        let found = census::records_of(&server.arena, key).into_iter().next();
        let bytes = found.as_ref().map_or(0, |found| found.record.header().len_bytes);
        let valid = found.is_some_and(|found| census::is_valid(&server.arena, found.record.header()));
        let valid = if valid { "yes" } else { "no" };
        let _ = write!(out, "\n{:>6.1}% {:>9.0} {bytes:>9} {valid:>6}  {key}", share * 100.0, share * rate);
    }
    out
}
