//! CLOCK_BOOTTIME: it goes on in suspend, so that an old value can't look fresh.
//! Runs in: both.

use nix::time::{clock_gettime, ClockId};

/// Now, in ns since boot. About 16 ns a reading (vDSO).
pub fn boottime_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Whether somebody keeps the wall clock right (adjtimex(2)); None where that can't be asked.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: all zeros is a valid timex, and asks for nothing to be changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in a struct that lives on this stack.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(timex.status & libc::STA_UNSYNC == 0)
}
