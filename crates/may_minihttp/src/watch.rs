//! Deadlines of connections, looked at a few times a second by [`crate::Server::tick`]: waiting needs no timer, whose
//! thread would run coroutines itself, and no system call.
//! Runs in: worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use may::io::WaitIoWaker;

/// No deadline.
const NEVER: u64 = u64::MAX;
/// The deadline has passed; so written by `Watch::look`.
const PASSED: u64 = 0;

/// One connection's deadline and how to wake it.
pub(crate) struct Watch {
    deadline_ms: AtomicU64,
    waker: WaitIoWaker,
}

impl Watch {
    pub(crate) fn new(waker: WaitIoWaker) -> Watch {
        Watch { deadline_ms: AtomicU64::new(NEVER), waker }
    }

    /// Sets the deadline of the wait that begins. All words here are Relaxed: the wake itself orders them, and a
    /// wake that comes too often is only looked at.
    pub(crate) fn arm(&self, deadline_ms: u64) {
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
    }

    /// Whether the wait that ended was ended by its deadline.
    pub(crate) fn has_passed(&self) -> bool {
        self.deadline_ms.load(Ordering::Relaxed) == PASSED
    }

    /// Wakes the connection if its deadline has passed.
    pub(crate) fn look(&self, now_ms: u64) {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        if deadline == PASSED || deadline > now_ms {
            return;
        }
        let marked =
            self.deadline_ms.compare_exchange(deadline, PASSED, Ordering::Relaxed, Ordering::Relaxed);
        if marked.is_ok() {
            self.waker.wakeup();
        }
    }

    pub(crate) fn wake(&self) {
        self.waker.wakeup();
    }
}

/// CLOCK_MONOTONIC_COARSE in ms: a few ns a reading, a few ms of resolution.
pub(crate) fn now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec that lives on this stack.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The deadline `timeout` from now.
pub(crate) fn after(timeout: Duration) -> u64 {
    now_ms().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(NEVER)).min(NEVER - 1)
}
