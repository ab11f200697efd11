//! `catwalk load`: an archive into tables of its own, which then take the live ones' places.
//! Runs in: offline.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use may_postgres::Client;
use roaring::RoaringTreemap;

use crate::etl::archive::{Archive, Source};
use crate::etl::clean::{clean, Keys, Known, Reason};
use crate::etl::csv::Record;
use crate::etl::progress::{Audience, Meter, Unit};
use crate::etl::report::{FileReport, Rejects, Summary};
use crate::etl::rows::{Nowhere, Rows};
use crate::etl::staging::{Guard, Origin, Staging, RANKS, STAGED};
use crate::etl::swap::{swap, Swapped};
use crate::etl::table::{Table, TABLES};
use crate::etl::tasks::{self, Task};
use crate::etl::Effort;

/// How long the locks of the swap are tried for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Tables whose rows belong together and are posted together: what shoppers add while one of them is loaded has parts in all.
const TOGETHER: &[&[&str]] = &[
    &["reviews", "reviews_photos", "characteristics", "characteristic_reviews"],
    &["questions", "answers", "answers_photos"],
];

/// What becomes of a line that can't be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnBad {
    /// It is listed in FILE.rejects.csv, and the rest is loaded.
    Reject,
    /// Nothing is loaded.
    Stop,
}

/// What to load, and how.
#[derive(Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// Where FILE.rejects.csv go.
    pub rejects: PathBuf,
    /// Names of files; none: all.
    pub only: Vec<String>,
    pub effort: Effort,
    pub on_bad: OnBad,
    pub dry_run: bool,
    /// Leave what an earlier load of the same files has left; else it is gone on with.
    pub start_over: bool,
    pub audience: Audience,
}

/// Whether a table holds anything.
pub fn has_rows(client: &Client, table: &str) -> Result<bool> {
    Ok(!client.query_text(&format!("select 1 from {table} limit 1"), &[])?.is_empty())
}

/// Loads, or reads only, and reports; returns the exit status: 0, or 3 with rejects.
///
/// # Errors
/// A directory that is no archive's, a header that doesn't fit, a file that can't be read, what the database refuses, a reject with
/// [`OnBad::Stop`]. The catalogue is as it was then.
pub fn run(url: &str, options: &Options) -> Result<i32> {
    let archive = Archive::survey(&options.dir, &options.only)?;
    if options.only.is_empty() && archive.source("products").is_none() {
        let dir = options.dir.display();
        bail!("{dir} has no product.csv (nor .csv.gz, .csv.zst): is it an archive's directory?");
    }
    if archive.sources.is_empty() {
        bail!("none of the files asked for holds what can be loaded: {}", archive.notes.join("; "));
    }
    let meter = Meter::new(options.audience, Unit::Bytes, archive.size());
    archive.notes.iter().for_each(|note| meter.say(note));
    let (known, stopped_by) = (Known::default(), OnceLock::new());
    let load = Load { options, archive: &archive, meter: &meter, known, url, stopped_by };
    let (files, swapped) = meter.watch(|| match options.dry_run {
        true => load.rehearse().map(|files| (files, None)),
        false => load.run().map(|(files, swapped)| (files, Some(swapped))),
    })?;
    let summary = Summary::new(files, swapped.as_ref(), options.dry_run);
    summary.print(options.audience, &options.rejects);
    Ok(summary.status())
}

struct Load<'a> {
    options: &'a Options,
    archive: &'a Archive,
    meter: &'a Meter,
    known: Known,
    url: &'a str,
    /// The line that stops the load: whichever file is told of first, this is what is told.
    stopped_by: OnceLock<String>,
}

