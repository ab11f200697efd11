//! From one master to the next: what each does when it hears from the other.
//! Runs in: master.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::master::upgrade::{Heard, Line, Predecessor, Successor, Verdict};
use crate::master::{notify, Master, Phase};
use crate::os::fork;
use crate::{control, keep};

impl Master {
    /// What the masters before and after this one say.
    pub(super) fn listen(&mut self, now: Instant) {
        self.hear_predecessor(now);
        self.hear_successor(now);
        // Lines that are closed would be events for ever.
        if self.lines().next().is_some() || self.events.lines() > 0 {
            self.watch_lines();
        }
    }

    fn hear_predecessor(&mut self, now: Instant) {
        match self.predecessor.as_mut().and_then(Predecessor::listen) {
            // Told to stop in between: this one is the main process all the same.
            Some(Heard::Go) if self.is_draining() => {
                self.status = 0;
                self.seats.set_charge(&self.heritage, true);
                notify::stopping();
            }
            Some(_) if self.is_draining() => {}
            Some(Heard::Yours) => self.move_in(),
            Some(Heard::Go) => {
                self.move_in();
                self.take_charge();
            }
            _ => {}
        }
        if self.predecessor.as_ref().is_some_and(|p| p.is_let_down(now)) && !self.is_draining() {
            self.stop();
        }
        if self.predecessor.as_ref().is_some_and(Predecessor::is_gone) {
            self.predecessor = None;
        }
    }

    fn hear_successor(&mut self, now: Instant) {
        match self.successor.as_mut().map(|successor| successor.look(now)) {
            Some(_) if self.is_draining() => {}
            Some(Verdict::Serves) => {
                self.phase = Phase::Abdicating { is_let_in: false };
                self.seats.give_up_feed();
            }
            Some(Verdict::InPlace) => self.abdicate(now),
            Some(Verdict::BackOut(why)) => self.back_out(&why),
            _ => {}
        }
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        let lines = [self.predecessor.as_ref().map(|p| &p.line), self.successor.as_ref().map(|s| &s.line)];
        lines.into_iter().flatten()
    }

    fn watch_lines(&mut self) {
        let watched = self.lines().filter_map(Line::watched).collect();
        self.events.watch_lines(watched);
    }

    /// Starts another master, which is to take over. Who asks is answered when it has, or why it has not.
    pub(super) fn upgrade(&mut self, asker: Option<OwnedFd>) {
        let busy = match () {
            () if self.companion.is_some() => {
                Some("`catwalk dev` ends with its own PostgreSQL: stop it and start it again")
            }
            () if fork::own_pid().as_raw() == 1 => {
                Some("a container ends with its first process: start another container instead")
            }
            () if self.phase != Phase::Serving => Some("it is not serving, or an upgrade is under way"),
            () if self.successor.is_some() => Some("an upgrade is under way"),
            () if self.reload.is_some() => Some("a reload is under way"),
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
            }
            Err(e) => {
                log::error!("upgrade: {e:#}; this one goes on");
                control::answer_to(&asker, &format!("{e:#}"));
            }
        }
    }

    /// The successor can't serve: this one goes on, and takes back what it has given up.
    fn back_out(&mut self, why: &str) {
        log::error!("upgrade: backed out, and nothing has changed: {why}");
        control::answer_to(&self.upgrade_asker.take(), &format!("the upgrade was backed out: {why}"));
        if let Some(successor) = self.successor.take() {
            successor.give_up();
        }
        self.seats.take_feed();
        if self.phase == (Phase::Abdicating { is_let_in: true }) {
            self.claim_directory();
        }
        keep::forget_next(self.heritage.directory.as_ref());
        self.seats.set_charge(&self.heritage, true);
        self.phase = Phase::Serving;
    }

    /// No feed is there any more: the successor is let in.
    pub(super) fn let_in(&mut self) {
        let Some(successor) = &mut self.successor else { return };
        self.events.watch(None);
        self.control = None;
        if let Some(directory) = &mut self.heritage.directory {
            directory.leave();
        }
        successor.line.say("yours");
        self.phase = Phase::Abdicating { is_let_in: true };
    }

    /// The successor has everything: it is the server from now on.
    fn abdicate(&mut self, now: Instant) {
        let Some(successor) = &mut self.successor else { return };
        let Some(pid) = successor.pid else { return };
        log::info!("upgrade: pid {pid} serves; this one ends when its connections have");
        notify::hand_over(pid);
        successor.line.say("go");
        control::answer_to(&self.upgrade_asker.take(), control::OK);
        self.seats.set_charge(&self.heritage, false);
        self.seats.retire_all();
        let grace = self.heritage.config.shutdown_timeout + Duration::from_secs(1);
        self.phase = Phase::Draining { deadline: now + grace };
        if std::mem::take(&mut self.is_reload_due) {
            // It may have read its settings before they were changed.
            self.pass_on(Signal::SIGHUP);
        }
    }

    /// Sends a signal that was meant for the server to whoever that is by now. False: nobody has taken over.
    pub(super) fn pass_on(&self, signal: Signal) -> bool {
        let pid =
            self.successor.as_ref().filter(|s| self.is_draining() && s.line.is_open()).and_then(|s| s.pid);
        pid.inspect(|pid| fork::signal(*pid, signal)).is_some()
    }

    /// The master before this one has given up its feed and its directory, or is gone.
    fn move_in(&mut self) {
        if !self.is_waiting_for_directory() {
            return;
        }
        self.seats.take_feed();
        self.claim_directory();
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.line.say("mine");
        }
    }

    fn is_waiting_for_directory(&self) -> bool {
        !self.is_main() && self.control.is_none()
    }

    /// The runtime directory, which nobody else has now.
    fn claim_directory(&mut self) {
        let Some(directory) = &mut self.heritage.directory else { return };
        match directory.claim() {
            Ok(true) => self.open_control(),
            Ok(false) => log::warn!("{} is another server's still", directory.path().display()),
            Err(e) => log::warn!("{e:#}"),
        }
    }

    /// A successor that was given up may have had the directory for a moment longer.
    pub(super) fn return_to_directory(&mut self) {
        let is_due = self.phase == Phase::Serving && self.is_main() && self.control.is_none();
        if is_due && self.heritage.directory.is_some() {
            self.claim_directory();
        }
    }

    /// The service manager takes this one for the main process.
    fn take_charge(&mut self) {
        self.seats.set_charge(&self.heritage, true);
        keep::settle(&self.heritage.arena, self.heritage.directory.as_ref(), self.heritage.is_next);
        self.grow_listeners();
        match self.phase {
            Phase::Waiting | Phase::Serving => {
                self.phase = Phase::Serving;
                self.tell_ready();
            }
            // As for any server that starts.
            _ => {}
        }
    }
}
