//! Who wants to know of every statement that was run.
//! Runs in: worker | offline.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{Client, Error};

/// A statement that was run, or prepared to be; a COMMIT is one, and waits for the disk and for replicas.
#[derive(Debug)]
pub struct Ran<'s> {
    /// The comment that its text begins with.
    pub label: &'s str,
    /// Of the backend that ran it, as in `pg_stat_activity`.
    pub process_id: i32,
    /// From being queued to its last row.
    pub took: Duration,
    /// It was prepared only, which waits for locks too.
    pub is_prepared_only: bool,
    pub failed: bool,
}

static OBSERVER: OnceLock<fn(&Ran<'_>)> = OnceLock::new();

/// Has `observer` called for every statement that this process prepares or runs from now on, by whoever has run it. The first call counts.
pub fn observe(observer: fn(&Ran<'_>)) {
    let _ = OBSERVER.set(observer);
}

impl Client {
    /// Does `run`, and tells of it.
    pub(crate) fn observed<T>(
        &self,
        label: &str,
        is_prepared_only: bool,
        run: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(observer) = OBSERVER.get() else { return run() };
        let start = Instant::now();
        let outcome = run();
        let (process_id, failed) = (self.process_id(), outcome.is_err());
        observer(&Ran { label, process_id, took: start.elapsed(), is_prepared_only, failed });
        outcome
    }
}
