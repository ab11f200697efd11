//! The command line of what the lab does: of `catwalk-lab`, and of the manual pages.
//! Runs in: offline.

use clap::{Parser, Subcommand};

use crate::{bench, top};

/// What one looks at and drives catwalk with.
#[derive(Debug, Parser)]
#[command(name = "catwalk", bin_name = "catwalk", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a running server in the terminal, from its own memory.
    Top(top::Args),
    /// Drive a server at a constant rate, and say how long answers took from when they were due.
    Bench(bench::Args),
}
