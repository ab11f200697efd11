//! The buffers of a request: taken when one starts, given back when the connection idles.
//! Runs in: worker.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use httparse::Header;

use crate::limits::{BUFFERS_KEPT_MAX, BUFFER_KEEP_MAX_BYTES, INPUT_SIZE_BYTES};

/// Received bytes: `data[start..end]` is not served yet.
pub(crate) struct Input {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of what is not served yet that were found to be no whole head.
    looked_at: usize,
}

impl Input {
    fn new() -> Input {
        Input { data: vec![0; INPUT_SIZE_BYTES], start: 0, end: 0, looked_at: 0 }
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
        self.looked_at = 0;
    }

    /// Whether another look for a whole head may find one: a line has ended since the last one. A head that comes
    /// byte by byte is not parsed byte by byte.
    pub(crate) fn is_worth_a_look(&self) -> bool {
        self.looked_at == 0 || self.bytes()[self.looked_at..].contains(&b'\n')
    }

    /// No whole head is in what there is.
    pub(crate) fn is_partial(&mut self) {
        self.looked_at = self.end - self.start;
    }

    pub(crate) fn consume(&mut self, len: usize) {
        debug_assert!(self.start + len <= self.end);
        self.looked_at = 0;
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
        self.looked_at = 0;
    }

    /// Free space to receive into, never none; makes room at the front first, then by growing up to `size_max`.
    pub(crate) fn spare(&mut self, size_max: usize) -> &mut [u8] {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.data.len() {
            let size = (self.data.len() * 2).min(size_max).max(self.data.len() + 1);
            self.data.resize(size, 0);
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
    /// Room for the header fields of the request under way.
    pub(crate) fields: Fields,
}

/// A header table that outlives its requests.
pub(crate) struct Fields(Vec<MaybeUninit<Header<'static>>>);

impl Fields {
    /// Room for `count` fields of one request.
    pub(crate) fn space<'b>(&mut self, count: usize) -> &mut [MaybeUninit<Header<'b>>] {
        self.0.resize(count, MaybeUninit::uninit());
        // SAFETY: the two types differ in a lifetime only. Nothing that is written there for `'b` is ever read as
        // `'static`: the table is handed out as uninitialised, and what was left in it needs no drop.
        unsafe {
            std::mem::transmute::<&mut [MaybeUninit<Header<'static>>], &mut [MaybeUninit<Header<'b>>]>(
                self.0.as_mut_slice(),
            )
        }
    }
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
        fields: Fields(Vec::new()),
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
