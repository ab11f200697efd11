//! Counters in shared memory: one block a slot, so that /metrics says the same from every worker and nothing is
//! lost or counted twice when one dies.
//! Runs in: both.

pub mod document;
pub mod histogram;
pub mod names;
pub mod page;
pub mod render;

pub use names::{Counter, Gauge, Level, RouteGroup};
pub use page::{MetricsPage, Runs, SlotMetrics};
