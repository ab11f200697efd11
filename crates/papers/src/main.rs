//! Man pages and completions, made from the command line and the table of settings.
//! Runs in: offline.

mod daemon;
mod toml_page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use catwalk::cli::Cli;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// Section of the manual for daemons and what administers them.
const SECTION: &str = "8";

fn main() -> Result<()> {
    let dir: PathBuf = std::env::args_os().nth(1).context("which directory? papers DIR")?.into();
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let command = whole();
    write_pages(&command, &man)?;
    write(&man.join("catwalk.toml.5"), &toml_page::render()?)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "catwalk", &completions)?;
    }
    Ok(())
}

/// The command line, with what another program does for it.
fn whole() -> Command {
    let lab = catwalk_lab::cli::Cli::command();
    lab.get_subcommands()
        .fold(Cli::command(), |command, sub| command.mut_subcommand(sub.get_name(), |_| sub.clone()))
}

/// A page for the program, and one for each of its commands.
fn write_pages(command: &Command, dir: &Path) -> Result<()> {
    let mut main = page(command.clone())?;
    main.extend(daemon::render());
    write(&dir.join(format!("catwalk.{SECTION}")), &main)?;
    for sub in command.get_subcommands() {
        let name = format!("catwalk-{}", sub.get_name());
        let named = sub.clone().name(name.clone()).version(command.render_version());
        write(&dir.join(format!("{name}.{SECTION}")), &page(named)?)?;
    }
    Ok(())
}

fn page(command: Command) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Man::new(command).section(SECTION).render(&mut out)?;
    Ok(out)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
