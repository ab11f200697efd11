//! What was measured: as a table, as JSON, and as a page with plots that takes nothing from elsewhere.
//! Runs in: offline.

use std::fmt::Write;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use plotters::prelude::*;
use serde::Serialize;

use super::drive::Plan;
use super::limit::Limit;
use super::mix::KINDS;
use super::outcome::{quantile_s, slice_s, Outcome};

const PLOT_SIZE: (u32, u32) = (900, 340);
/// A driver whose thread is busy for more of the time may be late by itself.
const DRIVER_BUSY_MAX: f64 = 0.9;
/// Waiting for a free connection is worth a word from here on.
const WAITED_MIN_S: f64 = 0.001;

/// Latency from when requests were due, in ms; None: nothing was answered.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p99_9_ms: Option<f64>,
    pub longest_ms: Option<f64>,
}

impl Latency {
    const NAMES: [&'static str; 5] = ["p50", "p90", "p99", "p99.9", "longest"];

    fn of(latency: &Histogram<u64>) -> Latency {
        let part = |part| ms(quantile_s(latency, part));
        Latency {
            p50_ms: part(0.5),
            p90_ms: part(0.9),
            p99_ms: part(0.99),
            p99_9_ms: part(0.999),
            longest_ms: part(1.0),
        }
    }

    /// In the order of the names.
    fn texts(self) -> [String; 5] {
        let all = [self.p50_ms, self.p90_ms, self.p99_ms, self.p99_9_ms, self.longest_ms];
        all.map(|ms| ms.map_or("–".into(), |ms| format!("{ms:.3}")))
    }
}

/// All figures of one kind of request, or of all.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: &'static str,
    /// Successes, also those that came after the time was over.
    pub answered: u64,
    /// Those that came while it lasted.
    pub per_s: f64,
    pub errors: u64,
    /// Requests without an answer in the end; part of the errors.
    pub unanswered: u64,
    #[serde(flatten)]
    pub latency: Latency,
}

/// What was asked of which server, and what came of it.
#[derive(Debug, Serialize)]
pub struct Report<'r> {
    pub version: &'static str,
    pub address: &'r str,
    /// Requests a second that were due.
    pub rate: f64,
    pub seconds: f64,
    pub warm_up_s: f64,
    pub connections: usize,
    pub threads: usize,
    pub seed: u64,
    pub products: u64,
    /// The busiest thread of the driver: the part of the time in which it had, or waited for, a CPU.
    pub driver_busy: Option<f64>,
    pub first_error: Option<&'r str>,
    /// All first, then each that was asked for.
    pub kinds: Vec<Figures>,
    /// Of a search for it.
    pub limit: Option<&'r Limit>,
}

impl<'r> Report<'r> {
    pub fn new(plan: &'r Plan, products: u64) -> Report<'r> {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            address: &plan.address,
            rate: plan.rate,
            seconds: plan.time.as_secs_f64(),
            warm_up_s: plan.warm_up.as_secs_f64(),
            connections: plan.connections,
            threads: plan.threads,
            seed: plan.seed,
            products,
            driver_busy: None,
            first_error: None,
            kinds: Vec::new(),
            limit: None,
        }
    }

    pub fn with(mut self, plan: &Plan, outcome: &'r Outcome) -> Report<'r> {
        self.driver_busy = outcome.driver_busy;
        self.first_error = outcome.first_error.as_deref();
        self.kinds = figures(plan, outcome);
        self
    }
}

pub fn ms(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|s| (s * 1e6).round() / 1e3)
}

pub fn is_driver_full(outcome: &Outcome) -> bool {
    outcome.driver_busy.is_some_and(|busy| busy > DRIVER_BUSY_MAX)
}

/// What to do about a server that limits writes.
pub fn refusal_hint(outcome: &Outcome) -> &'static str {
    match outcome.first_error.as_deref().is_some_and(|error| error.contains("429")) {
        true => " (it limits writes by address: --no-writes, or http.write_rate = 0 where it is measured)",
        false => "",
    }
}

/// All first, then each kind that was asked for.
fn figures(plan: &Plan, outcome: &Outcome) -> Vec<Figures> {
    let per_s = |answered: u64| answered as f64 / plan.time.as_secs_f64();
    let all = Figures {
        kind: "all",
        answered: outcome.all().len() - outcome.unanswered(),
        per_s: per_s(outcome.in_time()),
        errors: outcome.errors(),
        unanswered: outcome.unanswered(),
        latency: Latency::of(&outcome.all()),
    };
    let kinds = outcome.kinds.iter().zip(KINDS).map(|(kind, (_, name, _))| Figures {
        kind: name,
        answered: kind.latency.len() - kind.unanswered,
        per_s: per_s(kind.in_time),
        errors: kind.errors + kind.unanswered,
        unanswered: kind.unanswered,
        latency: Latency::of(&kind.latency),
    });
    let is_asked = |figures: &Figures| figures.errors > 0 || figures.latency.p50_ms.is_some();
    [all].into_iter().chain(kinds.filter(is_asked)).collect()
}

/// A line a kind, then what has to be known to read them.
pub fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut out = format!("{:<26}{:>10}{:>8}", "latency from when due, ms", "answers/s", "errors");
    Latency::NAMES.iter().for_each(|name| out += &format!("{name:>11}"));
    for figures in figures(plan, outcome) {
        let _ = write!(out, "\n{:<26}{:>10.0}{:>8}", figures.kind, figures.per_s, figures.errors);
        figures.latency.texts().iter().for_each(|text| out += &format!("{text:>11}"));
    }
    out.push('\n');
    notes(plan, outcome).iter().for_each(|note| out += &format!("{note}\n"));
    out
}

