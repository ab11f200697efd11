//! The shared memory's protocols under every interleaving and every reordering that loom knows: the steps of `cache::segment`,
//! `cache::index`, `cache::evict`, `cache::lease` and `cache::fence` that others can see, over loom's atomics. Each model is also run
//! with one of its guards taken out, and must find the failure then.

use std::panic::{catch_unwind, AssertUnwindSafe};

use loom::sync::atomic::{fence, AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

mod leases;
mod moves;

/// Whether some execution of the model breaks its assertion.
fn breaks(model: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err()
}

/// A segment in its second life: what a reader of the first one may see.
struct Segment {
    /// An index item: the generation it was published under; 0 is empty.
    item: AtomicU64,
    generation: AtomicU64,
    /// 3: Draining, 0: Free, 1: Open.
    state: AtomicU64,
    /// A record of two words, equal in a whole one.
    data: [AtomicU64; 2],
}

/// Which guard is taken out.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// The Release fence between taking a segment over and the first new byte.
    WriterFence,
    /// The Acquire fence between the last byte and the second look.
    ReaderFence,
    /// The second look at the generation.
    SecondLook,
    /// The Release of the publishing store.
    PublishRelease,
    /// Raising the generation at all.
    Generation,
    /// The Release with which a segment is freed.
    FreeRelease,
    /// The Acquire with which it is opened.
    OpenAcquire,
}

impl Segment {
    /// In its first life, with the record 1, 1 published under generation 1; somebody drains it.
    fn new() -> Segment {
        Segment {
            item: AtomicU64::new(1),
            generation: AtomicU64::new(1),
            state: AtomicU64::new(3),
            data: [AtomicU64::new(1), AtomicU64::new(1)],
        }
    }

    /// `Appender::drain` to its end, `segment::free`.
    fn drain(&self, without: Without) {
        let _ = self.item.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed);
        if without != Without::Generation {
            self.generation.fetch_add(1, Ordering::Release);
        }
        let release = if without == Without::FreeRelease { Ordering::Relaxed } else { Ordering::Release };
        self.state.store(0, release);
    }

    /// `OpenSegment::open`, `append`, `index::publish`, by whoever finds it free.
    fn fill(&self, without: Without) {
        let acquire = if without == Without::OpenAcquire { Ordering::Relaxed } else { Ordering::AcqRel };
        if self.state.compare_exchange(0, 1, acquire, Ordering::Relaxed).is_err() {
            return;
        }
        if without != Without::WriterFence {
            fence(Ordering::Release);
        }
        let generation = self.generation.load(Ordering::Acquire);
        self.data.iter().for_each(|word| word.store(2, Ordering::Relaxed));
        let publish = if without == Without::PublishRelease { Ordering::Relaxed } else { Ordering::Release };
        let _ = self.item.compare_exchange(0, generation, publish, Ordering::Relaxed);
    }

    /// `index::matches`, `segment::with_words`: the record's words, if they may be used.
    fn read(&self, without: Without) -> Option<(u64, [u64; 2])> {
        let item = self.item.load(Ordering::Acquire);
        let before = self.generation.load(Ordering::Acquire);
        if item == 0 || before != item {
            return None;
        }
        let words = [self.data[0].load(Ordering::Relaxed), self.data[1].load(Ordering::Relaxed)];
        if without != Without::ReaderFence {
            fence(Ordering::Acquire);
        }
        let now = self.generation.load(Ordering::Relaxed);
        (without == Without::SecondLook || now == before).then_some((before, words))
    }
}

/// One process drains, frees, and may open again; another one may be faster to open; a third reads.
fn recycle_under_a_reader(without: Without, opens_itself: bool) -> impl Fn() + Sync + Send + 'static {
    move || {
        let segment = Arc::new(Segment::new());
        let drainer = {
            let segment = segment.clone();
            thread::spawn(move || {
                segment.drain(without);
                if opens_itself {
                    segment.fill(without);
                }
            })
        };
        let opener = (!opens_itself).then(|| {
            let segment = segment.clone();
            thread::spawn(move || segment.fill(without))
        });
        if let Some((generation, words)) = segment.read(without) {
            assert_eq!(words, [generation, generation], "bytes of another life");
        }
        drainer.join().expect("it ends");
        if let Some(opener) = opener {
            opener.join().expect("it ends");
        }
    }
}

#[test]
fn a_reader_never_takes_bytes_of_another_life() {
    for opens_itself in [true, false] {
        assert!(!breaks(recycle_under_a_reader(Without::Nothing, opens_itself)));
    }
}

#[test]
fn each_guard_of_recycling_is_needed() {
    for opens_itself in [true, false] {
        let breaks_without = |without| breaks(recycle_under_a_reader(without, opens_itself));
        assert!(breaks_without(Without::WriterFence), "without the writer's fence");
        assert!(breaks_without(Without::ReaderFence), "without the reader's fence");
        assert!(breaks_without(Without::SecondLook), "without the second look");
        assert!(breaks_without(Without::Generation), "without a new generation");
    }
}

