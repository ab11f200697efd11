//! All that a status page shows at one moment, from the memory that all processes of a server share: counts since its start, of which two
//! overviews make rates. Taking one costs some thousand loads, and changes nothing.
//! Runs in: worker | offline.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Serialize;

use crate::cache::{census, watermark, Arena, Key};
use crate::limits::BEAT_STUCK_AFTER;
use crate::machine::instance::{self, Burstable};
use crate::machine::load::{self, Ticks};
use crate::metrics::histogram::{bound_s, BOUNDS, SUM};
use crate::metrics::names::{Metric, COUNTERS, LEVELS, ROUTES};
use crate::metrics::{Counter, Level, MetricsPage, RouteGroup, Runs};
use crate::os::{clock, fork};
use crate::slots::{Phase, Slots};
use crate::topology::{State, Topology};

/// Keys that are told as hit most.
const HOTTEST: usize = 12;
const MS_NS: u64 = 1_000_000;

/// Where it is taken from.
pub struct Sources<'s> {
    pub arena: &'s Arena,
    pub metrics: &'s MetricsPage,
    pub slots: &'s Slots,
    pub topology: &'s Topology,
}

#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    pub version: &'static str,
    pub host: String,
    /// What is wrong, in words, the worst first.
    pub problems: Vec<String>,
    /// CLOCK_BOOTTIME.
    pub taken_ms: u64,
    /// Counters and levels by their names in /metrics.
    pub counts: HashMap<String, u64>,
    pub workers: Workers,
    /// Upper bounds of `Route::buckets` but the last, in seconds.
    pub bounds_s: Vec<f64>,
    pub routes: Vec<Route>,
    pub cache: Cache,
    pub hottest: Vec<Hot>,
    pub statements: Vec<Runs>,
    pub feed: Feed,
    pub nodes: Vec<Node>,
    pub machine: Load,
}

