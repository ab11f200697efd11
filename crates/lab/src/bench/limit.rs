//! The highest rate that a server takes: doubled until it no longer does, then closed in on.
//! Runs in: offline.

use anyhow::Result;
use serde::Serialize;

use super::drive::{drive, Plan};
use super::mix::Mix;
use super::outcome::{quantile_s, Outcome};
use super::report::{is_driver_full, ms, refusal_hint};

/// The limit is known when what went and what did not are so near each other.
const PRECISION: f64 = 1.0 / 64.0;
/// A server that answers fewer of what is due is behind.
const ANSWERED_MIN: f64 = 0.99;
/// Higher rates are not tried.
pub const RATE_MAX: f64 = 1e6;

/// One rate, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub rate: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub answered: u64,
    pub errors: u64,
    /// Why it is too high; None: it is not.
    pub why: Option<String>,
}

impl Step {
    fn of(plan: &Plan, outcome: &Outcome, p99_max_s: f64) -> Step {
        let all = outcome.all();
        Step {
            rate: plan.rate,
            p50_ms: ms(quantile_s(&all, 0.5)),
            p99_ms: ms(quantile_s(&all, 0.99)),
            answered: outcome.in_time(),
            errors: outcome.errors(),
            why: why_not(plan, outcome, p99_max_s),
        }
    }

    /// One try, as a line.
    pub fn line(&self) -> String {
        let shown = |ms: Option<f64>| ms.map_or("–".into(), |ms| format!("{ms:.3} ms"));
        let (p50, p99) = (shown(self.p50_ms), shown(self.p99_ms));
        let verdict = self.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("{:>9.0} requests/s: p50 {p50:>11}, p99 {p99:>12}{verdict}", self.rate)
    }
}

