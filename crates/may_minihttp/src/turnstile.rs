//! Where a coroutine that has had its turn lets everybody else go first.
//! Runs in: worker.
//!
//! `coroutine::yield_now` puts the caller back into its thread's ready queue, which is emptied before the thread looks
//! at epoll again: alone in it, the caller goes on at once, and those who wait for their sockets starve. So the turn
//! is handed over through epoll itself: a byte rings a bell that is registered there like any socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use may::coroutine::{self, Coroutine};
use may::io::{CoIo, WaitIo};
use parking_lot::Mutex;

use crate::limits::STACK_SIZE_BYTES;

struct Turnstile {
    bell: UnixStream,
    waiting: Mutex<Vec<Coroutine>>,
}

static TURNSTILE: OnceLock<Option<Turnstile>> = OnceLock::new();

/// Returns after everybody who is ready, in the queue or in epoll, had a turn.
pub(crate) fn give_way() {
    let Some(turnstile) = TURNSTILE.get_or_init(open) else { return coroutine::yield_now() };
    turnstile.waiting.lock().push(coroutine::current());
    // A full bell rings anyway.
    let _ = (&turnstile.bell).write(&[1]);
    coroutine::park();
}

fn open() -> Option<Turnstile> {
    let (bell, heard) = UnixStream::pair().ok()?;
    bell.set_nonblocking(true).ok()?;
    let heard = CoIo::new(heard).ok()?;
    let builder = coroutine::Builder::new().stack_size(STACK_SIZE_BYTES / 8);
    // SAFETY: the loop touches no thread-local and its frames are small.
    unsafe { builder.spawn(move || listen(&heard)) }.ok()?;
    Some(Turnstile { bell, waiting: Mutex::default() })
}

fn listen(heard: &CoIo<UnixStream>) {
    let mut scrap = [0u8; 256];
    loop {
        while matches!(heard.inner().read(&mut scrap), Ok(len) if len > 0) {}
        if let Some(Some(turnstile)) = TURNSTILE.get() {
            let waiting = std::mem::take(&mut *turnstile.waiting.lock());
            waiting.iter().for_each(Coroutine::unpark);
        }
        heard.wait_io();
    }
}
