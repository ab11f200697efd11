//! How an overview looks in a terminal.
//! Runs in: offline.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, Paragraph, Row, Table, Wrap};
use ratatui::Frame;

use catwalk::metrics::histogram::{bound_s, BOUNDS};

use super::Screen;
use crate::rates::{Rates, RouteRate};

const COLOURS: [Color; 4] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta];
/// Parts of a plot that its legend may take.
const LEGEND_MAX: (Constraint, Constraint) = (Constraint::Ratio(3, 4), Constraint::Ratio(3, 4));
/// Looks by which routes are chosen for the plots.
const LATE: usize = 15;

pub fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let rows = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(12),
        Constraint::Min(9),
        Constraint::Length(9),
        Constraint::Length(1),
    ]);
    let [head, plots, tables, processes, foot] = rows.areas(frame.area());
    frame.render_widget(summary(screen), head);
    let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(plots);
    let busiest = busiest(screen);
    draw_plot(frame, left, screen, "requests/s", number, |rates| {
        by_route(&busiest, rates, |route| Some(route.per_s))
    });
    draw_plot(frame, middle, screen, "p99", time, |rates| by_route(&busiest, rates, |route| route.p99_s));
    draw_plot(frame, right, screen, "hits, CPU", percent, |rates| {
        vec![("hits", rates.hit_ratio), ("CPU", rates.cpu)]
    });
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(tables);
    frame.render_widget(routes(screen), left);
    frame.render_widget(statements(screen), right);
    let parts = [Constraint::Fill(4), Constraint::Fill(2), Constraint::Fill(2)];
    let [left, middle, right] = Layout::horizontal(parts).areas(processes);
    frame.render_widget(workers(screen), left);
    frame.render_widget(hottest(screen), middle);
    frame.render_widget(nodes(screen), right);
    let paused = if screen.is_paused { " PAUSED " } else { "" };
    let text =
        Line::from(vec![" q".bold(), " quit  ".into(), "p".bold(), " pause  ".into(), paused.reversed()]);
    frame.render_widget(text, foot);
}

