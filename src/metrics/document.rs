//! The tables of metrics as a document: docs/metrics.md is made from them.
//! Runs in: offline.

use std::fmt::Write;

use crate::metrics::histogram::{bound_s, BOUNDS};
use crate::metrics::names::{Metric, COUNTERS, DURATION, GAUGES, LEVELS, ROUTES, STATEMENT_SECONDS};

const HEAD: &str = "# Metrics

`GET /metrics` on the listener for administration (`admin.listen`, 127.0.0.1:9180 unless set), as Prometheus text. They live in memory that all
workers share: any of them answers for all, nothing is lost when one dies or is replaced, nothing is counted twice, over reloads and upgrades too. A
restart of the service begins anew.

```yaml
scrape_configs:
  - job_name: catwalk
    static_configs: [{ targets: ['127.0.0.1:9180'] }]
```

`/usr/share/doc/catwalk/examples/grafana.json` (here `docs/grafana.json`) is a dashboard of them. `/healthz` and `/readyz` are on that listener too.

";

/// The document.
pub fn render() -> String {
    let mut out = HEAD.to_string();
    table(&mut out, "Counters\n\nThey only grow: look at rates.", COUNTERS.iter());
    table(&mut out, "Gauges", LEVELS.iter().chain(GAUGES));
    let _ = writeln!(out, "## Statements\n\n`{}_sum` and `_count`, by `statement`, the names of the files in `sql/queries`: {}\n", STATEMENT_SECONDS.name, STATEMENT_SECONDS.help);
    let _ = writeln!(out, "## Times\n\n`{}`: {}\n", DURATION.name, DURATION.help);
    let _ = writeln!(
        out,
        "Buckets are powers of two of a microsecond, from {} to {} s. It is the time from a request's head to its answer; what a client takes to \
         receive it is not in it.\n\n| `route` | |\n|---|---|",
        bound_s(0),
        bound_s(BOUNDS - 1)
    );
    ROUTES.iter().for_each(|route| row(&mut out, route));
    out
}

fn table<'m>(out: &mut String, title: &str, metrics: impl Iterator<Item = &'m Metric>) {
    let _ = writeln!(out, "## {title}\n\n| name | |\n|---|---|");
    metrics.for_each(|metric| row(out, metric));
    out.push('\n');
}

fn row(out: &mut String, metric: &Metric) {
    let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels) };
    let _ = writeln!(out, "| `{}{labels}` | {} |", metric.name, metric.help);
}
