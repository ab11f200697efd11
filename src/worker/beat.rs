//! The worker's beat: stored by a coroutine, so that it stops when the scheduler does.
//! Runs in: worker.

use may::coroutine::{self, Coroutine};

use crate::limits::COROUTINE_STACK_SIZE_BYTES;
use crate::slots::Slots;

/// The beating coroutine, to be nudged from outside. A timer would not do: its thread runs coroutines itself, and
/// would go on while the scheduler is stuck.
pub struct Beat(Coroutine);

/// Starts beating for `slot`, once a nudge.
pub fn start(slots: Slots, slot: usize) -> Beat {
    let builder = coroutine::Builder::new().stack_size(COROUTINE_STACK_SIZE_BYTES / 8);
    // SAFETY: the loop holds no thread-local across its park.
    let handle = unsafe { builder.spawn(move || beat_for_ever(&slots, slot)) };
    Beat(handle.expect("a worker at its start can make coroutines").coroutine().clone())
}

fn beat_for_ever(slots: &Slots, slot: usize) {
    loop {
        slots.beat(slot);
        coroutine::park();
    }
}

impl Beat {
    /// Lets the scheduler store one beat, if it still schedules.
    pub fn nudge(&self) {
        self.0.unpark();
    }
}
