//! Answers to reads: the cache first, then the fetcher, then, with the database away, what was known last.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::fetch::{FetchError, Fetched, Fetcher};
use crate::api::params::BadParameter;
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::api::reply::{write_record, Source};
use crate::api::shape::{Shaped, Shaper};
use crate::api::{seen, Site};
use crate::cache::{watermark, Hit, Key, Kind, Lookup, Reading, Record};
use crate::limits::{IDS_MAX, SEARCH_SIZE_MAX_BYTES};
use crate::metrics::Counter;

/// Answers for a key that is kept. `id`: of the product that is told of when there is none.
pub fn kept(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, key: Key, id: &str) {
    seen::honour(site, req, Some(key));
    match site.cache.get(key, req.received_at_ns()) {
        Lookup::Hit(hit) if write_hit(site, req, rsp, &hit, id) => {
            let hits = site.metrics.count(Counter::CacheHits);
            site.audit.sample(hits, &hit.header());
            site.metrics.sample(hits, || key.words());
        }
        Lookup::Untrusted if write_headless(site, req, rsp, key, id) => {}
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
    if hit.header().is_missing {
        rsp.header("Cache-Status: catwalk; hit");
        Problem::no_product(id).write(site, req, rsp);
        return true;
    }
    write_record(site, req, rsp, &Source::Shared(&site.cache, hit), "hit")
}

/// Answers with what the replicas had when they were last followed, while nobody takes writes: nothing is known to be newer.
fn write_headless(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, key: Key, id: &str) -> bool {
    if !site.nodes.is_headless() {
        return false;
    }
    let Some(hit) = site.cache.get_followed(key, req.received_at_ns()) else { return false };
    let is_written = if hit.header().is_missing {
        rsp.header("Cache-Status: catwalk; hit; detail=no-primary");
        Problem::no_product(id).write(site, req, rsp);
        true
    } else {
        write_record(site, req, rsp, &Source::Shared(&site.cache, &hit), "hit; detail=no-primary")
    };
    if is_written {
        site.metrics.count(Counter::CacheStale);
    }
    is_written
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
    let was_headless = site.nodes.is_headless();
    let fetched = site.fetcher.fetch(key, req.received_at_ns());
    let status = match was_headless || site.nodes.is_headless() {
        true => "fwd=miss; detail=no-primary",
        false => bypass.unwrap_or(fetched.cache_status()),
    };
    match fetched {
        Fetched { outcome: Ok(record), .. } if record.header().is_missing => {
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
    if !site.nodes.is_gone() && (site.nodes.is_reachable() || !is_cut_off) {
        return false;
    }
    let Some(hit) = site.cache.get_stale(key, req.received_at_ns()) else { return false };
    let age_s = req.received_at_ns().saturating_sub(hit.header().reading.born_ns) / 1_000_000_000;
    let written = if hit.header().is_missing {
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

/// Answers a query: from the cache if many ask for the same, else from the database.
pub fn query(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, query: Query<'_>) {
    match query.key() {
        Some(key) => kept(site, req, rsp, key, ""),
        None => {
            site.metrics.count(Counter::CacheBypassed);
            let query = query.into_owned();
            made(site, req, rsp, query.noun.kind(), move |fetcher, shaper| {
                let view = fetcher.reader().view(&query).map_err(|e| FetchError::from(&e))?;
                Ok(shaper.shape_query(&query, view))
            });
        }
    }
}

/// Has a lane make what nobody else is likely to ask for, and answers with it.
pub fn made(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    kind: Kind,
    make: impl FnOnce(&Fetcher, &mut Shaper) -> Result<Shaped, FetchError> + Send + 'static,
) {
    seen::honour(site, req, None);
    let made = site.fetcher.run(move |fetcher, shaper| {
        let mut shaped = make(fetcher, shaper)?;
        // A client's own cursor may make it longer than a record's may be.
        let head = std::mem::take(&mut shaped.bodies.head);
        // It says what kind of answer this is; nobody asks for it, and nothing is filled with it.
        let key = Key::new(kind, i64::MIN);
        let token = fetcher.cache().token(key);
        Record::make(key, token, Reading::default(), shaped.view, &shaped.bodies)
            .map(|record| (record, head))
            .map_err(|e| FetchError::Failed(e.to_string()))
    });
    match made.unwrap_or_else(|| Err(FetchError::too_busy())) {
        Ok((record, head)) => {
            rsp.head_mut().extend_from_slice(&head);
            write_record(site, req, rsp, &Source::Private(&record), "fwd=bypass");
        }
        Err(error) => {
            rsp.header("Cache-Status: catwalk; fwd=bypass");
            Problem::from(&error).write(site, req, rsp);
        }
    }
}

/// Says what is wrong with a query.
pub fn bad_parameter(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, bad: BadParameter) {
    let problem = match bad {
        BadParameter::Page => Problem::bad_request("bad-page", "page must be a whole number from 1"),
        BadParameter::Count => Problem::bad_request("bad-count", "count must be a whole number from 0"),
        BadParameter::Cursor => {
            Problem::bad_request("bad-cursor", "cursor must come from a Link of the same list and order")
        }
        BadParameter::Text => {
            let why = format!("category and q must be texts of at most {SEARCH_SIZE_MAX_BYTES} bytes");
            Problem::bad_request("bad-search", why)
        }
        BadParameter::Ids => {
            Problem::bad_request("bad-ids", format!("ids must be at most {IDS_MAX} numbers, as in 1,2,3"))
        }
        BadParameter::Owner => Problem::bad_product_id(),
    };
    problem.write(site, req, rsp);
}
