//! A walk over the whole arena that believes nothing: every segment, every item, every record's checksum and archive.
//! Runs in: offline, beside a server that goes on, and in tests.
//!
//! What is found while others change it is looked at again before it counts.

use std::fmt;

use crate::cache::arena::Arena;
use crate::cache::index::{self, Item, Place};
use crate::cache::record::Record;
use crate::cache::segment::{self, State};
use crate::limits::BUCKET_SIZE_BYTES;

/// Violations that are told of one by one.
const TOLD_MAX: usize = 20;
/// Times that a record is copied, while it is recycled each time, before it is left alone.
const COPIES_MAX: usize = 3;

/// What a walk has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub free: usize,
    pub open: usize,
    pub sealed: usize,
    pub draining: usize,
    /// Items of records whose segment is in the life that they were stored in.
    pub items: usize,
    /// Items of earlier lives, which are misses.
    pub dead: usize,
    pub ghosts: usize,
    /// Records whose checksum and archive hold, found by an item or not.
    pub records: usize,
    pub violations: usize,
    pub told: Vec<String>,
}

impl Verdict {
    pub fn is_sound(&self) -> bool {
        self.violations == 0
    }

    fn tell(&mut self, violation: String) {
        self.violations += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(violation);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { free, open, sealed, draining, items, dead, ghosts, records, violations, .. } = self;
        writeln!(
            f,
            "segments    {} = {free} free + {open} open + {sealed} sealed + {draining} draining",
            free + open + sealed + draining
        )?;
        writeln!(f, "index       {items} items, {dead} of earlier lives, {ghosts} evicted and remembered")?;
        writeln!(f, "records     {records} whole, checksum and archive checked")?;
        write!(f, "violations  {violations}")?;
        self.told.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Walks over segments, then over the index.
pub fn verify(arena: &Arena) -> Verdict {
    let mut verdict = Verdict::default();
    for segment in 0..arena.layout().segments {
        match segment::state(arena, segment).1 {
            State::Free => verdict.free += 1,
            State::Open(..) => verdict.open += 1,
            State::Sealed(..) => verdict.sealed += 1,
            State::Draining(..) => verdict.draining += 1,
        }
        if let Err(violation) = check_segment(arena, segment, &mut verdict.records) {
            verdict.tell(format!("segment {segment}: {violation}"));
        }
    }
    for (place, is_ghost) in index::all(arena) {
        if is_ghost {
            verdict.ghosts += 1;
        } else if !segment::is_current(arena, place.item) {
            verdict.dead += 1;
        } else {
            verdict.items += 1;
            if let Err(violation) = check_item(arena, place) {
                verdict.tell(format!("item at byte {}: {violation}", place.at));
            }
        }
    }
    verdict
}

/// Every record of a segment is whole, one behind the other up to what is written.
fn check_segment(arena: &Arena, segment: usize, records: &mut usize) -> Result<(), String> {
    let generation = segment::generation(arena, segment);
    if generation as u16 == 0 {
        return Err("a generation whose low bits are 0".into());
    }
    let (_, state) = segment::state(arena, segment);
    let written = segment::written_bytes(arena, segment);
    let (mut end, mut whole) = (0, 0);
    let mut damaged = None;
    for (item, header) in segment::records(arena, segment) {
        end += header.len_bytes as usize;
        match read(arena, item) {
            Read::Whole(_) => whole += 1,
            Read::Damaged => damaged = damaged.or(Some(item.location())),
            Read::Recycled => return Ok(()),
        }
    }
    if segment::generation(arena, segment) != generation || segment::state(arena, segment).1 != state {
        // Drained or sealed meanwhile: what was seen was of two lives.
        return Ok(());
    }
    *records += whole;
    match damaged {
        Some(location) => Err(format!("the record at {location} does not hold its checksum")),
        None if end < written && segment::written_bytes(arena, segment) == written => {
            Err(format!("{written} bytes are written, records end at {end}"))
        }
        None => Ok(()),
    }
}

/// The record of a current item is whole, written, and where its key belongs.
fn check_item(arena: &Arena, place: Place) -> Result<(), String> {
    let is_still_there = || {
        let same = index::all_of_bucket(arena, place.at).any(|other| other.item.is_of(place.item));
        same && segment::is_current(arena, place.item)
    };
    let violation = match read(arena, place.item) {
        Read::Recycled => return Ok(()),
        Read::Damaged => "its record does not hold its checksum".to_string(),
        Read::Whole(record) => {
            let hash = arena.hash(record.header().key);
            let bucket = arena.layout().bucket_at(hash);
            if bucket != place.at / BUCKET_SIZE_BYTES * BUCKET_SIZE_BYTES
                || index::tag(hash) != place.item.tag()
            {
                format!("its record's key, {:?}, belongs elsewhere", record.header().key)
            } else if !is_written(arena, place.item, &record) {
                "its record lies beyond what is written".to_string()
            } else {
                return Ok(());
            }
        }
    };
    match is_still_there() {
        true => Err(violation),
        false => Ok(()),
    }
}

fn is_written(arena: &Arena, item: Item, record: &Record) -> bool {
    segment::locate(arena, item).is_some_and(|(segment, at)| {
        at + record.header().len_bytes as usize <= segment::written_bytes(arena, segment)
    })
}

enum Read {
    Whole(Record),
    Damaged,
    Recycled,
}

fn read(arena: &Arena, item: Item) -> Read {
    for _ in 0..COPIES_MAX {
        let Some(header) = segment::read_header(arena, item) else { return Read::Recycled };
        let mut bytes = Vec::new();
        let len = header.len_bytes as usize;
        if !segment::copy_out(arena, item, 0, len, &mut bytes) {
            return if segment::is_current(arena, item) { Read::Damaged } else { Read::Recycled };
        }
        if let Some(record) = Record::open(&bytes) {
            return Read::Whole(record);
        }
    }
    match segment::is_current(arena, item) {
        true => Read::Damaged,
        false => Read::Recycled,
    }
}
