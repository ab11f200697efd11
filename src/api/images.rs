//! The image service: images of shoes, by ids of its own.
//! Runs in: worker.

use std::borrow::Cow;

use may_minihttp::{Request, Response};
use serde::Serialize;

use crate::api::body::{self, ShoeBody};
use crate::api::outcome::{Refusal, Written};
use crate::api::params::{parameters, whole_number};
use crate::api::post::{self, read_body};
use crate::api::problem::Problem;
use crate::api::reply::{write_json, write_text};
use crate::api::Site;
use crate::db::images::{self, ShoeImages};
use crate::limits::RECOMMENDED_MAX;

#[derive(Serialize)]
struct ImagesJson<'a> {
    source: &'a str,
    data: Vec<Option<Cow<'a, str>>>,
}

/// Paths of this server become addresses.
fn absolute<'a>(site: &Site, image: &'a Option<String>) -> Option<Cow<'a, str>> {
    image.as_deref().map(|url| site.dialect.absolute(url))
}

/// `GET /api/images?shoe_id`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    let [sent] = parameters(req.query(), ["shoe_id"]);
    let Some(shoe_id) = sent.as_deref().and_then(whole_number) else {
        return Problem::bad_request("bad-shoe-id", "shoe_id must be a whole number").write(site, req, rsp);
    };
    match site.fetcher.ask(1, true, move |client| images::show(client, shoe_id)) {
        Ok(Some(data)) => {
            let data = data.iter().map(|image| absolute(site, image)).collect();
            write_json(site, req, rsp, &ImagesJson { source: "database", data });
        }
        Ok(None) => Problem::no_shoe().write(site, req, rsp),
        Err(error) => Problem::from(&error).write(site, req, rsp),
    }
}

/// `GET /api/recommendedImage?shoesArr=3&shoesArr=2`
pub fn recommend(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    let sent = form_urlencoded::parse(req.query().as_bytes());
    let sent = sent.filter(|(name, _)| name == "shoesArr" || name == "shoesArr[]");
    // What is no number is no shoe: like one that does not exist.
    let shoes: Vec<i64> = sent.map(|(_, id)| whole_number(&id).unwrap_or(i64::MIN)).collect();
    if shoes.len() > RECOMMENDED_MAX {
        let why = format!("at most {RECOMMENDED_MAX} shoes");
        return Problem::bad_request("too-many-shoes", why).write(site, req, rsp);
    }
    let wanted = shoes.len();
    match site.fetcher.ask(wanted, true, move |client| images::recommend(client, &shoes)) {
        Ok(images) if images.len() == wanted => {
            let images: Vec<_> = images.iter().map(|image| absolute(site, image)).collect();
            write_json(site, req, rsp, &images);
        }
        Ok(_) => write_text(site, req, rsp, "At least one of the shoes does not exist!"),
        Err(error) => Problem::from(&error).write(site, req, rsp),
    }
}

/// What a write of the image service does to a shoe; None: there is no such shoe.
type Edit = fn(&may_postgres::Client, &ShoeImages) -> Result<Option<Written>, may_postgres::Error>;

/// `POST /api/images`, `PUT /api/images`, `DELETE /api/images`
pub fn edit(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    let edit: Edit = match req.method() {
        "POST" => |client, shoe| images::add(client, shoe).map(|()| Some(Written::new(201, "Created"))),
        "PUT" => |client, shoe| {
            let rows = images::change(client, shoe)?;
            Ok((rows > 0).then(|| Written::new(200, "successfully updated")))
        },
        _ => |client, shoe| {
            let rows = images::remove(client, shoe.shoe_id)?;
            Ok((rows > 0).then(|| Written::new(200, format!("shoe {} deleted successfully", shoe.shoe_id))))
        },
    };
    let is_form = req
        .header("content-type")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded"));
    let Some(body) = read_body(req) else { return };
    let work = move |client: &may_postgres::Client, body: &[u8]| {
        let shoe: ShoeBody = body::read_shoe(body, is_form)?;
        match edit(client, &ShoeImages::from(shoe))? {
            Some(written) => Ok((written, Vec::new())),
            None => Err(Refusal::Missing.into()),
        }
    };
    post::alone(site, req, rsp, body, work, |refusal| {
        matches!(refusal, Refusal::Missing).then(Problem::no_shoe)
    });
}
