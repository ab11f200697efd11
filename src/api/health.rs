//! Alive, ready, measured.
//! Runs in: worker.

use may_minihttp::Response;
use serde::Serialize;

use crate::api::Site;
use crate::limits::BEAT_STUCK_AFTER;
use crate::metrics::render::{render, Gauge};

/// `GET /healthz`: this process schedules and answers.
pub fn alive(rsp: &mut Response<'_>) {
    rsp.header("Content-Type: text/plain; charset=utf-8").header("Cache-Control: no-store").body("ok\n");
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: Check,
    cache: Check,
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
    let ready = database.ok && cache.ok && workers.ok;
    if !ready {
        rsp.status_code(503, "Service Unavailable").header("Retry-After: 1");
    }
    rsp.header("Content-Type: application/json; charset=utf-8").header("Cache-Control: no-store");
    let body = Readiness { ready, database, cache, workers };
    rsp.body_vec(serde_json::to_vec(&body).expect("plain fields serialise"));
}

fn check_database(site: &Site) -> Check {
    let (live, places) = site.pool.occupancy();
    if let Err(why) = site.pool.try_client() {
        return Check { ok: false, detail: why.to_string() };
    }
    match &*site.database_state.lock() {
        Ok(()) => Check { ok: true, detail: format!("{live} of {places} connections of this worker") },
        Err(why) => Check { ok: false, detail: why.clone() },
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

fn check_workers(site: &Site) -> Check {
    let limit_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
    let (serving, wanted) = (site.slots.serving(limit_ns), site.slots.workers());
    let loops = site.slots.crash_loops();
    let detail = match loops {
        0 => format!("{serving} of {wanted} serving"),
        n => format!("{serving} of {wanted} serving, {n} crash-looping; see the log"),
    };
    // One that is being replaced is no reason to take the box out; a crash loop is.
    Check { ok: serving > 0 && loops == 0, detail }
}

/// `GET /metrics`: the same from every worker.
pub fn metrics(site: &Site, rsp: &mut Response<'_>) {
    let layout = site.cache.arena().layout();
    let limit_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
    let gauges = [
        Gauge {
            name: "catwalk_cache_size_bytes",
            help: "Room for records.",
            value: (layout.segments * layout.segment_size) as f64,
        },
        Gauge {
            name: "catwalk_workers_serving",
            help: "Workers that serve and beat.",
            value: site.slots.serving(limit_ns) as f64,
        },
        Gauge {
            name: "catwalk_workers_crash_looping",
            help: "Slots whose workers keep dying; the log has the reason.",
            value: site.slots.crash_loops() as f64,
        },
    ];
    rsp.header("Content-Type: text/plain; version=0.0.4; charset=utf-8").header("Cache-Control: no-store");
    rsp.body_vec(render(site.metrics.page(), &gauges).into_bytes());
}
