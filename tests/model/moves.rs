//! A record that is moved on while others replace it, void it, read it; and a segment whose owner has died.

use loom::sync::atomic::{fence, AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

use crate::breaks;

/// Which guard is taken out.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// The compare-and-swap of the place: it is stored to instead.
    Swap,
    /// The Release with which the place is changed.
    ReplaceRelease,
    /// The record's own token: the copy takes the present one.
    OwnToken,
}

/// A place of the index, and where its item may point: 1 the old segment, 2 the copy, 3 a later version.
struct Moving {
    place: AtomicU64,
    lane: AtomicU64,
    /// Version and token of the copy: 0 until it is made.
    copy: [AtomicU64; 2],
}

impl Moving {
    /// The old segment's record has version 1, under token 0.
    fn new() -> Moving {
        let copy = [AtomicU64::new(0), AtomicU64::new(9)];
        Moving { place: AtomicU64::new(1), lane: AtomicU64::new(0), copy }
    }

    /// `Appender::sort_out`: copy, then `index::replace`.
    fn move_on(&self, without: Without) {
        let token = if without == Without::OwnToken { self.lane.load(Ordering::Acquire) } else { 0 };
        self.copy[0].store(1, Ordering::Relaxed);
        self.copy[1].store(token, Ordering::Relaxed);
        let release = if without == Without::ReplaceRelease { Ordering::Relaxed } else { Ordering::Release };
        match without {
            Without::Swap => self.place.store(2, release),
            _ => drop(self.place.compare_exchange(1, 2, release, Ordering::Relaxed)),
        }
    }

    /// `index::publish` of version 2 under token 1, until it succeeds.
    fn publish(&self) {
        loop {
            let seen = self.place.load(Ordering::Acquire);
            if self.place.compare_exchange(seen, 3, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Version and token of what is found, the published one's being 2 and 1.
    fn read(&self) -> (u64, u64) {
        match self.place.load(Ordering::Acquire) {
            1 => (1, 0),
            2 => (self.copy[0].load(Ordering::Relaxed), self.copy[1].load(Ordering::Relaxed)),
            _ => (2, 1),
        }
    }
}

fn moved_while_replaced(without: Without) -> impl Fn() + Sync + Send + 'static {
    move || {
        let moving = Arc::new(Moving::new());
        let drainer = {
            let moving = moving.clone();
            thread::spawn(move || moving.move_on(without))
        };
        let writer = {
            let moving = moving.clone();
            thread::spawn(move || {
                // A change, then a fill of what it made.
                moving.lane.fetch_add(1, Ordering::Release);
                moving.publish();
            })
        };
        let (version, _) = moving.read();
        assert!(version != 0, "a copy whose bytes are not there yet");
        drainer.join().expect("it ends");
        writer.join().expect("it ends");
        assert_eq!(moving.read(), (2, 1), "the later version was lost to a copy of the earlier one");
    }
}

/// A change alone: whatever is found under the present token is not the version from before it.
fn moved_while_voided(without: Without) -> impl Fn() + Sync + Send + 'static {
    move || {
        let moving = Arc::new(Moving::new());
        let drainer = {
            let moving = moving.clone();
            thread::spawn(move || moving.move_on(without))
        };
        moving.lane.fetch_add(1, Ordering::Release);
        let lane = moving.lane.load(Ordering::Acquire);
        let (_, token) = moving.read();
        assert!(token != lane, "a version from before the change, under the token of after it");
        drainer.join().expect("it ends");
    }
}

#[test]
fn a_copy_never_takes_a_later_versions_place() {
    assert!(!breaks(moved_while_replaced(Without::Nothing)));
    assert!(breaks(moved_while_replaced(Without::Swap)), "stored instead of swapped");
    assert!(breaks(moved_while_replaced(Without::ReplaceRelease)), "replaced without Release");
}

#[test]
fn a_voided_record_stays_void_when_it_is_moved() {
    assert!(!breaks(moved_while_voided(Without::Nothing)));
    assert!(breaks(moved_while_voided(Without::OwnToken)), "moved under the present token");
}

/// The owner of a segment stores a byte and dies; the master ends its life after it has gone; whoever sees that takes the segment.
fn taken_from_the_dead(in_order: bool) -> impl Fn() + Sync + Send + 'static {
    move || {
        let (byte, epoch) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let owner = {
            let (byte, epoch) = (byte.clone(), epoch.clone());
            thread::spawn(move || {
                byte.store(1, Ordering::Relaxed);
                // waitpid orders the two; `Slots::end_life` passes that on.
                epoch.store(1, if in_order { Ordering::Release } else { Ordering::Relaxed });
            })
        };
        let takes = epoch.load(if in_order { Ordering::Acquire } else { Ordering::Relaxed }) == 1;
        if takes {
            byte.store(2, Ordering::Relaxed);
        }
        owner.join().expect("it ends");
        assert!(!takes || byte.load(Ordering::Relaxed) == 2, "the dead wrote over the living");
    }
}

#[test]
fn the_dead_write_no_more() {
    assert!(!breaks(taken_from_the_dead(true)));
    assert!(breaks(taken_from_the_dead(false)), "an epoch without order");
}

/// Two publishers find no record of a key and each takes a place of its own: `index::publish`, then `settle`. The later one's stays,
/// and no earlier one beside it.
fn two_publish(fenced: bool) -> impl Fn() + Sync + Send + 'static {
    move || {
        let places = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        // The position of the snapshot is the place's number and one.
        let publish = move |places: &[AtomicU64; 2], own: usize| {
            let position = own as u64 + 1;
            let _ = places[own].compare_exchange(0, position, Ordering::Release, Ordering::Relaxed);
            if fenced {
                fence(Ordering::SeqCst);
            }
            let found = places[1 - own].load(Ordering::Acquire);
            let earlier = if found > position { own } else { 1 - own };
            if found != 0 {
                let seen = if found > position { position } else { found };
                let _ = places[earlier].compare_exchange(seen, 0, Ordering::Release, Ordering::Relaxed);
            }
        };
        let other = {
            let places = places.clone();
            thread::spawn(move || publish(&places, 0))
        };
        publish(&places, 1);
        other.join().expect("it ends");
        let left = [places[0].load(Ordering::Relaxed), places[1].load(Ordering::Relaxed)];
        assert_eq!(left, [0, 2], "an earlier record stays behind the later one");
    }
}

#[test]
fn of_two_publishers_one_sees_the_other() {
    assert!(!breaks(two_publish(true)));
    assert!(breaks(two_publish(false)), "without the fence between publishing and looking");
}
