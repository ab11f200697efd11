//! Requests that took long: what they waited for, joined with the statement and the backend that the database knows them by.
//! Runs in: worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use may_minihttp::{Request, Response};

use crate::api::access::field;
use crate::api::params::escaped;
use crate::api::traceparent::TraceParent;
use crate::db::trace::Notes;
use crate::limits::SLOW_LINES_PER_S;
use crate::metrics::names::ROUTES;
use crate::metrics::RouteGroup;
use crate::os::clock;
use crate::statements::find;

/// From when on a request is slow, and how many were told of lately.
pub struct Slow {
    from_ns: u64,
    /// The second that `told` is of.
    second: AtomicU64,
    told: AtomicU64,
}

impl Slow {
    /// Zero: none is.
    pub fn new(from: Duration) -> Slow {
        let from_ns = if from.is_zero() { u64::MAX } else { from.as_nanos() as u64 };
        Slow { from_ns, second: AtomicU64::new(0), told: AtomicU64::new(0) }
    }

    #[inline]
    pub fn is_slow(&self, took_ns: u64) -> bool {
        took_ns >= self.from_ns
    }

    /// While the database is away every request is slow: so many lines a second, and how many there would have been.
    fn may_tell(&self) -> bool {
        self.tick();
        self.told.fetch_add(1, Ordering::Relaxed) < SLOW_LINES_PER_S
    }

    /// Tells of a second that is over how many were not told of.
    pub fn tick(&self) {
        let now_s = clock::boottime_ns() / 1_000_000_000;
        if self.second.swap(now_s, Ordering::Relaxed) == now_s {
            return;
        }
        let untold = self.told.swap(0, Ordering::Relaxed).saturating_sub(SLOW_LINES_PER_S);
        if untold > 0 {
            log::warn!("{untold} more requests were slow within a second, and are not told of one by one");
        }
    }

    #[cold]
    pub fn note(
        &self,
        req: &Request<'_, '_>,
        rsp: &mut Response<'_>,
        route: RouteGroup,
        took_ns: u64,
        notes: &Notes,
    ) {
        if !self.may_tell() {
            return;
        }
        let status = rsp.status();
        let head = std::str::from_utf8(rsp.head_mut()).unwrap_or_default();
        let (request_id, cache) = (field(head, "X-Request-Id: "), field(head, "Cache-Status: catwalk; "));
        let trace = TraceParent::of(req);
        let trace_id = trace.as_ref().map_or("", |trace| trace.trace_id);
        let (duration_ms, waited_ms) = (took_ns / 1_000_000, notes.waited_ns / 1_000_000);
        let (route, method, path) =
            (ROUTES[route as usize].name, req.method(), escaped(&req.path()).to_string());
        match notes.slowest {
            Some(ran) => {
                let hint = match find(ran.name) {
                    Some(_) => format!("; the plan: catwalk explain {}", ran.name),
                    None => String::new(),
                };
                log::warn!(
                    request_id, trace_id, route, status, duration_ms, waited_ms, cache, statement = ran.name,
                    statement_ms = ran.took_ns / 1_000_000, backend = ran.backend;
                    "slow: {method} {path}{hint}"
                );
            }
            None => {
                let why = match waited_ms {
                    0 => "no statement was run for it",
                    _ => "it waited for another worker's statement, or for a connection that was free",
                };
                log::warn!(
                    request_id, trace_id, route, status, duration_ms, waited_ms, cache;
                    "slow: {method} {path}; {why}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_told_of() {
        let slow = Slow::new(Duration::from_millis(5));
        assert!(slow.is_slow(5_000_000) && !slow.is_slow(4_999_999));
        assert!(!Slow::new(Duration::ZERO).is_slow(u64::MAX - 1));
        let told = (0..SLOW_LINES_PER_S * 3).filter(|_| slow.may_tell()).count() as u64;
        assert!((SLOW_LINES_PER_S..=SLOW_LINES_PER_S * 2).contains(&told), "{told}: a second may have ended");
    }
}
