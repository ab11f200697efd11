//! What a load did: counts by file, and every rejected line in a file of its own.
//! Runs in: offline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::etl::clean::Reason;
use crate::etl::csv::Repair;
use crate::etl::progress::Audience;
use crate::etl::rows::{CsvRows, Rows, Value};
use crate::etl::swap::{Posted, Swapped};
use crate::etl::EXIT_REJECTS;

/// One file's counts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    pub file: String,
    pub loaded: u64,
    pub repaired: BTreeMap<Repair, u64>,
    pub rejected: BTreeMap<String, u64>,
}

impl FileReport {
    pub fn rejects(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub fn take(&mut self, repairs: &[Repair]) {
        for repair in repairs {
            *self.repaired.entry(*repair).or_default() += 1;
        }
    }

    /// `product.csv: 589 loaded; repaired 3 (currency sign 1, …); rejected 11 (duplicate id 4, …)`
    pub fn summary(&self) -> String {
        let repaired = list(self.repaired.iter().map(|(repair, n)| (repair.name(), *n)));
        let rejected = list(self.rejected.iter().map(|(reason, n)| (reason.as_str(), *n)));
        format!("{}: {} loaded; repaired {repaired}; rejected {rejected}", self.file, self.loaded)
    }
}

/// `3 (one 1, other 2)`
fn list<'a>(kinds: impl Iterator<Item = (&'a str, u64)>) -> String {
    let (mut total, mut names) = (0, Vec::new());
    for (name, count) in kinds {
        total += count;
        names.push(format!("{name} {count}"));
    }
    match total {
        0 => "0".into(),
        total => format!("{total} ({})", names.join(", ")),
    }
}

/// A load, when it has ended.
#[derive(Debug, Serialize)]
pub struct Summary {
    dry_run: bool,
    files: Vec<FileReport>,
    loaded: u64,
    rejected: u64,
    #[serde(flatten)]
    posted: Option<Posted>,
    /// How long readers, and writers, may have waited for the swap.
    readers_waited_ms: Option<u64>,
    writers_waited_ms: Option<u64>,
}

impl Summary {
    pub fn new(files: Vec<FileReport>, swapped: Option<&Swapped>, dry_run: bool) -> Summary {
        let ms = |time: Duration| time.as_millis() as u64;
        Summary {
            dry_run,
            loaded: files.iter().map(|file| file.loaded).sum(),
            rejected: files.iter().map(FileReport::rejects).sum(),
            files,
            posted: swapped.map(|swapped| swapped.posted),
            readers_waited_ms: swapped.map(|swapped| ms(swapped.readers)),
            writers_waited_ms: swapped.map(|swapped| ms(swapped.writers)),
        }
    }

    /// Exit status: 0, or 3 with rejects.
    pub fn status(&self) -> i32 {
        match self.rejected {
            0 => 0,
            _ => EXIT_REJECTS,
        }
    }

    pub fn print(&self, audience: Audience, rejects: &Path) {
        if audience == Audience::Machines {
            println!("{}", serde_json::to_string(self).expect("plain fields serialise"));
            return;
        }
        self.files.iter().for_each(|file| println!("{}", file.summary()));
        if let (Some(readers), Some(writers)) = (self.readers_waited_ms, self.writers_waited_ms) {
            println!("swapped: readers waited {readers} ms at most, writers {writers} ms");
        }
        if let Some(Posted { carried, voted, dropped }) =
            self.posted.filter(|posted| *posted != Posted::default())
        {
            println!(
                "while this ran: {carried} reviews, questions and answers were posted and carried over, votes or reports for \
                 {voted} too; {dropped} were for products or questions that are no more, and dropped"
            );
        }
        if self.rejected > 0 {
            let (rejected, dir) = (self.rejected, rejects.display());
            println!("{rejected} lines were rejected: {dir}/*.rejects.csv say which and why");
        }
        if self.dry_run {
            println!("a dry run: the database is as it was");
        }
    }
}

/// `FILE.rejects.csv`: made when the first line is rejected, removed when none is.
pub struct Rejects {
    path: PathBuf,
    out: Option<CsvRows>,
}

impl Rejects {
    /// Rejects of `file`, in `dir`. Those of an earlier load are removed.
    pub fn new(dir: &Path, file: &str) -> Rejects {
        let path = dir.join(format!("{file}.rejects.csv"));
        // There may be none; and a directory that can't be written is told at the first reject.
        let _ = std::fs::remove_file(&path);
        Rejects { path, out: None }
    }

    pub fn write(&mut self, line: u64, reason: &Reason) -> Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => {
                let out = CsvRows::create(&self.path, &["line", "column", "reason"]);
                none.insert(out.context("--rejects DIR chooses another place")?)
            }
        };
        let column = Value::Text(reason.column.unwrap_or(""));
        out.row(&[Value::Bigint(line as i64), column, Value::Text(&reason.to_string())])
    }

    /// Writes what is left.
    pub fn finish(self) -> Result<()> {
        match self.out {
            Some(out) => out.finish().with_context(|| format!("writing {}", self.path.display())),
            None => Ok(()),
        }
    }
}
