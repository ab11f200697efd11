//! The highest rate that a server takes: doubled until it no longer does, then closed in on.
//! Runs in: offline.

use anyhow::Result;

use super::drive::{drive, Outcome, Plan};
use super::mix::Mix;

/// Halvings of the span between what went and what did not: the limit is known to a 64th of it.
const STEPS: u32 = 6;
/// A server that answers fewer of what is due is behind.
const ANSWERED_MIN: f64 = 0.99;

/// What was found.
pub struct Limit {
    /// The highest rate that went, and its p99 in seconds. None: the first one already did not.
    pub best: Option<(f64, f64)>,
    /// The lowest that did not.
    pub failed: f64,
}

impl Limit {
    pub fn describe(&self, p99_ms: f64) -> String {
        match self.best {
            Some((rate, p99_s)) => format!(
                "{rate:.0} requests/s, with a p99 of {:.2} ms; {:.0} have a p99 over {p99_ms} ms, errors, or are not answered in time",
                p99_s * 1e3,
                self.failed
            ),
            None => format!("not even {:.0} requests/s have a p99 below {p99_ms} ms: try a lower --rate to begin with", self.failed),
        }
    }
}

/// One try, as a line.
pub fn line(rate: f64, outcome: &Outcome) -> String {
    let all = outcome.all();
    format!(
        "{rate:>9.0} requests/s: p50 {:>8.3} ms, p99 {:>9.3} ms, {} errors",
        all.value_at_quantile(0.5) as f64 / 1e3,
        all.value_at_quantile(0.99) as f64 / 1e3,
        outcome.errors()
    )
}

/// Searches from the plan's rate up.
///
/// # Errors
/// As [`drive`].
pub fn search(plan: &Plan, mix: &Mix, p99_s: f64, mut tell: impl FnMut(f64, &Outcome)) -> Result<Limit> {
    search_by(plan.rate, |rate| {
        let plan = Plan { rate, ..plan.clone() };
        let outcome = drive(&plan, mix)?;
        tell(rate, &outcome);
        let p99 = outcome.all().value_at_quantile(0.99) as f64 / 1e6;
        let is_kept_up = outcome.answered_per_s(&plan) >= rate * ANSWERED_MIN;
        Ok((p99 < p99_s && outcome.errors() == 0 && is_kept_up).then_some(p99))
    })
}

/// `try_rate`: the p99 of a rate that goes.
fn search_by(first: f64, mut try_rate: impl FnMut(f64) -> Result<Option<f64>>) -> Result<Limit> {
    let (mut best, mut failed) = (None, first);
    while let Some(p99) = try_rate(failed)? {
        best = Some((failed, p99));
        failed *= 2.0;
    }
    let Some((mut good, _)) = best else { return Ok(Limit { best, failed }) };
    for _ in 0..STEPS {
        let middle = (good + failed) / 2.0;
        match try_rate(middle)? {
            Some(p99) => (good, best) = (middle, Some((middle, p99))),
            None => failed = middle,
        }
    }
    Ok(Limit { best, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_closed_in_on() {
        let mut tries = 0;
        let found = search_by(1_000.0, |rate| {
            tries += 1;
            Ok((rate <= 23_456.0).then_some(rate / 1e7))
        })
        .unwrap();
        let (rate, _) = found.best.unwrap();
        assert!(
            rate <= 23_456.0 && rate > 23_000.0 && found.failed > 23_456.0,
            "{rate} and {}",
            found.failed
        );
        assert_eq!(tries, 6 + STEPS);
        assert!(search_by(1_000.0, |_| Ok(None)).unwrap().best.is_none());
    }
}
