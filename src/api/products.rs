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
use crate::cache::{Encoding, Key, Kind, Lookup};
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
    let token = match site.cache.get(key, req.received_at_ns()) {
        Lookup::Miss(token) => token,
        Lookup::Hit(hit) if hit.header.status == 404 => {
            site.metrics.count(Counter::CacheHits);
            rsp.header("Cache-Status: catwalk; hit");
            return Problem::no_product(id).write(site, req, rsp);
        }
        Lookup::Hit(hit) => {
            if write_record(site, req, rsp, &Source::Shared(&site.cache, &hit), "hit") {
                site.metrics.count(Counter::CacheHits);
                return;
            }
            // Recycled between the look and the copy: fetched like a miss.
            site.cache.token(key)
        }
    };
    site.metrics.count(if site.cache.is_on() { Counter::CacheMisses } else { Counter::CacheBypassed });
    miss(site, req, rsp, key, token, id);
}

fn miss(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    key: Key,
    token: crate::cache::Token,
    id: &str,
) {
    let fetched = site.fetcher.fetch(key, token);
    let status = if site.cache.is_on() { fetched.cache_status() } else { "fwd=bypass" };
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

/// Answers with a value past its age, while no database can be reached (RFC 5861, 4). False when there is none.
fn write_stale(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, key: Key) -> bool {
    if site.pool.is_reachable() {
        return false;
    }
    let Some(hit) = site.cache.get_stale(key, req.received_at_ns()) else { return false };
    let age_s = req.received_at_ns().saturating_sub(hit.header.born_ns) / 1_000_000_000;
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
