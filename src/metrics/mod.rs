//! Counters in shared memory: one block a slot, so that /metrics says the same from every worker and nothing is
//! lost or counted twice when one dies.
//! Runs in: both.

pub mod names;
pub mod page;
pub mod render;

pub use names::Counter;
pub use page::{MetricsPage, SlotMetrics};
