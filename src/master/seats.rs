//! Who sits where: one seat a worker, and one for the change feed. An empty seat is refilled, with growing pauses if it keeps falling
//! empty; who is to be replaced stays until a successor serves.
//! Runs in: master.
//!
//! ```text
//! seat   child ◄──── successor, once it serves (roll)        every child has a slot of the arena until it is reaped,
//!          └──────► retiring: drains, then is gone           so old and new may live at the same time
//! ```

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::heritage::Heritage;
use crate::limits::{BEAT_STUCK_AFTER, CRASH_LOOP_DEATHS, RESPAWN_HEALTHY_AFTER, RESPAWN_PAUSES_MS};
use crate::master::roll::Roll;
use crate::master::spawn::{self, Role};
use crate::metrics::Counter;
use crate::os::commands::{Commander, Order};
use crate::os::fork::{self, Ending};
use crate::os::processes;
use crate::slots::Phase;

/// Pause before a seat is looked at again that can't be filled yet.
const WAIT_STEP: Duration = Duration::from_millis(20);

/// A child's place.
pub(super) struct Seat {
    pub(super) role: Role,
    pub(super) child: Option<Sitting>,
    /// Who is to take the child's place.
    pub(super) successor: Option<Sitting>,
    /// Deaths in a row that count against it.
    deaths: u32,
    pub(super) refill_at: Instant,
}

impl Seat {
    fn empty(role: Role) -> Seat {
        Seat { role, child: None, successor: None, deaths: 0, refill_at: Instant::now() }
    }

    /// Whether connections that wait for its worker are accepted soon.
    fn is_prompt(&self, now: Instant) -> bool {
        self.child.is_some() || self.refill_at <= now
    }

    pub(super) fn serves(&self, heritage: &Heritage) -> bool {
        self.child.as_ref().is_some_and(|child| heritage.slots.phase(child.slot) == Phase::Serving)
    }

    fn sittings(&mut self) -> impl Iterator<Item = &mut Sitting> {
        self.child.iter_mut().chain(&mut self.successor)
    }
}

/// A child in its seat.
pub(super) struct Sitting {
    pub(super) pid: Pid,
    pub(super) slot: usize,
    commander: Commander,
    /// The settings that it was born with.
    pub(super) version: u64,
    /// Listeners that it was told to accept from.
    accepting: BTreeSet<usize>,
    /// How long it may drain, by the settings that it was born with.
    drain_max: Duration,
    is_killed: bool,
}

impl Sitting {
    fn accept_from(&mut self, heritage: &Heritage, wanted: &BTreeSet<usize>) {
        for number in wanted.difference(&self.accepting.clone()) {
            if self.commander.adopt(*number, heritage.http.get(*number), heritage.https.get(*number)) {
                self.accepting.insert(*number);
            }
        }
        self.accepting.difference(wanted).for_each(|n| self.commander.send(Order::Release(*n)));
        self.accepting.retain(|number| wanted.contains(number));
    }
}

/// A child whose place another one has, until it is gone.
struct Retiring {
    role: Role,
    sitting: Sitting,
    deadline: Instant,
}

/// All seats.
pub struct Seats {
    /// Workers come first, in the order of their numbers; the feed is the last one.
    pub(super) all: Vec<Seat>,
    retiring: Vec<Retiring>,
    /// This master, as the owner of slots.
    own: u64,
    /// Another master's feed writes the place in the arena that both use, or is about to: this one has none meanwhile.
    feed_waits: bool,
    /// Whether this master is the server. One that is not yet, or no longer, leaves alone what others read of it.
    in_charge: bool,
    /// Descriptors that are the master's own affair.
    private: Vec<RawFd>,
    pub(super) roll: Option<Roll>,
}

impl Seats {
    /// `in_charge`: there is no master before this one; `feed_waits`: that one has a feed on the same arena.
    pub fn new(heritage: &Heritage, in_charge: bool, feed_waits: bool) -> Seats {
        // Without a cache there is nothing that a change could make void; but somebody has to look after the nodes.
        let roles = (0..heritage.workers).map(Role::Worker).chain([Role::Feed]);
        let seats = Seats {
            all: roles.map(Seat::empty).collect(),
            retiring: Vec::new(),
            own: fork::own_identity(),
            feed_waits,
            in_charge,
            private: Vec::new(),
            roll: None,
        };
        seats.publish(heritage);
        seats
    }

