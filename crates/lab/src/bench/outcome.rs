//! What came of driving a server.
//! Runs in: offline.

use hdrhistogram::Histogram;

use super::drive::Plan;
use super::mix::KINDS;

/// What takes longer is as bad as this.
const LATENCY_MAX_US: u64 = 60_000_000;
/// Plots have no more points.
const SLICES_MAX: f64 = 600.0;

/// Of one kind of request.
pub struct KindOutcome {
    /// Latency from when each was due, in µs; of those that were never answered their age at the end.
    pub latency: Histogram<u64>,
    /// Successes before the plan's time was over.
    pub in_time: u64,
    /// Answers that were no success, and connections lost over a request.
    pub errors: u64,
    /// Requests without an answer at the end.
    pub unanswered: u64,
}

/// Of those that were due within one part of the time.
pub struct Slice {
    pub latency: Histogram<u64>,
    /// And those without an answer.
    pub errors: u64,
}

pub struct Outcome {
    /// In the order of [`KINDS`].
    pub kinds: Vec<KindOutcome>,
    pub slices: Vec<Slice>,
    /// How long requests waited for a connection to be free, in µs.
    pub waited: Histogram<u64>,
    /// The busiest thread of the driver: the part of the time in which it had, or waited for, a CPU; None: the system does not say.
    pub driver_busy: Option<f64>,
    /// The first error, as it was.
    pub first_error: Option<String>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, digits).expect("bounds that fit")
}

fn add(sum: &mut Histogram<u64>, more: &Histogram<u64>) {
    sum.add(more).expect("the same bounds");
}

/// Length of a slice in seconds.
pub fn slice_s(plan: &Plan) -> f64 {
    (plan.time.as_secs_f64() / SLICES_MAX).ceil().max(1.0)
}

impl Outcome {
    pub fn new(plan: &Plan) -> Outcome {
        let slices = (plan.time.as_secs_f64() / slice_s(plan)).ceil().max(1.0) as usize;
        let kind = || KindOutcome { latency: histogram(3), in_time: 0, errors: 0, unanswered: 0 };
        Outcome {
            kinds: KINDS.iter().map(|_| kind()).collect(),
            slices: (0..slices).map(|_| Slice { latency: histogram(2), errors: 0 }).collect(),
            waited: histogram(2),
            driver_busy: None,
            first_error: None,
        }
    }

    pub fn add_success(&mut self, kind: usize, slice: usize, latency_us: u64, is_in_time: bool) {
        let own = &mut self.kinds[kind];
        own.in_time += u64::from(is_in_time);
        own.latency.saturating_record(latency_us.max(1));
        self.slice(slice).latency.saturating_record(latency_us.max(1));
    }

    pub fn add_error(&mut self, kind: usize, slice: usize, why: impl FnOnce() -> String) {
        self.kinds[kind].errors += 1;
        self.slice(slice).errors += 1;
        self.first_error.get_or_insert_with(why);
    }

    /// Notes a request that was not answered by the end, when it was so old.
    pub fn give_up(&mut self, kind: usize, slice: usize, age_us: u64) {
        self.kinds[kind].unanswered += 1;
        self.kinds[kind].latency.saturating_record(age_us.max(1));
        let slice = self.slice(slice);
        slice.errors += 1;
        slice.latency.saturating_record(age_us.max(1));
    }

    fn slice(&mut self, slice: usize) -> &mut Slice {
        let last = self.slices.len() - 1;
        &mut self.slices[slice.min(last)]
    }

    /// Adds what another thread has seen of the same plan.
    pub fn add(&mut self, other: Outcome) {
        for (sum, more) in self.kinds.iter_mut().zip(&other.kinds) {
            add(&mut sum.latency, &more.latency);
            sum.in_time += more.in_time;
            sum.errors += more.errors;
            sum.unanswered += more.unanswered;
        }
        for (sum, more) in self.slices.iter_mut().zip(&other.slices) {
            add(&mut sum.latency, &more.latency);
            sum.errors += more.errors;
        }
        add(&mut self.waited, &other.waited);
        self.driver_busy = match (self.driver_busy, other.driver_busy) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Latencies of all kinds.
    pub fn all(&self) -> Histogram<u64> {
        let mut all = histogram(3);
        self.kinds.iter().for_each(|kind| add(&mut all, &kind.latency));
        all
    }

    pub fn in_time(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.in_time).sum()
    }

    pub fn errors(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.errors + kind.unanswered).sum()
    }

    pub fn unanswered(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.unanswered).sum()
    }

    /// Requests that were due and of which something is known.
    pub fn known(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.latency.len() + kind.errors).sum()
    }
}

/// A part of the latencies in seconds; None: there are none.
pub fn quantile_s(latency: &Histogram<u64>, part: f64) -> Option<f64> {
    (!latency.is_empty()).then(|| latency.value_at_quantile(part) as f64 / 1e6)
}
