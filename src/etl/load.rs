//! `catwalk load`: an archive into an empty catalogue, all of it or nothing, in one transaction.
//! Runs in: offline.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use may_postgres::Client;

use crate::etl::clean::{clean, Known, Reason};
use crate::etl::copy::{advance_sequence, Rows};
use crate::etl::csv::{Item, Reader};
use crate::etl::report::{FileReport, Rejects};
use crate::etl::table::{Table, TABLES};
use crate::etl::EXIT_REJECTS;

/// Files of the archive that have no place here.
const PASSED_OVER: &[&str] = &["cart"];

/// What to load, and how.
pub struct Options {
    pub dir: PathBuf,
    /// Where FILE.rejects.csv go.
    pub rejects: PathBuf,
    /// Empty the catalogue first.
    pub replace: bool,
}

/// Whether the catalogue holds anything.
pub fn has_products(client: &Client) -> Result<bool> {
    Ok(!client.query_text("select 1 from products limit 1", &[])?.is_empty())
}

/// Loads and reports; returns the exit status: 0, or 3 with rejects.
pub fn run(client: &Client, options: &Options) -> Result<i32> {
    let reports = load(client, options)?;
    for report in &reports {
        println!("{}", report.summary());
    }
    let rejects: u64 = reports.iter().map(FileReport::rejects).sum();
    if rejects == 0 {
        return Ok(0);
    }
    println!("{rejects} lines were rejected: {}/*.rejects.csv say which and why", options.rejects.display());
    Ok(EXIT_REJECTS)
}

/// Loads the files of an archive.
///
/// # Errors
/// A catalogue that holds something already, an archive without products, a file that can't be read, a header
/// that doesn't fit. Nothing is loaded then.
pub fn load(client: &Client, options: &Options) -> Result<Vec<FileReport>> {
    if !options.replace && has_products(client)? {
        bail!("the catalogue holds products already; --replace puts the archive in their place");
    }
    if find_file(&options.dir, "product").is_none() {
        bail!(
            "{} has no product.csv (nor .csv.gz, .csv.zst): is it an archive's directory?",
            options.dir.display()
        );
    }
    let transaction = client.transaction()?;
    if options.replace {
        let names: Vec<&str> = TABLES.iter().map(|t| t.name).collect();
        client.batch_execute(&format!("truncate {}", names.join(", ")))?;
    }
    let mut known = Known::default();
    let mut reports = Vec::new();
    for table in TABLES {
        match find_file(&options.dir, table.file) {
            Some(path) => {
                let report = load_file(client, options, table, &path, &mut known);
                reports.push(report.with_context(|| format!("loading {}", path.display()))?);
            }
            None => println!("{}.csv is not there: passed over", table.file),
        }
        advance_sequence(client, table.name)?;
    }
    transaction.commit().context("committing the load")?;
    finish(client)?;
    for file in PASSED_OVER.iter().filter(|file| find_file(&options.dir, file).is_some()) {
        println!("{file}.csv is passed over: carts belong to sessions, which an archive does not name");
    }
    Ok(reports)
}

/// Statistics and hint bits, so that the first requests find good plans and clean pages.
pub fn finish(client: &Client) -> Result<()> {
    for table in TABLES {
        client.batch_execute(&format!("vacuum (analyze) {}", table.name)).context("analysing the tables")?;
    }
    Ok(())
}

fn load_file(
    client: &Client,
    options: &Options,
    table: &'static Table,
    path: &Path,
    known: &mut Known,
) -> Result<FileReport> {
    let bar = progress(path)?;
    let (mut reader, header) = Reader::open(open(path, &bar)?)?;
    let order = table.match_header(&header).map_err(anyhow::Error::msg)?;
    let file = format!("{}.csv", table.file);
    let mut rejects = Rejects::new(&options.rejects, &file);
    let mut report = FileReport { file, ..FileReport::default() };
    let columns: Vec<&str> = table.columns.iter().map(|c| c.name).collect();
    let mut rows = Rows::start(client, table.name, &columns)?;
    known.start();
    while let Some(item) = reader.next_item()? {
        let outcome = match &item {
            Item::Record(record) => {
                let mut repairs = record.repairs.clone();
                clean(table, &order, record, known, &mut repairs)
                    .map(|values| (values, repairs))
                    .map_err(|r| (record.line, r))
            }
            Item::Reject { line, reason } => Err((*line, Reason::new(reason))),
        };
        match outcome {
            Ok((values, repairs)) => {
                values.iter().for_each(|v| rows.value(v.as_deref()));
                rows.end()?;
                report.loaded += 1;
                repairs.into_iter().for_each(|r| *report.repaired.entry(r).or_default() += 1);
            }
            Err((line, reason)) => {
                rejects.write(line, &reason)?;
                *report.rejected.entry(reason.text.into_owned()).or_default() += 1;
            }
        }
    }
    rows.finish()?;
    rejects.finish()?;
    known.finish(table.is);
    bar.finish_and_clear();
    Ok(report)
}

/// `FILE.csv`, `FILE.csv.gz` or `FILE.csv.zst`.
fn find_file(dir: &Path, file: &str) -> Option<PathBuf> {
    ["csv", "csv.gz", "csv.zst"]
        .iter()
        .map(|ext| dir.join(format!("{file}.{ext}")))
        .find(|path| path.is_file())
}

fn open(path: &Path, bar: &ProgressBar) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let counted = bar.wrap_read(file);
    let plain: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(counted)),
        Some("zst") => Box::new(zstd::Decoder::new(counted)?),
        _ => Box::new(counted),
    };
    Ok(Box::new(BufReader::with_capacity(256 * 1024, plain)))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(path: &Path) -> Result<ProgressBar> {
    let size = std::fs::metadata(path)?.len();
    let style = "{msg:>24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ProgressBar::new(size).with_style(ProgressStyle::with_template(style)?).with_message(name))
}
