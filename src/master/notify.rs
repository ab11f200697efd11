//! What the service manager is told (sd_notify(3)); nothing where there is none.
//! Runs in: master.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sd_notify::NotifyState;

use crate::heritage::Heritage;
use crate::limits::BEAT_STUCK_AFTER;
use crate::metrics::{Counter, Level};

/// The first worker serves.
pub fn ready(heritage: &Heritage, status: &str) {
    let address = format!("X_CATWALK_URL=http://{}", heritage.address);
    let secure = heritage.https.address().map(|a| format!("X_CATWALK_TLS_URL=https://{a}"));
    let admin = heritage.admin.address().map(|a| format!("X_CATWALK_ADMIN_URL=http://{a}"));
    // X_ fields are the sender's own: whoever listens learns the ports that the kernel chose.
    let mut states = vec![NotifyState::Ready, NotifyState::Status(status), NotifyState::Custom(&address)];
    states.extend([&secure, &admin].into_iter().filter_map(|url| url.as_deref().map(NotifyState::Custom)));
    send(&states);
}

pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// A reload begins; [`reloaded`] ends it. From systemd 253 on it wants to know when (Type=notify-reload).
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

pub fn reloaded(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Another process is this service's main one from now on; what this one says counts no more.
pub fn hand_over(successor: Pid) {
    send(&[NotifyState::MainPid(successor.as_raw() as u32)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::debug!("sd_notify: {e}");
    }
}

/// Feeds the service manager's watchdog.
pub struct Watchdog {
    period: Option<Duration>,
    fed: Instant,
}

impl Watchdog {
    pub fn of_manager() -> Watchdog {
        // Half of what is granted would do; the loop turns more often.
        Watchdog { period: sd_notify::watchdog_enabled().map(|granted| granted / 4), fed: Instant::now() }
    }

    /// Feeds it, if it is time to and `is_well`.
    pub fn feed(&mut self, now: Instant, is_well: impl FnOnce() -> bool) {
        if self.period.is_some_and(|period| now - self.fed >= period) && is_well() {
            self.fed = now;
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// The status line: what is, and what happened since the last one.
pub struct Status {
    since: Instant,
    seen: [u64; 3],
}

impl Status {
    pub fn new(heritage: &Heritage) -> Status {
        Status { since: Instant::now(), seen: counts(heritage) }
    }

    /// `2/2 workers on 127.0.0.1:8080, 8.1k requests/s, hit ratio 97.4 %, database connections 6/10`
    pub fn line(&mut self, heritage: &Heritage, now: Instant) -> String {
        let seen = counts(heritage);
        let [requests, hits, misses] = std::array::from_fn(|n| seen[n].saturating_sub(self.seen[n]));
        let seconds = (now - self.since).as_secs_f64().max(0.001);
        (self.since, self.seen) = (now, seen);
        let ratio = match hits + misses {
            0 => "no lookups".to_string(),
            lookups => format!("hit ratio {:.1} %", hits as f64 * 100.0 / lookups as f64),
        };
        format!(
            "{}/{} workers on {}, {} requests/s, {ratio}, database connections {}/{}",
            heritage.slots.serving(BEAT_STUCK_AFTER.as_nanos() as u64),
            heritage.slots.wanted(),
            heritage.address,
            rate(requests as f64 / seconds),
            heritage.metrics.level(Level::DatabaseConnections),
            heritage.metrics.level(Level::DatabaseConnectionsWanted),
        )
    }
}

fn counts(heritage: &Heritage) -> [u64; 3] {
    [Counter::Requests, Counter::CacheHits, Counter::CacheMisses]
        .map(|counter| heritage.metrics.total(counter))
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 1_000.0 => format!("{rate:.0}"),
        rate => format!("{:.1}k", rate / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_starves_while_somebody_does_not_move() {
        let start = Instant::now();
        let mut watchdog = Watchdog { period: Some(Duration::from_secs(1)), fed: start };
        let later = |seconds| start + Duration::from_secs(seconds);
        watchdog.feed(start, || panic!("it is not time to"));
        watchdog.feed(later(2), || false);
        assert_eq!(watchdog.fed, start);
        watchdog.feed(later(3), || true);
        assert_eq!(watchdog.fed, later(3));
        Watchdog { period: None, fed: start }.feed(later(9), || panic!("nobody has asked for it"));
    }
}
