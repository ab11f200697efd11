//! Products, their styles and related products, and pages of products.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::answer;
use crate::api::conditional::Accepted;
use crate::api::fetch::FetchError;
use crate::api::params::{self, BadParameter, Id};
use crate::api::problem::Problem;
use crate::api::query::{Noun, Query};
use crate::api::reply::write_stream;
use crate::api::stream::{ListSource, Unmade};
use crate::api::{seen, Site};
use crate::cache::{Encoding, Key, Kind};
use crate::limits::IDS_MAX;
use crate::metrics::Counter;

/// `GET /products?page&count&cursor&category&q`, `GET /products?ids`
pub fn list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    if req.query().as_bytes().windows(4).any(|word| word == b"ids=") {
        if let [Some(ids)] = params::parameters(req.query(), ["ids"]) {
            return list_some(site, req, rsp, &ids);
        }
    }
    match Query::read(Noun::Products, req.query()) {
        Ok(query) if query.is_streamed() => {
            stream_list(site, req, rsp, &query);
        }
        Ok(query) => answer::query(site, req, rsp, query),
        Err(bad) => answer::bad_parameter(site, req, rsp, bad),
    }
}

/// Products by their ids.
fn list_some(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, ids: &str) {
    let ids: Option<Vec<i64>> = ids.split(',').map(|id| params::whole_number(id.trim())).collect();
    let Some(ids) = ids.filter(|ids| ids.len() <= IDS_MAX) else {
        return answer::bad_parameter(site, req, rsp, BadParameter::Ids);
    };
    site.metrics.count(Counter::CacheBypassed);
    answer::made(site, req, rsp, Kind::List, move |fetcher, shaper| {
        let found = fetcher.reader().some_products(&ids).map_err(|e| FetchError::from(&e))?;
        Ok(shaper.shape_list(found))
    });
}

/// A page too long to be kept.
fn stream_list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, query: &Query<'_>) {
    let gzip =
        Accepted::read(req.header("accept-encoding")).choose(|e| e == Encoding::Gzip) == Encoding::Gzip;
    site.metrics.count(Counter::CacheBypassed);
    if req.method() == "HEAD" && site.nodes.is_reachable() {
        return write_stream(site, req, rsp, Box::new(Unmade), gzip);
    }
    let (skip, count) = (query.skip(), query.count());
    seen::honour(site, req, None);
    match ListSource::open(site.fetcher.clone(), skip, count, gzip) {
        Ok(source) => {
            let last = site.fetcher.reader().last_of(skip, count);
            rsp.head_mut().extend_from_slice(query.links_beside(last).as_bytes());
            write_stream(site, req, rsp, Box::new(source), gzip);
        }
        Err(error) => Problem::from(&error).write(site, req, rsp),
    }
}

/// `GET /products/:id`, `/products/:id/styles`, `/products/:id/related`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, kind: Kind, id: &str) {
    match params::id(id) {
        Id::Number(number) => answer::kept(site, req, rsp, Key::new(kind, number), id),
        Id::OutOfRange => Problem::no_product(id).write(site, req, rsp),
        Id::NotANumber => Problem::bad_request("bad-id", "a product's id is a number").write(site, req, rsp),
    }
}
