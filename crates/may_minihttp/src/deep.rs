//! A large stack for work that goes deep and never waits: TLS above all. A connection's own stack stays in its first
//! page, which is most of what an idle connection costs.
//! Runs in: worker.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use crate::limits::DEEP_STACK_SIZE_BYTES;

/// Below the stack, untouchable: an overflow ends the process instead of reaching somebody's memory.
const GUARD_SIZE_BYTES: usize = 4096;

const _: () = assert!(DEEP_STACK_SIZE_BYTES.is_multiple_of(4096));

thread_local! {
    /// This thread's stack; null until it is first needed.
    static STACK: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// Somebody is on it.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on this thread's deep stack. It must not wait for anything: another coroutine would come to stand on
/// the same stack. Nested calls stay where they are.
#[inline(never)]
pub(crate) fn call<R>(work: impl FnOnce() -> R) -> R {
    if BUSY.get() {
        return work();
    }
    let base = match STACK.get() {
        base if base.is_null() => make(),
        base => base,
    };
    BUSY.set(true);
    // SAFETY: `base` starts DEEP_STACK_SIZE_BYTES of this thread's own mapping, page-aligned, on which nobody stands
    // (BUSY); the closure catches every unwinding, and what it returns is moved out before the stack is used again.
    let outcome =
        unsafe { psm::on_stack(base, DEEP_STACK_SIZE_BYTES, || panic::catch_unwind(AssertUnwindSafe(work))) };
    BUSY.set(false);
    match outcome {
        Ok(value) => value,
        Err(cause) => panic::resume_unwind(cause),
    }
}

/// Maps this thread's stack. It stays for the life of the thread, of which there are few.
fn make() -> *mut u8 {
    let size = GUARD_SIZE_BYTES + DEEP_STACK_SIZE_BYTES;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a fresh anonymous mapping that nothing else refers to; its first page is made untouchable.
    let base = unsafe {
        let base = libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert!(base != libc::MAP_FAILED, "half a megabyte of address space can be had");
        let guarded = libc::mprotect(base, GUARD_SIZE_BYTES, libc::PROT_NONE);
        assert!(guarded == 0, "a page of one's own can be made untouchable");
        base.cast::<u8>().add(GUARD_SIZE_BYTES)
    };
    STACK.set(base);
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs about `n` KiB of stack.
    fn dig(n: usize) -> usize {
        let room = std::hint::black_box([n as u8; 1024]);
        match n {
            0 => 0,
            _ => dig(n - 1) + usize::from(room[n % 1024] == n as u8),
        }
    }

    #[test]
    fn small_stacks_can_do_deep_work_again_and_again() {
        for _ in 0..3 {
            let builder = may::coroutine::Builder::new().stack_size(16 * 1024 / 8);
            // SAFETY: the closure waits for nothing.
            let digging = unsafe { builder.spawn(|| call(|| call(|| dig(200)))) };
            assert_eq!(digging.expect("a coroutine").join().expect("no overflow"), 200);
        }
    }

    #[test]
    fn a_panic_comes_out_where_it_was_called() {
        let caught = panic::catch_unwind(|| call(|| panic!("deep")));
        assert_eq!(caught.expect_err("it panicked").downcast_ref::<&str>(), Some(&"deep"));
        assert_eq!(call(|| 7), 7);
    }
}
