//! Short waits of lanes for what nobody tells of: how far a replica is, whether a transaction has ended.
//! Runs in: worker. The runtime's own timers would run a coroutine on a thread of theirs.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use may::sync::Blocker;
use parking_lot::Mutex;

/// One wait.
const PAUSE: Duration = Duration::from_millis(1);

/// Wakes all who wait, every millisecond while somebody does.
#[derive(Default)]
pub struct Pacer {
    waiting: Mutex<Vec<Arc<Blocker>>>,
    thread: OnceLock<Thread>,
}

impl Pacer {
    pub fn start() -> Arc<Pacer> {
        let pacer = Arc::new(Pacer::default());
        let pacing = pacer.clone();
        let thread = thread::Builder::new().name("db-pacer".into()).spawn(move || pacing.run());
        let thread = thread.expect("a worker at its start can make a thread");
        let _ = pacer.thread.set(thread.thread().clone());
        pacer
    }

    fn run(&self) {
        loop {
            if self.waiting.lock().is_empty() {
                thread::park();
            }
            thread::sleep(PAUSE);
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.iter().for_each(|waiter| waiter.unpark());
        }
    }

    /// Waits for a millisecond, or two.
    pub fn pause(&self) {
        let waiter = Blocker::current();
        self.waiting.lock().push(waiter.clone());
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        let _ = waiter.park(None);
    }
}
