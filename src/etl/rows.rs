//! Rows and where they go: into a table through COPY, into a CSV file, or nowhere.
//! Runs in: offline. Format: PostgreSQL documentation, COPY, "Binary Format".

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use may_postgres::{Client, CopyIn};

use crate::db::decimal::write_cents;

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Bigint(i64),
    Smallint(i16),
    Boolean(bool),
    /// A numeric with two decimals.
    Cents(u64),
    /// A timestamptz, in milliseconds since 1970.
    Time(i64),
    Text(&'a str),
}

impl<'a> Value<'a> {
    pub fn text_or_null(text: Option<&'a str>) -> Value<'a> {
        text.map_or(Value::Null, Value::Text)
    }
}

/// Takes rows, each with a value for every column.
pub trait Rows {
    fn row(&mut self, values: &[Value<'_>]) -> Result<()>;
}

/// Takes what nobody keeps.
pub struct Nowhere;

impl Rows for Nowhere {
    fn row(&mut self, _: &[Value<'_>]) -> Result<()> {
        Ok(())
    }
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xFF\r\n\0";
const END: i16 = -1;
/// PostgreSQL counts microseconds from 2000-01-01.
const EPOCH_MS: i64 = 946_684_800_000;

/// A COPY under way.
pub struct CopyRows {
    copy: CopyIn,
    row: Vec<u8>,
}

impl CopyRows {
    /// Starts copying into `columns` of `table`, which this transaction has made: its rows are frozen from the start.
    pub fn start(client: &Client, table: &str, columns: &[&str]) -> Result<CopyRows> {
        let sql = format!("copy {table} ({}) from stdin (format binary, freeze)", columns.join(", "));
        let mut copy = client.copy_in(&sql).with_context(|| format!("starting to copy into {table}"))?;
        copy.send(SIGNATURE)?;
        copy.send(&[0; 8])?;
        Ok(CopyRows { copy, row: Vec::with_capacity(1024) })
    }

    /// Ends the COPY; returns how many rows the server took.
    pub fn finish(mut self) -> Result<u64> {
        self.copy.send(&END.to_be_bytes())?;
        Ok(self.copy.finish()?)
    }
}

impl Rows for CopyRows {
    fn row(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.row.clear();
        self.row.extend_from_slice(&(values.len() as i16).to_be_bytes());
        values.iter().for_each(|value| write_binary(*value, &mut self.row));
        Ok(self.copy.send(&self.row)?)
    }
}

fn write_binary(value: Value<'_>, out: &mut Vec<u8>) {
    let mut field = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Value::Bigint(number) => field(&number.to_be_bytes()),
        Value::Smallint(number) => field(&number.to_be_bytes()),
        Value::Boolean(truth) => field(&[u8::from(truth)]),
        Value::Cents(cents) => write_cents(cents, out),
        Value::Time(ms) => field(&((ms - EPOCH_MS) * 1000).to_be_bytes()),
        Value::Text(text) => field(text.as_bytes()),
    }
}

/// A CSV file of an archive: text always in quotes, all else never, NULL as `null`, times in epoch milliseconds. General writers quote by
/// what a field looks like, and a reader of archives could not tell the text "null" from NULL, or "1" from 1.
pub struct CsvRows {
    out: BufWriter<File>,
    line: String,
}

impl CsvRows {
    /// Makes `path`, with a header.
    pub fn create(path: &Path, header: &[&str]) -> Result<CsvRows> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        writeln!(out, "{}", header.join(","))?;
        Ok(CsvRows { out, line: String::new() })
    }

    /// Writes a line as it is.
    pub fn line(&mut self, line: &[u8]) -> Result<()> {
        self.out.write_all(line)?;
        Ok(self.out.write_all(b"\n")?)
    }

    pub fn finish(mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

impl Rows for CsvRows {
    fn row(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.line.clear();
        for (n, value) in values.iter().enumerate() {
            if n > 0 {
                self.line.push(',');
            }
            write_cell(*value, &mut self.line);
        }
        self.line.push('\n');
        Ok(self.out.write_all(self.line.as_bytes())?)
    }
}

/// A value as an archive's cell.
pub fn write_cell(value: Value<'_>, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bigint(number) | Value::Time(number) => out.push_str(itoa::Buffer::new().format(number)),
        Value::Smallint(number) => out.push_str(itoa::Buffer::new().format(number)),
        Value::Boolean(truth) => out.push_str(if truth { "true" } else { "false" }),
        Value::Cents(cents) => {
            out.push_str(itoa::Buffer::new().format(cents / 100));
            if cents % 100 > 0 {
                out.push('.');
                out.push(char::from(b'0' + (cents % 100 / 10) as u8));
                out.push(char::from(b'0' + (cents % 10) as u8));
            }
        }
        Value::Text(text) => {
            out.push('"');
            for (n, part) in text.split('"').enumerate() {
                out.push_str(if n > 0 { "\"\"" } else { "" });
                out.push_str(part);
            }
            out.push('"');
        }
    }
}
