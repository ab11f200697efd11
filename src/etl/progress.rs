//! How far a long job is: a bar on a terminal, a line now and then elsewhere, objects for machines.
//! Runs in: offline.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;

/// How often a line is written where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);
/// Rows that a thread counts before it tells.
const TALLY_STEP: u64 = 256;
const DRAW_PERIOD: Duration = Duration::from_millis(200);

/// Who is shown the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    People,
    /// One JSON object a line.
    Machines,
}

/// What the whole of a job is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Bytes,
    Rows,
}

/// Counts of a job, from all its threads.
pub struct Meter {
    audience: Audience,
    unit: Unit,
    rows: AtomicU64,
    pub rejects: AtomicU64,
    /// How much of the whole is done: `ProgressBar` knows rate and time left.
    pub whole: ProgressBar,
    phase: Mutex<Phase>,
    started: Instant,
    is_over: AtomicBool,
}

/// What is being done, and in how many steps; 0: it is not done in steps.
#[derive(Clone, Copy)]
struct Phase {
    name: &'static str,
    steps: u64,
    done: u64,
    /// The rows are counted while it lasts.
    has_rows: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    phase: &'a str,
    steps: u64,
    steps_done: u64,
    rows: u64,
    rows_per_s: u64,
    unit: Unit,
    done: u64,
    total: u64,
    eta_s: u64,
    rejects: u64,
}

/// Counts one thread's rows, and tells the meter of them now and then: its counters are everybody's.
pub struct Tally<'m> {
    meter: &'m Meter,
    untold: u64,
}

impl Tally<'_> {
    pub fn row(&mut self) {
        self.untold += 1;
        if self.untold == TALLY_STEP {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.meter.rows.fetch_add(self.untold, Ordering::Relaxed);
        if self.meter.unit == Unit::Rows {
            self.meter.whole.inc(self.untold);
        }
        self.untold = 0;
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Ends the telling, whatever ends the job.
struct Over<'m> {
    meter: &'m Meter,
    teller: &'m std::thread::Thread,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.meter.is_over.store(true, Ordering::Relaxed);
        self.teller.unpark();
        self.meter.whole.finish_and_clear();
    }
}

impl Meter {
    pub fn new(audience: Audience, unit: Unit, total: u64) -> Meter {
        let is_drawn = audience == Audience::People && std::io::stderr().is_terminal();
        let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style =
            ProgressStyle::with_template("{wide_bar} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Meter {
            audience,
            unit,
            rows: AtomicU64::new(0),
            rejects: AtomicU64::new(0),
            whole: ProgressBar::with_draw_target(Some(total), target).with_style(style),
            phase: Mutex::new(Phase { name: "starting", steps: 0, done: 0, has_rows: false }),
            started: Instant::now(),
            is_over: AtomicBool::new(false),
        }
    }

    /// Rows are counted now, in so many steps.
    pub fn enter_rows(&self, name: &'static str, steps: usize) {
        self.begin(Phase { name, steps: steps as u64, done: 0, has_rows: true });
    }

    /// All rows have been counted; what comes now, and in how many steps.
    pub fn enter(&self, name: &'static str, steps: usize) {
        self.begin(Phase { name, steps: steps as u64, done: 0, has_rows: false });
    }

    fn begin(&self, phase: Phase) {
        *self.phase.lock() = phase;
        self.tell(true);
    }

    /// Counts rows of one thread.
    pub fn tally(&self) -> Tally<'_> {
        Tally { meter: self, untold: 0 }
    }

    /// A step of the phase has been done.
    pub fn step(&self) {
        self.phase.lock().done += 1;
    }

    /// Runs `job`, telling of it all the while.
    pub fn watch<T>(&self, job: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let mut told = Instant::now();
                while !self.is_over.load(Ordering::Relaxed) {
                    std::thread::park_timeout(DRAW_PERIOD);
                    let is_due = told.elapsed() >= LINE_PERIOD;
                    if is_due {
                        told = Instant::now();
                    }
                    self.tell(is_due);
                }
            });
            let _over = Over { meter: self, teller: teller.thread() };
            job()
        })
    }

    /// Prints a line that stays, above the bar.
    pub fn say(&self, line: &str) {
        if self.audience == Audience::People {
            self.whole.suspend(|| println!("{line}"));
        }
    }

    fn tell(&self, is_due: bool) {
        let phase = *self.phase.lock();
        let (rows, rejects) = (self.rows.load(Ordering::Relaxed), self.rejects.load(Ordering::Relaxed));
        let rows_per_s = (rows as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64;
        let (done, total, eta) = (self.whole.position(), self.whole.length().unwrap_or(0), self.whole.eta());
        if self.audience == Audience::Machines {
            if is_due {
                let (unit, phase, steps, steps_done) = (self.unit, phase.name, phase.steps, phase.done);
                let line = Line {
                    phase,
                    steps,
                    steps_done,
                    rows,
                    rows_per_s,
                    unit,
                    done,
                    total,
                    eta_s: eta.as_secs(),
                    rejects,
                };
                println!("{}", serde_json::to_string(&line).expect("plain fields serialise"));
            }
            return;
        }
        let mut text = format!("{}: {} rows", phase.name, HumanCount(rows));
        if phase.has_rows {
            text += &format!(", {}/s", HumanCount(rows_per_s));
        }
        if phase.has_rows && self.unit == Unit::Bytes {
            text += &format!(", {} of {}", HumanBytes(done), HumanBytes(total));
        }
        if phase.steps > 0 {
            text += &format!(", {} of {} steps", phase.done, phase.steps);
        }
        if phase.has_rows && done > 0 && done < total {
            text += &format!(", {} left", HumanDuration(eta));
        }
        if rejects > 0 {
            text += &format!(", {} rejected", HumanCount(rejects));
        }
        if !self.whole.is_hidden() {
            self.whole.set_message(text);
        } else if is_due {
            eprintln!("{text}");
        }
    }
}