/// What keeps a rate from being one that the server takes.
fn why_not(plan: &Plan, outcome: &Outcome, p99_max_s: f64) -> Option<String> {
    let own =
        is_driver_full(outcome).then_some(" (the driver was busy all the time: the server may take more)");
    let own = own.unwrap_or_default();
    if outcome.errors() > outcome.unanswered() {
        let first = outcome.first_error.as_deref().unwrap_or_default();
        return Some(format!("{} errors, the first: {first}{}", outcome.errors(), refusal_hint(outcome)));
    }
    // What came within the bound and after the time was over is no backlog; but most has to come before.
    let (due, time_s) = (plan.rate * plan.time.as_secs_f64(), plan.time.as_secs_f64());
    if (outcome.in_time() as f64) < due * ANSWERED_MIN - plan.rate * p99_max_s.min(time_s / 4.0) - 1.0 {
        return Some(format!("{} of {due:.0} were answered in time{own}", outcome.in_time()));
    }
    let is_late = quantile_s(&outcome.all(), 0.99).is_none_or(|p99_s| p99_s >= p99_max_s);
    is_late.then(|| format!("p99 is not below {} ms{own}", p99_max_s * 1e3))
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Limit {
    pub p99_max_ms: f64,
    /// The highest rate that went; None: the first one already did not.
    pub best: Option<Step>,
    /// The lowest that did not; None: all did, up to the highest that is tried.
    pub failed: Option<Step>,
    /// All, in the order in which they were tried.
    pub steps: Vec<Step>,
}

impl Limit {
    /// The rate to be tried next: up by doubling, then the middle of what went and what did not. None: enough is known.
    fn next(&self, first: f64) -> Option<f64> {
        let rate = |step: &Option<Step>| step.as_ref().map(|step| step.rate);
        match (rate(&self.best), rate(&self.failed)) {
            (None, None) => Some(first),
            (None, Some(_)) => None,
            (Some(good), None) => Some(good * 2.0).filter(|rate| *rate <= RATE_MAX),
            (Some(good), Some(failed)) => {
                Some((good + failed) / 2.0).filter(|_| (failed - good) / good > PRECISION)
            }
        }
    }

    pub fn describe(&self) -> String {
        let failed = self.failed.as_ref().map(|step| (step.rate, step.why.as_deref().unwrap_or_default()));
        match (&self.best, failed) {
            (None, Some((rate, why))) => {
                format!("not even {rate:.0} requests/s: {why}; try a lower --rate to begin with")
            }
            (None, None) => "nothing was tried".into(),
            (Some(best), failed) => {
                let why = failed
                    .map_or("more was not tried".into(), |(rate, why)| format!("with {rate:.0}, {why}"));
                let p99_ms = best.p99_ms.unwrap_or_default();
                format!("{:.0} requests/s, with a p99 of {p99_ms:.2} ms; {why}", best.rate)
            }
        }
    }
}

/// Searches from the plan's rate up; each try asks for other things.
///
/// # Errors
/// As [`drive`].
pub fn search(plan: &Plan, mix: &Mix, p99_max_s: f64, mut tell: impl FnMut(&Step)) -> Result<Limit> {
    let mut seed = plan.seed;
    search_by(plan.rate, p99_max_s * 1e3, |rate| {
        let plan = Plan { rate, seed, ..plan.clone() };
        seed += 1;
        let step = Step::of(&plan, &drive(&plan, mix)?, p99_max_s);
        tell(&step);
        Ok(step)
    })
}

fn search_by(first: f64, p99_max_ms: f64, mut try_rate: impl FnMut(f64) -> Result<Step>) -> Result<Limit> {
    let mut found = Limit { p99_max_ms, best: None, failed: None, steps: Vec::new() };
    while let Some(rate) = found.next(first) {
        let mut step = try_rate(rate)?;
        found.steps.push(step.clone());
        if step.why.is_some() {
            // One bad moment of the machine is none of the rate's.
            step = try_rate(rate)?;
            found.steps.push(step.clone());
        }
        match step.why {
            None => found.best = Some(step),
            Some(_) => found.failed = Some(step),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(rate: f64, is_too_high: bool) -> Step {
        let why = is_too_high.then(|| "too high".to_string());
        Step { rate, p50_ms: None, p99_ms: Some(1.0), answered: 0, errors: 0, why }
    }

    #[test]
    fn a_limit_is_closed_in_on() {
        let found = search_by(1_000.0, 10.0, |rate| Ok(step(rate, rate > 23_456.0))).unwrap();
        let rate = found.best.as_ref().unwrap().rate;
        let failed = found.failed.as_ref().unwrap().rate;
        assert!(rate <= 23_456.0 && rate > 23_000.0 && failed > 23_456.0, "{}", found.describe());
        let failed = found.steps.iter().filter(|step| step.why.is_some()).count();
        assert_eq!(found.steps.len() - failed / 2, 6 + 6);
        let mut tries = 0;
        let found = search_by(1_000.0, 10.0, |rate| {
            tries += 1;
            Ok(step(rate, rate > 23_456.0 || tries == 3))
        });
        assert!(found.unwrap().best.unwrap().rate > 23_000.0, "a bad moment is not the limit");
        let all = search_by(1_000.0, 10.0, |rate| Ok(step(rate, false))).unwrap();
        assert!(all.failed.is_none() && all.best.unwrap().rate * 2.0 > RATE_MAX);
        let none = search_by(1_000.0, 10.0, |rate| Ok(step(rate, true))).unwrap();
        assert!(none.best.is_none() && none.describe().starts_with("not even 1000 requests/s: too high"));
    }

    #[test]
    fn errors_a_backlog_and_being_late_are_told_apart() {
        let plan = Plan {
            address: String::new(),
            rate: 100.0,
            warm_up: Duration::ZERO,
            time: Duration::from_secs(5),
            connections: 1,
            threads: 1,
            seed: 1,
        };
        let outcome = |in_time: u64, late: u64, latency_us: u64, errors: u64| {
            let mut outcome = Outcome::new(&plan);
            (0..in_time).for_each(|_| outcome.add_success(0, 0, latency_us, true));
            (0..late).for_each(|_| outcome.add_success(0, 4, latency_us, false));
            (0..errors).for_each(|_| outcome.add_error(0, 0, || "GET /: 429 Too Many Requests".into()));
            outcome
        };
        let why = |outcome: &Outcome, p99_max_s| why_not(&plan, outcome, p99_max_s).unwrap_or_default();
        assert_eq!(why(&outcome(500, 0, 900, 0), 0.01), "");
        // 20 answers of 200 ms come after the end of five seconds: that is no backlog.
        assert_eq!(why(&outcome(480, 20, 200_000, 0), 0.25), "");
        assert!(why(&outcome(480, 20, 200_000, 0), 0.01).contains("480 of 500 were answered in time"));
        assert!(why(&outcome(500, 0, 20_000, 0), 0.01).contains("p99 is not below 10 ms"));
        let refused = why(&outcome(490, 0, 900, 10), 0.01);
        assert!(refused.contains("10 errors") && refused.contains("--no-writes"), "{refused}");
        let mut full = outcome(100, 0, 900, 0);
        full.driver_busy = Some(0.99);
        assert!(why(&full, 0.01).contains("the server may take more"));
    }
}
