//! `catwalk cache dump`: one record whole, checked.
//! Runs in: offline.

use std::io::Write;

use anyhow::Result;

use crate::cache::census::{self, Found};
use crate::cache::index::USES_MAX;
use crate::cache::{Arena, Encoding, Key};
use crate::inspect::print;
use crate::os::clock;

/// Exit status for a key that is not there.
const EXIT_ABSENT: i32 = 1;

/// Prints the records of `key`; `body_only`: the JSON body of the valid one, as it is sent.
pub fn run(arena: &Arena, key: Key, body_only: bool) -> Result<i32> {
    let found = census::records_of(arena, key);
    let mut out = Vec::new();
    if body_only {
        let Some(found) = found.iter().find(|found| census::is_valid(arena, found.record.header())) else {
            eprintln!("{key} is not cached, or void");
            return Ok(EXIT_ABSENT);
        };
        print(found.record.body(Encoding::Identity))?;
        return Ok(0);
    }
    for found in &found {
        write(&mut out, arena, found)?;
    }
    if found.is_empty() {
        eprintln!("{key} is not cached");
        return Ok(EXIT_ABSENT);
    }
    print(&out)?;
    Ok(0)
}

fn write(out: &mut impl Write, arena: &Arena, found: &Found) -> Result<()> {
    let header = found.record.header();
    let validity = if census::is_valid(arena, header) { "valid" } else { "void" };
    let age_s = header.reading.age_ns(clock::boottime_ns()) / 1_000_000_000;
    let [gzip, br, zstd] = header.coded_len;
    writeln!(out, "{}  {validity}, {age_s} s old, checksum and archive checked", header.key)?;
    writeln!(
        out,
        "record     {} bytes, {}found {}{} times since it last moved",
        header.len_bytes,
        found.queue.map_or(String::new(), |queue| format!("in the {queue:?} queue, ").to_lowercase()),
        found.uses,
        if found.uses == USES_MAX { " or more" } else { "" }
    )?;
    writeln!(out, "etag       {:016x}", header.etag)?;
    writeln!(out, "bodies     json {}, gzip {gzip}, br {br}, zstd {zstd} bytes", header.json_len)?;
    writeln!(
        out,
        "token      lane {}, epoch {}; snapshot {}",
        header.token.lane, header.token.epoch, header.reading.position
    )?;
    if let Some(entry) = found.record.entry() {
        writeln!(out, "{:#?}", entry.view)?;
    }
    out.write_all(found.record.body(Encoding::Identity))?;
    Ok(writeln!(out)?)
}
