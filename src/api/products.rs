//! Products, their styles and related products, and pages of products: cache first, then the fetcher.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::conditional::accepts_gzip;
use crate::api::fetch::{list_key, FetchError, Fetched};
use crate::api::params::{self, BadParameter, Id, Page};
use crate::api::problem::Problem;
use crate::api::reply::{write_record, write_stream, Source};
use crate::api::stream::{ListSource, Unmade};
use crate::api::Site;
use crate::cache::{watermark, Encoding, Hit, Key, Kind, Lookup};
use crate::limits::{LIST_CACHED_COUNT_MAX, LIST_COUNT_MAX};
use crate::metrics::Counter;

/// `GET /products?page&count`
pub fn list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    let read = Page::read(req.query());
    // Cut before the offset is made of it: pages follow one another without a gap.
    match read.map(|page| Page { count: page.count.min(LIST_COUNT_MAX), ..page }) {
        Ok(page) if page.count > LIST_CACHED_COUNT_MAX => stream_list(site, req, rsp, &page),
        Ok(page) => answer(site, req, rsp, list_key(page.offset(), page.count), ""),
        Err(BadParameter::Page) => {
            Problem::bad_request("bad-page", "page must be a whole number from 1").write(site, req, rsp);
        }
        Err(BadParameter::Count) => {
            Problem::bad_request("bad-count", "count must be a whole number from 0").write(site, req, rsp);
        }
    }
}

/// A page too long to be kept.
fn stream_list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, page: &Page) {
    let gzip = accepts_gzip(req.header("accept-encoding")) == Encoding::Gzip;
    site.metrics.count(Counter::CacheBypassed);
    if req.method() == "HEAD" && site.pool.is_reachable() {
        return write_stream(site, req, rsp, Box::new(Unmade), gzip);
    }
    match ListSource::open(site.fetcher.clone(), page.offset(), page.count, gzip) {
        Ok(source) => write_stream(site, req, rsp, Box::new(source), gzip),
        Err(error) => Problem::from(&error).write(site, req, rsp),
    }
}

/// `GET /products/:id`, `/products/:id/styles`, `/products/:id/related`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, kind: Kind, id: &str) {
    match params::id(id) {
        Id::Number(number) => answer(site, req, rsp, Key::new(kind, number), id),
        Id::OutOfRange => Problem::no_product(id).write(site, req, rsp),
        Id::NotANumber => Problem::bad_request("bad-id", "a product's id is a number").write(site, req, rsp),
    }
}

fn answer(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, key: Key, id: &str) {
    match site.cache.get(key, req.received_at_ns()) {
        Lookup::Hit(hit) if write_hit(site, req, rsp, &hit, id) => {
            let hits = site.metrics.count(Counter::CacheHits);
            site.audit.sample(hits, &hit.header);
        }
        Lookup::Untrusted => {
            site.metrics.count(Counter::CacheUntrusted);
            miss(site, req, rsp, key, id, Some("fwd=bypass; detail=feed-behind"));
        }
        // Recycled between the look and the copy: fetched like a miss.
        Lookup::Miss | Lookup::Hit(_) if site.cache.is_on() => {
            site.metrics.count(Counter::CacheMisses);
            miss(site, req, rsp, key, id, None);
        }
        Lookup::Miss | Lookup::Hit(_) => {
            site.metrics.count(Counter::CacheBypassed);
            miss(site, req, rsp, key, id, Some("fwd=bypass"));
        }
    }
}

fn write_hit(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, hit: &Hit, id: &str) -> bool {
    if hit.header.status == 404 {
        rsp.header("Cache-Status: catwalk; hit");
        Problem::no_product(id).write(site, req, rsp);
        return true;
    }
    write_record(site, req, rsp, &Source::Shared(&site.cache, hit), "hit")
}

/// Answers from the database. `bypass`: the Cache-Status where the cache was not to answer anyway.
fn miss(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    key: Key,
    id: &str,
    bypass: Option<&'static str>,
) {
    let fetched = site.fetcher.fetch(key, req.received_at_ns());
    let status = bypass.unwrap_or(fetched.cache_status());
    match fetched {
        Fetched { outcome: Ok(record), .. } if record.header().status == 404 => {
            rsp.header(&format!("Cache-Status: catwalk; {status}"));
            Problem::no_product(id).write(site, req, rsp);
        }
        Fetched { outcome: Ok(record), .. } => {
            write_record(site, req, rsp, &Source::Private(&record), status);
        }
        Fetched { outcome: Err(FetchError::Unavailable(_)), .. } if write_stale(site, req, rsp, key) => {}
        Fetched { outcome: Err(error), .. } => {
            rsp.header(&format!("Cache-Status: catwalk; {status}"));
            Problem::from(&error).write(site, req, rsp);
        }
    }
}

/// Answers with a value past its age or not known to be fresh, while no database can be reached (RFC 5861, 4). False when there is none.
fn write_stale(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, key: Key) -> bool {
    // Silence alone may be a lock on a table; it counts when the change feed hears nothing either.
    let is_cut_off = watermark::state(site.cache.arena()) == watermark::State::CutOff;
    if !site.pool.is_gone() && (site.pool.is_reachable() || !is_cut_off) {
        return false;
    }
    let Some(hit) = site.cache.get_stale(key, req.received_at_ns()) else { return false };
    let age_s = req.received_at_ns().saturating_sub(hit.header.reading.born_ns) / 1_000_000_000;
    let written = if hit.header.status == 404 {
        rsp.header("Cache-Status: catwalk; hit; detail=stale-if-error");
        Problem::no_product(&key.id.to_string()).write(site, req, rsp);
        true
    } else {
        write_record(site, req, rsp, &Source::Shared(&site.cache, &hit), "hit; detail=stale-if-error")
    };
    if written {
        rsp.header(&format!("Age: {age_s}"));
        site.metrics.count(Counter::CacheStale);
    }
    written
}
