//! Who waits for a lane, counted: the budget of connections is what lanes have, and what goes beyond it waits, for a bounded time.
//! Runs in: worker.

use crate::db::pool::Lane;
use crate::metrics::page::WAITS;
use crate::metrics::{Counter, SlotMetrics};

/// A worker's count.
pub struct Waits(SlotMetrics);

impl Waits {
    pub fn new(metrics: SlotMetrics) -> Waits {
        Waits(metrics)
    }

    pub fn begin(&self, lane: Lane) {
        self.0.count(counters(lane).0);
    }

    pub fn end(&self, lane: Lane) {
        self.0.count(counters(lane).1);
    }
}

fn counters(lane: Lane) -> (Counter, Counter) {
    let [fast, slow, write] = WAITS;
    match lane {
        Lane::Fast => fast,
        Lane::Slow => slow,
        Lane::Write => write,
    }
}
