//! Questions and answers: pages of them, new ones.
//! Runs in: worker.

use std::borrow::Cow;

use may_minihttp::{Request, Response};

use crate::api::outcome::Refusal;
use crate::api::params::{self, BadParameter, Id};
use crate::api::problem::Problem;
use crate::api::query::{Noun, Query};
use crate::api::reviews::of_product;
use crate::api::writer::{Sent, Write};
use crate::api::{answer, post, Site};

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

/// `POST /qa/questions`
pub fn add(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    post::shopper(site, req, rsp, Write::Question, Sent::default(), |refusal| match refusal {
        Refusal::Invalid(why) => Some(Problem::bad_entries("Question", why.clone())),
        Refusal::Missing => Some(Problem::bad_entries("Question", "there is no such product")),
        _ => None,
    });
}

/// `POST /qa/questions/:id/answers`
pub fn add_answer(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, question: &str) {
    let number = match params::id(question) {
        Id::Number(number) => number,
        Id::OutOfRange => return Problem::none("question", question).write(site, req, rsp),
        Id::NotANumber => return Problem::bad_question_id().write(site, req, rsp),
    };
    let sent = Sent { id: Some(number), ..Sent::default() };
    post::shopper(site, req, rsp, Write::Answer, sent, |refusal| match refusal {
        Refusal::Invalid(why) => Some(Problem::bad_entries("Answer", why.clone())),
        Refusal::Missing => Some(Problem::none("question", question)),
        _ => None,
    });
}
