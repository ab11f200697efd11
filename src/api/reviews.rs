//! Reviews: pages of them, what they come to.
//! Runs in: worker.

use std::borrow::Cow;

use may_minihttp::{Request, Response};

use crate::api::answer;
use crate::api::params::{parameters, BadParameter};
use crate::api::query::{Noun, Query};
use crate::api::Site;
use crate::db::reviews::Sort;

/// `GET /reviews?product_id&page&count&sort&cursor`, `GET /reviews/:product_id/list`
pub fn list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, product: Option<&str>) {
    let query = Query::read(Noun::Reviews(Sort::Relevant), req.query());
    match of_product(req.query(), product).and_then(|id| query?.of(id)) {
        Ok(query) => answer::query(site, req, rsp, query),
        Err(bad) => answer::bad_parameter(site, req, rsp, bad),
    }
}

/// `GET /reviews/meta?product_id`, `GET /reviews/:product_id/meta`
pub fn show_meta(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, product: Option<&str>) {
    let query = Query::read(Noun::Meta, "");
    match of_product(req.query(), product).and_then(|id| query?.of(id)) {
        Ok(query) => answer::query(site, req, rsp, query),
        Err(bad) => answer::bad_parameter(site, req, rsp, bad),
    }
}

/// The product as it was sent: in the path, or as a parameter.
pub fn of_product<'q>(query: &'q str, product: Option<&'q str>) -> Result<Cow<'q, str>, BadParameter> {
    let [sent] = parameters(query, ["product_id"]);
    product.map(Cow::Borrowed).or(sent).ok_or(BadParameter::Owner)
}
