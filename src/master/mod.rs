//! THE loop: events in, one match. Read this first.
//! Runs in: master. Single-threaded for life; follows no pointer in shared memory and never touches may.

pub mod companion;
pub mod events;
mod handover;
pub mod notify;
mod reload;
mod roll;
pub mod seats;
pub mod spawn;
mod upgrade;

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::config::Config;
use crate::control::{self, Control, Question};
use crate::heritage::Heritage;
use crate::limits::{BEAT_PERIOD, BEAT_STUCK_AFTER};
use crate::os::clock;
use companion::Companion;
use events::{Event, Events};
use notify::{Status, Watchdog};
use reload::Reload;
use seats::Seats;
use upgrade::{Heard, Predecessor, Successor};

/// How often the status line is renewed.
const STATUS_PERIOD: Duration = Duration::from_secs(3);
/// How often somebody who starts is looked at.
const STARTING_PERIOD: Duration = Duration::from_millis(5);

/// A turn of the loop that took so long was no turn of ours.
const PAUSE_NOTICED: Duration = Duration::from_secs(3);
/// A stuck child that can't be killed for so long is the watchdog's.
const UNKILLED_MAX: Duration = Duration::from_secs(5);

/// How often children of masters that are gone are looked for.
const BURY_PERIOD: Duration = Duration::from_secs(1);

