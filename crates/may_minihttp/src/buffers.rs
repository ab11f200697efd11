//! The buffers of a request: taken when one starts, given back when the connection idles.
//! Runs in: worker.

use std::cell::RefCell;

use crate::limits::{BUFFERS_KEPT_MAX, BUFFER_KEEP_MAX_BYTES, HEAD_SIZE_MAX_BYTES, INPUT_SIZE_BYTES};

/// Received bytes: `data[start..end]` is not served yet.
pub(crate) struct Input {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new() -> Input {
        Input { data: vec![0; INPUT_SIZE_BYTES], start: 0, end: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    pub(crate) fn consume(&mut self, len: usize) {
        debug_assert!(self.start + len <= self.end);
        self.start += len;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Replaces what is left by `bytes`.
    pub(crate) fn refill(&mut self, bytes: &[u8]) {
        if self.data.len() < bytes.len() {
            self.data.resize(bytes.len(), 0);
        }
        self.data[..bytes.len()].copy_from_slice(bytes);
        self.start = 0;
        self.end = bytes.len();
    }

    /// Free space to receive into; makes room at the front first, then by growing up to a head's limit.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.data.len() && self.data.len() < HEAD_SIZE_MAX_BYTES {
            self.data.resize((self.data.len() * 2).min(HEAD_SIZE_MAX_BYTES), 0);
        }
        &mut self.data[self.end..]
    }

    pub(crate) fn received(&mut self, len: usize) {
        self.end += len;
    }
}

/// One request's working memory.
pub(crate) struct Buffers {
    pub(crate) input: Input,
    /// Responses ready to be written.
    pub(crate) out: Vec<u8>,
    /// Header lines of the response under way.
    pub(crate) head: Vec<u8>,
    /// Body of the response under way.
    pub(crate) body: Vec<u8>,
}

thread_local! {
    static KEPT: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
}

/// Takes a set. Never inlined: a thread-local's address must not live across a yield.
#[inline(never)]
pub(crate) fn take() -> Buffers {
    KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| Buffers {
        input: Input::new(),
        out: Vec::with_capacity(INPUT_SIZE_BYTES),
        head: Vec::with_capacity(1024),
        body: Vec::with_capacity(INPUT_SIZE_BYTES),
    })
}

/// Gives a set back, emptied: what a broken connection left unsent must never reach another. One that grew, or is
/// over the number kept, is freed.
#[inline(never)]
pub(crate) fn put(mut buffers: Buffers) {
    buffers.input.clear();
    buffers.out.clear();
    let grown = buffers.input.data.len() + buffers.out.capacity() + buffers.body.capacity();
    if grown > BUFFER_KEEP_MAX_BYTES * 3 {
        return;
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffers);
        }
    });
}
