//! `catwalk reload` and `catwalk upgrade`: a running server is asked, and waited for.
//! Runs in: offline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli;
use crate::config::{Config, RuntimeDir, Sources};
use crate::control::{self, Asked, Question};
use crate::limits::{SUCCESSION_MAX, SUCCESSOR_MAX, WORKERS_MAX};
use crate::runtime_directory;

/// Where `dev` has its runtime directory, beside which its users call this.
const DEV_DIRECTORY: &str = ".catwalk/run";
/// Longest wait for a server to look at its settings, or at what it is to run.
const BEGIN_MAX: Duration = Duration::from_secs(10);

/// Exit status: there is nobody to be asked.
const EXIT_NOBODY: i32 = 3;

/// Has the settings read anew. Returns the exit status.
///
/// # Errors
/// That there is no server, or what is wrong with the settings.
pub fn reload(args: &cli::Ask) -> Result<i32> {
    ask(args, Question::Reload, SUCCESSOR_MAX * WORKERS_MAX as u32)
}

/// Has the binary in its place take over. Returns the exit status.
///
/// # Errors
/// That there is no server, or why it goes on itself.
pub fn upgrade(args: &cli::Ask) -> Result<i32> {
    ask(args, Question::Upgrade, SUCCESSION_MAX * 2)
}

fn ask(args: &cli::Ask, question: Question, patience: Duration) -> Result<i32> {
    let directory = directory(args.runtime_dir.as_deref(), args.config.as_deref())?;
    let asked = match Asked::new(&directory, question) {
        Ok(asked) => asked,
        Err(e) => {
            eprintln!("catwalk: {e:#}");
            return Ok(EXIT_NOBODY);
        }
    };
    let (mut is_done, _) = asked.answer(BEGIN_MAX)?;
    while args.wait && !is_done {
        (is_done, _) = asked.answer(patience)?;
    }
    println!("{}", if is_done { "done" } else { "begun" });
    Ok(0)
}

/// The runtime directory of the server that is meant: the one that is named, else as configured.
///
/// # Errors
/// That none is known.
pub fn directory(named: Option<&Path>, config: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return path.canonicalize().with_context(|| format!("finding {}", path.display()));
    }
    // What is wrong with the settings the server says, which they are meant for.
    let asked = Sources::read_with_default(config)
        .and_then(Config::new)
        .map_or(RuntimeDir::Auto, |config| config.runtime_dir);
    // A `dev` that runs in this directory is the nearer one.
    match Path::new(DEV_DIRECTORY).canonicalize() {
        Ok(dev) if asked == RuntimeDir::Auto && control::is_answered(&dev) => Ok(dev),
        _ => runtime_directory::path(&asked).context("no runtime directory is known; --runtime-dir names it"),
    }
}
