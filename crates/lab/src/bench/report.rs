//! What was measured: as a table, as JSON, and as a page with plots that takes nothing from elsewhere.
//! Runs in: offline.

use std::fmt::Write;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use plotters::prelude::*;
use serde::Serialize;

use super::drive::{Outcome, Plan};
use super::mix::KINDS;

/// Parts of the answers whose latency is told.
const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")];
const PLOT_SIZE: (u32, u32) = (900, 340);

/// All figures of one kind of request, or of all.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: &'static str,
    pub answered: u64,
    pub per_s: f64,
    pub errors: u64,
    /// From when each was due; in the order p50, p90, p99, p99.9, longest.
    pub latency_ms: [f64; 5],
}

fn of(kind: &'static str, latency: &Histogram<u64>, unanswered: u64, errors: u64, plan: &Plan) -> Figures {
    let answered = latency.len() - unanswered;
    let latency_ms = QUANTILES.map(|(part, _)| latency.value_at_quantile(part) as f64 / 1e3);
    Figures { kind, answered, per_s: answered as f64 / plan.time.as_secs_f64(), errors, latency_ms }
}

/// All first, then each kind that was asked for.
pub fn figures(plan: &Plan, outcome: &Outcome) -> Vec<Figures> {
    let kinds = outcome.kinds.iter().zip(KINDS).map(|(kind, (_, name, _))| {
        of(name, &kind.latency, kind.unanswered, kind.errors + kind.unanswered, plan)
    });
    let mut all = vec![of("all", &outcome.all(), outcome.unanswered(), outcome.errors(), plan)];
    all.extend(kinds.filter(|figures| figures.answered + figures.errors > 0));
    all
}

/// A line a kind.
pub fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut out = format!("{:<26}{:>10}{:>8}", "latency from when due, ms", "answers/s", "errors");
    for (_, name) in QUANTILES {
        let _ = write!(out, "{name:>10}");
    }
    for figures in figures(plan, outcome) {
        let _ = write!(out, "\n{:<26}{:>10.0}{:>8}", figures.kind, figures.per_s, figures.errors);
        for ms in figures.latency_ms {
            let _ = write!(out, "{ms:>10.3}");
        }
    }
    out.push('\n');
    if let Some(error) = &outcome.first_error {
        let _ = writeln!(out, "the first error: {error}");
    }
    if outcome.unanswered() > 0 {
        let _ = writeln!(
            out,
            "{} requests that were due got no answer before the end: their latency is their age then",
            outcome.unanswered()
        );
    }
    out
}

/// A page by itself.
///
/// # Errors
/// What can't be drawn.
pub fn html(plan: &Plan, outcome: &Outcome, products: u64) -> Result<String> {
    let seconds = plan.time.as_secs_f64();
    let mut rows = String::new();
    for figures in figures(plan, outcome) {
        let cells: String = figures.latency_ms.iter().map(|ms| format!("<td>{ms:.3}</td>")).collect();
        let _ = write!(
            rows,
            "<tr><th scope=row>{}</th><td>{:.0}</td><td>{}</td>{cells}</tr>",
            figures.kind, figures.per_s, figures.errors
        );
    }
    let heads: String = QUANTILES.iter().map(|(_, name)| format!("<th scope=col>{name}</th>")).collect();
    let error = outcome
        .first_error
        .as_deref()
        .map_or(String::new(), |error| format!("<p class=bad>The first error: {}</p>", escape(error)));
    let (quantiles, times) = (draw_quantiles(outcome)?, draw_seconds(outcome)?);
    Ok(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>catwalk bench</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem;color:#1d2326;background:#fff}}\
         table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}th,td{{text-align:right;padding:.2rem .7rem;border-bottom:1px solid #ccc}}\
         th:first-child{{text-align:left}}.bad{{color:#a3262a}}svg{{max-width:100%;height:auto}}</style>\
         <h1>{:.0} requests/s for {seconds:.0} s</h1><p>{}: {products} products, {} connections. Latency counts from when a request was due, in ms: \
         a server that is late is measured, not waited for.</p>{error}\
         <table><thead><tr><th scope=col>kind</th><th scope=col>answers/s</th><th scope=col>errors</th>{heads}</tr></thead><tbody>{rows}</tbody></table>\
         <h2>How many were answered within</h2>{quantiles}<h2>Second by second</h2>{times}</html>\n",
        plan.rate,
        escape(&plan.address),
        plan.connections,
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Latency by quantile, the last ones apart: nines on the x axis.
fn draw_quantiles(outcome: &Outcome) -> Result<String> {
    let all = outcome.all();
    let nines = |n: f64| 1.0 - 10f64.powf(-n);
    let points: Vec<(f64, f64)> = (0..=80)
        .map(|n| f64::from(n) / 20.0)
        .map(|n| (n, all.value_at_quantile(nines(n)) as f64 / 1e3))
        .collect();
    let label = |n: &f64| {
        format!("{:.4}", nines(*n) * 100.0).trim_end_matches('0').trim_end_matches('.').to_string() + " %"
    };
    draw("ms", 4.0, &label, &[("all", points)])
}

fn draw_seconds(outcome: &Outcome) -> Result<String> {
    let line = |part: f64| {
        let value =
            |(n, second): (usize, &Histogram<u64>)| (n as f64, second.value_at_quantile(part) as f64 / 1e3);
        outcome.seconds.iter().enumerate().map(value).collect::<Vec<_>>()
    };
    let last = (outcome.seconds.len() - 1).max(1) as f64;
    draw("ms", last, &|n: &f64| format!("{n:.0} s"), &[("p99", line(0.99)), ("p50", line(0.5))])
}

fn draw(
    unit: &str,
    last: f64,
    label: &dyn Fn(&f64) -> String,
    lines: &[(&str, Vec<(f64, f64)>)],
) -> Result<String> {
    let most = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(0.001, f64::max) * 1.1;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, PLOT_SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..last, 0.0..most)
            .context("drawing a plot")?;
        let y_label = |y: &f64| format!("{y:.2} {unit}");
        chart
            .configure_mesh()
            .x_label_formatter(&label)
            .y_label_formatter(&y_label)
            .light_line_style(WHITE)
            .draw()
            .context("drawing a plot")?;
        for (n, (name, points)) in lines.iter().enumerate() {
            let colour = Palette99::pick(n).to_rgba();
            let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            let drawn = chart.draw_series(series).context("drawing a plot")?;
            drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()
            .context("drawing a plot")?;
        root.present().context("drawing a plot")?;
    }
    Ok(svg)
}