/// Longest wait for the change feed before the server counts as ready.
const FEED_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the master is doing.
///
/// ```text
/// Starting ──a worker serves, the feed follows──► Serving ──TERM, INT──► Draining ──all are gone──► (companion, end)
///   │  ▲ └─────────────────────── TERM, INT ────────────────────────────► ▲ ▲
///   │  └─ "yours" ──┐                Serving ──a successor serves──► Abdicating ──it has taken over──┘
///   └─all serve─► Waiting                │ ▲                             │
///                                        └─┴─────── it failed ───────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    /// For the master before this one.
    Waiting,
    Serving,
    /// The feed ends first: two would write each other's place. Then the successor is let in.
    Abdicating {
        is_let_in: bool,
    },
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
///
/// # Errors
/// A line to the master before this one that can't be used: it goes on.
pub fn run(heritage: Heritage, setup: Setup) -> Result<i32> {
    let now = Instant::now();
    let predecessor = setup.predecessor.map(Predecessor::new).transpose()?;
    let in_charge = predecessor.is_none();
    let mut master = Master {
        seats: Seats::new(&heritage, in_charge, heritage.is_joined),
        status_line: Status::new(&heritage),
        heritage,
        events: setup.events,
        control: None,
        companion: setup.companion,
        announce: setup.announce,
        reread: setup.reread,
        program: setup.program,
        reload: None,
        is_reload_due: false,
        predecessor,
        successor: None,
        upgrade_asker: None,
        phase: Phase::Starting,
        started: now,
        status_at: now,
        buried_at: now,
        status: 0,
        is_told_to_stop: false,
        watchdog: Watchdog::of_manager(),
        ticked_ns: clock::boottime_ns(),
        trust_beats_from_ns: 0,
    };
    if in_charge {
        master.open_control();
    }
    master.tick(now);
    Ok(master.run())
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
    /// A signal has asked for one when it could not be done.
    is_reload_due: bool,
    predecessor: Option<Predecessor>,
    successor: Option<Successor>,
    /// Who waits for the upgrade.
    upgrade_asker: Option<OwnedFd>,
    phase: Phase,
    started: Instant,
    status_at: Instant,
    buried_at: Instant,
    status_line: Status,
    status: i32,
    is_told_to_stop: bool,
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
                Event::Asked(Signal::SIGTTIN) => self.resize(self.seats.workers() + 1),
                Event::Asked(Signal::SIGTTOU) => self.resize(self.seats.workers() - 1),
                Event::Control => self.answer(),
                Event::Asked(_) | Event::Line | Event::Tick => {}
            }
            self.tick(Instant::now());
        }
        if let Some(companion) = self.companion.take() {
            companion.stop(&mut self.events);
        }
        self.status
    }

    fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// The end of the service's main process is the end of all the others: one that drains beside this one is waited for.
    fn is_over(&self) -> bool {
        let Phase::Draining { deadline } = self.phase else { return false };
        self.seats.is_empty()
            && (self.predecessor.is_none() || self.status != 0 || Instant::now() >= deadline)
    }

    /// Whether the service manager takes this one for the main process.
    fn is_main(&self) -> bool {
        self.seats.is_in_charge()
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
        self.note_private();
        match self.phase {
            Phase::Draining { deadline } if now >= deadline => self.seats.kill(),
            Phase::Starting if self.is_up(now) => self.become_ready(),
            Phase::Abdicating { is_let_in: false } if self.seats.has_no_feed() => self.let_in(),
            _ => {}
        }
        self.seats.kill_late(now);
        if !self.is_draining() {
            self.look_for_stuck();
            self.step_reload(now);
            // What was closed by now may be another one's number.
            self.note_private();
            self.seats.fill(&self.heritage, now);
            if let Some(companion) = &mut self.companion {
                companion.keep(now);
            }
        }
        if now >= self.buried_at + BURY_PERIOD {
            self.buried_at = now;
            self.seats.bury_orphans(&self.heritage);
            self.return_to_directory();
        }
        if self.is_main() {
            self.report(now);
        }
    }

    /// What the service manager is told again and again.
    fn report(&mut self, now: Instant) {
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
        let is_enough = match self.is_main() {
            true => self.seats.any_serves(&self.heritage),
            false => self.seats.all_serve(&self.heritage),
        };
        is_enough && (slots.is_followed() || now - self.started >= FEED_WAIT_MAX)
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
        if let Some(predecessor) = self.predecessor.as_mut().filter(|p| p.heard() == Heard::Nothing) {
            self.phase = Phase::Waiting;
            predecessor.line.say("serving");
            return;
        }
        self.phase = Phase::Serving;
        if self.is_main() {
            self.tell_ready();
        }
        if !self.announce.is_empty() {
            println!("{}", self.announce);
        }
    }

    fn tell_ready(&mut self) {
        let status = self.status_line.line(&self.heritage, Instant::now());
        notify::ready(&self.heritage, &status);
    }

    fn note_private(&mut self) {
        self.seats.keep_private(self.private_descriptors());
    }

    /// What children must not have: it would outlive this master in them.
    fn private_descriptors(&self) -> Vec<RawFd> {
        let askers = [self.upgrade_asker.as_ref(), self.reload.as_ref().and_then(Reload::asker)];
        let askers = askers.into_iter().flatten().map(AsRawFd::as_raw_fd);
        let control = self.control.iter().map(|control| control.fd().as_raw_fd());
        let lines = self.lines().map(|line| line.as_fd().as_raw_fd());
        askers.chain(control).chain(lines).chain(self.events.private_descriptors()).collect()
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
        // Whoever was told that the master before this one has handed over may ask before this one has heard so.
        self.listen(Instant::now());
        match question {
            Question::Memory => match self.heritage.reopen_memory() {
                Ok(pages) => control::answer(&reply, control::OK, &pages.each_ref().map(AsFd::as_fd)),
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
        let room = self.heritage.slots.room();
        // A listener that is opened now the successor would not have.
        let is_calm = self.phase == Phase::Serving && self.successor.is_none();
        if !is_calm || !self.seats.resize(&self.heritage, workers) {
            log::warn!(
                "{workers} workers can't be had: from 1 to {room}, and not while the server starts, stops, reloads or is upgraded; with `workers` set, an \
                 upgrade or a restart makes more room"
            );
            return;
        }
        self.grow_listeners();
        log::info!("{workers} workers");
    }

    /// Opens a listener for each worker that has none.
    fn grow_listeners(&mut self) {
        while self.heritage.listeners() < self.seats.workers() {
            let before = self.heritage.listeners();
            if let Err(e) = self.heritage.add_listeners() {
                log::warn!("no listener for worker {before}: {e}; it shares those of others");
            }
            if self.heritage.listeners() == before {
                return;
            }
        }
    }

    /// The first request drains, the second one no longer waits.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.is_told_to_stop, true) {
            self.seats.kill();
            return;
        }
        if self.is_draining() {
            // After a handover: what drains at leisure hurries.
            return self.seats.drain();
        }
        log::info!("stopping: requests under way are finished first");
        if self.is_main() {
            notify::stopping();
        } else if let Some(predecessor) = &mut self.predecessor {
            self.status = 1;
            predecessor.line.say(
                "failed it was told to stop, or its workers have not begun to serve; the log has the reason",
            );
        }
        self.give_up_requests("the server is stopping");
        let grace = self.heritage.config.shutdown_timeout + Duration::from_secs(1);
        self.phase = Phase::Draining { deadline: Instant::now() + grace };
        self.seats.drain();
    }

    /// Whoever waits for a reload or an upgrade is told that there will be none.
    fn give_up_requests(&mut self, why: &str) {
        if let Some(successor) = self.successor.take() {
            successor.give_up();
        }
        control::answer_to(&self.upgrade_asker.take(), why);
        if let Some(reload) = self.reload.take() {
            reload.give_up(why);
        }
    }
}