    /// Is the server from now on, or no longer.
    pub fn set_charge(&mut self, heritage: &Heritage, in_charge: bool) {
        self.in_charge = in_charge;
        self.publish(heritage);
    }

    pub fn is_in_charge(&self) -> bool {
        self.in_charge
    }

    /// Has children close these, which would outlive the master in them.
    pub fn keep_private(&mut self, fds: Vec<RawFd>) {
        self.private = fds;
    }

    /// Says in shared memory what there should be, and how it goes.
    pub fn publish(&self, heritage: &Heritage) {
        if !self.in_charge {
            return;
        }
        heritage.slots.set_wanted(self.workers());
        let loops = self.all.iter().filter(|s| s.role != Role::Feed && s.deaths >= CRASH_LOOP_DEATHS);
        heritage.slots.set_crash_loops(loops.count());
        heritage.throttle.set_rate(heritage.config.write_rate, heritage.config.write_burst);
    }

    /// Workers that there should be.
    pub fn workers(&self) -> usize {
        self.all.len() - 1
    }

    fn feed(&mut self) -> &mut Seat {
        // INVARIANT: `new` makes it, and `resize` leaves it.
        self.all.last_mut().expect("the feed has a seat")
    }

    fn sittings(&mut self) -> impl Iterator<Item = (Role, &mut Sitting)> {
        let seated = self.all.iter_mut().flat_map(|seat| {
            let role = seat.role;
            seat.sittings().map(move |sitting| (role, sitting))
        });
        seated.chain(self.retiring.iter_mut().map(|retiring| (retiring.role, &mut retiring.sitting)))
    }

    pub fn is_empty(&self) -> bool {
        self.retiring.is_empty()
            && self.all.iter().all(|seat| seat.child.is_none() && seat.successor.is_none())
    }

    /// Whether a worker sits and serves on every worker's seat.
    pub fn all_serve(&self, heritage: &Heritage) -> bool {
        self.all[..self.workers()].iter().all(|seat| seat.serves(heritage))
    }

    /// Whether any of this master's own workers serves.
    pub fn any_serves(&self, heritage: &Heritage) -> bool {
        self.all[..self.workers()].iter().any(|seat| seat.serves(heritage))
    }

    /// Has every worker void every cached answer: one of them may be stuck. False: there is none to do it.
    pub fn clear_cache(&mut self) -> bool {
        let workers = self.all.iter_mut().filter(|seat| seat.role != Role::Feed);
        let asked = workers.flat_map(Seat::sittings).map(|worker| worker.commander.send(Order::Clear));
        asked.count() > 0
    }

    /// Time until the next empty seat is due.
    pub fn next_respawn(&self, now: Instant) -> Option<Duration> {
        let empty = self
            .all
            .iter()
            .filter(|seat| seat.child.is_none() && !(seat.role == Role::Feed && self.feed_waits));
        empty.map(|seat| seat.refill_at.saturating_duration_since(now)).min()
    }

    /// Whether somebody else has to be gone before the feed's seat is filled: two feeds would write each other's place.
    fn waits(&self, heritage: &Heritage, number: usize) -> bool {
        self.all[number].role == Role::Feed
            && (self.feed_waits
                || self.retiring.iter().any(|r| r.role == Role::Feed)
                || heritage.slots.has_foreign_feed(self.own, processes::is_there))
    }

    /// Forks a child into every empty seat that is due, and shares out the listeners.
    pub fn fill(&mut self, heritage: &Heritage, now: Instant) {
        self.part_with_draining(heritage);
        for number in 0..self.all.len() {
            let seat = &self.all[number];
            if seat.child.is_some() || now < seat.refill_at {
                continue;
            }
            if self.waits(heritage, number) {
                self.all[number].refill_at = now + WAIT_STEP;
                continue;
            }
            self.all[number].child = self.seat_one(heritage, number, now);
        }
        self.share_listeners(heritage, now);
    }