impl Load<'_> {
    fn connect(&self) -> Result<Client> {
        crate::db::connect(self.url)
    }

    /// Reads every file as a load would.
    fn rehearse(&self) -> Result<Vec<FileReport>> {
        let sources: Vec<&Source> = self.archive.sources.iter().collect();
        if !sources.iter().all(|s| s.table.parents().all(|p| sources.iter().any(|s| s.table.is == Some(p)))) {
            let client = self.connect()?;
            self.learn(&client, None, &sources)?;
        }
        self.meter.enter_rows("reading", sources.len());
        let reports = parking_lot::Mutex::new(Vec::new());
        let tasks = sources.iter().map(|source| {
            let after = self.parents_of(source, &sources);
            let reports = &reports;
            Task::new(&source.file, move |()| {
                reports.lock().push(self.copy_file(source, &mut Nowhere)?);
                Ok(())
            })
            .after(after)
        });
        tasks::run(tasks.collect(), self.options.effort.jobs, || Ok(()))?;
        let mut reports = reports.into_inner();
        reports.sort_by_key(|report| sources.iter().position(|source| source.file == report.file));
        Ok(reports)
    }

    fn run(&self) -> Result<(Vec<FileReport>, Swapped)> {
        let guarded = self.connect()?;
        let _guard = Guard::take(&guarded)?;
        let client = self.connect()?;
        let tables: Vec<&'static str> = match self.options.only.is_empty() {
            true => TABLES.iter().map(|table| table.name).collect(),
            false => self.archive.sources.iter().map(|source| source.table.name).collect(),
        };
        check_together(&tables)?;
        self.check_nothing_is_emptied(&client, &tables)?;
        let origin = Origin {
            fingerprint: format!("{:?}\n{}", self.options.on_bad, self.archive.fingerprint()),
            start_over: self.options.start_over,
        };
        let staging = Staging::open(&client, tables, &origin, self.options.effort.index_memory_bytes)?;
        self.copy(&client, &staging)?;
        build(&staging, self.options.effort.jobs, self.meter, || self.connect())?;
        let files = self.archive.sources.iter().map(|source| {
            let report = staging.report_of(&client, source.table.name)?.context("a file was not filled")?;
            Ok(serde_json::from_str(&report)?)
        });
        let files = files.collect::<Result<_>>()?;
        self.meter.enter("swapping", 0);
        Ok((files, swap(&client, &staging, PATIENCE)?))
    }

    /// # Errors
    /// A table of the catalogue has rows, and the archive no file for it.
    fn check_nothing_is_emptied(&self, client: &Client, tables: &[&'static str]) -> Result<()> {
        for table in tables.iter().filter(|table| self.archive.source(table).is_none()) {
            if !has_rows(client, table)? {
                self.meter.say(&format!("no file holds {table}: none are loaded"));
                continue;
            }
            bail!(
                "no file in {} holds {table}, of which the catalogue has some: they would be gone. A file with nothing but the \
                 header empties the table; --only FILES loads a part and leaves the rest",
                self.options.dir.display()
            );
        }
        Ok(())
    }

    /// Fills the staged tables, each with its primary key.
    fn copy(&self, client: &Client, staging: &Staging) -> Result<()> {
        let mut missing = Vec::new();
        for table in TABLES.iter().filter(|table| staging.tables.contains(&table.name)) {
            match (staging.report_of(client, table.name)?, self.archive.source(table.name)) {
                (None, Some(source)) => missing.push(source),
                (None, None) => {
                    staging.fill(client, table.name, &table.column_names(), |_| Ok(String::new()))?
                }
                (Some(_), Some(source)) => {
                    self.meter.whole.inc(source.size);
                    self.meter.say(&format!("{} was copied before", source.file));
                }
                (Some(_), None) => {}
            }
        }
        self.learn(client, Some(staging), &missing)?;
        self.meter.enter_rows("copying", missing.len());
        let tasks = missing.iter().map(|source| {
            let table = source.table;
            Task::new(&source.file, move |client: &Client| {
                staging.fill(client, table.name, &table.column_names(), |rows| {
                    Ok(serde_json::to_string(&self.copy_file(source, rows)?)?)
                })?;
                self.meter.step();
                Ok(())
            })
            .after(self.parents_of(source, &missing))
        });
        tasks::run(tasks.collect(), self.options.effort.jobs, || self.connect())
    }

    /// Places in `sources` of the files whose rows this one's refer to.
    fn parents_of<'s>(&self, source: &'s Source, sources: &'s [&Source]) -> impl Iterator<Item = usize> + 's {
        source.table.parents().filter_map(|parent| sources.iter().position(|s| s.table.is == Some(parent)))
    }

    /// Learns the ids that `sources` refer to and that none of them brings: of tables filled before, and of live ones that stay.
    fn learn(&self, client: &Client, staging: Option<&Staging>, sources: &[&Source]) -> Result<()> {
        for parent in sources.iter().flat_map(|source| source.table.parents()) {
            if self.known.has(parent) || sources.iter().any(|source| source.table.is == Some(parent)) {
                continue;
            }
            let table =
                TABLES.iter().find(|table| table.is == Some(parent)).context("a parent has no table")?.name;
            let schema = match staging {
                Some(staging) if staging.tables.contains(&table) => format!("{STAGED}."),
                _ => String::new(),
            };
            self.known.add(parent, read_ids(client, &format!("{schema}{table}"))?);
        }
        Ok(())
    }

    fn copy_file(&self, source: &Source, rows: &mut dyn Rows) -> Result<FileReport> {
        let outcome = self.try_copy_file(source, rows);
        outcome.with_context(|| format!("loading {}", source.path.display()))
    }

    fn try_copy_file(&self, source: &Source, rows: &mut dyn Rows) -> Result<FileReport> {
        let mut reader = source.open(self.meter)?;
        let mut rejects = Rejects::new(&self.options.rejects, &source.file);
        let mut report = FileReport { file: source.file.clone(), ..FileReport::default() };
        let mut keys = self.known.keys();
        let (mut record, mut repairs, mut tally) = (Record::default(), Vec::new(), self.meter.tally());
        while let Some(outcome) = reader.read(&mut record)? {
            if let Some(why) = self.stopped_by.get() {
                bail!("{why}");
            }
            repairs.clear();
            let outcome = match outcome {
                Ok(()) => clean(source.table, &source.order, &record, &mut keys, &mut repairs),
                Err(rejected) => Err(Reason::from(rejected)),
            };
            match outcome {
                Ok(values) => {
                    rows.row(&values)?;
                    report.take(&record.repairs);
                    report.take(&repairs);
                    report.loaded += 1;
                    tally.row();
                }
                Err(reason) => self.reject(record.line, reason, &mut rejects, &mut report)?,
            }
        }
        rejects.finish()?;
        self.publish(source.table, keys);
        Ok(report)
    }

    fn reject(
        &self,
        line: u64,
        reason: Reason,
        rejects: &mut Rejects,
        report: &mut FileReport,
    ) -> Result<()> {
        if self.options.on_bad == OnBad::Stop {
            let column = reason.column.map(|column| format!(", column {column}")).unwrap_or_default();
            let why = format!(
                "{}: line {line}{column}: {reason}; --on-bad reject lists such lines and loads the rest",
                report.file
            );
            bail!("{}", self.stopped_by.get_or_init(|| why));
        }
        rejects.write(line, &reason)?;
        self.meter.rejects.fetch_add(1, Ordering::Relaxed);
        *report.rejected.entry(reason.text.to_string()).or_default() += 1;
        Ok(())
    }

    fn publish(&self, table: &Table, keys: Keys) {
        if let Some(parent) = table.is {
            self.known.add(parent, keys.own);
        }
    }
}

