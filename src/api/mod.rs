//! HTTP joined with cache and database: one file a noun, `route` is the index.
//! Runs in: worker.

pub mod access;
pub mod admin;
pub mod answer;
pub mod audit;
pub mod batch;
pub mod body;
pub mod cart;
pub mod conditional;
pub mod elsewhere;
pub mod fetch;
pub mod flight;
pub mod health;
pub mod images;
pub mod outcome;
pub mod params;
pub mod pictures;
pub mod post;
pub mod problem;
pub mod products;
pub mod query;
pub mod questions;
pub mod range;
pub mod read;
pub mod reply;
pub mod reviews;
pub mod route;
pub mod seen;
pub mod shape;
pub mod slow;
pub mod stream;
pub mod traceparent;
pub mod waits;
pub mod web;
pub mod writer;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use crate::cache::Cache;
use crate::config::Config;
use crate::db::trace::{self, Notes};
use crate::db::Nodes;
use crate::front::Front;
use crate::metrics::{Counter, SlotMetrics};
use crate::os::clock;
use crate::slots::Slots;
use crate::throttle::Throttle;
use access::Access;
use audit::Audit;
use fetch::Fetcher;
use reply::Policy;
use shape::Dialect;
use slow::Slow;
use writer::Writer;

/// What a worker's site has in common with those of its siblings.
pub struct Shared {
    pub throttle: Throttle,
    pub slots: Slots,
    pub metrics: SlotMetrics,
    pub front: Arc<Front>,
}

/// What every handler works with: one per worker.
pub struct Site {
    pub cache: Arc<Cache>,
    pub fetcher: Arc<Fetcher>,
    pub writer: Arc<Writer>,
    pub throttle: Throttle,
    pub dialect: Dialect,
    pub nodes: Arc<Nodes>,
    pub slots: Slots,
    pub metrics: SlotMetrics,
    pub policy: Policy,
    pub audit: Arc<Audit>,
    pub access: Access,
    pub slow: Slow,
    pub front: Arc<Front>,
    /// Whether the database was found to be what this server needs, or why not; None: this worker has not looked yet.
    pub database_state: parking_lot::Mutex<Option<Result<(), String>>>,
    /// This box, to others.
    pub box_id: u64,
    request_ids: RequestIds,
}

impl Site {
    pub fn new(
        config: &Config,
        fetcher: Arc<Fetcher>,
        writer: Arc<Writer>,
        shared: Shared,
        id_seed: u64,
    ) -> Site {
        let Shared { throttle, slots, metrics, front } = shared;
        let (cache, nodes) = (fetcher.cache().clone(), fetcher.nodes().clone());
        let audit = Audit::new(cache.clone(), metrics.clone(), config.cache_audit_one_in);
        let database_state = parking_lot::Mutex::new(None);
        let box_id = cache.arena().seed();
        let request_ids = RequestIds { base: id_seed, next: AtomicU64::new(0) };
        let policy = Policy::new(config);
        let dialect = Dialect::new(config);
        Site {
            cache,
            fetcher,
            writer,
            throttle,
            dialect,
            nodes,
            slots,
            metrics,
            policy,
            audit,
            access: Access::open(&config.access_log),
            slow: Slow::new(config.slow_log),
            front,
            database_state,
            box_id,
            request_ids,
        }
    }
}

/// Ids unique to a box: a worker's random base, and a count.
struct RequestIds {
    base: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Sixteen hexadecimal digits.
    fn next(&self) -> [u8; 16] {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        hex(self.base.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

/// Sixteen lower-case hexadecimal digits.
pub(crate) fn hex(value: u64) -> [u8; 16] {
    std::array::from_fn(|n| b"0123456789abcdef"[(value >> (60 - 4 * n)) as usize & 15])
}

/// Makes a service for each connection of the public.
pub struct Factory(pub Arc<Site>);

/// Answers the requests of one connection.
pub struct Service(Arc<Site>);

impl HttpServiceFactory for Factory {
    type Service = Service;

    fn new_service(&self, _id: usize) -> Service {
        Service(self.0.clone())
    }
}

impl HttpService for Service {
    fn call(&mut self, mut req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()> {
        let site = &*self.0;
        let nth = site.metrics.count(Counter::Requests);
        reply::write_request_id(&req, rsp, || site.request_ids.next());
        let waits = trace::waits();
        let group = route::answer(site, &mut req, rsp);
        // How fast a client sends its body is none of the server's doing.
        let begun_ns = req.received_at_ns() + req.body().waited_ns();
        let took_ns = clock::boottime_ns().saturating_sub(begun_ns);
        // Where nobody of this worker has waited meanwhile, this request has not.
        let notes = if trace::waits() == waits { Notes::default() } else { trace::take() };
        site.metrics.time(group, took_ns);
        reply::write_timing(rsp, took_ns, notes.waited_ns);
        if site.slow.is_slow(took_ns) {
            site.slow.note(&req, rsp, group, took_ns, &notes);
        }
        if site.access.notes(nth) {
            site.access.note(&req, rsp, took_ns);
        }
        site.metrics.count(match rsp.status() {
            200..=299 => Counter::Responses2xx,
            300..=399 => Counter::Responses3xx,
            400..=499 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        });
        Ok(())
    }
}

/// Makes a service for each connection of whoever runs this server.
pub struct AdminFactory(pub Arc<Site>);

/// Answers its requests, which are counted nowhere: who looks changes nothing.
pub struct AdminService(Arc<Site>);

impl HttpServiceFactory for AdminFactory {
    type Service = AdminService;

    fn new_service(&self, _id: usize) -> AdminService {
        AdminService(self.0.clone())
    }
}

impl HttpService for AdminService {
    fn call(&mut self, req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()> {
        let site = &*self.0;
        reply::write_request_id(&req, rsp, || site.request_ids.next());
        route::answer_admin(site, &req, rsp);
        reply::write_timing(rsp, clock::boottime_ns().saturating_sub(req.received_at_ns()), 0);
        Ok(())
    }
}
