//! What the database did for a request: which statement, on which backend, for how long. Each coroutine has notes of its own.
//! Runs in: worker.
//!
//! ```text
//! lane       clear ─► statements run, each noted ─► what waited for it lands, with a copy of the notes
//! connection          waits ───────────────────────────────► adds them to its own, which end with the request
//! ```

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use may::coroutine_local;

use crate::metrics::SlotMetrics;
use crate::os::clock;
use crate::statements::{self, STATEMENTS};

/// What ends a transaction, and has no plan.
const COMMIT: &str = "commit";

/// A statement that was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    pub name: &'static str,
    /// Process of the backend, as in `pg_stat_activity`.
    pub backend: i32,
    pub took_ns: u64,
}

/// What is known of a piece of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Of its statements the one that took longest.
    pub slowest: Option<Ran>,
    /// How long a request waited for its work.
    pub waited_ns: u64,
}

impl Notes {
    fn add(&mut self, ran: Ran) {
        if self.slowest.is_none_or(|slowest| slowest.took_ns < ran.took_ns) {
            self.slowest = Some(ran);
        }
    }
}

coroutine_local!(static NOTES: Cell<Notes> = Cell::new(Notes::default()));

/// Where this worker counts.
static METRICS: OnceLock<SlotMetrics> = OnceLock::new();
/// Waits of this worker that have ended: who finds it unchanged has waited for nothing.
static WAITS: AtomicU64 = AtomicU64::new(0);

/// Notes and counts every statement of this process from now on.
pub fn start(metrics: SlotMetrics) {
    let _ = METRICS.set(metrics);
    may_postgres::observe(|ran| {
        let place = statements::find(ran.label);
        let name = match place {
            Some(place) => STATEMENTS[place].0,
            None if ran.label == COMMIT => COMMIT,
            None => return,
        };
        let took_ns = ran.took.as_nanos() as u64;
        let metrics = METRICS.get().filter(|_| !ran.is_prepared_only);
        if let Some((metrics, place)) = metrics.zip(place) {
            metrics.time_statement(place, took_ns);
        }
        let ran = Ran { name, backend: ran.process_id, took_ns };
        NOTES.with(|cell| {
            let mut notes = cell.get();
            notes.add(ran);
            cell.set(notes);
        });
    });
}

/// This coroutine's notes, which begin anew.
pub fn take() -> Notes {
    NOTES.with(Cell::take)
}

/// A copy of them.
pub fn current() -> Notes {
    NOTES.with(Cell::get)
}

/// How many waits of this worker have ended.
#[inline]
pub fn waits() -> u64 {
    WAITS.load(Ordering::Relaxed)
}

/// This coroutine has waited since `start_ns` (CLOCK_BOOTTIME) for work with these notes.
pub fn waited(start_ns: u64, work: Notes) {
    WAITS.fetch_add(1, Ordering::Relaxed);
    NOTES.with(|cell| {
        let mut notes = cell.get();
        notes.waited_ns += clock::boottime_ns().saturating_sub(start_ns);
        work.slowest.into_iter().for_each(|ran| notes.add(ran));
        cell.set(notes);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_statement_is_kept_and_waits_add_up() {
        let ran = |name, took_ns| Ran { name, backend: 7, took_ns };
        let work = |took_ns| Notes { slowest: Some(ran("cart_add", took_ns)), waited_ns: 0 };
        take();
        let before = waits();
        let start_ns = clock::boottime_ns() - 1_000;
        waited(start_ns, work(5));
        waited(start_ns, work(9));
        waited(start_ns, Notes::default());
        let notes = take();
        assert_eq!(notes.slowest, Some(ran("cart_add", 9)));
        assert!(notes.waited_ns >= 3_000 && waits() == before + 3);
        assert_eq!(take(), Notes::default());
    }
}
