//! How an overview looks in a terminal.
//! Runs in: offline.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use ratatui::Frame;

use super::Screen;
use crate::rates::Rates;

const COLOURS: [Color; 4] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta];

pub fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let rows = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(12),
        Constraint::Min(9),
        Constraint::Length(9),
        Constraint::Length(1),
    ]);
    let [head, plots, tables, processes, foot] = rows.areas(frame.area());
    frame.render_widget(summary(screen), head);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(plots);
    draw_plot(frame, left, screen, "requests/s", number, |rates| {
        [("", Some(rates.requests_per_s)), ("misses", Some(rates.misses_per_s))]
    });
    draw_plot(frame, right, screen, "time to answer", time, |rates| {
        [("p99", rates.p99_s), ("p50", rates.p50_s)]
    });
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(tables);
    frame.render_widget(routes(screen), left);
    frame.render_widget(statements(screen), right);
    let thirds = [Constraint::Fill(3), Constraint::Fill(2), Constraint::Fill(2)];
    let [left, middle, right] = Layout::horizontal(thirds).areas(processes);
    frame.render_widget(workers(screen), left);
    frame.render_widget(hottest(screen), middle);
    frame.render_widget(nodes(screen), right);
    let paused = if screen.is_paused { " PAUSED " } else { "" };
    let text =
        Line::from(vec![" q".bold(), " quit  ".into(), "p".bold(), " pause  ".into(), paused.reversed()]);
    frame.render_widget(text, foot);
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
        s => format!("{s:.2} s"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("–".into(), show)
}

/// Two lines that say how it is.
fn summary(screen: &Screen) -> Paragraph<'static> {
    let (now, rates) = (&screen.now, screen.history.back());
    let of = |value: fn(&Rates) -> Option<f64>, show: fn(f64) -> String| or_dash(rates.and_then(value), show);
    let is_well = now.workers.serving >= now.workers.wanted && now.workers.crash_looping == 0;
    let state = format!(" {}/{} workers ", now.workers.serving, now.workers.wanted);
    let fill = 1.0 - now.cache.segments_free as f64 / now.cache.segments.max(1) as f64;
    let count = |name: &str| now.counts.get(name).copied().unwrap_or(0);
    let first = vec![
        Span::from(format!(" {} {} ", now.host, now.version)).bold(),
        if is_well { Span::from(state).green() } else { Span::from(state).red().bold() },
        Span::from(format!(" {} requests/s ", of(|r| Some(r.requests_per_s), number))).bold(),
        format!(" p50 {}  p99 {} ", of(|r| r.p50_s, time), of(|r| r.p99_s, time)).into(),
        format!(" hits {} ", of(|r| r.hit_ratio, percent)).into(),
        match rates.map_or(0.0, |r| r.errors_per_s) {
            0.0 => Span::from(" no errors"),
            errors => Span::from(format!(" {} errors/s", number(errors))).red().bold(),
        },
    ];
    let burst =
        now.machine.baseline.zip(rates.and_then(|r| r.cpu)).map_or(String::new(), |(baseline, cpu)| {
            format!(
                " ({} of {}'s baseline)",
                percent(cpu / baseline),
                now.machine.instance.as_deref().unwrap_or("its")
            )
        });
    let second = format!(
        " cache {} of {} MiB, {} evicted/s   freshness {}, {}   connections {}, database {}/{}   CPU {}{burst}, stolen {}",
        percent(fill),
        now.cache.size_bytes >> 20,
        of(|r| Some(r.evicted_per_s), number),
        or_dash(now.feed.watermark_age_ms, |ms| format!("{ms:.0} ms")),
        now.feed.state,
        count("catwalk_http_connections_open"),
        count("catwalk_db_connections_open"),
        count("catwalk_db_connections_wanted"),
        of(|r| r.cpu, percent),
        of(|r| r.stolen, percent),
    );
    Paragraph::new(vec![Line::from(first), Line::from(second)])
}

/// Lines over the time that is kept, the newest at the right.
fn draw_plot<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    screen: &Screen,
    title: &str,
    show: fn(f64) -> String,
    read: impl Fn(&Rates) -> [(&'static str, Option<f64>); N],
) {
    let span = super::KEPT as f64;
    let first = span - screen.history.len() as f64;
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for (n, rates) in screen.history.iter().enumerate() {
        for (at, (name, value)) in read(rates).into_iter().enumerate() {
            if lines.len() <= at {
                lines.push((name, Vec::new()));
            }
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
    frame.render_widget(Chart::new(sets.collect()).block(titled(title)).x_axis(x).y_axis(y), area);
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
            percent(runs.busy),
        ]
    };
    let rows = all.iter().map(row).collect();
    table(
        "statements (catwalk explain NAME)",
        &["name", "runs/s", "mean", "longest", "busy"],
        &[8, 9, 9, 8],
        rows,
    )
}

fn workers(screen: &Screen) -> Table<'static> {
    let row = |process: &catwalk::overview::Process| {
        let beat = format!("{} ms", process.beat_age_ms);
        vec![
            process.pid.to_string(),
            process.phase.clone(),
            format!("{} s", process.age_s),
            beat,
            process.deaths.to_string(),
        ]
    };
    let rows = screen.now.workers.processes.iter().map(row).collect();
    table("processes", &["pid", "phase", "age", "beat", "deaths"], &[10, 8, 8, 6], rows)
}

fn hottest(screen: &Screen) -> Table<'static> {
    let rows = screen.now.hottest.iter().map(|hot| vec![hot.key.clone(), percent(hot.share)]).collect();
    table("hit most", &["key", "of hits"], &[8], rows)
}

fn nodes(screen: &Screen) -> Table<'static> {
    let lag = |ms: Option<u64>| ms.map_or("–".into(), |ms| format!("{ms} ms"));
    let rows = screen.now.nodes.iter().map(|node| vec![node.state.clone(), lag(node.lag_ms)]).collect();
    table("database nodes", &["state", "lag"], &[8], rows)
}
