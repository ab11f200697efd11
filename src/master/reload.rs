//! A reload: settings are read and checked first, then every child is replaced by one that has them.
//! Runs in: master.

use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{ensure, Result};
use nix::sys::signal::Signal;

use crate::control;
use crate::heritage::InForce;
use crate::master::roll::Rolled;
use crate::master::{notify, Master, Phase};

/// A reload under way.
pub struct Reload {
    asker: Option<OwnedFd>,
    /// What was in force, to go back to; None: this is the way back.
    before: Option<InForce>,
}

impl Reload {
    pub fn asker(&self) -> Option<&OwnedFd> {
        self.asker.as_ref()
    }

    pub fn give_up(self, why: &str) {
        control::answer_to(&self.asker, why);
    }
}

impl Master {
    /// Reads the settings anew. Bad ones change nothing, and who asks is told why. A signal that comes while that can't be done is kept for
    /// when it can.
    pub(super) fn reload(&mut self, asker: Option<OwnedFd>) {
        let is_busy = self.phase != Phase::Serving || self.successor.is_some() || self.reload.is_some();
        if is_busy && asker.is_none() && !self.is_draining() {
            self.is_reload_due = true;
            return;
        }
        if asker.is_none() && self.pass_on(Signal::SIGHUP) {
            return;
        }
        if is_busy {
            let why =
                "the server is starting, stopping, being upgraded or reloading: try again when it is done";
            return self.refuse_reload(&asker, why);
        }
        if asker.is_none() && self.is_main() {
            notify::reloading();
        }
        match self.renew() {
            Ok((before, kept)) => {
                if !kept.is_empty() {
                    let keys = kept.join(", ");
                    log::warn!("reload: {keys} take an upgrade (`catwalk upgrade`) or a restart; the others are applied");
                }
                log::info!("reload: the settings are good; workers are replaced one after the other");
                log::set_max_level(self.heritage.config.log);
                control::answer_to(&asker, control::BEGUN);
                self.seats.begin_roll(Instant::now());
                self.reload = Some(Reload { asker, before: Some(before) });
            }
            Err(e) => self.refuse_reload(&asker, &format!("nothing has changed: {e:#}")),
        }
    }

    /// Takes the settings over for children that are made from now on; returns those in force until now, and the keys that could not be
    /// changed.
    fn renew(&mut self) -> Result<(InForce, Vec<&'static str>)> {
        let (config, kept) = (self.reread)(&self.heritage.config)?;
        let (workers, room) = (config.workers(), self.heritage.slots.room());
        ensure!(
            workers <= room,
            "there is room for {room} workers, not for {workers}: that takes an upgrade (`catwalk upgrade`) or a restart"
        );
        Ok((self.heritage.renew(config)?, kept))
    }

    fn refuse_reload(&mut self, asker: &Option<OwnedFd>, why: &str) {
        log::error!("reload: {why}");
        control::answer_to(asker, why);
        if asker.is_none() && self.is_main() && self.phase == Phase::Serving {
            // A service manager that has sent a signal waits for this, and can't be told otherwise that it came to nothing.
            notify::reloaded(&format!("reload refused: {why}"));
        }
    }

    /// Goes on with the reload under way, or begins the one that was asked for when it could not be done.
    pub(super) fn step_reload(&mut self, now: Instant) {
        let is_calm = self.phase == Phase::Serving && self.successor.is_none();
        if self.reload.is_none() && is_calm && std::mem::take(&mut self.is_reload_due) {
            self.reload(None);
        }
        if self.reload.is_none() {
            return;
        }
        let rolled = self.seats.step_roll(&self.heritage, now);
        if rolled == Rolled::Going {
            return;
        }
        let Some(reload) = self.reload.take() else { return };
        match rolled {
            Rolled::Failed(why) => self.go_back(reload, &why),
            _ => self.finish_reload(&reload, now),
        }
    }

    fn finish_reload(&mut self, reload: &Reload, now: Instant) {
        let workers = self.heritage.config.workers();
        if reload.before.is_some() && workers != self.seats.workers() {
            self.resize(workers);
        }
        // The rate of writes, among others.
        self.seats.publish(&self.heritage);
        log::info!("reload: done");
        control::answer_to(&reload.asker, control::OK);
        let status = self.status_line.line(&self.heritage, now);
        notify::reloaded(&status);
    }

    /// A worker with the new settings can't serve: those before are in force again, for whoever has been replaced too.
    fn go_back(&mut self, reload: Reload, why: &str) {
        let Reload { asker, before } = reload;
        let Some(before) = before else {
            log::error!("reload: with the settings before workers can't be replaced either: {why}; those that are there go on");
            notify::reloaded("reload failed; see the log");
            return;
        };
        log::error!("reload: {why}; the settings before are in force again");
        control::answer_to(&asker, &format!("nothing has changed: {why}"));
        log::set_max_level(before.config.log);
        self.heritage.replace(before);
        self.seats.begin_roll(Instant::now());
        self.reload = Some(Reload { asker: None, before: None });
    }
}