/// From the one who drained it to another one: what was done is seen.
#[test]
fn a_segment_handed_over_is_seen_as_it_was_left() {
    assert!(breaks(recycle_under_a_reader(Without::FreeRelease, false)), "freed without Release");
    assert!(breaks(recycle_under_a_reader(Without::OpenAcquire, false)), "opened without Acquire");
}

/// A fresh segment of the same generation that the reader knows: only the publishing store orders its bytes.
#[test]
fn the_publishing_store_must_release() {
    let model = |without| {
        move || {
            let segment = Arc::new(Segment::new());
            segment.item.store(0, Ordering::Relaxed);
            segment.generation.store(2, Ordering::Relaxed);
            let writer = {
                let segment = segment.clone();
                thread::spawn(move || {
                    segment.data.iter().for_each(|word| word.store(2, Ordering::Relaxed));
                    let order = if without == Without::PublishRelease {
                        Ordering::Relaxed
                    } else {
                        Ordering::Release
                    };
                    segment.item.store(2, order);
                })
            };
            if let Some((_, words)) = segment.read(Without::Nothing) {
                assert_eq!(words, [2, 2], "an item whose bytes are not there yet");
            }
            writer.join().expect("it ends");
        }
    };
    assert!(!breaks(model(Without::Nothing)));
    assert!(breaks(model(Without::PublishRelease)));
}

/// A writer changes the row, raises the fence, acknowledges; a filler takes its token, reads the row, publishes; a
/// reader who saw the acknowledgement looks the key up.
fn fill_under_a_write(token_first: bool, raise_first: bool) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (row, lane, acknowledged) =
            (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        // Version and token of the published record, in one word as one compare-and-swap publishes them.
        let record = Arc::new(AtomicU64::new(0));
        let writer = {
            let (row, lane, acknowledged) = (row.clone(), lane.clone(), acknowledged.clone());
            thread::spawn(move || {
                // COMMIT: the database orders it before everything that this process does afterwards.
                row.store(2, Ordering::SeqCst);
                if raise_first {
                    lane.fetch_add(1, Ordering::Release);
                    acknowledged.store(1, Ordering::Release);
                } else {
                    acknowledged.store(1, Ordering::Release);
                    lane.fetch_add(1, Ordering::Release);
                }
            })
        };
        let filler = {
            let (row, lane, record) = (row.clone(), lane.clone(), record.clone());
            thread::spawn(move || {
                let early = lane.load(Ordering::Acquire);
                let version = row.load(Ordering::SeqCst);
                let token = if token_first { early } else { lane.load(Ordering::Acquire) };
                record.store(version << 32 | (token + 1), Ordering::Release);
            })
        };
        let was_acknowledged = acknowledged.load(Ordering::Acquire) == 1;
        let found = record.load(Ordering::Acquire);
        let is_valid = found != 0 && (found & 0xFFFF_FFFF) == lane.load(Ordering::Acquire) + 1;
        if was_acknowledged && is_valid {
            assert_eq!(found >> 32, 2, "an old version after its successor was acknowledged");
        }
        writer.join().expect("it ends");
        filler.join().expect("it ends");
    }
}

#[test]
fn no_old_version_is_served_after_a_write_was_acknowledged() {
    assert!(!breaks(fill_under_a_write(true, true)));
}

#[test]
fn token_before_select_and_fence_before_acknowledgement_are_both_needed() {
    assert!(breaks(fill_under_a_write(false, true)), "a token taken after the SELECT");
    assert!(breaks(fill_under_a_write(true, false)), "acknowledged before the fence is raised");
}

/// The feed raises a fence, then stores the watermark; a reader loads the watermark, then the fence. Whoever sees the watermark
/// must see the fence.
fn watermark_over_a_fence(
    raise_first: bool,
    watermark_first: bool,
    release: bool,
) -> impl Fn() + Sync + Send + 'static {
    move || {
        let lane = Arc::new(AtomicU64::new(0));
        let watermark = Arc::new(AtomicU64::new(0));
        let feed = {
            let (lane, watermark) = (lane.clone(), watermark.clone());
            thread::spawn(move || {
                let order = if release { Ordering::Release } else { Ordering::Relaxed };
                if !raise_first {
                    watermark.store(1, order);
                }
                lane.store(1, Ordering::Release);
                if raise_first {
                    watermark.store(1, order);
                }
            })
        };
        let early = lane.load(Ordering::Acquire);
        let seen = watermark.load(Ordering::Acquire);
        let token = if watermark_first { lane.load(Ordering::Acquire) } else { early };
        assert!(seen == 0 || token == 1, "a watermark without its fence");
        feed.join().unwrap();
    }
}

#[test]
fn a_watermark_is_seen_only_with_its_fences() {
    loom::model(watermark_over_a_fence(true, true, true));
    assert!(breaks(watermark_over_a_fence(false, true, true)), "a watermark before the fence");
    assert!(breaks(watermark_over_a_fence(true, false, true)), "a fence looked at before the watermark");
    assert!(breaks(watermark_over_a_fence(true, true, false)), "a watermark without Release");
}