/// What the figures alone do not say.
fn notes(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(error) = &outcome.first_error {
        notes.push(format!("The first error: {error}{}", refusal_hint(outcome)));
    }
    if outcome.unanswered() > 0 {
        notes.push(format!(
            "{} requests that were due got no answer before the end: their latency is their age then.",
            outcome.unanswered()
        ));
    }
    let waited_s = quantile_s(&outcome.waited, 0.99).unwrap_or_default();
    if waited_s > WAITED_MIN_S {
        notes.push(format!(
            "A hundredth of them waited over {:.1} ms for one of the {} connections to be free: either the server is behind, or --connections are too few.",
            waited_s * 1e3,
            plan.connections
        ));
    }
    if is_driver_full(outcome) {
        notes.push(
            "The driver was busy all the time: what looks late may be the driver. More --threads, on more CPUs than the server needs, or a lower --rate."
                .into(),
        );
    }
    notes
}

/// A page by itself.
///
/// # Errors
/// What can't be drawn.
pub fn html(plan: &Plan, outcome: &Outcome, products: u64) -> Result<String> {
    let seconds = plan.time.as_secs_f64();
    let mut rows = String::new();
    for figures in figures(plan, outcome) {
        let cells: String = figures.latency.texts().iter().map(|text| format!("<td>{text}</td>")).collect();
        let _ = write!(
            rows,
            "<tr><th scope=row>{}</th><td>{:.0}</td><td>{}</td>{cells}</tr>",
            figures.kind, figures.per_s, figures.errors
        );
    }
    let heads: String = Latency::NAMES.iter().map(|name| format!("<th scope=col>{name}</th>")).collect();
    let notes: String =
        notes(plan, outcome).iter().map(|note| format!("<p class=bad>{}</p>", escape(note))).collect();
    let table = format!(
        "<h1>{:.0} of {:.0} requests/s answered, for {seconds:.0} s</h1><p>{}: {products} products, {} connections. Latency counts from when a request was \
         due, in ms: a server that is late is measured, not waited for.</p>{notes}\
         <table><thead><tr><th scope=col>kind</th><th scope=col>answers/s</th><th scope=col>errors</th>{heads}</tr></thead><tbody>{rows}</tbody></table>",
        outcome.in_time() as f64 / seconds,
        plan.rate,
        escape(&plan.address),
        plan.connections,
    );
    let mut plots = format!(
        "<h2>How many were answered within</h2>{}<h2>By the time at which they were due</h2>{}",
        draw_quantiles(outcome)?,
        draw_slices(plan, outcome)?
    );
    if outcome.errors() > 0 {
        let _ = write!(
            plots,
            "<h2>Errors by the time at which they were due</h2>{}",
            draw_errors(plan, outcome)?
        );
    }
    Ok(page(&(table + &plots)))
}

/// A page by itself, of a search for the limit.
///
/// # Errors
/// What can't be drawn.
pub fn limit_html(plan: &Plan, limit: &Limit, products: u64) -> Result<String> {
    let shown = |ms: Option<f64>| ms.map_or("–".into(), |ms| format!("{ms:.3}"));
    let mut rows = String::new();
    for step in &limit.steps {
        let _ = write!(
            rows,
            "<tr><th scope=row>{:.0}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            step.rate,
            shown(step.p50_ms),
            shown(step.p99_ms),
            escape(step.why.as_deref().unwrap_or("went"))
        );
    }
    let mut points: Vec<(f64, f64)> =
        limit.steps.iter().filter_map(|step| Some((step.rate, step.p99_ms?))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let last = points.last().map_or(1.0, |(rate, _)| *rate);
    let plot = draw("ms", last, &|rate: &f64| format!("{rate:.0}/s"), &[("p99", points)])?;
    Ok(page(&format!(
        "<h1>{}</h1><p>{}: {products} products, {} connections.</p>\
         <table><thead><tr><th scope=col>requests/s</th><th scope=col>p50, ms</th><th scope=col>p99, ms</th><th scope=col></th></tr></thead>\
         <tbody>{rows}</tbody></table><h2>p99 by rate</h2>{plot}",
        escape(&limit.describe()),
        escape(&plan.address),
        plan.connections,
    )))
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>catwalk bench</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem;color:#1d2326;background:#fff}}\
         table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}th,td{{text-align:right;padding:.2rem .7rem;border-bottom:1px solid #ccc}}\
         th:first-child{{text-align:left}}.bad{{color:#a3262a}}svg{{max-width:100%;height:auto}}</style>{body}</html>\n"
    )
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

/// Of parts of the time in which nothing was answered there is no point.
fn draw_slices(plan: &Plan, outcome: &Outcome) -> Result<String> {
    let line = |part: f64| {
        let slices = outcome.slices.iter().enumerate();
        let point = slices
            .filter_map(|(n, slice)| Some((n as f64 * slice_s(plan), ms(quantile_s(&slice.latency, part))?)));
        point.collect::<Vec<_>>()
    };
    draw("ms", last_s(plan, outcome), &in_seconds, &[("p99", line(0.99)), ("p50", line(0.5))])
}

fn draw_errors(plan: &Plan, outcome: &Outcome) -> Result<String> {
    let slices = outcome.slices.iter().enumerate();
    let points = slices.map(|(n, slice)| (n as f64 * slice_s(plan), slice.errors as f64 / slice_s(plan)));
    draw("/s", last_s(plan, outcome), &in_seconds, &[("errors", points.collect())])
}

fn last_s(plan: &Plan, outcome: &Outcome) -> f64 {
    (outcome.slices.len() as f64 - 1.0).max(1.0) * slice_s(plan)
}

fn in_seconds(s: &f64) -> String {
    format!("{s:.0} s")
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
