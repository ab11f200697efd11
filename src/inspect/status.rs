//! `catwalk cache status`: size, contents, traffic, freshness, and who is at it.
//! Runs in: offline.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::cache::record::KINDS;
use crate::cache::{census, lease, watermark};
use crate::inspect::Server;
use crate::metrics::Counter;
use crate::os::clock;

const MS_NS: u64 = 1_000_000;

/// Records and their bytes.
#[derive(Debug, Serialize)]
pub struct Group {
    pub records: usize,
    pub size_bytes: usize,
}

impl From<census::Group> for Group {
    fn from(census::Group { records, size_bytes }: census::Group) -> Group {
        Group { records, size_bytes }
    }
}

#[derive(Debug, Serialize)]
pub struct Segments {
    pub size_bytes: usize,
    pub free: usize,
    pub open: usize,
    pub draining: usize,
    pub sealed_small: usize,
    pub sealed_main: usize,
}

#[derive(Debug, Serialize)]
pub struct Slot {
    pub slot: usize,
    pub pid: u64,
    pub phase: String,
    pub beat_age_ms: u64,
}

#[derive(Debug, Serialize)]
pub struct Status {
    pub size_bytes: usize,
    pub segments: Segments,
    pub buckets: usize,
    /// By kind of answer.
    pub valid: BTreeMap<&'static str, Group>,
    pub void: Group,
    pub evicted_remembered: usize,
    pub fills_under_way: usize,
    /// Since the server started.
    pub counters: BTreeMap<&'static str, u64>,
    pub feed: String,
    /// Everything committed until so long ago is applied; null: nothing is known yet.
    pub watermark_age_ms: Option<u64>,
    pub epoch: u64,
    pub voided_because: String,
    pub voided_age_ms: u64,
    pub system_identifier: u64,
    pub timeline: u64,
    pub slots: Vec<Slot>,
}

/// What is shown of the metrics page.
const COUNTERS: [(&str, Counter); 14] = [
    ("hits", Counter::CacheHits),
    ("misses", Counter::CacheMisses),
    ("untrusted", Counter::CacheUntrusted),
    ("bypassed", Counter::CacheBypassed),
    ("fills", Counter::CacheFills),
    ("fills_voided", Counter::CacheFillsVoided),
    ("fills_too_large", Counter::CacheFillsTooLarge),
    ("fills_refused", Counter::CacheFillsRefused),
    ("elsewhere", Counter::CacheElsewhere),
    ("recycled", Counter::CacheRecycled),
    ("moved", Counter::CacheMoved),
    ("evicted", Counter::CacheEvicted),
    ("displaced", Counter::CacheDisplaced),
    ("damaged", Counter::CacheDamaged),
];

impl Status {
    pub fn take(server: &Server) -> Status {
        let (arena, now_ns) = (&server.arena, clock::boottime_ns());
        let (layout, census) = (arena.layout(), census::take(arena));
        let (reason, voided_ns) = watermark::last_void(arena);
        let watermark_ns = watermark::watermark_ns(arena);
        let age_ms = |then_ns: u64| now_ns.saturating_sub(then_ns) / MS_NS;
        let database = arena.database();
        let slots = (0..server.slots.count()).filter_map(|slot| {
            let pid = server.slots.pid(slot)?;
            let phase = format!("{:?}", server.slots.phase(slot)).to_lowercase();
            Some(Slot { slot, pid, phase, beat_age_ms: server.slots.beat_age_ns(slot) / MS_NS })
        });
        Status {
            size_bytes: layout.size_bytes,
            segments: Segments {
                size_bytes: layout.segment_size,
                free: census.free,
                open: census.open,
                draining: census.draining,
                sealed_small: census.sealed_small,
                sealed_main: census.sealed_main,
            },
            buckets: layout.buckets,
            valid: KINDS.map(|kind| (kind.name(), census.of_kind(kind).into())).into(),
            void: census.void.into(),
            evicted_remembered: census.ghosts,
            fills_under_way: lease::count(arena, now_ns),
            counters: COUNTERS.map(|(name, counter)| (name, server.metrics.total(counter))).into(),
            feed: watermark::state(arena).to_string(),
            watermark_age_ms: (watermark_ns > 0).then(|| age_ms(watermark_ns)),
            epoch: census::epoch(arena),
            voided_because: reason.to_string(),
            voided_age_ms: age_ms(voided_ns),
            system_identifier: database.system_identifier,
            timeline: database.timeline,
            slots: slots.collect(),
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

/// Bytes as people read them.
fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A time ago as people read it.
fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms ago"),
        10_000..600_000 => format!("{} s ago", ms / 1_000),
        _ => format!("{} min ago", ms / 60_000),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Segments { size_bytes, free, open, draining, sealed_small, sealed_main } = self.segments;
        let records: usize = self.valid.values().map(|group| group.records).sum();
        let bytes: usize = self.valid.values().map(|group| group.size_bytes).sum();
        let looked_up = self.counter("hits") + self.counter("misses");
        let ratio = self.counter("hits") as f64 * 100.0 / looked_up.max(1) as f64;
        writeln!(
            f,
            "memory     {}, {} buckets, segments of {}",
            size(self.size_bytes),
            self.buckets,
            size(size_bytes)
        )?;
        writeln!(f, "segments   {sealed_small} small, {sealed_main} main, {open} open, {draining} draining, {free} free")?;
        writeln!(
            f,
            "records    {records} valid, {}; {} void; {} evicted keys remembered",
            size(bytes),
            self.void.records,
            self.evicted_remembered
        )?;
        for (kind, group) in self.valid.iter().filter(|(_, group)| group.records > 0) {
            writeln!(f, "           {kind:10} {:>9} {:>12}", group.records, size(group.size_bytes))?;
        }
        writeln!(
            f,
            "lookups    {looked_up}, {ratio:.1} % hits; {} untrusted, {} not asked",
            self.counter("untrusted"),
            self.counter("bypassed")
        )?;
        writeln!(
            f,
            "fills      {} published, {} voided under way, {} too large, {} without room; {} waited for another worker; {} under way",
            self.counter("fills"),
            self.counter("fills_voided"),
            self.counter("fills_too_large"),
            self.counter("fills_refused"),
            self.counter("elsewhere"),
            self.fills_under_way
        )?;
        writeln!(
            f,
            "evictions  {} segments recycled, {} records moved on, {} evicted, {} displaced, {} damaged",
            self.counter("recycled"),
            self.counter("moved"),
            self.counter("evicted"),
            self.counter("displaced"),
            self.counter("damaged")
        )?;
        match self.watermark_age_ms {
            Some(age_ms) => {
                writeln!(f, "freshness  {}; what was committed until {} is applied", self.feed, ago(age_ms))?
            }
            None => writeln!(f, "freshness  {}", self.feed)?,
        }
        let voided = if self.epoch > 1 {
            format!("{}, {}", ago(self.voided_age_ms), self.voided_because)
        } else {
            "never".into()
        };
        writeln!(f, "voided     {voided}")?;
        write!(f, "database   system identifier {}, timeline {}", self.system_identifier, self.timeline)?;
        for Slot { slot, pid, phase, beat_age_ms } in &self.slots {
            write!(f, "\nslot {slot:<5} pid {pid}, {phase}, beat {}", ago(*beat_age_ms))?;
        }
        Ok(())
    }
}
