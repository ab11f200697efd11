//! Rows into a table through COPY, in its text format.
//! Runs in: offline. Format: PostgreSQL documentation, COPY, "Text Format".

use may_postgres::{Client, CopyIn, Error};

/// A COPY under way, taking rows value by value.
pub struct Rows {
    copy: CopyIn,
    line: Vec<u8>,
}

impl Rows {
    /// Starts copying into `columns` of `table`.
    pub fn start(client: &Client, table: &str, columns: &[&str]) -> Result<Rows, Error> {
        let copy = client.copy_in(&format!("copy {table} ({}) from stdin", columns.join(", ")))?;
        Ok(Rows { copy, line: Vec::with_capacity(1024) })
    }

    /// Adds a value to the row under way.
    pub fn value(&mut self, value: Option<&str>) {
        if !self.line.is_empty() {
            self.line.push(b'\t');
        }
        let Some(text) = value else { return self.line.extend_from_slice(b"\\N") };
        for byte in text.bytes() {
            match byte {
                b'\\' => self.line.extend_from_slice(b"\\\\"),
                b'\t' => self.line.extend_from_slice(b"\\t"),
                b'\n' => self.line.extend_from_slice(b"\\n"),
                b'\r' => self.line.extend_from_slice(b"\\r"),
                byte => self.line.push(byte),
            }
        }
    }

    pub fn number(&mut self, value: i64) {
        self.value(Some(itoa::Buffer::new().format(value)));
    }

    /// Ends the row.
    pub fn end(&mut self) -> Result<(), Error> {
        self.line.push(b'\n');
        self.copy.send(&self.line)?;
        self.line.clear();
        Ok(())
    }

    /// Ends the COPY; returns how many rows the server took.
    pub fn finish(self) -> Result<u64, Error> {
        self.copy.finish()
    }
}

/// Sets the sequence behind `table`'s ids past the largest one.
pub fn advance_sequence(client: &Client, table: &str) -> Result<(), Error> {
    client.batch_execute(&format!(
        "select setval(pg_get_serial_sequence('{table}', 'id'), (select coalesce(max(id), 0) + 1 from {table}), false)"
    ))
}