    /// A worker that somebody else has told to end drains, and accepts no more: another one takes its seat at once.
    fn part_with_draining(&mut self, heritage: &Heritage) {
        for number in 0..self.workers() {
            let drains = |child: &Sitting| heritage.slots.phase(child.slot) == Phase::Draining;
            let seat = &mut self.all[number];
            if seat.child.as_ref().is_some_and(drains) {
                let (role, child) = (seat.role, seat.child.take());
                log::warn!("{role} was told to end by somebody else");
                self.retire(role, child);
            }
        }
    }

    /// Forks a child for a seat. None: it failed, or there is no slot yet; then the seat is due again a little later.
    pub(super) fn seat_one(&mut self, heritage: &Heritage, number: usize, now: Instant) -> Option<Sitting> {
        let role = self.all[number].role;
        let Some((slot, epoch)) = self.take_slot(heritage, role) else {
            self.all[number].refill_at = now + WAIT_STEP;
            return None;
        };
        // The child drops its copies of the siblings' channels: one kept open would hide the master's death.
        let forget = || {
            fork::close(&self.private);
            self.all.clear();
            self.retiring.clear();
        };
        match spawn::spawn(heritage, role, (slot, epoch), forget) {
            Ok((pid, commander)) => {
                let identity = processes::identity(pid.as_raw()).unwrap_or(pid.as_raw() as u64);
                heritage.slots.set_process(slot, identity);
                heritage.metrics.slot(slot).count(Counter::WorkerStarts);
                let drain_max = heritage.config.shutdown_timeout;
                Some(Sitting {
                    pid,
                    slot,
                    commander,
                    version: heritage.version,
                    accepting: BTreeSet::new(),
                    drain_max,
                    is_killed: false,
                })
            }
            Err(e) => {
                heritage.slots.end_life(slot);
                log::error!("{role}: fork failed: {e}; trying again in a second");
                self.all[number].refill_at = now + Duration::from_secs(1);
                None
            }
        }
    }

    fn take_slot(&self, heritage: &Heritage, role: Role) -> Option<(usize, u32)> {
        let take = |slot| Some((slot, heritage.slots.begin_life(slot, self.own, role == Role::Feed)?));
        (0..heritage.slots.count()).find_map(take)
    }

    /// Ends the lives of children whose masters are gone: nobody else does.
    pub fn bury_orphans(&self, heritage: &Heritage) {
        for slot in (0..heritage.slots.count()).filter(|slot| !heritage.slots.is_free(*slot)) {
            if heritage.slots.inherit_life(slot, self.own, processes::is_there) {
                end_life(heritage, slot);
            }
        }
    }

    /// The master before this one has given up its feed.
    pub fn take_feed(&mut self) {
        self.feed_waits = false;
    }

    /// A child of ours has ended. False when it sat nowhere.
    pub fn take_ended(&mut self, heritage: &Heritage, pid: Pid, ending: Ending, draining: bool) -> bool {
        if let Some(at) = self.retiring.iter().position(|r| r.sitting.pid == pid) {
            let retired = self.retiring.swap_remove(at);
            end_life(heritage, retired.sitting.slot);
            if draining {
                self.dismiss_feed();
            }
            return true;
        }
        let is_it = |sitting: &Option<Sitting>| sitting.as_ref().is_some_and(|s| s.pid == pid);
        let Some(number) = self.all.iter().position(|s| is_it(&s.child) || is_it(&s.successor)) else {
            return false;
        };
        let seat = &mut self.all[number];
        let was_child = is_it(&seat.child);
        let place = if was_child { &mut seat.child } else { &mut seat.successor };
        let Some(sitting) = place.take() else { return false };
        let phase = heritage.slots.phase(sitting.slot);
        let served = matches!(phase, Phase::Serving | Phase::Following | Phase::Draining);
        let life = Duration::from_nanos(heritage.slots.life_age_ns(sitting.slot));
        let (role, panic_text) = (seat.role, heritage.slots.panic_text(sitting.slot));
        end_life(heritage, sitting.slot);
        if draining {
            self.dismiss_feed();
            return true;
        }
        heritage.metrics.slot(sitting.slot).count(Counter::WorkerDeaths);
        match panic_text {
            Some(text) => log::error!("{role} (pid {pid}) panicked: {text}"),
            None => log::warn!("{role} (pid {pid}) {ending}"),
        }
        if was_child {
            self.plan_refill(number, ending, served, life);
            self.publish(heritage);
        }
        true
    }

