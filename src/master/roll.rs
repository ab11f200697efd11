//! A roll: one child after the other that was not born with the settings in force is replaced, each when its successor serves. The first
//! successor that can't serve ends it, and the others stay as they are.
//! Runs in: master.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::heritage::Heritage;
use crate::limits::SUCCESSOR_MAX;
use crate::master::seats::{Seat, Seats};
use crate::master::spawn::Role;
use crate::os::fork;
use crate::slots::Phase;

/// Where a roll stands.
pub struct Roll {
    /// The seat that is next, or under way.
    at: usize,
    deadline: Instant,
    has_begun: bool,
}

/// How far it has come, or one of its seats.
#[derive(Debug, PartialEq, Eq)]
pub enum Rolled {
    Going,
    Done,
    /// Why not. Seats before are done.
    Failed(String),
}

impl Seats {
    /// Begins one. Nothing happens until it is stepped.
    pub fn begin_roll(&mut self, now: Instant) {
        self.roll = Some(Roll { at: 0, deadline: now + SUCCESSOR_MAX, has_begun: false });
    }

    pub fn is_rolling(&self) -> bool {
        self.roll.is_some()
    }

    /// Goes on with the roll that was begun.
    pub fn step_roll(&mut self, heritage: &Heritage, now: Instant) -> Rolled {
        let Some(mut roll) = self.roll.take() else { return Rolled::Done };
        loop {
            if roll.at == self.workers() {
                // Whoever asks from now on gets an answer by the settings in force.
                if self.all_retiring_drain(heritage) || now >= roll.deadline {
                    self.replace_feed(heritage);
                    return Rolled::Done;
                }
                self.roll = Some(roll);
                return Rolled::Going;
            }
            match self.replace(heritage, &mut roll, now) {
                Rolled::Done => {
                    roll = Roll { at: roll.at + 1, deadline: now + SUCCESSOR_MAX, has_begun: false }
                }
                Rolled::Going => {
                    self.roll = Some(roll);
                    return Rolled::Going;
                }
                failed @ Rolled::Failed(_) => return failed,
            }
        }
    }

    fn replace(&mut self, heritage: &Heritage, roll: &mut Roll, now: Instant) -> Rolled {
        let number = roll.at;
        let seat = &mut self.all[number];
        let role = seat.role;
        let is_late = now >= roll.deadline;
        match (&seat.child, &seat.successor) {
            (_, Some(successor)) if heritage.slots.phase(successor.slot) == Phase::Serving => {
                let successor = seat.successor.take();
                let old = std::mem::replace(&mut seat.child, successor);
                self.retire(role, old);
                return Rolled::Done;
            }
            (_, Some(successor)) if is_late => {
                fork::signal(successor.pid, Signal::SIGKILL);
                let successor = seat.successor.take();
                self.retire(role, successor);
                return Rolled::Failed(format!("{role} has not begun to serve within {SUCCESSOR_MAX:?}"));
            }
            (_, Some(_)) => return Rolled::Going,
            // It was refilled meanwhile, or was never replaced: whether that serves is what counts.
            (Some(child), None) if child.version == heritage.version && seat.serves(heritage) => {
                return Rolled::Done
            }
            (Some(child), None) if child.version != heritage.version && roll.has_begun => {
                return Rolled::Failed(format!("{role} ended before it served; the log has the reason"))
            }
            (Some(child), None) if child.version != heritage.version && now >= seat.refill_at => {
                let successor = self.seat_one(heritage, number, now);
                roll.has_begun = successor.is_some();
                self.all[number].successor = successor;
            }
            _ => {}
        }
        match is_late {
            true => Rolled::Failed(format!(
                "{role} has not been replaced within {SUCCESSOR_MAX:?}: it does not begin to serve, or workers that drain take too long, or no \
                 process can be made; the log has the reason"
            )),
            false => Rolled::Going,
        }
    }

    /// There is one at a time: hits are trusted meanwhile for as long as they may be stale.
    fn replace_feed(&mut self, heritage: &Heritage) {
        let is_replaced = |seat: &&mut Seat| {
            seat.role == Role::Feed
                && seat.child.as_ref().is_some_and(|feed| feed.version != heritage.version)
        };
        let Some(seat) = self.all.last_mut().filter(is_replaced) else { return };
        let feed = seat.child.take();
        self.retire(Role::Feed, feed);
    }
}
