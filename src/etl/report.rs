//! What a load did: counts by file, and every rejected line in a file of its own.
//! Runs in: offline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::etl::clean::Reason;
use crate::etl::csv::Repair;

/// One file's counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
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

    /// `product.csv: 589 loaded, 3 repaired (currency sign 1, …), 11 rejected (duplicate id 4, …)`
    pub fn summary(&self) -> String {
        let list = |pairs: Vec<(String, u64)>| {
            let total: u64 = pairs.iter().map(|p| p.1).sum();
            let kinds: Vec<String> = pairs.iter().map(|(name, n)| format!("{name} {n}")).collect();
            if total == 0 {
                "0".to_string()
            } else {
                format!("{total} ({})", kinds.join(", "))
            }
        };
        let repaired = list(self.repaired.iter().map(|(r, n)| (r.name().to_string(), *n)).collect());
        let rejected = list(self.rejected.iter().map(|(r, n)| (r.clone(), *n)).collect());
        format!("{}: {} loaded; repaired {repaired}; rejected {rejected}", self.file, self.loaded)
    }
}

/// `FILE.rejects.csv`: made when the first line is rejected, removed when none is.
pub struct Rejects {
    path: PathBuf,
    out: Option<BufWriter<File>>,
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
        if self.out.is_none() {
            let file = File::create(&self.path);
            let file = file.with_context(|| {
                format!("making {}; --rejects DIR chooses another place", self.path.display())
            })?;
            let mut out = BufWriter::new(file);
            writeln!(out, "line,column,reason")?;
            self.out = Some(out);
        }
        if let Some(out) = &mut self.out {
            writeln!(out, "{line},{},\"{}\"", reason.column.unwrap_or(""), reason.text.replace('"', "\"\""))?;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Option<PathBuf>> {
        match self.out {
            Some(mut out) => {
                out.flush().with_context(|| format!("writing {}", self.path.display()))?;
                Ok(Some(self.path))
            }
            None => Ok(None),
        }
    }
}
