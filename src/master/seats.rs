//! Who sits where: one seat a worker, and one for the change feed, refilled when it falls empty, with growing pauses if
//! that goes on.
//! Runs in: master.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::heritage::Heritage;
use crate::limits::{BEAT_STUCK_AFTER, CRASH_LOOP_DEATHS, RESPAWN_HEALTHY_AFTER, RESPAWN_PAUSES_MS};
use crate::master::spawn::{self, Role};
use crate::metrics::Counter;
use crate::os::fd::{Command, Commander};
use crate::os::fork::{self, Ending};
use crate::slots::Phase;

/// A child's place. Workers come first: a worker's listener has the number of its seat.
struct Seat {
    role: Role,
    child: Option<Sitting>,
    /// Deaths in a row that count against it.
    deaths: u32,
    refill_at: Instant,
    /// The sibling that accepts from this seat's listener meanwhile.
    adopter: Option<usize>,
}

/// A child in its seat.
struct Sitting {
    pid: Pid,
    slot: usize,
    commander: Commander,
}

/// All seats.
pub struct Seats(Vec<Seat>);

impl Seats {
    pub fn new(heritage: &Heritage) -> Seats {
        let empty = |role| Seat { role, child: None, deaths: 0, refill_at: Instant::now(), adopter: None };
        // Without a cache there is nothing that a change could make void; but somebody has to look after the nodes.
        Seats((0..heritage.workers).map(Role::Worker).chain([Role::Feed]).map(empty).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|seat| seat.child.is_none())
    }

    pub fn has_feed(&self) -> bool {
        self.0.iter().any(|seat| seat.role == Role::Feed)
    }

    /// Has every worker read anew what can be.
    pub fn reload(&mut self) {
        let sitting = self.0.iter_mut().filter_map(|seat| seat.child.as_mut());
        sitting.for_each(|worker| worker.commander.send(Command::Reload));
    }

    /// Has every worker void every cached answer: one of them may be stuck. False: there is none to do it.
    pub fn clear_cache(&mut self) -> bool {
        let workers = self.0.iter_mut().filter(|seat| seat.role != Role::Feed);
        let asked = workers
            .filter_map(|seat| seat.child.as_mut())
            .map(|worker| worker.commander.send(Command::Clear));
        asked.count() > 0
    }

    /// Time until the next empty seat is due.
    pub fn next_respawn(&self, now: Instant) -> Option<Duration> {
        let empty = self.0.iter().filter(|seat| seat.child.is_none());
        empty.map(|seat| seat.refill_at.saturating_duration_since(now)).min()
    }

    /// Forks a worker into every empty seat that is due.
    pub fn fill(&mut self, heritage: &Heritage, now: Instant) {
        for number in 0..self.0.len() {
            if self.0[number].child.is_none() && now >= self.0[number].refill_at {
                self.seat_one(heritage, number, now);
            }
        }
    }

    fn seat_one(&mut self, heritage: &Heritage, number: usize, now: Instant) {
        let Some(slot) = self.free_slot(heritage) else { return };
        // The child drops its copies of the siblings' channels: one kept open would hide the master's death.
        let seats = &mut self.0;
        let role = seats[number].role;
        let forget_siblings = || seats.iter_mut().for_each(|seat| seat.child = None);
        match spawn::spawn(heritage, role, slot, forget_siblings) {
            Ok((pid, commander)) => {
                heritage.metrics.slot(slot).count(Counter::WorkerStarts);
                self.0[number].child = Some(Sitting { pid, slot, commander });
                self.return_listener(number);
                self.renew_loans(number);
            }
            Err(e) => {
                log::error!("{role}: fork failed: {e}; trying again in a second");
                self.0[number].refill_at = now + Duration::from_secs(1);
            }
        }
    }

    fn free_slot(&self, heritage: &Heritage) -> Option<usize> {
        let taken = |slot| self.0.iter().any(|s| s.child.as_ref().is_some_and(|w| w.slot == slot));
        (0..heritage.slots.count()).find(|&slot| !taken(slot))
    }

    /// A child of ours has ended. False when it sat nowhere.
    pub fn take_ended(&mut self, heritage: &Heritage, pid: Pid, ending: Ending, draining: bool) -> bool {
        let is_it = |s: &Seat| s.child.as_ref().is_some_and(|w| w.pid == pid);
        let Some(number) = self.0.iter().position(is_it) else { return false };
        let Some(child) = self.0[number].child.take() else { return false };
        let role = self.0[number].role;
        let served = matches!(heritage.slots.phase(child.slot), Phase::Serving | Phase::Following);
        let life = Duration::from_nanos(heritage.slots.life_age_ns(child.slot));
        let panic_text = heritage.slots.panic_text(child.slot);
        heritage.slots.end_life(child.slot);
        if draining {
            self.dismiss_feed();
            return true;
        }
        heritage.metrics.slot(child.slot).count(Counter::WorkerDeaths);
        match panic_text {
            Some(text) => log::error!("{role} (pid {pid}) panicked: {text}"),
            None => log::warn!("{role} (pid {pid}) {ending}"),
        }
        self.plan_refill(number, ending, served, life);
        self.count_crash_loops(heritage);
        true
    }

