//! The coroutine runtime of a forked process: one scheduler thread, and a panic that ends the process.
//! Runs in: worker, feed.
//!
//! Even so coroutines run on two threads: what sleeps or times out resumes on may's timer thread. So nothing here
//! keeps an Rc, a RefCell or a thread-local's address across a yield, and the request path uses no timer.

use std::panic;

use crate::limits::COROUTINE_STACK_SIZE_BYTES;
use crate::slots::Slots;

/// Stacks made ahead: each is a system call or two, and a successor must be there within milliseconds.
const STACKS_READY: usize = 64;

/// Sets the runtime up. Before the first coroutine, and after the process has been pinned: its threads inherit that.
pub fn configure() {
    // may pins its first thread to the first CPU of the mask, in every process the same one.
    may::config().set_worker_pin(false);
    may::config()
        .set_workers(1)
        .set_stack_size(COROUTINE_STACK_SIZE_BYTES / 8)
        .set_pool_capacity(STACKS_READY);
}

/// From here on a panic, which may would swallow into a coroutine's handle, leaves its text in the slot and ends
/// the process: the master replaces it.
pub fn leave_last_words(slots: Slots, slot: usize) {
    panic::set_hook(Box::new(move |info| {
        slots.leave_panic_text(slot, &info.to_string());
        std::process::abort();
    }));
}