#[derive(Debug, Clone, Serialize)]
pub struct Workers {
    pub wanted: usize,
    pub serving: usize,
    pub crash_looping: u64,
    /// Every process of the server, the change feed too.
    pub processes: Vec<Process>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Process {
    pub slot: usize,
    pub pid: u64,
    pub phase: String,
    pub age_s: u64,
    pub beat_age_ms: u64,
    /// Of the slot.
    pub deaths: u64,
    pub requests: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Route {
    pub name: &'static str,
    /// Answers by how long they took; the last one are those beyond all bounds.
    pub buckets: Vec<u64>,
    pub sum_ns: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cache {
    pub size_bytes: usize,
    pub segments: usize,
    pub segments_free: usize,
}

/// A key, and its share of the last hits.
#[derive(Debug, Clone, Serialize)]
pub struct Hot {
    pub key: String,
    pub share: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Feed {
    pub state: String,
    /// Every change until so long ago is applied; None: nothing is known yet.
    pub watermark_age_ms: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Node {
    pub state: String,
    pub is_primary: bool,
    /// It is a replica that may be read from.
    pub is_fit: bool,
    /// Of a replica, while somebody looks.
    pub lag_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Load {
    pub ticks: Option<Ticks>,
    pub throttled_us: Option<u64>,
    /// Of a cloud's burstable type: its name, and the share of its CPUs that it may use for ever.
    pub instance: Option<String>,
    pub baseline: Option<f64>,
}

impl Overview {
    pub fn take(sources: &Sources<'_>) -> Overview {
        let Sources { arena, metrics, .. } = sources;
        let name = instance_name();
        let burstable = name.as_deref().and_then(Burstable::of);
        let mut overview = Overview {
            version: env!("CARGO_PKG_VERSION"),
            host: fork::host_name(),
            problems: Vec::new(),
            taken_ms: clock::boottime_ns() / MS_NS,
            counts: counts(metrics),
            workers: workers(sources),
            bounds_s: (0..BOUNDS).map(bound_s).collect(),
            routes: RouteGroup::ALL.iter().map(|group| route(metrics, *group)).collect(),
            cache: cache(arena),
            hottest: hottest(metrics),
            statements: metrics.statements(),
            feed: feed(arena),
            nodes: nodes(sources),
            machine: Load {
                ticks: load::ticks(),
                throttled_us: throttled_us(sources.slots),
                baseline: burstable.map(|b| b.baseline),
                instance: name,
            },
        };
        overview.problems = problems(&overview, watermark::state(arena));
        overview
    }
}

/// The firmware knows it, and it stays the same.
fn instance_name() -> Option<String> {
    static NAME: LazyLock<Option<String>> = LazyLock::new(instance::name);
    NAME.clone()
}

/// Of the server's group: whoever looks may be in another one.
fn throttled_us(slots: &Slots) -> Option<u64> {
    let pid = (0..slots.count()).find_map(|slot| slots.pid(slot))?;
    load::throttled_us(&pid.to_string())
}

fn problems(overview: &Overview, feed: watermark::State) -> Vec<String> {
    let Overview { workers, counts, nodes, .. } = overview;
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let replicas: Vec<&Node> = nodes.iter().filter(|node| !node.is_primary).collect();
    let unfit = replicas.iter().filter(|node| !node.is_fit).count();
    let said = [
        (workers.serving == 0, "no worker serves".to_string()),
        (
            workers.serving > 0 && workers.serving < workers.wanted,
            format!(
                "{} of {} workers do not serve",
                workers.wanted.saturating_sub(workers.serving),
                workers.wanted
            ),
        ),
        (workers.crash_looping > 0, format!("{} workers die again and again", workers.crash_looping)),
        (
            count("catwalk_db_connections_open") == 0 && count("catwalk_db_connections_wanted") > 0,
            "no connection to the database".to_string(),
        ),
        (nodes.iter().all(|node| !node.is_primary), "no database node is the primary".to_string()),
        (
            feed != watermark::State::Following,
            format!("changes are not followed, answers come from the database: {feed}"),
        ),
        (
            unfit > 0 && unfit < nodes.len(),
            format!("{unfit} of {} replicas are not read from", replicas.len()),
        ),
    ];
    said.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
}

fn counts(metrics: &MetricsPage) -> HashMap<String, u64> {
    let full = |metric: &Metric| match metric.labels {
        "" => metric.name.to_string(),
        labels => format!("{}{{{labels}}}", metric.name),
    };
    let counters = COUNTERS.iter().zip(Counter::ALL).map(|(metric, c)| (full(metric), metrics.total(*c)));
    let levels = LEVELS.iter().zip(Level::ALL).map(|(metric, level)| (full(metric), metrics.level(*level)));
    counters.chain(levels).collect()
}

fn workers(Sources { slots, metrics, .. }: &Sources<'_>) -> Workers {
    let process = |slot: usize| {
        let (pid, own) = (slots.pid(slot)?, metrics.slot(slot));
        Some(Process {
            slot,
            pid,
            phase: format!("{:?}", slots.phase(slot)).to_lowercase(),
            age_s: slots.life_age_ns(slot) / 1_000_000_000,
            beat_age_ms: slots.beat_age_ns(slot) / MS_NS,
            deaths: own.get(Counter::WorkerDeaths),
            requests: own.get(Counter::Requests),
        })
    };
    Workers {
        wanted: slots.wanted(),
        serving: slots.serving(BEAT_STUCK_AFTER.as_nanos() as u64),
        crash_looping: slots.crash_loops(),
        processes: (0..slots.count())
            .filter(|s| slots.phase(*s) != Phase::Empty)
            .filter_map(process)
            .collect(),
    }
}

fn route(metrics: &MetricsPage, group: RouteGroup) -> Route {
    let words = metrics.durations(group);
    Route { name: ROUTES[group as usize].name, buckets: words[..=BOUNDS].to_vec(), sum_ns: words[SUM] }
}

fn cache(arena: &Arena) -> Cache {
    let layout = arena.layout();
    Cache {
        size_bytes: layout.segments * layout.segment_size,
        segments: layout.segments,
        segments_free: census::segments(arena).free,
    }
}

fn hottest(metrics: &MetricsPage) -> Vec<Hot> {
    let samples: Vec<Key> = metrics.samples().into_iter().filter_map(Key::from_words).collect();
    let counted = count_keys(&samples);
    let share = |times: usize| times as f64 / samples.len().max(1) as f64;
    counted
        .into_iter()
        .take(HOTTEST)
        .map(|(key, times)| Hot { key: key.to_string(), share: share(times) })
        .collect()
}

/// How often each is among them, the most frequent first; of equals in their order, so that two looks can be compared.
pub fn count_keys(samples: &[Key]) -> Vec<(Key, usize)> {
    let mut counted: HashMap<Key, usize> = HashMap::new();
    samples.iter().for_each(|key| *counted.entry(*key).or_default() += 1);
    let mut sorted: Vec<(Key, usize)> = counted.into_iter().collect();
    sorted.sort_by_key(|(key, times)| (usize::MAX - times, key.words()));
    sorted
}

fn feed(arena: &Arena) -> Feed {
    let watermark_ns = watermark::watermark_ns(arena);
    let age_ms = clock::boottime_ns().saturating_sub(watermark_ns) as f64 / MS_NS as f64;
    Feed {
        state: watermark::state(arena).to_string(),
        watermark_age_ms: (watermark_ns > 0).then_some((age_ms * 10.0).round() / 10.0),
    }
}

fn nodes(Sources { topology, arena, .. }: &Sources<'_>) -> Vec<Node> {
    // The feed looks at them.
    let is_watched = watermark::state(arena) == watermark::State::Following;
    let node = |n: usize| {
        let (state, lag_ns) = (topology.state(n), topology.lag_ns(n));
        let is_known = matches!(state, State::Fit | State::Behind) && lag_ns < u64::MAX;
        let is_primary = topology.reign().is_some_and(|reign| reign.node == n);
        // A single node is the primary without being looked at.
        let state = if is_primary { State::Primary } else { state };
        Node {
            state: state.to_string(),
            is_primary,
            is_fit: state == State::Fit,
            lag_ms: (is_known && is_watched).then_some(lag_ns / MS_NS),
        }
    };
    (0..topology.nodes()).map(node).collect()
}