    /// At once after a first death, or one that came from outside (SIGKILL, SIGTERM); with growing pauses when a
    /// worker keeps dying of itself.
    fn plan_refill(&mut self, number: usize, ending: Ending, served: bool, life: Duration) {
        let seat = &mut self.all[number];
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
        }
    }

    /// Tells every worker which listeners it accepts from. Each has its own, or shares one where there are fewer; one whose worker is in
    /// back-off, or was scaled away, goes on getting its share of connections, so that a sibling accepts from it.
    fn share_listeners(&mut self, heritage: &Heritage, now: Instant) {
        let (workers, listeners) = (self.workers(), heritage.listeners());
        let prompt: Vec<bool> = self.all[..workers].iter().map(|seat| seat.is_prompt(now)).collect();
        for (number, seat) in self.all[..workers].iter_mut().enumerate() {
            let wanted = listeners_of(number, listeners, &prompt);
            seat.child
                .iter_mut()
                .chain(&mut seat.successor)
                .for_each(|sitting| sitting.accept_from(heritage, &wanted));
        }
    }

    /// Clears the alarm of seats whose worker has lived long enough; kills workers whose beat has stopped.
    pub fn kill_stuck(&mut self, heritage: &Heritage) {
        let stuck_ns = BEAT_STUCK_AFTER.as_nanos() as u64;
        let is_stuck =
            |child: &Sitting| !child.is_killed && heritage.slots.beat_age_ns(child.slot) > stuck_ns;
        for (role, child) in self.sittings().filter(|(_, child)| is_stuck(child)) {
            log::error!("{role} (pid {}) has not moved for {BEAT_STUCK_AFTER:?}: killed", child.pid);
            heritage.metrics.slot(child.slot).count(Counter::WorkerStuck);
            fork::signal(child.pid, Signal::SIGKILL);
            child.is_killed = true;
        }
        let healthy_ns = RESPAWN_HEALTHY_AFTER.as_nanos() as u64;
        let is_healthy = |child: &Sitting| heritage.slots.life_age_ns(child.slot) > healthy_ns;
        let mut cleared = false;
        for seat in self.all.iter_mut().filter(|seat| seat.deaths > 0) {
            if seat.child.as_ref().is_some_and(is_healthy) {
                seat.deaths = 0;
                cleared = true;
            }
        }
        if cleared {
            self.publish(heritage);
        }
    }

    /// Whether all that live have beaten lately, with `patience` beyond what a stuck one is granted.
    pub fn all_beat(&mut self, heritage: &Heritage, patience: Duration) -> bool {
        let limit_ns = (BEAT_STUCK_AFTER + patience).as_nanos() as u64;
        self.sittings().all(|(_, child)| heritage.slots.beat_age_ns(child.slot) < limit_ns)
    }

    /// Has so many workers from now on. False: there is no room for so many, or not now.
    pub fn resize(&mut self, heritage: &Heritage, workers: usize) -> bool {
        if !(1..=heritage.slots.room()).contains(&workers) || self.roll.is_some() {
            return false;
        }
        while self.workers() < workers {
            let number = self.workers();
            self.all.insert(number, Seat::empty(Role::Worker(number)));
        }
        while self.workers() > workers {
            let seat = self.all.remove(self.workers() - 1);
            self.retire(seat.role, seat.child);
            self.retire(seat.role, seat.successor);
        }
        self.publish(heritage);
        true
    }

    /// Has a child whose work others have taken over end in good order.
    pub(super) fn retire(&mut self, role: Role, sitting: Option<Sitting>) {
        let Some(mut sitting) = sitting else { return };
        sitting.commander.send(if role == Role::Feed { Order::Drain } else { Order::Retire });
        let deadline = Instant::now() + sitting.drain_max + Duration::from_secs(1);
        self.retiring.push(Retiring { role, sitting, deadline });
    }

    /// Whether all that were replaced have heard so, and accept no more.
    pub(super) fn all_retiring_drain(&self, heritage: &Heritage) -> bool {
        let workers = self.retiring.iter().filter(|retiring| retiring.role != Role::Feed);
        workers
            .map(|retiring| heritage.slots.phase(retiring.sitting.slot))
            .all(|phase| phase == Phase::Draining)
    }

    /// Kills those that have had their time.
    pub fn kill_late(&self, now: Instant) {
        let late = self.retiring.iter().filter(|retiring| now >= retiring.deadline);
        late.for_each(|retiring| fork::signal(retiring.sitting.pid, Signal::SIGKILL));
    }

    /// The feed alone ends; its seat stays empty.
    pub fn give_up_feed(&mut self) {
        self.feed_waits = true;
        let feed = self.feed().child.take();
        self.retire(Role::Feed, feed);
    }

    /// Whether none of this master's feeds lives.
    pub fn has_no_feed(&self) -> bool {
        let is_feed = |role: Role| role == Role::Feed;
        !self.retiring.iter().any(|r| is_feed(r.role))
            && !self.all.iter().any(|seat| is_feed(seat.role) && seat.child.is_some())
    }

    /// Workers drain; the feed goes on until the last of them has answered.
    pub fn drain(&mut self) {
        self.roll = None;
        let workers = self.sittings().filter(|(role, _)| *role != Role::Feed);
        workers.for_each(|(_, worker)| worker.commander.send(Order::Drain));
        self.dismiss_feed();
    }

    /// The same where others serve already.
    pub fn retire_all(&mut self) {
        for number in 0..self.all.len() {
            let seat = &mut self.all[number];
            let (role, child, successor) = (seat.role, seat.child.take(), seat.successor.take());
            self.retire(role, child);
            self.retire(role, successor);
        }
    }

    fn dismiss_feed(&mut self) {
        let is_worked = self.sittings().any(|(role, _)| role != Role::Feed);
        if let (false, Some(feed)) = (is_worked, &mut self.feed().child) {
            feed.commander.send(Order::Drain);
        }
    }

    pub fn kill(&mut self) {
        self.sittings().for_each(|(_, sitting)| fork::signal(sitting.pid, Signal::SIGKILL));
    }
}

