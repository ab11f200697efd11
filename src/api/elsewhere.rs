//! Flights whose key another worker fetches: looked at every few milliseconds, until the record is there, or the lease is to be had.
//! Runs in: worker, on a thread of its own that sleeps while there are none.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::api::flight::Flight;
use crate::limits::{LEASE_PAUSE_MAX, LEASE_PAUSE_MIN};

/// The flights that wait.
#[derive(Default)]
pub struct Elsewhere {
    waiting: Mutex<Waiting>,
    thread: OnceLock<Thread>,
}

struct Waiting {
    flights: Vec<Arc<Flight>>,
    pause: Duration,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { flights: Vec::new(), pause: LEASE_PAUSE_MIN }
    }
}

impl Elsewhere {
    /// Starts the thread. `look` says of each flight whether it need no longer wait.
    pub fn start(self: &Arc<Elsewhere>, look: impl Fn(&Arc<Flight>) -> bool + Send + 'static) {
        let elsewhere = self.clone();
        let run = move || loop {
            match elsewhere.pause() {
                Some(pause) => thread::sleep(pause),
                None => thread::park(),
            }
            elsewhere.look(&look);
        };
        let thread = thread::Builder::new().name("elsewhere".into()).spawn(run);
        let thread = thread.expect("a worker at its start can make threads").thread().clone();
        self.thread.get_or_init(|| thread);
    }

    /// Has a flight wait.
    pub fn add(&self, flight: Arc<Flight>) {
        let mut waiting = self.waiting.lock();
        waiting.flights.push(flight);
        waiting.pause = LEASE_PAUSE_MIN;
        drop(waiting);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Time until the next look, longer each time; None while there is nothing to look at.
    fn pause(&self) -> Option<Duration> {
        let mut waiting = self.waiting.lock();
        let pause = waiting.pause;
        waiting.pause = (pause * 2).min(LEASE_PAUSE_MAX);
        (!waiting.flights.is_empty()).then_some(pause)
    }

    fn look(&self, look: &impl Fn(&Arc<Flight>) -> bool) {
        // Not under the lock: a look may land a flight, and who waited for it may come back with another one.
        let flights = std::mem::take(&mut self.waiting.lock().flights);
        let left: Vec<_> = flights.into_iter().filter(|flight| !look(flight)).collect();
        self.waiting.lock().flights.extend(left);
    }
}
