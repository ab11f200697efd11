//! THE loop: events in, one match. Read this first.
//! Runs in: master. Single-threaded for life; follows no pointer in shared memory and never touches may.

pub mod companion;
pub mod events;
pub mod notify;
mod reload;
mod roll;
pub mod seats;
pub mod spawn;
mod upgrade;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::config::Config;
use crate::control::{self, Control, Question};
use crate::heritage::Heritage;
use crate::keep;
use crate::limits::{BEAT_PERIOD, BEAT_STUCK_AFTER};
use crate::os::clock;
use companion::Companion;
use events::{Event, Events};
use notify::{Status, Watchdog};
use reload::Reload;
use seats::Seats;
use upgrade::{Predecessor, Successor, Verdict};

/// How often the status line is renewed.
const STATUS_PERIOD: Duration = Duration::from_secs(3);
/// How often somebody who starts is looked at.
const STARTING_PERIOD: Duration = Duration::from_millis(5);

/// A turn of the loop that took so long was no turn of ours.
const PAUSE_NOTICED: Duration = Duration::from_secs(3);
/// A stuck child that can't be killed for so long is the watchdog's.
const UNKILLED_MAX: Duration = Duration::from_secs(5);

/// Longest wait for the change feed before the server counts as ready.
const FEED_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the master is doing.
///
/// ```text
/// Starting ──a worker serves, the feed follows──► Serving ──TERM, INT──► Draining ──all are gone──► (companion, end)
///   │  └────────────────────────── TERM, INT ─────────────────────────────► ▲ ▲
///   └─all workers serve─► Waiting ──the one before hands over──► Serving     │ │
///                                    Serving ──a successor serves──► Abdicating ──the feed is gone──┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    /// For the master before this one.
    Waiting,
    Serving,
    /// The feed ends first: two would write each other's place.
    Abdicating,
    Draining {
        deadline: Instant,
    },
}

