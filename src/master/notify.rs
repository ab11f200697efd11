//! What the service manager is told (sd_notify(3)); nothing where there is none.
//! Runs in: master.

use sd_notify::NotifyState;

use crate::heritage::Heritage;
use crate::limits::BEAT_STUCK_AFTER;
use crate::metrics::Counter;

/// The first worker serves.
pub fn ready(heritage: &Heritage) {
    let address = format!("X_CATWALK_URL=http://{}", heritage.address);
    let secure = heritage.tls_address().map(|a| format!("X_CATWALK_TLS_URL=https://{a}"));
    let status = line(heritage);
    // X_ fields are the sender's own: whoever listens learns the ports that the kernel chose.
    let mut states = vec![NotifyState::Ready, NotifyState::Status(&status), NotifyState::Custom(&address)];
    states.extend(secure.as_deref().map(NotifyState::Custom));
    send(&states);
}

pub fn status(heritage: &Heritage) {
    send(&[NotifyState::Status(&line(heritage))]);
}

pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::debug!("sd_notify: {e}");
    }
}

fn line(heritage: &Heritage) -> String {
    let serving = heritage.slots.serving(BEAT_STUCK_AFTER.as_nanos() as u64);
    let total = |counter| heritage.metrics.total(counter);
    let (hits, misses) = (total(Counter::CacheHits), total(Counter::CacheMisses));
    let ratio = if hits + misses == 0 { 0.0 } else { hits as f64 * 100.0 / (hits + misses) as f64 };
    format!(
        "{serving}/{} workers on {}, {} requests, hit ratio {ratio:.1} %",
        heritage.workers,
        heritage.address,
        total(Counter::Requests)
    )
}
