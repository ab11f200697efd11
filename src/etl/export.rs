//! `catwalk export`: the catalogue as an archive's files, all of one moment.
//! Runs in: offline.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use may_postgres::Client;

use crate::etl::progress::{Audience, Meter, Unit};
use crate::etl::table::{Cell, Table, TABLES};
use crate::etl::tasks::{self, Task};

/// What a reader of archives would read otherwise than it was: the word null; a line's end that a carriage return belongs to, that comes
/// in the last column, or after which a line begins like a record.
const MISREAD: &str = r"^\s*null\s*$|\r|\n\s*\d+\s*,";

/// Writes one file a table into `dir`; returns how many rows `catwalk load` would read otherwise than they are.
///
/// # Errors
/// A file that can't be written, what the database refuses.
pub fn run(url: &str, dir: &Path, jobs: usize, audience: Audience) -> Result<u64> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let connect = || crate::db::connect(url);
    let client = connect()?;
    let transaction = client.transaction()?;
    client.batch_execute("set transaction isolation level repeatable read, read only")?;
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
            let transaction = client.transaction()?;
            client.batch_execute(&format!(
                "set transaction isolation level repeatable read, read only; set transaction snapshot '{snapshot}'"
            ))?;
            let path = dir.join(format!("{}.csv", table.file));
            write(client, table, &path, meter).with_context(|| format!("writing {}", path.display()))?;
            let count = count_misread(client, table)?;
            if count > 0 {
                let why = "hold the word null, or a line's end, in a way that `catwalk load` reads otherwise";
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
        Cell::Time => format!("floor(extract(epoch from {name}) * 1000)::int8 as {name}"),
        Cell::Boolean => format!("case when {name} then 'true' else 'false' end as {name}"),
        _ => name.to_string(),
    }
}

fn is_text(cell: Cell) -> bool {
    matches!(cell, Cell::Text | Cell::TextOrNull)
}

fn write(client: &Client, table: &Table, path: &Path, meter: &Meter) -> Result<()> {
    let columns: Vec<String> = table.columns.iter().map(|c| expression(c.name, c.cell)).collect();
    let texts: Vec<&str> = table.columns.iter().filter(|c| is_text(c.cell)).map(|c| c.name).collect();
    let quoted =
        if texts.is_empty() { String::new() } else { format!(", force_quote ({})", texts.join(", ")) };
    let mut copy = client.copy_out(&format!(
        "copy (select {} from {} order by id) to stdout (format csv, null 'null'{quoted})",
        columns.join(", "),
        table.name
    ))?;
    let mut out = BufWriter::with_capacity(256 * 1024, File::create(path)?);
    writeln!(out, "{}", table.column_names().join(","))?;
    while let Some(chunk) = copy.next_chunk()? {
        // The server sends a row a message.
        meter.rows.fetch_add(1, Ordering::Relaxed);
        meter.whole.inc(1);
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}

fn count_misread(client: &Client, table: &Table) -> Result<u64> {
    let mut conditions: Vec<String> = table
        .columns
        .iter()
        .filter(|c| is_text(c.cell))
        .map(|c| format!("{} ~ '{MISREAD}'", c.name))
        .collect();
    if let Some(last) = table.columns.last().filter(|c| is_text(c.cell)) {
        conditions.push(format!("{} like E'%\\n%'", last.name));
    }
    if conditions.is_empty() {
        return Ok(0);
    }
    let sql = format!("select count(*) from {} where {}", table.name, conditions.join(" or "));
    Ok(client.query_text(&sql, &[])?.first().map_or(0, |row| row.get::<i64>(0)) as u64)
}