    /// At once after a first death, or one that came from outside (SIGKILL, SIGTERM); with growing pauses when a
    /// worker keeps dying of itself.
    fn plan_refill(&mut self, number: usize, ending: Ending, served: bool, life: Duration) {
        let seat = &mut self.0[number];
        let from_outside = served && matches!(ending, Ending::Signal(Signal::SIGKILL | Signal::SIGTERM));
        let asked = served && ending == Ending::Exit(0);
        if life >= RESPAWN_HEALTHY_AFTER || asked {
            seat.deaths = 0;
        }
        if from_outside || asked {
            seat.refill_at = Instant::now();
            return;
        }
        let step = (seat.deaths as usize).min(RESPAWN_PAUSES_MS.len() - 1);
        let pause = Duration::from_millis(RESPAWN_PAUSES_MS[step]);
        seat.deaths += 1;
        seat.refill_at = Instant::now() + pause;
        if !pause.is_zero() {
            log::warn!(
                "{} has died {} times in a row; the next one starts in {pause:?}",
                seat.role,
                seat.deaths
            );
            self.lend_listener(number);
        }
    }

    /// An empty seat's listener goes on getting its share of connections: a sibling accepts them.
    fn lend_listener(&mut self, number: usize) {
        if self.0[number].role == Role::Feed {
            return;
        }
        let serves = |n: usize| self.0[n].role != Role::Feed && self.0[n].child.is_some();
        let adopter = (0..self.0.len()).find(|&n| n != number && serves(n));
        let Some(adopter) = adopter else { return };
        if let Some(worker) = &mut self.0[adopter].child {
            worker.commander.send(Command::Adopt(number as u8));
        }
        self.0[number].adopter = Some(adopter);
    }

    /// A new worker takes over what its predecessor had adopted.
    fn renew_loans(&mut self, adopter: usize) {
        let lent: Vec<usize> = (0..self.0.len()).filter(|&n| self.0[n].adopter == Some(adopter)).collect();
        if let Some(worker) = &mut self.0[adopter].child {
            lent.into_iter().for_each(|number| worker.commander.send(Command::Adopt(number as u8)));
        }
    }

    fn return_listener(&mut self, number: usize) {
        let Some(adopter) = self.0[number].adopter.take() else { return };
        if let Some(worker) = &mut self.0[adopter].child {
            worker.commander.send(Command::Release(number as u8));
        }
    }

    fn count_crash_loops(&self, heritage: &Heritage) {
        heritage.slots.set_crash_loops(
            self.0.iter().filter(|s| s.role != Role::Feed && s.deaths >= CRASH_LOOP_DEATHS).count(),
        );
    }

    /// Clears the alarm of seats whose worker has lived long enough; kills workers whose beat has stopped.
    pub fn kill_stuck(&mut self, heritage: &Heritage) {
        let healthy_ns = RESPAWN_HEALTHY_AFTER.as_nanos() as u64;
        let stuck_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
        let mut cleared = false;
        for seat in &mut self.0 {
            let Some(worker) = &seat.child else { continue };
            if heritage.slots.beat_age_ns(worker.slot) > stuck_ns {
                log::error!(
                    "{} (pid {}) has not moved for {BEAT_STUCK_AFTER:?}: killed",
                    seat.role,
                    worker.pid
                );
                heritage.metrics.slot(worker.slot).count(Counter::WorkerStuck);
                fork::signal(worker.pid, Signal::SIGKILL);
            } else if seat.deaths > 0 && heritage.slots.life_age_ns(worker.slot) > healthy_ns {
                seat.deaths = 0;
                cleared = true;
            }
        }
        if cleared {
            self.count_crash_loops(heritage);
        }
    }

    /// Workers drain; the feed goes on until the last of them has answered.
    pub fn drain(&mut self) {
        let workers = self.0.iter_mut().filter(|seat| seat.role != Role::Feed);
        workers.filter_map(|s| s.child.as_mut()).for_each(|w| w.commander.send(Command::Drain));
        self.dismiss_feed();
    }

    fn dismiss_feed(&mut self) {
        if self.0.iter().any(|seat| seat.role != Role::Feed && seat.child.is_some()) {
            return;
        }
        self.0
            .iter_mut()
            .filter_map(|s| s.child.as_mut())
            .for_each(|feed| feed.commander.send(Command::Drain));
    }

    pub fn kill(&self) {
        self.0.iter().filter_map(|s| s.child.as_ref()).for_each(|w| fork::signal(w.pid, Signal::SIGKILL));
    }
}