/// What the slot's process had is free for others; only once it is gone.
fn end_life(heritage: &Heritage, slot: usize) {
    heritage.metrics.slot(slot).end_life();
    heritage.slots.end_life(slot);
}

/// Listeners that worker `number` accepts from, of so many; `prompt`: which workers are there.
fn listeners_of(number: usize, listeners: usize, prompt: &[bool]) -> BTreeSet<usize> {
    let workers = prompt.len();
    if !prompt[number] {
        return BTreeSet::new();
    }
    let accepts = |listener: usize| {
        let home = listener % workers;
        // The next one that is there.
        let there = (0..workers).map(|step| (home + step) % workers).find(|n| prompt[*n]);
        there == Some(number) || (listeners < workers && number % listeners == listener)
    };
    (0..listeners).filter(|listener| accepts(*listener)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(listeners: usize, prompt: &[bool]) -> Vec<Vec<usize>> {
        (0..prompt.len()).map(|n| listeners_of(n, listeners, prompt).into_iter().collect()).collect()
    }

    #[test]
    fn every_listener_is_accepted_from_by_somebody_who_is_there() {
        assert_eq!(shares(3, &[true; 3]), [vec![0], vec![1], vec![2]]);
        assert_eq!(shares(3, &[true, false, true]), [vec![0], vec![], vec![1, 2]], "in back-off");
        assert_eq!(shares(4, &[true, true]), [vec![0, 2], vec![1, 3]], "scaled down");
        assert_eq!(shares(1, &[true; 3]), [vec![0], vec![0], vec![0]], "a socket unit's");
        assert_eq!(shares(2, &[true; 3]), [vec![0], vec![1], vec![0]]);
        assert_eq!(shares(1, &[false, true]), [vec![], vec![0]]);
    }
}
