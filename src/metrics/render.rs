//! The page as Prometheus text (exposition format 0.0.4).
//! Runs in: worker.

use std::fmt::Write;

use crate::metrics::histogram::{bound_s, BOUNDS, SUM};
use crate::metrics::names::{
    Counter, Gauge, Level, Metric, RouteGroup, COUNTERS, DURATION, GAUGES, LEVELS, ROUTES, STATEMENT_SECONDS,
};
use crate::metrics::{MetricsPage, Runs};

/// Everything of the page, summed over slots, and `gauges`.
pub fn render(page: &MetricsPage, gauges: &[(Gauge, f64)]) -> String {
    let mut out = String::with_capacity(32 * 1024);
    let mut last = "";
    for (metric, counter) in COUNTERS.iter().zip(Counter::ALL) {
        if metric.name != last {
            head(&mut out, metric, "counter");
            last = metric.name;
        }
        let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels) };
        let _ = writeln!(out, "{}{labels} {}", metric.name, page.total(*counter));
    }
    write_durations(&mut out, page);
    write_statements(&mut out, page);
    for (metric, level) in LEVELS.iter().zip(Level::ALL) {
        head(&mut out, metric, "gauge");
        let _ = writeln!(out, "{} {}", metric.name, page.level(*level));
    }
    for (gauge, value) in gauges {
        let metric = &GAUGES[*gauge as usize];
        head(&mut out, metric, "gauge");
        let _ = writeln!(out, "{} {value}", metric.name);
    }
    out
}

fn write_durations(out: &mut String, page: &MetricsPage) {
    head(out, &DURATION, "histogram");
    for (route, group) in ROUTES.iter().zip(RouteGroup::ALL) {
        let (words, mut below) = (page.durations(*group), 0);
        let (name, route) = (DURATION.name, route.name);
        for (bucket, count) in words[..BOUNDS].iter().enumerate() {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{}\"}} {below}", bound_s(bucket));
        }
        // Read one by one while they are counted up: the whole is what its parts are.
        let all = below + words[BOUNDS];
        let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {all}");
        let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {}", words[SUM] as f64 / 1e9);
        let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {all}");
    }
}

fn write_statements(out: &mut String, page: &MetricsPage) {
    head(out, &STATEMENT_SECONDS, "summary");
    let name = STATEMENT_SECONDS.name;
    for Runs { name: statement, count, sum_ns, .. } in page.statements() {
        let _ = writeln!(out, "{name}_sum{{statement=\"{statement}\"}} {}", sum_ns as f64 / 1e9);
        let _ = writeln!(out, "{name}_count{{statement=\"{statement}\"}} {count}");
    }
}

fn head(out: &mut String, metric: &Metric, kind: &str) {
    let Metric { name, help, .. } = metric;
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hit_in_a_life_ends_with_it() {
        let page = MetricsPage::create(2).unwrap();
        page.slot(0).sample(0, || [1, 2]);
        page.slot(1).sample(0, || [3, 4]);
        assert_eq!(page.samples().len(), 2);
        page.slot(0).end_life();
        assert_eq!(page.samples(), [[3, 4]]);
    }

    #[test]
    fn counters_of_all_slots_add_up() {
        let page = MetricsPage::create(4).unwrap();
        page.slot(0).count(Counter::CacheHits);
        page.slot(3).add(Counter::CacheHits, 2);
        page.slot(1).time(RouteGroup::Product, 5_000);
        page.slot(2).time(RouteGroup::Product, 2_000_000_000_000);
        page.slot(2).set_level(Level::HttpConnections, 7);
        let fetch = crate::statements::find("products_fetch").unwrap();
        page.slot(0).time_statement(fetch, 2_000_000);
        page.slot(3).time_statement(fetch, 500_000);
        let text = render(&page, &[(Gauge::WorkersServing, 1.0)]);
        let product = "catwalk_http_request_duration_seconds";
        assert!(
            text.contains(&format!("{product}_bucket{{route=\"product\",le=\"0.000004\"}} 0\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("{product}_bucket{{route=\"product\",le=\"0.000008\"}} 1\n")),
            "{text}"
        );
        assert!(text.contains(&format!("{product}_bucket{{route=\"product\",le=\"+Inf\"}} 2\n")), "{text}");
        assert!(text.contains(&format!("{product}_sum{{route=\"product\"}} 2000.000005\n")), "{text}");
        assert!(
            text.contains("catwalk_db_statement_seconds_sum{statement=\"products_fetch\"} 0.0025\n"),
            "{text}"
        );
        let runs = [Runs { name: "products_fetch", count: 2, sum_ns: 2_500_000, longest_ns: 2_000_000 }];
        assert_eq!(page.statements(), runs);
        assert!(text.contains("\ncatwalk_http_connections_open 7\n"), "{text}");
        assert!(text.contains("\ncatwalk_cache_hits_total 3\n"), "{text}");
        assert!(text.contains("catwalk_http_responses_total{class=\"4xx\"} 0\n"), "{text}");
        assert!(text.contains("# TYPE catwalk_workers_serving gauge\ncatwalk_workers_serving 1\n"), "{text}");
        assert_eq!(text.matches("# TYPE catwalk_http_responses_total").count(), 1);
    }
}
