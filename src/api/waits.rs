//! Who waits for a lane, counted: the budget of connections is what lanes have, and what goes beyond it waits, for a bounded time.
//! Runs in: worker.

use crate::db::pool::Lane;
use crate::metrics::{Counter, SlotMetrics};

/// A worker's count.
pub struct Waits(SlotMetrics);

/// What counts those who began to wait in a lane, and those who wait no longer.
pub const WAITS: [(Lane, Counter, Counter); 3] = [
    (Lane::Fast, Counter::LaneWaitsFast, Counter::LaneLeftFast),
    (Lane::Slow, Counter::LaneWaitsSlow, Counter::LaneLeftSlow),
    (Lane::Write, Counter::LaneWaitsWrite, Counter::LaneLeftWrite),
];

impl Waits {
    pub fn new(metrics: SlotMetrics) -> Waits {
        Waits(metrics)
    }

    pub fn begin(&self, lane: Lane) {
        self.count(lane, |(_, begun, _)| begun);
    }

    pub fn end(&self, lane: Lane) {
        self.count(lane, |(_, _, left)| left);
    }

    fn count(&self, lane: Lane, which: impl Fn((Lane, Counter, Counter)) -> Counter) {
        let found = WAITS.into_iter().find(|(of, ..)| *of == lane);
        found.into_iter().for_each(|found| {
            self.0.count(which(found));
        });
    }

    /// Nobody waits in a worker that begins: who waited in its slot before ended with that one's process.
    pub fn settle(&self) {
        for (_, begun, left) in WAITS {
            self.0.add(left, self.0.get(begun).saturating_sub(self.0.get(left)));
        }
    }
}
