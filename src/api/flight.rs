//! One fetch of a key under a token, and all who wait for it.
//! Runs in: worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use may::sync::Blocker;
use parking_lot::Mutex;

use crate::api::fetch::FetchError;
use crate::cache::lease::Lease;
use crate::cache::{Filled, Key, Record, Token};
use crate::db::trace::{self, Notes};
use crate::os::clock;

/// How a fetch ended.
#[derive(Clone)]
pub struct Landed {
    pub outcome: Result<Arc<Record>, FetchError>,
    pub filled: Filled,
    /// Another worker fetched it.
    pub elsewhere: bool,
}

impl Landed {
    pub fn failed(error: FetchError) -> Landed {
        Landed { outcome: Err(error), filled: Filled::Refused, elsewhere: false }
    }
}

/// How a request came to its flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boarded {
    First,
    /// Joined before the SELECT was sent.
    Waiting,
    /// Joined afterwards.
    Underway,
}

/// One fetch under way.
pub struct Flight {
    pub key: Key,
    pub token: Token,
    /// CLOCK_BOOTTIME before the SELECT.
    pub born_ns: u64,
    /// Set before the SELECT is sent: who finds it unset asked before the database was read.
    sent: AtomicBool,
    /// Says to other workers that this one is at it.
    lease: Mutex<Option<Lease>>,
    landing: Mutex<Landing>,
}

#[derive(Default)]
struct Landing {
    /// With what the database did for it.
    landed: Option<(Landed, Notes)>,
    waiting: Vec<Arc<Blocker>>,
}

impl Flight {
    pub fn new(key: Key, token: Token, born_ns: u64) -> Flight {
        let sent = AtomicBool::new(false);
        Flight { key, token, born_ns, sent, lease: Mutex::default(), landing: Mutex::default() }
    }

    pub fn is_sent(&self) -> bool {
        self.sent.load(Ordering::SeqCst)
    }

    pub fn set_sent(&self) {
        self.sent.store(true, Ordering::SeqCst);
    }

    pub fn hold(&self, lease: Lease) {
        *self.lease.lock() = Some(lease);
    }

    pub fn take_lease(&self) -> Option<Lease> {
        self.lease.lock().take()
    }

    pub fn wait(&self) -> Landed {
        let start_ns = clock::boottime_ns();
        loop {
            let waiter = {
                let mut landing = self.landing.lock();
                if let Some((landed, notes)) = &landing.landed {
                    trace::waited(start_ns, *notes);
                    return landed.clone();
                }
                let waiter = Blocker::current();
                landing.waiting.push(waiter.clone());
                waiter
            };
            let _ = waiter.park(None);
        }
    }

    pub fn land(&self, landed: Landed) {
        let notes = if landed.elsewhere { Notes::default() } else { trace::current() };
        let mut landing = self.landing.lock();
        landing.landed = Some((landed, notes));
        landing.waiting.drain(..).for_each(|waiter| waiter.unpark());
    }
}