/// The routes that were asked for most of late, by name: as many as there are colours.
fn busiest(screen: &Screen) -> Vec<&'static str> {
    let mut sums: Vec<(&'static str, f64)> = Vec::new();
    for route in screen.history.iter().rev().take(LATE).flat_map(|rates| &rates.routes) {
        match sums.iter_mut().find(|(name, _)| *name == route.name) {
            Some((_, sum)) => *sum += route.per_s,
            None => sums.push((route.name, route.per_s)),
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut names: Vec<&str> = sums.into_iter().take(COLOURS.len()).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

type Point = Vec<(&'static str, Option<f64>)>;

fn by_route(names: &[&'static str], rates: &Rates, value: impl Fn(&RouteRate) -> Option<f64>) -> Point {
    let of = |name: &&'static str| rates.routes.iter().find(|route| route.name == *name).and_then(&value);
    names.iter().map(|name| (*name, of(name))).collect()
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        f64::INFINITY => "over 8 s".into(),
        s => format!("{s:.2} s"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("–".into(), show)
}

/// How it is: what is wrong, if something is; what it does; what it does it with.
fn summary(screen: &Screen) -> Paragraph<'static> {
    let (now, rates) = (&screen.now, screen.history.back());
    let of = |value: fn(&Rates) -> Option<f64>, show: fn(f64) -> String| or_dash(rates.and_then(value), show);
    let count = |name: &str| now.counts.get(name).copied().unwrap_or(0);
    let problems: Vec<&str> = screen.trouble.iter().chain(&now.problems).map(String::as_str).collect();
    let first = vec![
        Span::from(format!(" {} {}  ", now.host, now.version)).bold(),
        format!("{}/{} workers  ", now.workers.serving, now.workers.wanted).into(),
        match problems.is_empty() {
            true => Span::from("all is well").green(),
            false => Span::from(problems.join("; ")).red().bold(),
        },
    ];
    let second = vec![
        Span::from(format!(" {} requests/s", of(|r| Some(r.requests_per_s), number))).bold(),
        format!("  p50 {}  p99 {}", of(|r| r.p50_s, time), of(|r| r.p99_s, time)).into(),
        format!("  hits {}", of(|r| r.hit_ratio, percent)).into(),
        bad_rate(rates.map(|r| r.untrusted_per_s), "not trusted"),
        match rates.map_or(0.0, |r| r.errors_per_s) {
            0.0 => Span::from("  no errors"),
            errors => Span::from(format!("  {} errors/s", number(errors))).red().bold(),
        },
        format!("  CPU {}", of(|r| r.cpu, percent)).into(),
        burst(screen).into(),
        format!("  stolen {}", of(|r| r.stolen, percent)).into(),
    ];
    let fill = 1.0 - now.cache.segments_free as f64 / now.cache.segments.max(1) as f64;
    let third = format!(
        " freshness {}, {}  cache {} of {} MiB, {} evicted/s  connections {}, database {}/{}",
        or_dash(now.feed.watermark_age_ms, |ms| format!("{ms:.0} ms")),
        now.feed.state,
        percent(fill),
        now.cache.size_bytes >> 20,
        of(|r| Some(r.evicted_per_s), number),
        count("catwalk_http_connections_open"),
        count("catwalk_db_connections_open"),
        count("catwalk_db_connections_wanted"),
    );
    Paragraph::new(vec![Line::from(first), Line::from(second), Line::from(third)]).wrap(Wrap { trim: false })
}

/// Nothing, where there is none of it.
fn bad_rate(per_s: Option<f64>, what: &str) -> Span<'static> {
    match per_s.unwrap_or_default() {
        0.0 => Span::from(""),
        per_s => Span::from(format!("  {} {what}/s", number(per_s))).red().bold(),
    }
}

/// How much of what a burstable machine may use for ever is used.
fn burst(screen: &Screen) -> String {
    let machine = &screen.now.machine;
    let cpu = screen.history.back().and_then(|rates| rates.cpu);
    let Some((baseline, cpu)) = machine.baseline.zip(cpu) else { return String::new() };
    format!(" ({} of {}'s baseline)", percent(cpu / baseline), machine.instance.as_deref().unwrap_or("its"))
}

/// Lines over the time that is kept, the newest at the right.
fn draw_plot(
    frame: &mut Frame<'_>,
    area: Rect,
    screen: &Screen,
    title: &str,
    show: fn(f64) -> String,
    read: impl Fn(&Rates) -> Point,
) {
    let span = super::KEPT as f64;
    let first = span - screen.history.len() as f64;
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for (n, rates) in screen.history.iter().enumerate() {
        for (at, (name, value)) in read(rates).into_iter().enumerate() {
            if lines.len() <= at {
                lines.push((name, Vec::new()));
            }
            // What lies beyond all bounds is drawn at the last one.
            let value = value.map(|value| value.min(bound_s(BOUNDS - 1)));
            lines[at].1.extend(value.map(|value| (first + n as f64, value)));
        }
    }
    let most = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(1e-9, f64::max) * 1.1;
    let sets = lines.iter().zip(COLOURS.iter().cycle()).map(|((name, points), colour)| {
        let style = Style::default().fg(*colour);
        Dataset::default()
            .name(*name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(style)
            .data(points)
    });
    let minutes = screen.every.as_secs_f64() * span / 60.0;
    let x = Axis::default().bounds([0.0, span]).labels([format!("{minutes:.0} min ago"), "now".into()]);
    let y = Axis::default().bounds([0.0, most]).labels(["0".into(), show(most / 2.0), show(most)]);
    let chart = Chart::new(sets.collect()).block(titled(title)).x_axis(x).y_axis(y);
    frame.render_widget(
        chart.hidden_legend_constraints(LEGEND_MAX).legend_position(Some(LegendPosition::TopLeft)),
        area,
    );
}

fn titled(title: &str) -> Block<'static> {
    Block::bordered().title(format!(" {title} ")).border_style(Style::default().fg(Color::DarkGray))
}

fn table(title: &str, heads: &[&'static str], widths: &[u16], rows: Vec<Vec<String>>) -> Table<'static> {
    let widths: Vec<Constraint> =
        [Constraint::Fill(1)].into_iter().chain(widths.iter().map(|w| Constraint::Length(*w))).collect();
    let head = Row::new(heads.to_vec()).style(Style::default().fg(Color::Gray).bold());
    Table::new(rows.into_iter().map(Row::new), widths).header(head).block(titled(title))
}

fn routes(screen: &Screen) -> Table<'static> {
    let all = screen.history.back().map_or(&[][..], |rates| &rates.routes);
    let row = |route: &crate::rates::RouteRate| {
        vec![
            route.name.to_string(),
            number(route.per_s),
            or_dash(route.p50_s, time),
            or_dash(route.p99_s, time),
        ]
    };
    table("routes", &["route", "requests/s", "p50", "p99"], &[10, 9, 9], all.iter().map(row).collect())
}

fn statements(screen: &Screen) -> Table<'static> {
    let all = screen.history.back().map_or(&[][..], |rates| &rates.statements);
    let row = |runs: &crate::rates::StatementRate| {
        vec![
            runs.name.to_string(),
            number(runs.per_s),
            time(runs.mean_s),
            time(runs.longest_s),
            format!("{:.2}", runs.busy),
        ]
    };
    let rows = all.iter().map(row).collect();
    table(
        "statements (catwalk explain NAME)",
        &["name", "runs/s", "mean", "longest", "busy"],
        &[7, 8, 8, 5],
        rows,
    )
}

fn workers(screen: &Screen) -> Table<'static> {
    let row = |process: &catwalk::overview::Process| {
        let beat = format!("{} ms", process.beat_age_ms);
        vec![
            if process.phase == "following" {
                "change feed".into()
            } else {
                format!("process {}", process.slot)
            },
            process.pid.to_string(),
            process.phase.clone(),
            format!("{} s", process.age_s),
            beat,
            process.deaths.to_string(),
        ]
    };
    let rows = screen.now.workers.processes.iter().map(row).collect();
    table("processes", &["process", "pid", "phase", "age", "beat", "deaths"], &[8, 10, 8, 8, 6], rows)
}

fn hottest(screen: &Screen) -> Table<'static> {
    let rows = screen.now.hottest.iter().map(|hot| vec![hot.key.clone(), percent(hot.share)]).collect();
    table("hit most", &["key", "of sampled"], &[10], rows)
}

fn nodes(screen: &Screen) -> Table<'static> {
    let lag = |ms: Option<u64>| ms.map_or("–".into(), |ms| format!("{ms} ms"));
    let rows = screen.now.nodes.iter().map(|node| vec![node.state.clone(), lag(node.lag_ms)]).collect();
    table("database nodes", &["state", "lag"], &[8], rows)
}
