//! `catwalk top`: the status page of a terminal. It reads the server's memory; the server does nothing for it.
//! Runs in: offline.

mod view;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use catwalk::ask;
use catwalk::inspect::Server;
use catwalk::overview::{Overview, Sources};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::Terminal;

use crate::rates::Rates;

/// Points of the plots.
const KEPT: usize = 150;
/// Looks that are further apart than so many times the usual make no rate.
const GAP_MAX: f64 = 5.0;
/// Size of what `--once` prints.
const ONCE_COLUMNS: u16 = 120;
const ONCE_LINES: u16 = 46;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds between two looks.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    every: f64,
    /// Print one look, of one such time, and end.
    #[arg(long)]
    once: bool,
    /// The server's runtime directory [default: as configured, or that of `dev` here].
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// TOML file with settings [default: /etc/catwalk/catwalk.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is shown.
pub struct Screen {
    now: Overview,
    /// The newest last.
    history: VecDeque<Rates>,
    is_paused: bool,
    every: Duration,
    /// Why the server that is there now can't be looked at.
    trouble: Option<String>,
}

impl Screen {
    fn add(&mut self, now: Overview) {
        let longest_s = self.every.as_secs_f64() * GAP_MAX;
        match Rates::between(&self.now, &now, longest_s) {
            Some(rates) => {
                self.history.push_back(rates);
                let excess = self.history.len().saturating_sub(KEPT);
                self.history.drain(..excess);
            }
            None => self.history.clear(),
        }
        self.now = now;
    }
}

fn look(server: &Server) -> Overview {
    let Server { arena, metrics, slots, topology } = server;
    Overview::take(&Sources { arena, metrics, slots, topology })
}

/// Watches until q or Ctrl-C.
///
/// # Errors
/// That there is no server, or no terminal.
pub fn run(args: &Args) -> Result<ExitCode> {
    let directory = ask::directory(args.runtime_dir.as_deref(), args.config.as_deref())?;
    ensure!((0.2..=3600.0).contains(&args.every), "--every: from 0.2 to 3600 seconds");
    let every = Duration::from_secs_f64(args.every);
    let server = Server::open(&directory)?;
    let mut screen =
        Screen { now: look(&server), history: VecDeque::new(), is_paused: false, every, trouble: None };
    if args.once {
        std::thread::sleep(every);
        screen.add(look(&server));
        print!("{}", print_once(&screen)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init().context("this takes a terminal; --once prints one look")?;
    let done = watch(&mut terminal, screen, server, || Server::open(&directory));
    ratatui::restore();
    done.map(|()| ExitCode::SUCCESS)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    mut screen: Screen,
    mut server: Server,
    reopen: impl Fn() -> Result<Server>,
) -> Result<()> {
    let mut due = Instant::now() + screen.every;
    loop {
        terminal.draw(|frame| view::draw(frame, &screen))?;
        let patience = due.saturating_duration_since(Instant::now());
        if event::poll(patience)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Char('p') | KeyCode::Char(' ') => screen.is_paused = !screen.is_paused,
                    _ => {}
                },
                _ => {}
            }
            continue;
        }
        due = Instant::now() + screen.every;
        let mut now = look(&server);
        if screen.trouble.is_some() || is_another_life(&screen.now, &now) {
            match reopen() {
                Ok(fresh) => {
                    (server, screen.trouble) = (fresh, None);
                    now = look(&server);
                }
                Err(why) => screen.trouble = Some(format!("{why:#}")),
            }
        }
        if !screen.is_paused {
            screen.add(now);
        }
    }
}

/// Whether the memory that is looked at may be another server's by now: a restart and an upgrade keep some of it, and make some anew.
fn is_another_life(before: &Overview, now: &Overview) -> bool {
    let pids = |overview: &Overview| overview.workers.processes.iter().map(|p| p.pid).collect::<Vec<_>>();
    now.workers.serving == 0 || pids(before) != pids(now)
}

/// The screen as text.
fn print_once(screen: &Screen) -> Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(ONCE_COLUMNS, ONCE_LINES))?;
    terminal.draw(|frame| view::draw(frame, screen))?;
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..ONCE_COLUMNS).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    Ok((0..ONCE_LINES).map(|y| format!("{}\n", line(y).trim_end())).collect())
}
