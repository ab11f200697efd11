//! Alive, ready, measured.
//! Runs in: worker.

use may_minihttp::Response;
use serde::Serialize;

use crate::api::Site;
use crate::cache::watermark::{self, Reason, State};
use crate::db::pool::Lane;
use crate::limits::{BEAT_STUCK_AFTER, DATABASE_CHECK_PERIOD};
use crate::metrics::page::WAITS;
use crate::metrics::render::render;
use crate::metrics::Gauge;
use crate::os::clock;
use crate::overview::{Overview, Sources};
use crate::topology::State as NodeState;

/// `GET /healthz`: this process schedules and answers.
pub fn alive(rsp: &mut Response<'_>) {
    rsp.header("Content-Type: text/plain; charset=utf-8").header("Cache-Control: no-store").body("ok\n");
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: Check,
    cache: Check,
    feed: Check,
    workers: Check,
}

#[derive(Serialize)]
struct Check {
    ok: bool,
    detail: String,
}

/// `GET /readyz`: whether this box should get traffic, with the reasons.
pub fn ready(site: &Site, rsp: &mut Response<'_>) {
    let (database, cache, workers) = (check_database(site), check_cache(site), check_workers(site));
    // A feed that is behind makes answers slower, not wrong: no reason to take the box out.
    let feed = check_feed(site);
    let ready = database.ok && cache.ok && workers.ok;
    if !ready {
        rsp.status_code(503, "Service Unavailable").header("Retry-After: 1");
    }
    rsp.header("Content-Type: application/json; charset=utf-8").header("Cache-Control: no-store");
    let body = Readiness { ready, database, cache, feed, workers };
    rsp.body_vec(serde_json::to_vec(&body).expect("plain fields serialise"));
}

fn check_database(site: &Site) -> Check {
    let nodes = site.nodes.describe();
    let of_node = |(n, (state, lag_ns, (live, places))): (usize, &(NodeState, u64, (usize, usize)))| {
        let lag = match state {
            NodeState::Fit | NodeState::Behind if *lag_ns < u64::MAX => {
                format!(", {} ms behind", lag_ns / 1_000_000)
            }
            _ => String::new(),
        };
        format!("node {n}: {state}{lag}, {live} of {places} connections of this worker")
    };
    let detail = nodes.iter().enumerate().map(of_node).collect::<Vec<_>>().join("; ");
    let found = site.database_state.lock().clone();
    // A worker that has only just begun says what its siblings have found.
    if found.is_none() && site.slots.checked_age_ns() < DATABASE_CHECK_PERIOD.as_nanos() as u64 * 2 {
        return Check { ok: true, detail };
    }
    if let Err(why) = site.nodes.try_any_client(Lane::Slow) {
        return Check { ok: false, detail: format!("{why}; {detail}") };
    }
    match found.unwrap_or_else(|| Err("not checked yet".to_string())) {
        Ok(()) => Check { ok: true, detail },
        Err(why) => Check { ok: false, detail: why },
    }
}

fn check_cache(site: &Site) -> Check {
    let layout = site.cache.arena().layout();
    let mib = (layout.segments * layout.segment_size) >> 20;
    match site.cache.is_on() {
        true => Check { ok: true, detail: format!("{mib} MiB in {} segments", layout.segments) },
        false => Check { ok: true, detail: "off".into() },
    }
}

fn check_feed(site: &Site) -> Check {
    if !site.cache.is_on() {
        return Check { ok: true, detail: "off, as the cache is".into() };
    }
    let (arena, now_ns) = (site.cache.arena(), clock::boottime_ns());
    let seconds_since = |then_ns: u64| now_ns.saturating_sub(then_ns) as f64 / 1e9;
    let state = watermark::state(arena);
    let mut detail = match watermark::watermark_ns(arena) {
        0 => format!("{state}"),
        applied_ns => {
            format!("{state}; every change until {:.3} s ago is applied", seconds_since(applied_ns))
        }
    };
    let (reason, voided_ns) = watermark::last_void(arena);
    if !matches!(reason, Reason::Nothing | Reason::NoCursor) {
        detail += &format!("; everything was voided {:.0} s ago: {reason}", seconds_since(voided_ns));
    }
    Check { ok: state == State::Following && site.cache.is_trusted(now_ns), detail }
}

fn check_workers(site: &Site) -> Check {
    let limit_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
    let (serving, wanted) = (site.slots.serving(limit_ns), site.slots.wanted());
    let loops = site.slots.crash_loops();
    let detail = match loops {
        0 => format!("{serving} of {wanted} serving"),
        n => format!("{serving} of {wanted} serving, {n} crash-looping; see the log"),
    };
    // One that is being replaced is no reason to take the box out; a crash loop is.
    Check { ok: serving > 0 && loops == 0, detail }
}

/// `GET /status.json`: what the status page shows, the same from every worker.
pub fn overview(site: &Site, rsp: &mut Response<'_>) {
    let sources = Sources {
        arena: site.cache.arena(),
        metrics: site.metrics.page(),
        slots: &site.slots,
        topology: site.nodes.topology(),
    };
    rsp.header("Content-Type: application/json; charset=utf-8").header("Cache-Control: no-store");
    rsp.body_vec(serde_json::to_vec(&Overview::take(&sources)).expect("plain fields serialise"));
}

/// `GET /metrics`: the same from every worker.
pub fn metrics(site: &Site, rsp: &mut Response<'_>) {
    let (page, layout) = (site.metrics.page(), site.cache.arena().layout());
    let limit_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
    let watermark_ns = watermark::watermark_ns(site.cache.arena());
    let waiting = |(begun, left)| page.total(begun).saturating_sub(page.total(left)) as f64;
    let gauges = [
        (Gauge::LaneWaiting, WAITS.into_iter().map(waiting).sum()),
        (Gauge::WatermarkAge, clock::boottime_ns().saturating_sub(watermark_ns) as f64 / 1e9),
        (Gauge::CacheSize, (layout.segments * layout.segment_size) as f64),
        (Gauge::WorkersServing, site.slots.serving(limit_ns) as f64),
        (Gauge::WorkersWanted, site.slots.wanted() as f64),
        (Gauge::WorkersCrashLooping, site.slots.crash_loops() as f64),
    ];
    rsp.header("Content-Type: text/plain; version=0.0.4; charset=utf-8").header("Cache-Control: no-store");
    rsp.body_vec(render(page, &gauges).into_bytes());
}
