//! Changes that people with a catalogue make daily, visible at once.
//! Runs in: worker.

pub mod input;

use may_minihttp::{Request, Response};
use may_postgres::Client;
use serde_json::json;

use crate::api::outcome::{Refusal, Stop, Written};
use crate::api::params::{self, Id};
use crate::api::post::{self, read_body};
use crate::api::problem::Problem;
use crate::api::reply::write_cors;
use crate::api::shape::Dialect;
use crate::api::{hex, Site};
use crate::cache::record::etag_of;
use crate::cache::watermark::Reason;
use crate::catalogue::{Change, What};
use crate::db::edits::{self, ProductChange, SkuRow, StyleChange, StyleRow};
use crate::db::writes::Opinion;
use input::{FeatureBody, PhotoBody, ProductBody, ProductPatch, PurgeBody, QuantityBody, StylePatch};

/// Where a path below `/admin` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRoute<'p> {
    Products,
    Product(&'p str),
    Features(&'p str),
    Feature(&'p str),
    /// Of a product to another.
    Related(&'p str, &'p str),
    Style(&'p str),
    Photos(&'p str),
    Photo(&'p str),
    Sku(&'p str),
    /// Whether a review, question or answer is hidden.
    Hidden(Opinion, &'p str, bool),
    Purge,
}

/// Finds the route of a path's segments behind `admin`.
pub fn find<'p>(segments: &[&'p str]) -> Option<AdminRoute<'p>> {
    Some(match *segments {
        ["products"] => AdminRoute::Products,
        ["products", id] => AdminRoute::Product(id),
        ["products", id, "features"] => AdminRoute::Features(id),
        ["features", id] => AdminRoute::Feature(id),
        ["products", id, "related", other] => AdminRoute::Related(id, other),
        ["styles", id] => AdminRoute::Style(id),
        ["styles", id, "photos"] => AdminRoute::Photos(id),
        ["photos", id] => AdminRoute::Photo(id),
        ["skus", id] => AdminRoute::Sku(id),
        [opinion, id, verb @ ("hide" | "show")] => {
            let opinion = match opinion {
                "reviews" => Opinion::Review,
                "questions" => Opinion::Question,
                "answers" => Opinion::Answer,
                _ => return None,
            };
            AdminRoute::Hidden(opinion, id, verb == "hide")
        }
        ["purge"] => AdminRoute::Purge,
        _ => return None,
    })
}

/// Methods of a route.
pub fn methods(route: AdminRoute<'_>) -> &'static str {
    match route {
        AdminRoute::Products | AdminRoute::Features(_) | AdminRoute::Photos(_) | AdminRoute::Purge => {
            "POST, OPTIONS"
        }
        AdminRoute::Product(_) => "GET, HEAD, PATCH, DELETE, OPTIONS",
        AdminRoute::Feature(_) | AdminRoute::Photo(_) => "DELETE, OPTIONS",
        AdminRoute::Related(..) => "PUT, DELETE, OPTIONS",
        AdminRoute::Style(_) => "PATCH, OPTIONS",
        AdminRoute::Sku(_) => "GET, HEAD, PUT, OPTIONS",
        AdminRoute::Hidden(..) => "PUT, OPTIONS",
    }
}

/// What is done in a transaction: the answer, and what changes.
type Done = Result<(Written, Vec<Change>), Stop>;

/// Answers a request whose method the route has.
pub fn answer(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, route: AdminRoute<'_>) {
    use AdminRoute as To;
    let dialect = site.dialect.clone();
    match (route, req.method()) {
        (To::Products, _) => {
            edit(site, req, rsp, ("product", "0"), move |client, _, body| {
                add_product(client, &dialect, body)
            });
        }
        (To::Product(id), "GET" | "HEAD") => edit(site, req, rsp, ("product", id), inspect_product),
        (To::Product(id), "DELETE") => edit(site, req, rsp, ("product", id), remove_product),
        (To::Product(id), _) => edit(site, req, rsp, ("product", id), move |client, id, body| {
            change_product(client, &dialect, id, body)
        }),
        (To::Features(id), _) => edit(site, req, rsp, ("product", id), add_feature),
        (To::Feature(id), _) => edit(site, req, rsp, ("feature", id), |client, id, _| {
            removed(edits::remove_feature(client, id)?, What::Features)
        }),
        (To::Related(id, other), method) => {
            let is_removed = method == "DELETE";
            let Some(other) = params::whole_number(other) else {
                return Problem::bad_id("product").write(site, req, rsp);
            };
            edit(site, req, rsp, ("product", id), move |client, id, _| relate(client, id, other, is_removed));
        }
        (To::Style(id), _) => edit(site, req, rsp, ("style", id), change_style),
        (To::Photos(id), _) => edit(site, req, rsp, ("style", id), add_photo),
        (To::Photo(id), _) => edit(site, req, rsp, ("photo", id), |client, id, _| {
            removed(edits::remove_photo(client, id)?, What::Styles)
        }),
        (To::Sku(id), "GET" | "HEAD") => edit(site, req, rsp, ("sku", id), |client, id, _| {
            let sku = edits::find_sku(client, id)?.ok_or(Refusal::Missing)?;
            Ok((sku_answer(&sku), Vec::new()))
        }),
        (To::Sku(id), _) => {
            let if_match = req.header("if-match").map(<[u8]>::to_vec);
            edit(site, req, rsp, ("sku", id), move |client, id, body| {
                set_quantity(client, id, body, if_match.as_deref())
            });
        }
        (To::Hidden(opinion, id, is_hidden), _) => {
            edit(site, req, rsp, (opinion.name(), id), move |client, id, _| {
                match edits::hide(client, opinion, id, is_hidden)? {
                    changes if changes.is_empty() => Err(Refusal::Missing.into()),
                    changes => Ok((Written::new(204, ""), changes)),
                }
            });
        }
        (To::Purge, _) => purge(site, req, rsp),
    }
}

/// Does `work` to the thing that the path names, with the body.
fn edit(
    site: &Site,
    req: &mut Request<'_, '_>,
    rsp: &mut Response<'_>,
    (what, id): (&'static str, &str),
    work: impl Fn(&Client, i64, &[u8]) -> Done + Send + 'static,
) {
    let number = match params::id(id) {
        Id::Number(number) => number,
        Id::OutOfRange => return Problem::none(what, id).write(site, req, rsp),
        Id::NotANumber => return Problem::bad_id(what).write(site, req, rsp),
    };
    let Some(body) = read_body(req) else { return };
    let work = move |client: &Client, body: &[u8]| work(client, number, body);
    post::alone(site, req, rsp, body, work, |refusal| {
        matches!(refusal, Refusal::Missing).then(|| Problem::none(what, id))
    });
}

/// JSON, with more header lines.
fn json_answer(status: u16, head: &str, body: impl Into<String>) -> Written {
    let head = format!("Content-Type: application/json; charset=utf-8\r\n{head}");
    Written { head, ..Written::new(status, body) }
}

fn removed(product: Option<i64>, what: What) -> Done {
    let id = product.ok_or(Refusal::Missing)?;
    Ok((Written::new(204, ""), vec![Change { what, id }]))
}

fn inspect_product(client: &Client, id: i64, _: &[u8]) -> Done {
    let json = edits::inspect_product(client, id)?.ok_or(Refusal::Missing)?;
    Ok((json_answer(200, "", json), Vec::new()))
}

fn remove_product(client: &Client, id: i64, _: &[u8]) -> Done {
    match edits::remove_product(client, id)? {
        changes if changes.is_empty() => Err(Refusal::Missing.into()),
        changes => Ok((Written::new(204, ""), changes)),
    }
}

fn change_product(client: &Client, dialect: &Dialect, id: i64, body: &[u8]) -> Done {
    let change = ProductChange::try_from(input::read::<ProductPatch>(body)?)?;
    let product = edits::update_product(client, id, &change)?.ok_or(Refusal::Missing)?;
    Ok((json_answer(200, "", dialect.list_item(&product)), vec![Change { what: What::Product, id }]))
}

fn add_product(client: &Client, dialect: &Dialect, body: &[u8]) -> Done {
    let new: ProductBody = input::read(body)?;
    let product = edits::add_product(client, &new.product()?)?;
    for feature in &new.features {
        let value = feature.value.as_ref().map(|text| text.0.as_str());
        edits::add_feature(client, product.id, &feature.feature.0, value)?;
    }
    for style in &new.styles {
        let id = edits::add_style(client, product.id, &style.style()?)?;
        for photo in &style.photos {
            let thumbnail = photo.thumbnail_url.as_ref().map(|text| text.0.as_str());
            edits::add_photo(client, id, Some(&photo.url.0), thumbnail)?;
        }
        for sku in &style.skus {
            edits::add_sku(client, id, sku.size.as_ref().map(|text| text.0.as_str()), sku.quantity)?;
        }
    }
    for other in &new.related {
        // A product that does not exist is the body's mistake, not the path's.
        edits::add_related(client, product.id, *other).map_err(|e| match e.code() {
            Some("23503" | "23514") => {
                Refusal::Invalid(format!("there is no product {other} to relate to")).into()
            }
            _ => Stop::Sql(e),
        })?;
    }
    let whats = [What::Existence, What::Features, What::Styles, What::Related];
    let changes = whats.map(|what| Change { what, id: product.id }).to_vec();
    let location = format!("Location: /products/{}\r\n", product.id);
    Ok((json_answer(201, &location, dialect.list_item(&product)), changes))
}

fn add_feature(client: &Client, product: i64, body: &[u8]) -> Done {
    let FeatureBody { feature, value } = input::read(body)?;
    let value = value.map(|text| text.0);
    let id = edits::add_feature(client, product, &feature.0, value.as_deref())?;
    let json = json!({ "id": id, "feature": feature.0, "value": value });
    let change = Change { what: What::Features, id: product };
    Ok((json_answer(201, "", json.to_string()), vec![change]))
}

fn relate(client: &Client, product: i64, other: i64, is_removed: bool) -> Done {
    match is_removed {
        true if !edits::remove_related(client, product, other)? => return Err(Refusal::Missing.into()),
        true => {}
        // No product has the id 0.
        false if other == 0 => return Err(Refusal::Missing.into()),
        false => edits::add_related(client, product, other)?,
    }
    Ok((Written::new(204, ""), vec![Change { what: What::Related, id: product }]))
}

fn change_style(client: &Client, id: i64, body: &[u8]) -> Done {
    let change = StyleChange::try_from(input::read::<StylePatch>(body)?)?;
    let style = edits::update_style(client, id, &change)?.ok_or(Refusal::Missing)?;
    let StyleRow { id, product_id, name, original_price, sale_price, default_style } = style;
    let json = json!({
        "style_id": id, "product_id": product_id, "name": name, "original_price": original_price,
        "sale_price": sale_price, "default?": default_style,
    });
    let change = Change { what: What::Styles, id: product_id };
    Ok((json_answer(200, "", json.to_string()), vec![change]))
}

fn add_photo(client: &Client, style: i64, body: &[u8]) -> Done {
    let PhotoBody { url, thumbnail_url } = input::read(body)?;
    let thumbnail = thumbnail_url.map(|text| text.0);
    let (id, product) = edits::add_photo(client, style, Some(&url.0), thumbnail.as_deref())?;
    let json = json!({ "id": id, "url": url.0, "thumbnail_url": thumbnail });
    let change = Change { what: What::Styles, id: product };
    Ok((json_answer(201, "", json.to_string()), vec![change]))
}

/// A sku with its ETag, which names the state that a later If-Match asks for.
fn sku_answer(sku: &SkuRow) -> Written {
    let json = json!({
        "sku_id": sku.id, "product_id": sku.product_id, "size": sku.size, "quantity": sku.quantity
    });
    let json = json.to_string();
    json_answer(200, &format!("ETag: {}\r\n", sku_etag(&json)), json)
}

fn sku_etag(json: &str) -> String {
    format!("\"{}\"", String::from_utf8_lossy(&hex(etag_of(json.as_bytes()))))
}

/// Sets what is there of a sku, if it still is as `if_match` says (RFC 9110, 13.1.1).
fn set_quantity(client: &Client, id: i64, body: &[u8], if_match: Option<&[u8]>) -> Done {
    let QuantityBody { quantity } = input::read(body)?;
    if quantity < 0 {
        return Err(Refusal::Invalid("quantity must not be below 0".into()).into());
    }
    let sku = edits::lock_sku(client, id)?.ok_or(Refusal::Missing)?;
    let etag = sku_etag(&sku_answer(&sku).body);
    let matches = |value: &[u8]| {
        value.split(|&b| b == b',').map(<[u8]>::trim_ascii).any(|tag| tag == b"*" || tag == etag.as_bytes())
    };
    if !if_match.is_none_or(matches) {
        return Err(Refusal::Changed.into());
    }
    edits::set_quantity(client, id, Some(quantity))?;
    let sku = SkuRow { quantity: Some(quantity), ..sku };
    Ok((sku_answer(&sku), vec![Change { what: What::Styles, id: sku.product_id }]))
}

fn purge_product(client: &Client, id: i64) -> Done {
    let whats = [What::Existence, What::Reviews, What::Questions];
    let of_product = whats.map(|what| Change { what, id });
    let changes = of_product.into_iter().chain(edits::answers_of(client, id)?).collect();
    Ok((Written::new(204, ""), changes))
}

/// `POST /admin/purge`: the database was right all along, and is asked again.
fn purge(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    let Some(body) = read_body(req) else { return };
    let wanted = match input::read::<PurgeBody>(&body) {
        Ok(wanted) => wanted,
        Err(refusal) => return Problem::from(&refusal).write(site, req, rsp),
    };
    match wanted {
        PurgeBody { everything: true, product_id: None } => site.cache.forget_all(Reason::Asked),
        PurgeBody { everything: false, product_id: Some(id) } => {
            return post::alone(site, req, rsp, body, move |client, _| purge_product(client, id), |_| None);
        }
        _ => {
            let why = "expected {\"product_id\": N} or {\"everything\": true}";
            return Problem::unprocessable(why).write(site, req, rsp);
        }
    }
    rsp.status_code(204, "No Content").header("Cache-Control: no-store");
    write_cors(site, req, rsp);
}
