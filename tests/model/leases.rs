//! Leases: one fills, the others find what was filled; taking over from one who is late is safe.

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

use crate::breaks;

#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// The look into the cache after a lease was granted.
    SecondLook,
    /// The Release with which a lease ends.
    EndRelease,
    /// The Acquire with which it is asked for.
    AskAcquire,
    /// The compare-and-swap with which it ends: it is stored to instead.
    EndSwap,
}

struct Fill {
    lease: AtomicU64,
    record: AtomicU64,
    queries: AtomicU64,
}

impl Fill {
    fn new() -> Fill {
        Fill { lease: AtomicU64::new(0), record: AtomicU64::new(0), queries: AtomicU64::new(0) }
    }

    /// `Fetcher::try_depart`: false while another one has the lease.
    fn try_fill(&self, me: u64, without: Without) -> bool {
        let acquire = if without == Without::AskAcquire { Ordering::Relaxed } else { Ordering::Acquire };
        let seen = self.lease.load(acquire);
        let strong = if without == Without::AskAcquire { Ordering::Relaxed } else { Ordering::AcqRel };
        if seen != 0 || self.lease.compare_exchange(0, me, strong, Ordering::Relaxed).is_err() {
            return false;
        }
        if without == Without::SecondLook || self.record.load(Ordering::Acquire) == 0 {
            self.queries.fetch_add(1, Ordering::Relaxed);
            self.record.store(1, Ordering::Release);
        }
        self.end(me, without);
        true
    }

    /// `lease::end`.
    fn end(&self, me: u64, without: Without) {
        let release = if without == Without::EndRelease { Ordering::Relaxed } else { Ordering::Release };
        match without {
            Without::EndSwap => self.lease.store(0, release),
            _ => drop(self.lease.compare_exchange(me, 0, release, Ordering::Relaxed)),
        }
    }
}

/// Two workers miss; each asks twice at most.
fn two_miss(without: Without) -> impl Fn() + Sync + Send + 'static {
    move || {
        let fill = Arc::new(Fill::new());
        let miss = move |fill: &Fill, me| {
            let _ = fill.try_fill(me, without)
                || fill.record.load(Ordering::Acquire) != 0
                || fill.try_fill(me, without);
        };
        let other = {
            let fill = fill.clone();
            thread::spawn(move || miss(&fill, 1))
        };
        miss(&fill, 2);
        other.join().expect("it ends");
        assert_eq!(fill.queries.load(Ordering::Relaxed), 1, "queries for one miss");
    }
}

#[test]
fn one_miss_is_one_query() {
    assert!(!breaks(two_miss(Without::Nothing)));
    assert!(breaks(two_miss(Without::SecondLook)), "without a second look");
    assert!(breaks(two_miss(Without::EndRelease)), "ended without Release");
    assert!(breaks(two_miss(Without::AskAcquire)), "asked for without Acquire");
}

/// Worker 1 is past its deadline; worker 2 takes over while 1 ends at last.
fn stolen(without: Without) -> impl Fn() + Sync + Send + 'static {
    move || {
        let fill = Arc::new(Fill::new());
        fill.lease.store(1, Ordering::Relaxed);
        let late = {
            let fill = fill.clone();
            thread::spawn(move || fill.end(1, without))
        };
        let seen = fill.lease.load(Ordering::Acquire);
        let is_mine = fill.lease.compare_exchange(seen, 2, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        late.join().expect("it ends");
        assert!(
            !is_mine || fill.lease.load(Ordering::Relaxed) == 2,
            "the late one ended a lease that is not its own"
        );
    }
}

#[test]
fn whoever_is_late_ends_only_its_own_lease() {
    assert!(!breaks(stolen(Without::Nothing)));
    assert!(breaks(stolen(Without::EndSwap)), "stored instead of swapped");
}
