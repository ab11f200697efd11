//! Who sits where: one seat a worker, refilled when it falls empty, with growing pauses if that goes on.
//! Runs in: master.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::heritage::Heritage;
use crate::limits::{BEAT_STUCK_AFTER, CRASH_LOOP_DEATHS, RESPAWN_HEALTHY_AFTER, RESPAWN_PAUSES_MS};
use crate::master::spawn;
use crate::metrics::Counter;
use crate::os::fd::{Command, Commander};
use crate::os::fork::{self, Ending};
use crate::slots::Phase;

/// One worker's place: its listener has the seat's number.
struct Seat {
    worker: Option<Sitting>,
    /// Deaths in a row that count against it.
    deaths: u32,
    refill_at: Instant,
    /// The sibling that accepts from this seat's listener meanwhile.
    adopter: Option<usize>,
}

/// A worker in its seat.
struct Sitting {
    pid: Pid,
    slot: usize,
    commander: Commander,
}

/// All seats.
pub struct Seats(Vec<Seat>);

impl Seats {
    pub fn new(heritage: &Heritage) -> Seats {
        let empty = || Seat { worker: None, deaths: 0, refill_at: Instant::now(), adopter: None };
        Seats((0..heritage.workers).map(|_| empty()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|seat| seat.worker.is_none())
    }

    /// Has every worker read anew what can be.
    pub fn reload(&mut self) {
        let sitting = self.0.iter_mut().filter_map(|seat| seat.worker.as_mut());
        sitting.for_each(|worker| worker.commander.send(Command::Reload));
    }

    /// Time until the next empty seat is due.
    pub fn next_respawn(&self, now: Instant) -> Option<Duration> {
        let empty = self.0.iter().filter(|seat| seat.worker.is_none());
        empty.map(|seat| seat.refill_at.saturating_duration_since(now)).min()
    }

    /// Forks a worker into every empty seat that is due.
    pub fn fill(&mut self, heritage: &Heritage, now: Instant) {
        for number in 0..self.0.len() {
            if self.0[number].worker.is_none() && now >= self.0[number].refill_at {
                self.seat_one(heritage, number, now);
            }
        }
    }

    fn seat_one(&mut self, heritage: &Heritage, number: usize, now: Instant) {
        let Some(slot) = self.free_slot(heritage) else { return };
        // The child drops its copies of the siblings' channels: one kept open would hide the master's death.
        let seats = &mut self.0;
        let forget_siblings = || seats.iter_mut().for_each(|seat| seat.worker = None);
        match spawn::worker(heritage, number, slot, forget_siblings) {
            Ok((pid, commander)) => {
                heritage.metrics.slot(slot).count(Counter::WorkerStarts);
                self.0[number].worker = Some(Sitting { pid, slot, commander });
                self.return_listener(number);
                self.renew_loans(number);
            }
            Err(e) => {
                log::error!("worker {number}: fork failed: {e}; trying again in a second");
                self.0[number].refill_at = now + Duration::from_secs(1);
            }
        }
    }

    fn free_slot(&self, heritage: &Heritage) -> Option<usize> {
        let taken = |slot| self.0.iter().any(|s| s.worker.as_ref().is_some_and(|w| w.slot == slot));
        (0..heritage.slots.count()).find(|&slot| !taken(slot))
    }

    /// A child of ours has ended. False when it was none of the workers.
    pub fn take_ended(&mut self, heritage: &Heritage, pid: Pid, ending: Ending, draining: bool) -> bool {
        let is_it = |s: &Seat| s.worker.as_ref().is_some_and(|w| w.pid == pid);
        let Some(number) = self.0.iter().position(is_it) else { return false };
        let Some(worker) = self.0[number].worker.take() else { return false };
        let served = heritage.slots.phase(worker.slot) == Phase::Serving;
        let life = Duration::from_nanos(heritage.slots.life_age_ns(worker.slot));
        let panic_text = heritage.slots.panic_text(worker.slot);
        heritage.slots.end_life(worker.slot);
        if draining {
            return true;
        }
        heritage.metrics.slot(worker.slot).count(Counter::WorkerDeaths);
        match panic_text {
            Some(text) => log::error!("worker {number} (pid {pid}) panicked: {text}"),
            None => log::warn!("worker {number} (pid {pid}) {ending}"),
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
                "worker {number} has died {} times in a row; the next one starts in {pause:?}",
                seat.deaths
            );
            self.lend_listener(number);
        }
    }

    /// An empty seat's listener goes on getting its share of connections: a sibling accepts them.
    fn lend_listener(&mut self, number: usize) {
        let adopter = (0..self.0.len()).find(|&n| n != number && self.0[n].worker.is_some());
        let Some(adopter) = adopter else { return };
        if let Some(worker) = &mut self.0[adopter].worker {
            worker.commander.send(Command::Adopt(number as u8));
        }
        self.0[number].adopter = Some(adopter);
    }

    /// A new worker takes over what its predecessor had adopted.
    fn renew_loans(&mut self, adopter: usize) {
        let lent: Vec<usize> = (0..self.0.len()).filter(|&n| self.0[n].adopter == Some(adopter)).collect();
        if let Some(worker) = &mut self.0[adopter].worker {
            lent.into_iter().for_each(|number| worker.commander.send(Command::Adopt(number as u8)));
        }
    }

    fn return_listener(&mut self, number: usize) {
        let Some(adopter) = self.0[number].adopter.take() else { return };
        if let Some(worker) = &mut self.0[adopter].worker {
            worker.commander.send(Command::Release(number as u8));
        }
    }

    fn count_crash_loops(&self, heritage: &Heritage) {
        heritage.slots.set_crash_loops(self.0.iter().filter(|s| s.deaths >= CRASH_LOOP_DEATHS).count());
    }

    /// Clears the alarm of seats whose worker has lived long enough; kills workers whose beat has stopped.
    pub fn kill_stuck(&mut self, heritage: &Heritage) {
        let healthy_ns = RESPAWN_HEALTHY_AFTER.as_nanos() as u64;
        let stuck_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
        let mut cleared = false;
        for (number, seat) in self.0.iter_mut().enumerate() {
            let Some(worker) = &seat.worker else { continue };
            if heritage.slots.beat_age_ns(worker.slot) > stuck_ns {
                log::error!(
                    "worker {number} (pid {}) has not moved for {BEAT_STUCK_AFTER:?}: killed",
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

    pub fn drain(&mut self) {
        self.0.iter_mut().filter_map(|s| s.worker.as_mut()).for_each(|w| w.commander.send(Command::Drain));
    }

    pub fn kill(&self) {
        self.0.iter().filter_map(|s| s.worker.as_ref()).for_each(|w| fork::signal(w.pid, Signal::SIGKILL));
    }
}
