//! Reviews: pages of them, what they come to, new ones, votes.
//! Runs in: worker.

use std::borrow::Cow;

use may_minihttp::{Request, Response};

use crate::api::outcome::Refusal;
use crate::api::params::{self, parameters, BadParameter, Id};
use crate::api::problem::Problem;
use crate::api::query::{Noun, Query};
use crate::api::writer::{Sent, Write};
use crate::api::{answer, post, Site};
use crate::db::reviews::Sort;
use crate::db::writes::{Opinion, Vote};

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

/// `POST /reviews`, `POST /reviews/:product_id`
pub fn add(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, product: Option<&str>) {
    let product = match product.map(params::whole_number) {
        Some(None) => {
            return Problem::bad_entries("Review", "product_id must be a whole number").write(site, req, rsp)
        }
        known => known.flatten(),
    };
    let sent = Sent { id: product, ..Sent::default() };
    post::shopper(site, req, rsp, Write::Review, sent, |refusal| match refusal {
        Refusal::Invalid(why) => Some(Problem::bad_entries("Review", why.clone())),
        Refusal::Missing => Some(Problem::bad_entries("Review", "there is no such product")),
        _ => None,
    });
}

/// `PUT /reviews/:id/helpful`, `/reviews/:id/report`, and the same of questions and answers.
pub fn vote(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    opinion: Opinion,
    vote: Vote,
    id: &str,
) {
    let name = opinion.name();
    match params::id(id) {
        Id::Number(number) => {
            post::vote(site, req, rsp, Write::Vote(opinion, vote), number, || Problem::none(name, id));
        }
        Id::OutOfRange => Problem::none(name, id).write(site, req, rsp),
        Id::NotANumber => Problem::bad_id(name).write(site, req, rsp),
    }
}
