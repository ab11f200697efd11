//! `catwalk doctor`: what on this machine, in the database and in the running server keeps it from doing what it could, with the fix.
//! Runs in: offline.

mod database;
mod machine;
mod server;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::ask;
use crate::cli;
use crate::config::{Config, Sources};

/// Exit status with something to mend.
const EXIT_FINDINGS: i32 = 2;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something should be mended.
    Warn,
    /// It does not work, or soon won't.
    Fail,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    pub found: String,
    /// What to type or write, to the letter; empty where nothing is to be done.
    pub fix: String,
    pub why: String,
}

impl Finding {
    pub fn ok(subject: &'static str, found: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject, found: found.into(), fix: String::new(), why: String::new() }
    }

    pub fn new(
        level: Level,
        subject: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
        why: &str,
    ) -> Finding {
        Finding { level, subject, found: found.into(), fix: fix.into(), why: why.to_string() }
    }
}

/// Looks at everything. Returns the exit status.
///
/// # Errors
/// A configuration that can't be read.
pub fn run(args: &cli::Doctor) -> Result<i32> {
    let mut sources = Sources::read_with_default(args.settings.config.as_deref())?;
    sources.flag("--database-url", "database.url", args.settings.database_url.as_deref());
    let config = Config::new(sources)?;
    let directory = ask::directory(None, args.settings.config.as_deref()).ok();
    let findings = findings(&config, directory.as_deref());
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&findings)?),
        false => findings.iter().filter(|f| args.all || f.level > Level::Ok).for_each(print),
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    if !args.json {
        let [ok, notes, warnings, failures] = [Level::Ok, Level::Note, Level::Warn, Level::Fail].map(count);
        println!("{ok} fine, {notes} to know, {warnings} to mend, {failures} broken");
    }
    Ok(if count(Level::Warn) + count(Level::Fail) > 0 { EXIT_FINDINGS } else { 0 })
}

fn findings(config: &Config, directory: Option<&Path>) -> Vec<Finding> {
    let (process, of_server) = server::examine(config, directory);
    let mut all = machine::examine(config, process);
    all.extend(of_server);
    all.extend(database::examine(config));
    all
}

fn print(finding: &Finding) {
    let Finding { level, subject, found, fix, why } = finding;
    println!("{:<5} {subject}: {found}", format!("{level:?}").to_lowercase());
    for (name, text) in [("fix", fix), ("why", why)].into_iter().filter(|(_, text)| !text.is_empty()) {
        println!("      {name}: {text}");
    }
}