/// Reads the settings anew: those that apply at once, and the keys of others that have changed.
pub type Reread = Box<dyn Fn(&Config) -> Result<(Config, Vec<&'static str>)>>;

/// What a master is made of, beside what its workers inherit.
pub struct Setup {
    pub events: Events,
    pub companion: Option<Companion>,
    /// Printed once the first worker serves.
    pub announce: String,
    pub reread: Reread,
    /// The line to the master that this one succeeds.
    pub predecessor: Option<UnixStream>,
    /// What an upgrade runs: the path that this program was started from, whatever lies there by then.
    pub program: PathBuf,
}

/// Serves until told to stop. Returns the exit status.
pub fn run(heritage: Heritage, setup: Setup) -> i32 {
    let now = Instant::now();
    let predecessor = setup.predecessor.and_then(|line| Predecessor::new(line).ok());
    let mut master = Master {
        seats: Seats::new(&heritage, predecessor.is_some()),
        status_line: Status::new(&heritage),
        heritage,
        events: setup.events,
        control: None,
        companion: setup.companion,
        announce: setup.announce,
        reread: setup.reread,
        program: setup.program,
        reload: None,
        predecessor,
        successor: None,
        upgrade_asker: None,
        phase: Phase::Starting,
        started: now,
        status_at: now,
        status: 0,
        watchdog: Watchdog::new(),
        ticked_ns: clock::boottime_ns(),
        trust_beats_from_ns: 0,
    };
    if master.predecessor.is_none() {
        master.open_control();
    }
    master.watch_lines();
    master.seats.fill(&master.heritage, now);
    master.run()
}

struct Master {
    heritage: Heritage,
    events: Events,
    control: Option<Arc<Control>>,
    companion: Option<Companion>,
    announce: String,
    reread: Reread,
    program: PathBuf,
    seats: Seats,
    reload: Option<Reload>,
    predecessor: Option<Predecessor>,
    successor: Option<Successor>,
    /// Who waits for the upgrade.
    upgrade_asker: Option<OwnedFd>,
    phase: Phase,
    started: Instant,
    status_at: Instant,
    status_line: Status,
    status: i32,
    watchdog: Watchdog,
    /// When this loop last turned (CLOCK_BOOTTIME), and from when on beats are looked at.
    ticked_ns: u64,
    trust_beats_from_ns: u64,
}

impl Master {
    fn run(mut self) -> i32 {
        while !self.is_over() {
            match self.events.next(self.patience()) {
                Event::ChildEnded(pid, ending) => {
                    if !self.seats.take_ended(&self.heritage, pid, ending, self.is_draining()) {
                        if let Some(companion) = &mut self.companion {
                            companion.take_ended(pid, ending);
                        }
                    }
                }
                Event::Asked(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => self.stop(),
                Event::Asked(Signal::SIGHUP) => self.reload(None),
                Event::Asked(Signal::SIGUSR2) => self.upgrade(None),
                Event::Asked(Signal::SIGTTIN) => self.resize(self.heritage.slots.wanted() + 1),
                Event::Asked(Signal::SIGTTOU) => self.resize(self.heritage.slots.wanted() - 1),
                Event::Control => self.answer(),
                Event::Asked(_) | Event::Line | Event::Tick => {}
            }
            self.tick(Instant::now());
        }
        if self.successor.is_none() {
            notify::stopping();
        }
        if let Some(companion) = self.companion.take() {
            companion.stop(&mut self.events);
        }
        self.status
    }

    fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    fn is_over(&self) -> bool {
        self.is_draining() && self.seats.is_empty()
    }

    /// How long nothing needs to be done.
    fn patience(&self) -> Duration {
        let is_calm =
            matches!(self.phase, Phase::Serving | Phase::Draining { .. }) && !self.seats.is_rolling();
        let usual = if is_calm { BEAT_PERIOD } else { STARTING_PERIOD };
        match self.seats.next_respawn(Instant::now()) {
            Some(wait) if !self.is_draining() => wait.min(usual),
            _ => usual,
        }
    }

    fn tick(&mut self, now: Instant) {
        self.listen(now);
        match self.phase {
            Phase::Draining { deadline } if now >= deadline => self.seats.kill(),
            Phase::Starting if self.is_up(now) => self.become_ready(),
            Phase::Abdicating if self.seats.has_no_feed() => self.abdicate(now),
            _ => {}
        }
        self.seats.kill_late(now);
        if !self.is_draining() {
            self.look_for_stuck();
            self.step_reload(now);
            self.seats.fill(&self.heritage, now);
            if let Some(companion) = &mut self.companion {
                companion.keep(now);
            }
        }
        if matches!(self.phase, Phase::Waiting | Phase::Starting) && self.predecessor.is_some() {
            return;
        }
        let (seats, heritage) = (&mut self.seats, &self.heritage);
        self.watchdog.feed(now, || seats.all_beat(heritage, UNKILLED_MAX));
        if now >= self.status_at && self.phase == Phase::Serving {
            self.status_at = now + STATUS_PERIOD;
            notify::status(&self.status_line.line(&self.heritage, now));
        }
    }

    /// A worker serves, and the feed follows; but a database that is away holds up nobody for long. A successor has to have all its workers.
    fn is_up(&self, now: Instant) -> bool {
        let slots = &self.heritage.slots;
        match self.predecessor {
            Some(_) => self.seats.all_serve(&self.heritage),
            None => {
                slots.serving(u64::MAX) > 0 && (slots.is_followed() || now - self.started >= FEED_WAIT_MAX)
            }
        }
    }

    /// A master that was not running itself (stopped, suspended) can't tell who is stuck: everybody gets time to move.
    fn look_for_stuck(&mut self) {
        let now_ns = clock::boottime_ns();
        if now_ns.saturating_sub(self.ticked_ns) > PAUSE_NOTICED.as_nanos() as u64 {
            self.trust_beats_from_ns = now_ns + BEAT_STUCK_AFTER.as_nanos() as u64;
        }
        self.ticked_ns = now_ns;
        if now_ns >= self.trust_beats_from_ns {
            self.seats.kill_stuck(&self.heritage);
        }
    }

    fn become_ready(&mut self) {
        if let Some(predecessor) = &mut self.predecessor {
            self.phase = Phase::Waiting;
            predecessor.line.say("serving");
            return;
        }
        self.phase = Phase::Serving;
        let status = self.status_line.line(&self.heritage, Instant::now());
        notify::ready(&self.heritage, &status);
        if !self.announce.is_empty() {
            println!("{}", self.announce);
        }
    }

    /// What the masters before and after this one say.
    fn listen(&mut self, now: Instant) {
        if let Some(predecessor) = &mut self.predecessor {
            if predecessor.hands_over() {
                self.succeed();
            } else if predecessor.is_let_down(now) {
                predecessor.line.say("failed its workers have not begun to serve; the log has the reason");
                self.status = 1;
                self.stop();
            }
        }
        if self.predecessor.as_ref().is_some_and(Predecessor::is_gone) {
            self.predecessor = None;
            self.seats.outlive_predecessor();
            self.watch_lines();
        }
        match self.successor.as_mut().map(|successor| successor.look(now)) {
            Some(Verdict::Serves) => {
                self.phase = Phase::Abdicating;
                self.seats.give_up_feed(&self.heritage);
            }
            Some(Verdict::TookOver) => control::answer_to(&self.upgrade_asker.take(), control::OK),
            Some(Verdict::BackOut(why)) if !self.is_draining() => self.back_out(&why),
            _ => {}
        }
    }

    fn watch_lines(&mut self) {
        let lines = [self.predecessor.as_ref().map(|p| &p.line), self.successor.as_ref().map(|s| &s.line)];
        self.events.watch_lines(lines.into_iter().flatten().filter_map(|line| line.watched()).collect());
    }

    /// Starts another master, which is to take over. Who asks is answered when it has, or why it has not.
    fn upgrade(&mut self, asker: Option<OwnedFd>) {
        let busy = match () {
            () if self.companion.is_some() => {
                Some("`catwalk dev` ends with its own PostgreSQL: stop it and start it again")
            }
            () if self.phase != Phase::Serving => Some("it is not serving"),
            () if self.successor.is_some() => Some("an upgrade is under way"),
            () if self.seats.is_rolling() => Some("a reload is under way"),
            () => None,
        };
        if let Some(why) = busy {
            log::error!("upgrade: {why}");
            return control::answer_to(&asker, why);
        }
        match Successor::start(&self.heritage, &self.program) {
            Ok(successor) => {
                log::info!("upgrade: {} is started", self.program.display());
                control::answer_to(&asker, control::BEGUN);
                self.successor = Some(successor);
                self.upgrade_asker = asker;
                self.watch_lines();
            }
            Err(e) => {
                log::error!("upgrade: {e:#}; this one goes on");
                control::answer_to(&asker, &format!("{e:#}"));
            }
        }
    }

    /// The successor can't serve: this one goes on.
    fn back_out(&mut self, why: &str) {
        log::error!("upgrade: backed out, and nothing has changed: {why}");
        control::answer_to(&self.upgrade_asker.take(), &format!("the upgrade was backed out: {why}"));
        if let Some(successor) = self.successor.take() {
            successor.give_up();
        }
        self.watch_lines();
        self.seats.take_feed();
        self.phase = Phase::Serving;
    }

    /// The successor serves, and no feed is there: it is the server from now on.
    fn abdicate(&mut self, now: Instant) {
        let Some(successor) = &mut self.successor else { return };
        let Some(pid) = successor.pid else { return };
        log::info!("upgrade: pid {pid} serves; this one ends when its connections have");
        self.events.watch(None);
        self.control = None;
        if let Some(directory) = &mut self.heritage.directory {
            directory.leave();
        }
        notify::hand_over(pid);
        successor.line.say("yours");
        self.seats.retire_all(&self.heritage);
        let grace = self.heritage.config.shutdown_timeout + Duration::from_secs(1);
        self.phase = Phase::Draining { deadline: now + grace };
    }

    /// The master before this one has handed over: its feed is gone, its directory free.
    fn succeed(&mut self) {
        self.seats.take_feed();
        let has_directory =
            self.heritage.directory.as_mut().is_some_and(|directory| directory.claim().unwrap_or(false));
        if !has_directory {
            self.heritage.directory = None;
        }
        keep::settle(&self.heritage.arena, self.heritage.directory.as_ref());
        self.open_control();
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.line.say("mine");
        }
        if self.phase == Phase::Waiting || self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            let status = self.status_line.line(&self.heritage, Instant::now());
            notify::ready(&self.heritage, &status);
        }
    }

    /// The control socket, where there is a runtime directory.
    fn open_control(&mut self) {
        let Some(directory) = &self.heritage.directory else { return };
        match Control::open(directory) {
            Ok(control) => self.control = Some(Arc::new(control)),
            Err(e) => log::warn!("{e:#}; `catwalk cache`, `reload` and `upgrade` won't find this server"),
        }
        self.events.watch(self.control.clone());
    }

    /// Who asks for the memory gets it to look at; who wants it cleared waits for no longer than a worker takes.
    fn answer(&mut self) {
        let Some((question, reply)) = self.control.as_ref().and_then(|control| control.take()) else {
            return;
        };
        match question {
            Question::Memory => match self.heritage.reopen_memory() {
                Ok([arena, metrics]) => {
                    control::answer(&reply, control::OK, &[arena.as_fd(), metrics.as_fd()])
                }
                Err(e) => control::answer(&reply, &format!("its memory can't be opened: {e}"), &[]),
            },
            Question::Clear if self.seats.clear_cache() => control::answer(&reply, control::OK, &[]),
            Question::Clear => control::answer(&reply, "no worker runs", &[]),
            Question::Reload => self.reload(Some(reply)),
            Question::Upgrade => self.upgrade(Some(reply)),
        }
    }

    /// Has so many workers from now on, as far as there is room.
    fn resize(&mut self, workers: usize) {
        while self.heritage.listeners() < workers.min(self.heritage.slots.room()) {
            let before = self.heritage.listeners();
            if let Err(e) = self.heritage.add_listeners() {
                log::warn!("no listener for worker {before}: {e}; it shares those of others");
            }
            if self.heritage.listeners() == before {
                break;
            }
        }
        let room = self.heritage.slots.room();
        match self.phase == Phase::Serving && self.seats.resize(&self.heritage, workers) {
            true => log::info!("{workers} workers"),
            false => log::warn!("{workers} workers can't be had: from 1 to {room}, and not during a reload; with `workers` set and an upgrade or a restart there is more room"),
        }
    }

    /// The first request drains, the second one no longer waits.
    fn stop(&mut self) {
        if self.is_draining() {
            self.seats.kill();
            return;
        }
        if let Some(successor) = self.successor.take() {
            successor.give_up();
        }
        log::info!("stopping: requests under way are finished first");
        notify::stopping();
        let grace = self.heritage.config.shutdown_timeout + Duration::from_secs(1);
        self.phase = Phase::Draining { deadline: Instant::now() + grace };
        self.seats.drain();
    }
}
