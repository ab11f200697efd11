//! What was written and what was read, with times, and whether the two fit.

use std::collections::HashMap;
use std::time::Duration;

use catwalk::os::clock;

/// A version is read from one place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A product's name.
    Name,
    /// The same in a page of products: another answer.
    Listed,
    /// The value of a product's first feature.
    Feature,
    /// The quantity of a product's first sku.
    Quantity,
}

/// What has versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    pub place: Place,
    pub id: i64,
}

impl Item {
    /// What is written when this is to be read.
    fn written(self) -> Item {
        match self.place {
            Place::Listed => Item { place: Place::Name, ..self },
            _ => self,
        }
    }
}

/// Who made a version: that decides when it must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Through the server: in the next answer.
    Server,
    /// Through one of several servers by this client: in its own next answer, of whichever server; in others' one bound later.
    Client(usize),
    /// Straight to the database: in every answer to a request sent one bound later.
    Database,
}

/// One version. Times are CLOCK_BOOTTIME, in ns.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    pub item: Item,
    pub version: i64,
    pub by: Writer,
    /// Before it was sent.
    pub begun_ns: u64,
    /// After COMMIT had returned, or the answer had been received; None: nobody knows whether it was made.
    pub done_ns: Option<u64>,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub client: usize,
    pub item: Item,
    pub version: i64,
    pub sent_ns: u64,
    pub received_ns: u64,
    /// Said to be served because no database can be reached.
    pub stale_if_error: bool,
}

/// Everything that happened.
#[derive(Default)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
}

/// What a history comes to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub reads: usize,
    pub writes: usize,
    pub stale_if_error: usize,
    /// How long after its commit a version was still missing in an answer to a request sent then; ascending.
    pub missed_ms: Vec<f64>,
    pub violations: Vec<String>,
}

pub fn now_ns() -> u64 {
    clock::boottime_ns()
}

impl History {
    /// Checks every read against the writes, and every client's reads against one another.
    pub fn judge(&mut self, bound: Duration) -> Verdict {
        let mut verdict =
            Verdict { reads: self.reads.len(), writes: self.writes.len(), ..Verdict::default() };
        let mut versions: HashMap<Item, Vec<Write>> = HashMap::new();
        self.writes.iter().for_each(|write| versions.entry(write.item).or_default().push(*write));
        versions.values_mut().for_each(|writes| writes.sort_by_key(|write| write.version));
        self.reads.sort_by_key(|read| read.sent_ns);
        for read in &self.reads {
            let writes = versions.get(&read.item.written()).map_or(&[][..], |writes| writes);
            judge_read(read, writes, bound, &mut verdict);
        }
        self.judge_clients(&mut verdict);
        verdict.missed_ms.sort_by(f64::total_cmp);
        verdict
    }

    /// What a client has seen is not taken back: no version below that of an answer received before.
    fn judge_clients(&self, verdict: &mut Verdict) {
        let mut seen: HashMap<(usize, Item), Vec<(u64, i64)>> = HashMap::new();
        for read in &self.reads {
            let before = seen.entry((read.client, read.item)).or_default();
            let floor =
                before.iter().rev().filter(|(received, _)| *received <= read.sent_ns).map(|(_, v)| *v).max();
            if floor.is_some_and(|floor| read.version < floor) {
                verdict.violations.push(format!("went back from {floor:?}: {read:?}"));
            }
            // A client's requests follow one another: the last few answers are enough.
            if before.len() > 8 {
                before.remove(0);
            }
            before.push((read.received_ns, read.version.max(floor.unwrap_or(0))));
        }
    }
}

fn judge_read(read: &Read, writes: &[Write], bound: Duration, verdict: &mut Verdict) {
    let bound_ns = bound.as_nanos() as u64;
    match writes.iter().find(|write| write.version == read.version) {
        Some(write) if write.begun_ns > read.received_ns => {
            verdict.violations.push(format!("from the future: {read:?} of {write:?}"));
        }
        None if read.version != 0 => verdict.violations.push(format!("never written: {read:?}")),
        _ => {}
    }
    if read.stale_if_error {
        verdict.stale_if_error += 1;
    }
    let missing = writes.iter().filter(|write| write.version > read.version);
    for write in missing {
        let Some(done_ns) = write.done_ns.filter(|done_ns| *done_ns <= read.sent_ns) else { continue };
        let age_ns = read.sent_ns - done_ns;
        let allowed_ns = match write.by {
            Writer::Server => 0,
            Writer::Client(client) if client == read.client => 0,
            _ if read.stale_if_error => u64::MAX,
            _ => bound_ns,
        };
        if write.by != Writer::Server && !read.stale_if_error {
            verdict.missed_ms.push(age_ns as f64 / 1e6);
        }
        if age_ns > allowed_ns {
            verdict
                .violations
                .push(format!("{:.1} ms stale: {read:?} misses {write:?}", age_ns as f64 / 1e6));
        }
        return;
    }
}

/// The checker itself is shown to find what it is for.
#[test]
fn the_checker_finds_stale_answers_versions_that_go_back_and_lost_writes() {
    let item = Item { place: Place::Name, id: 1 };
    let write = |version, by, done_ms: u64| Write {
        item,
        version,
        by,
        begun_ns: done_ms * 1_000_000 - 1,
        done_ns: Some(done_ms * 1_000_000),
    };
    let read = |client, version, sent_ms: u64| Read {
        client,
        item,
        version,
        sent_ns: sent_ms * 1_000_000,
        received_ns: sent_ms * 1_000_000 + 1,
        stale_if_error: false,
    };
    let judge = |writes: &[Write], reads: &[Read]| {
        let mut history = History { writes: writes.to_vec(), reads: reads.to_vec() };
        history.judge(Duration::from_millis(250)).violations.len()
    };
    let external = [write(1, Writer::Database, 1000), write(2, Writer::Database, 2000)];
    assert_eq!(
        judge(&external, &[read(0, 0, 1200), read(0, 1, 1251), read(0, 1, 2250), read(0, 2, 2251)]),
        0
    );
    assert_eq!(judge(&external, &[read(0, 0, 1251)]), 1, "stale");
    assert_eq!(judge(&external, &[read(0, 2, 2001), read(0, 1, 2010)]), 1, "back");
    assert_eq!(judge(&external, &[read(0, 2, 2001), read(1, 1, 2010)]), 0, "another client");
    assert_eq!(judge(&external, &[read(0, 2, 1500)]), 1, "from the future");
    assert_eq!(judge(&external, &[read(0, 7, 3000)]), 1, "never written");
    assert_eq!(judge(&[write(1, Writer::Server, 1000)], &[read(0, 0, 1001)]), 1, "own writes");
    let own = [write(1, Writer::Client(0), 1000)];
    assert_eq!(judge(&own, &[read(0, 0, 1001)]), 1, "own writes, through one of several servers");
    assert_eq!(judge(&own, &[read(1, 0, 1250), read(0, 1, 1001)]), 0, "another client has the bound");
    assert_eq!(judge(&own, &[read(1, 0, 1251)]), 1);
    assert_eq!(judge(&[Write { done_ns: None, ..external[0] }], &[read(0, 0, 9000), read(0, 1, 9100)]), 0);
}
