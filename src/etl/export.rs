//! `catwalk export`: the catalogue as an archive's files, all of one moment.
//! Runs in: offline.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use csv_core::{ReadRecordResult, Terminator};
use may_postgres::Client;

use crate::etl::clean::NUMBER_MAX;
use crate::etl::csv::{Reader, Record};
use crate::etl::progress::{Audience, Meter, Unit};
use crate::etl::staging::begin;
use crate::etl::table::{Cell, Column, Table, COLUMNS_MAX, TABLES};
use crate::etl::tasks::{self, Task};

/// A transaction's mode: all of it sees the same moment.
const ONE_MOMENT: &str = "isolation level repeatable read, read only";

/// Writes one file a table into `dir`; returns how many rows `catwalk load` would read otherwise than they are.
///
/// # Errors
/// A file that can't be written, what the database refuses.
pub fn run(url: &str, dir: &Path, jobs: usize, audience: Audience) -> Result<u64> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let connect = || crate::db::connect(url);
    let client = connect()?;
    let transaction = begin(&client, ONE_MOMENT)?;
    // A load that ends meanwhile puts other tables in their place, whose rows an older snapshot sees too: it has to wait.
    let tables: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    client.batch_execute(&format!("lock table {} in access share mode", tables.join(", ")))?;
    let rows = client.query_text("select pg_export_snapshot()", &[])?;
    let snapshot: String = rows.first().context("no answer about the snapshot")?.try_get(0)?;
    let total = client.query_text(
        "select coalesce(sum(greatest(reltuples, 0)), 0)::int8 from pg_class where oid in (select to_regclass(name) from unnest($1::text[]) as n (name))",
        &[&TABLES.iter().map(|table| table.name).collect::<Vec<_>>()],
    )?;
    let meter = Meter::new(audience, Unit::Rows, total.first().map_or(0, |row| row.get::<i64>(0)) as u64);
    let misread = parking_lot::Mutex::new(0);
    meter.enter_rows("writing", TABLES.len());
    let tasks = TABLES.iter().map(|table| {
        let (meter, snapshot, misread) = (&meter, &snapshot, &misread);
        Task::new(table.file, move |client: &Client| {
            let transaction = begin(client, &format!("{ONE_MOMENT}; set transaction snapshot '{snapshot}'"))?;
            let path = dir.join(format!("{}.csv", table.file));
            write(client, table, &path, meter).with_context(|| format!("writing {}", path.display()))?;
            let count = count_strange(client, table)? + count_misread(&path)?;
            if count > 0 {
                let why = "hold the word null, a line's end or a number in a way that `catwalk load` reads otherwise";
                meter.say(&format!("{}: {count} rows {why}", path.display()));
            }
            *misread.lock() += count;
            meter.step();
            Ok(transaction.commit()?)
        })
    });
    let tasks: Vec<Task<'_, Client>> = tasks.collect();
    meter.watch(|| tasks::run(tasks, jobs, connect))?;
    transaction.commit()?;
    Ok(misread.into_inner())
}

/// A column as an archive has it.
fn expression(name: &str, cell: Cell) -> String {
    match cell {
        Cell::Time => format!(
            "case when isfinite({name}) then floor(extract(epoch from {name}) * 1000)::int8 end as {name}"
        ),
        Cell::Boolean => format!("case when {name} then 'true' else 'false' end as {name}"),
        _ => name.to_string(),
    }
}

fn write(client: &Client, table: &Table, path: &Path, meter: &Meter) -> Result<()> {
    let columns: Vec<String> = table.columns.iter().map(|c| expression(c.name, c.cell)).collect();
    let texts: Vec<&str> = table.columns.iter().filter(|c| c.cell.is_text()).map(|c| c.name).collect();
    let quoted =
        if texts.is_empty() { String::new() } else { format!(", force_quote ({})", texts.join(", ")) };
    let mut copy = client.copy_out(&format!(
        "copy (select {} from {} order by id) to stdout (format csv, null 'null'{quoted})",
        columns.join(", "),
        table.name
    ))?;
    let mut out = BufWriter::with_capacity(256 * 1024, File::create(path)?);
    writeln!(out, "{}", table.column_names().join(","))?;
    let mut tally = meter.tally();
    while let Some(chunk) = copy.next_chunk()? {
        // The server sends a row a message.
        tally.row();
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}

/// Rows with what a file can't say: the word null, and what no column of an archive holds.
fn count_strange(client: &Client, table: &Table) -> Result<u64> {
    let conditions = table.columns.iter().filter_map(|Column { name, cell, .. }| match cell {
        cell if cell.is_text() => {
            let bytes_max = cell.text_max().unwrap_or(usize::MAX >> 1);
            Some(format!(r"{name} ~ '^[\s\u00a0]*null[\s\u00a0]*$' or octet_length({name})::int8 > {bytes_max}"))
        }
        Cell::Time => Some(format!(
            "not isfinite({name}) or extract(year from {name}) not between 1 and 9999 or date_trunc('milliseconds', {name}) <> {name}"
        )),
        Cell::Number | Cell::NumberOrNull => Some(format!("{name} not between {} and {}", -NUMBER_MAX, NUMBER_MAX)),
        Cell::Price | Cell::PriceOrNull => Some(format!("{name} < 0 or {name} = 'NaN'")),
        Cell::Id | Cell::Parent(_) => Some(format!("{name} < 0")),
        _ => None,
    });
    let conditions: Vec<String> = conditions.collect();
    let sql = format!("select count(*) from {} where {}", table.name, conditions.join(" or "));
    Ok(client.query_text(&sql, &[])?.first().map_or(0, |row| row.get::<i64>(0)) as u64)
}

/// Records of a file that a reader of archives, who mends, reads otherwise than they were written.
fn count_misread(path: &Path) -> Result<u64> {
    let open = || File::open(path).map(|file| BufReader::with_capacity(256 * 1024, file));
    let (mut mending, _) = Reader::open(open()?)?;
    let mut strict = Strict::open(open()?);
    let (mut record, mut outcome) = (Record::default(), None);
    strict.next_record()?;
    let mut misread = 0;
    while let Some(line) = strict.next_record()? {
        // What was made of lines in the middle of the record before is passed over.
        while record.line < line || outcome.is_none() {
            outcome = mending.read(&mut record)?;
            if outcome.is_none() {
                break;
            }
        }
        let is_same = matches!(outcome, Some(Ok(()))) && record.line == line;
        if !is_same || !record.fields().map(str::as_bytes).eq(strict.fields()) {
            misread += 1;
        }
    }
    Ok(misread)
}

/// Reads CSV as it is written (RFC 4180), mending nothing.
struct Strict<R> {
    input: R,
    core: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl<R: BufRead> Strict<R> {
    fn open(input: R) -> Strict<R> {
        let core = csv_core::ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        Strict { input, core, text: vec![0; 1 << 16], ends: vec![0; COLUMNS_MAX + 1], fields: 0 }
    }

    /// Reads a record; the line that it begins in, None at the end.
    fn next_record(&mut self) -> Result<Option<u64>> {
        let line = self.core.line();
        let mut written = 0;
        self.fields = 0;
        loop {
            let chunk = self.input.fill_buf()?;
            let (text, ends) = (&mut self.text[written..], &mut self.ends[self.fields..]);
            let (result, read, more, fields) = self.core.read_record(chunk, text, ends);
            self.input.consume(read);
            (written, self.fields) = (written + more, self.fields + fields);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => return Ok(Some(line)),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let ends = &self.ends[..self.fields];
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(|(start, &end)| &self.text[start..end])
    }
}
