//! The page as Prometheus text (exposition format 0.0.4).
//! Runs in: worker.

use std::fmt::Write;

use crate::metrics::names::METRICS;
use crate::metrics::{Counter, MetricsPage};

/// A value that is not a counter of the page.
pub struct Gauge {
    pub name: &'static str,
    pub help: &'static str,
    pub value: f64,
}

/// All counters, summed over slots, and `gauges`.
pub fn render(page: &MetricsPage, gauges: &[Gauge]) -> String {
    let mut out = String::with_capacity(4096);
    let mut last = "";
    for (index, metric) in METRICS.iter().enumerate() {
        if metric.name != last {
            head(&mut out, metric.name, metric.help, "counter");
            last = metric.name;
        }
        let value = page.total(counter_at(index));
        let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels) };
        let _ = writeln!(out, "{}{labels} {value}", metric.name);
    }
    for gauge in gauges {
        head(&mut out, gauge.name, gauge.help, "gauge");
        let _ = writeln!(out, "{} {}", gauge.name, gauge.value);
    }
    out
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counter_at(index: usize) -> Counter {
    assert!(index < METRICS.len());
    // SAFETY: `Counter` is `repr(usize)` with the variants 0..METRICS.len(), made by the same macro.
    unsafe { std::mem::transmute::<usize, Counter>(index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_slots_add_up() {
        let page = MetricsPage::create(4).unwrap();
        page.slot(0).count(Counter::CacheHits);
        page.slot(3).add(Counter::CacheHits, 2);
        let text = render(&page, &[Gauge { name: "catwalk_up", help: "Up.", value: 1.0 }]);
        assert!(text.contains("\ncatwalk_cache_hits_total 3\n"), "{text}");
        assert!(text.contains("catwalk_http_responses_total{class=\"4xx\"} 0\n"), "{text}");
        assert!(text.contains("# TYPE catwalk_up gauge\ncatwalk_up 1\n"), "{text}");
        assert_eq!(text.matches("# TYPE catwalk_http_responses_total").count(), 1);
    }
}
