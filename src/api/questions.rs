//! Questions and answers: pages of them.
//! Runs in: worker.

use std::borrow::Cow;

use may_minihttp::{Request, Response};

use crate::api::answer;
use crate::api::params::BadParameter;
use crate::api::problem::Problem;
use crate::api::query::{Noun, Query};
use crate::api::reviews::of_product;
use crate::api::Site;

/// `GET /qa/questions?product_id&page&count&cursor`, `GET /qa/:product_id`
pub fn list(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, product: Option<&str>) {
    let query = Query::read(Noun::Questions, req.query());
    match of_product(req.query(), product).and_then(|id| query?.of(id)) {
        Ok(query) => answer::query(site, req, rsp, query),
        Err(bad) => answer::bad_parameter(site, req, rsp, bad),
    }
}

/// `GET /qa/questions/:id/answers?page&count&cursor`
pub fn list_answers(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, question: &str) {
    match Query::read(Noun::Answers, req.query()).and_then(|query| query.of(Cow::Borrowed(question))) {
        Ok(query) => answer::query(site, req, rsp, query),
        Err(BadParameter::Owner) => Problem::bad_question_id().write(site, req, rsp),
        Err(bad) => answer::bad_parameter(site, req, rsp, bad),
    }
}
