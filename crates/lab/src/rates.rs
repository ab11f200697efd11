//! What happened between two overviews of a server.
//! Runs in: offline.

use std::collections::HashMap;

use catwalk::overview::{Overview, Route};

/// Of one route; times in seconds, None where nothing was answered.
#[derive(Debug, Clone)]
pub struct RouteRate {
    pub name: &'static str,
    pub per_s: f64,
    pub p50_s: Option<f64>,
    pub p99_s: Option<f64>,
}

/// Of one statement.
#[derive(Debug, Clone)]
pub struct StatementRate {
    pub name: &'static str,
    pub per_s: f64,
    /// Of those that were run in between, else of all.
    pub mean_s: f64,
    pub longest_s: f64,
    /// Connections that it kept busy.
    pub busy: f64,
}

#[derive(Debug, Clone)]
pub struct Rates {
    pub seconds: f64,
    pub requests_per_s: f64,
    pub errors_per_s: f64,
    pub misses_per_s: f64,
    /// Lookups that went to the database because the change feed was behind.
    pub untrusted_per_s: f64,
    pub evicted_per_s: f64,
    /// Of lookups; None: there were none.
    pub hit_ratio: Option<f64>,
    pub p50_s: Option<f64>,
    pub p99_s: Option<f64>,
    /// The busiest first.
    pub routes: Vec<RouteRate>,
    /// The one that keeps most connections busy first.
    pub statements: Vec<StatementRate>,
    /// Shares of all CPUs' time.
    pub cpu: Option<f64>,
    pub stolen: Option<f64>,
}

impl Rates {
    /// None: the server was started anew in between, or too long ago for one rate to say what happened.
    pub fn between(before: &Overview, now: &Overview, longest_s: f64) -> Option<Rates> {
        let seconds = now.taken_ms.saturating_sub(before.taken_ms) as f64 / 1e3;
        let count = |overview: &Overview, name: &str| overview.counts.get(name).copied().unwrap_or(0);
        let requests = "catwalk_http_requests_total";
        if seconds <= 0.0 || seconds > longest_s || count(now, requests) < count(before, requests) {
            return None;
        }
        let rate = |name: &str| count(now, name).saturating_sub(count(before, name)) as f64 / seconds;
        let known: HashMap<&str, &[u64]> =
            before.routes.iter().map(|route| (route.name, &route.buckets[..])).collect();
        let since = |route: &Route| less(&route.buckets, known.get(route.name).copied().unwrap_or_default());
        let buckets: Vec<Vec<u64>> = now.routes.iter().map(since).collect();
        let all = buckets.iter().fold(Vec::new(), |sum, buckets| plus(&sum, buckets));
        let at = |buckets: &[u64], part| quantile(buckets, &now.bounds_s, part);
        let mut routes: Vec<RouteRate> = now
            .routes
            .iter()
            .zip(&buckets)
            .map(|(route, buckets)| RouteRate {
                name: route.name,
                per_s: buckets.iter().sum::<u64>() as f64 / seconds,
                p50_s: at(buckets, 0.5),
                p99_s: at(buckets, 0.99),
            })
            .filter(|route| route.per_s > 0.0)
            .collect();
        routes.sort_by(|a, b| b.per_s.total_cmp(&a.per_s));
        let (hits, misses) = (rate("catwalk_cache_hits_total"), rate("catwalk_cache_misses_total"));
        let untrusted = rate("catwalk_cache_untrusted_total");
        let lookups = hits + misses + untrusted;
        let ticks = now
            .machine
            .ticks
            .zip(before.machine.ticks)
            .map(|(now, before)| now.since(before))
            .filter(|t| t.all > 0);
        Some(Rates {
            seconds,
            requests_per_s: rate(requests),
            errors_per_s: rate("catwalk_http_responses_total{class=\"5xx\"}"),
            misses_per_s: misses,
            evicted_per_s: rate("catwalk_cache_evicted_total"),
            untrusted_per_s: untrusted,
            hit_ratio: (lookups > 0.0).then(|| hits / lookups),
            p50_s: at(&all, 0.5),
            p99_s: at(&all, 0.99),
            routes,
            statements: statements(before, now, seconds),
            cpu: ticks.map(|t| 1.0 - t.idle as f64 / t.all as f64),
            stolen: ticks.map(|t| t.stolen as f64 / t.all as f64),
        })
    }
}

fn statements(before: &Overview, now: &Overview, seconds: f64) -> Vec<StatementRate> {
    let known: HashMap<&str, (u64, u64)> =
        before.statements.iter().map(|runs| (runs.name, (runs.count, runs.sum_ns))).collect();
    let mut all: Vec<StatementRate> = now
        .statements
        .iter()
        .map(|runs| {
            let (count, ns) = known.get(runs.name).copied().unwrap_or_default();
            let (count, ns) = (runs.count.saturating_sub(count), runs.sum_ns.saturating_sub(ns));
            let mean_ns =
                if count > 0 { ns as f64 / count as f64 } else { runs.sum_ns as f64 / runs.count as f64 };
            StatementRate {
                name: runs.name,
                per_s: count as f64 / seconds,
                mean_s: mean_ns / 1e9,
                longest_s: runs.longest_ns as f64 / 1e9,
                busy: ns as f64 / 1e9 / seconds,
            }
        })
        .collect();
    all.sort_by(|a, b| b.busy.total_cmp(&a.busy).then(b.longest_s.total_cmp(&a.longest_s)));
    all
}

fn less(now: &[u64], before: &[u64]) -> Vec<u64> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
}

fn plus(one: &[u64], other: &[u64]) -> Vec<u64> {
    let at = |all: &[u64], n: usize| all.get(n).copied().unwrap_or(0);
    (0..one.len().max(other.len())).map(|n| at(one, n) + at(other, n)).collect()
}

/// The time within which `part` of the answers were made, by its place between the bounds of its bucket; infinity beyond all
/// bounds. None: there are none.
pub fn quantile(buckets: &[u64], bounds_s: &[f64], part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let wanted = part * all as f64;
    let mut below = 0.0;
    for (n, count) in buckets.iter().map(|count| *count as f64).enumerate() {
        if count > 0.0 && below + count >= wanted {
            let Some(upper) = bounds_s.get(n) else { return Some(f64::INFINITY) };
            let lower = if n > 0 { bounds_s[n - 1] } else { 0.0 };
            return Some(lower + (upper - lower) * (wanted - below) / count);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let bounds = [1.0, 2.0, 4.0];
        assert_eq!(quantile(&[0, 0, 0, 0], &bounds, 0.5), None);
        assert_eq!(quantile(&[10, 0, 0, 0], &bounds, 0.5), Some(0.5));
        assert_eq!(quantile(&[50, 40, 10, 0], &bounds, 0.95), Some(3.0));
        assert_eq!(quantile(&[0, 0, 0, 5], &bounds, 0.5), Some(f64::INFINITY), "beyond all bounds");
    }
}
