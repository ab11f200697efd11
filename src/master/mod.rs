//! THE loop: events in, one match. Read this first.
//! Runs in: master. Single-threaded for life; follows no pointer in shared memory and never touches may.

pub mod companion;
pub mod events;
pub mod notify;
pub mod seats;
pub mod spawn;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::control::{self, Control, Question};
use crate::heritage::Heritage;
use crate::limits::{BEAT_PERIOD, BEAT_STUCK_AFTER};
use crate::os::clock;
use companion::Companion;
use events::{Event, Events};
use seats::Seats;

/// How often the status line is renewed.
const STATUS_PERIOD: Duration = Duration::from_secs(3);
/// How often a starting worker is looked at.
const STARTING_PERIOD: Duration = Duration::from_millis(5);

/// A turn of the loop that took so long was no turn of ours.
const PAUSE_NOTICED: Duration = Duration::from_secs(3);

/// Longest wait for the change feed before the server counts as ready.
const FEED_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the master is doing.
///
/// ```text
/// Starting ──a worker serves, the feed follows──► Serving ──TERM, INT──► Draining ──all workers gone──► (companion, end)
///     └────────────────────────── TERM, INT ─────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Draining { deadline: Instant },
}

/// Serves until told to stop. `announce` is printed once the first worker serves. Returns the exit status.
pub fn run(heritage: Heritage, mut events: Events, companion: Option<Companion>, announce: String) -> i32 {
    let control = open_control(&heritage);
    if let Some(control) = &control {
        events.watch(control.clone());
    }
    let seats = Seats::new(&heritage);
    let now = Instant::now();
    let mut master = Master {
        heritage,
        events,
        control,
        companion,
        announce,
        seats,
        phase: Phase::Starting,
        started: now,
        status_at: now,
        status: 0,
        ticked_ns: clock::boottime_ns(),
        trust_beats_from_ns: 0,
    };
    master.seats.fill(&master.heritage, now);
    master.run()
}

/// The control socket, where there is a runtime directory.
fn open_control(heritage: &Heritage) -> Option<Arc<Control>> {
    match Control::open(heritage.directory.as_ref()?) {
        Ok(control) => Some(Arc::new(control)),
        Err(e) => {
            log::warn!("{e:#}; `catwalk cache` won't find this server");
            None
        }
    }
}

struct Master {
    heritage: Heritage,
    events: Events,
    control: Option<Arc<Control>>,
    companion: Option<Companion>,
    announce: String,
    seats: Seats,
    phase: Phase,
    started: Instant,
    status_at: Instant,
    status: i32,
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
                Event::Asked(Signal::SIGHUP) => self.reload(),
                Event::Control => self.answer(),
                Event::Asked(_) | Event::Tick => {}
            }
            self.tick(Instant::now());
        }
        notify::stopping();
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
        let usual = if self.phase == Phase::Starting { STARTING_PERIOD } else { BEAT_PERIOD };
        match self.seats.next_respawn(Instant::now()) {
            Some(wait) if !self.is_draining() => wait.min(usual),
            _ => usual,
        }
    }

    fn tick(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining { deadline } => {
                if now >= deadline {
                    self.seats.kill();
                }
            }
            Phase::Starting if self.is_up(now) => self.become_ready(),
            Phase::Starting | Phase::Serving => {}
        }
        if !self.is_draining() {
            self.look_for_stuck();
            self.seats.fill(&self.heritage, now);
            if let Some(companion) = &mut self.companion {
                companion.keep(now);
            }
        }
        if now >= self.status_at && self.phase == Phase::Serving {
            self.status_at = now + STATUS_PERIOD;
            notify::status(&self.heritage);
        }
    }

    /// A worker serves, and the feed follows; but a database that is away holds up nobody for long.
    fn is_up(&self, now: Instant) -> bool {
        let slots = &self.heritage.slots;
        slots.serving(u64::MAX) > 0
            && (slots.is_followed() || !self.seats.has_feed() || now - self.started >= FEED_WAIT_MAX)
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
        self.phase = Phase::Serving;
        notify::ready(&self.heritage);
        if !self.announce.is_empty() {
            println!("{}", self.announce);
        }
    }

    /// Who asks for the memory gets it to look at; who wants it cleared waits for no longer than a worker takes.
    fn answer(&mut self) {
        let Some((question, reply)) = self.control.as_ref().and_then(|control| control.take()) else {
            return;
        };
        match question {
            Question::Memory => match self.heritage.reopen_memory() {
                Ok([arena, metrics]) => control::answer(&reply, "ok", &[arena.as_fd(), metrics.as_fd()]),
                Err(e) => control::answer(&reply, &format!("its memory can't be opened: {e}"), &[]),
            },
            Question::Clear if self.seats.clear_cache() => control::answer(&reply, "ok", &[]),
            Question::Clear => control::answer(&reply, "no worker runs", &[]),
        }
    }

    /// Certificate and key are read anew; where they can't be used, those in force stay.
    fn reload(&mut self) {
        match self.heritage.reload_tls() {
            Ok(()) if self.heritage.tls.is_none() => {
                log::info!("reload: nothing is read anew but tls.certificate and tls.key; other settings take a restart");
            }
            Ok(()) => {
                self.seats.reload();
                log::info!("reload: certificate and key were read anew; other settings take a restart");
            }
            Err(e) => log::error!("reload: {e:#}; the certificate in force stays"),
        }
    }

    /// The first request drains, the second one no longer waits.
    fn stop(&mut self) {
        if self.is_draining() {
            self.seats.kill();
            return;
        }
        log::info!("stopping: requests under way are finished first");
        notify::stopping();
        let grace = self.heritage.config.shutdown_timeout + Duration::from_secs(1);
        self.phase = Phase::Draining { deadline: Instant::now() + grace };
        self.seats.drain();
    }
}
