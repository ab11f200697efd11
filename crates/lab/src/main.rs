//! `catwalk-lab`, which `catwalk top` and `catwalk bench` run.
//! Runs in: offline.

use std::process::ExitCode;

use catwalk_lab::{bench, top};
use clap::{Parser, Subcommand};

/// What one looks at and drives catwalk with.
#[derive(Debug, Parser)]
#[command(name = "catwalk", bin_name = "catwalk", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch a running server in the terminal, from its own memory.
    Top(top::Args),
    /// Drive a server at a constant rate, and say how long answers took from when they were due.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Top(args) => top::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(status) => status,
        Err(e) => {
            eprintln!("catwalk: {e:#}");
            ExitCode::FAILURE
        }
    }
}
