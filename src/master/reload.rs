//! A reload: settings are read and checked first, then every child is replaced by one that has them.
//! Runs in: master.

use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::config::Config;
use crate::control;
use crate::master::roll::Rolled;
use crate::master::{notify, Master, Phase};

/// A reload under way.
pub struct Reload {
    asker: Option<OwnedFd>,
    /// What was in force, to go back to; None: this is the way back.
    before: Option<Config>,
    /// Somebody has asked again meanwhile.
    again: bool,
}

impl Master {
    /// Reads the settings anew. Bad ones change nothing, and who asks is told why.
    pub(super) fn reload(&mut self, asker: Option<OwnedFd>) {
        if let (Some(reload), None) = (&mut self.reload, &asker) {
            reload.again = true;
            return;
        }
        let is_busy = self.phase != Phase::Serving || self.successor.is_some() || self.reload.is_some();
        if is_busy {
            let why =
                "the server is starting, stopping, being upgraded or reloading: try again when it is done";
            log::error!("reload: {why}");
            return control::answer_to(&asker, why);
        }
        let is_signal = asker.is_none();
        let read = (self.reread)(&self.heritage.config);
        let replaced = read.and_then(|(config, kept)| Ok((self.heritage.replace_config(config)?, kept)));
        let (before, kept) = match replaced {
            Ok(replaced) => replaced,
            Err(e) => {
                log::error!("reload: nothing has changed: {e:#}");
                return control::answer_to(&asker, &format!("nothing has changed: {e:#}"));
            }
        };
        if is_signal {
            notify::reloading();
        }
        if !kept.is_empty() {
            log::warn!(
                "reload: {} take an upgrade (`catwalk upgrade`) or a restart; the others are applied",
                kept.join(", ")
            );
        }
        log::info!("reload: the settings are good; workers are replaced one after the other");
        log::set_max_level(self.heritage.config.log);
        control::answer_to(&asker, control::BEGUN);
        let workers = self.heritage.config.workers();
        if workers != self.heritage.slots.wanted() {
            self.resize(workers);
        }
        self.seats.begin_roll(Instant::now());
        self.reload = Some(Reload { asker, before: Some(before), again: false });
    }

    /// Goes on with the reload under way.
    pub(super) fn step_reload(&mut self, now: Instant) {
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
            _ => {
                log::info!("reload: done");
                control::answer_to(&reload.asker, control::OK);
                let status = self.status_line.line(&self.heritage, now);
                notify::reloaded(&status);
                if reload.again {
                    self.reload(None);
                }
            }
        }
    }

    /// A worker with the new settings can't serve: those before are in force again, for whoever has been replaced too.
    fn go_back(&mut self, reload: Reload, why: &str) {
        log::error!("reload: {why}; the settings before are in force again");
        control::answer_to(&reload.asker, &format!("nothing has changed: {why}"));
        let Some(before) = reload.before else { return };
        log::set_max_level(before.log);
        if let Err(e) = self.heritage.replace_config(before) {
            log::error!("reload: {e:#}");
        }
        self.seats.begin_roll(Instant::now());
        self.reload = Some(Reload { asker: None, before: None, again: false });
    }
}