/// # Errors
/// Some of a group of tables are to be loaded and others not.
fn check_together(tables: &[&'static str]) -> Result<()> {
    for group in TOGETHER {
        let missing: Vec<&str> = group.iter().copied().filter(|table| !tables.contains(table)).collect();
        if !missing.is_empty() && missing.len() < group.len() {
            bail!(
                "{} are loaded together, for what is posted meanwhile has parts in each: {} too, please",
                group.join(", "),
                missing.join(", ")
            );
        }
    }
    Ok(())
}

/// Indexes, foreign keys, statistics and sequences of staged tables that are filled.
pub fn build(
    staging: &Staging,
    jobs: usize,
    meter: &Meter,
    connect: impl Fn() -> Result<Client> + Sync,
) -> Result<()> {
    let step = |done: Result<()>| done.map(|()| meter.step());
    let mut tasks: Vec<Task<'_, Client>> = Vec::new();
    if staging.tables.contains(&RANKS) {
        tasks.push(Task::new("ranks", |client: &Client| step(staging.fill_ranks(client))));
    }
    for index in staging.indexes.iter().filter(|index| index.is_primary) {
        let after = (index.table == RANKS).then_some(0);
        let key = move |client: &Client| step(staging.index(client, index));
        tasks.push(Task::new(&index.name, key).after(after));
    }
    meter.enter("building primary keys", tasks.len());
    tasks::run(tasks, jobs, &connect)?;
    staging.refer(&connect()?)?;

    // The slowest first: those of words.
    let mut indexes: Vec<_> = staging.indexes.iter().filter(|index| !index.is_primary).collect();
    indexes.sort_by_key(|index| !index.is_of_words());
    let references: Vec<_> = staging.own_references().collect();
    let mut tasks: Vec<Task<'_, Client>> = indexes
        .iter()
        .map(|index| Task::new(&index.name, move |client: &Client| step(staging.index(client, index))))
        .collect();
    for reference in references {
        // Checking waits for the building of indexes of the same table, and would keep a thread from other work.
        let own = indexes.iter().enumerate().filter(|(_, index)| index.table == reference.table);
        let own: Vec<usize> = own.map(|(n, _)| n).collect();
        let check = move |client: &Client| step(staging.check(client, reference));
        tasks.push(Task::new(&reference.name, check).after(own));
    }
    meter.enter("building indexes", tasks.len());
    tasks::run(tasks, jobs, &connect)?;

    let finish = |table: &&'static str| {
        let table = *table;
        Task::new(table, move |client: &Client| step(staging.finish(client, table)))
    };
    meter.enter("analysing", staging.tables.len());
    tasks::run(staging.tables.iter().map(finish).collect(), jobs, &connect)?;
    staging.check_others(&connect()?)
}

/// Every id of a table.
fn read_ids(client: &Client, table: &str) -> Result<RoaringTreemap> {
    let mut ids = RoaringTreemap::new();
    let mut copy = client.copy_out(&format!("copy (select id from {table}) to stdout"))?;
    let mut rest = Vec::new();
    while let Some(chunk) = copy.next_chunk()? {
        rest.extend_from_slice(&chunk);
        let end = memchr::memrchr(b'\n', &rest).map_or(0, |at| at + 1);
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let id: i64 =
                std::str::from_utf8(line)?.parse().with_context(|| format!("reading the ids of {table}"))?;
            ids.insert(id as u64);
        }
        rest.drain(..end);
    }
    Ok(ids)
}
