//! `catwalk-lab`, which `catwalk top` and `catwalk bench` run.
//! Runs in: offline.

use std::process::ExitCode;

use catwalk_lab::cli::{Cli, Command};
use catwalk_lab::{bench, top};
use clap::Parser;

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
