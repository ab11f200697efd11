//! Changes that people with a catalogue make daily, visible at once.
//! Runs in: worker.

use std::io::Read;

use may_minihttp::{Request, Response};
use serde::{Deserialize, Deserializer};

use crate::api::fetch::FetchError;
use crate::api::params::{self, Id};
use crate::api::problem::Problem;
use crate::api::Site;
use crate::cache::{Key, Kind};
use crate::catalogue::Product;
use crate::db::products::{self, ProductChange};

/// `PATCH /admin/products/:id`: a JSON object with what is to change.
pub fn change_product(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, id: &str) {
    let number = match params::id(id) {
        Id::Number(number) => number,
        Id::OutOfRange => return Problem::no_product(id).write(site, req, rsp),
        Id::NotANumber => {
            return Problem::bad_request("bad-id", "a product's id is a number").write(site, req, rsp)
        }
    };
    let mut body = Vec::new();
    if req.body().read_to_end(&mut body).is_err() {
        // The server itself says what is wrong with the body.
        return;
    }
    let (cache, pool) = (site.cache.clone(), site.pool.clone());
    let changed = site.fetcher.run(move |_, shaper| {
        let wanted: ProductPatch = serde_json::from_slice(&body).map_err(|e| Refusal::Body(e.to_string()))?;
        let wanted = ProductChange::try_from(wanted).map_err(Refusal::Value)?;
        let outcome = pool.write(|client| products::update(client, number, &wanted));
        // After COMMIT and before the answer; and when nobody knows whether it was committed, too.
        cache.forget(Key::new(Kind::Product, number));
        cache.forget(Key::new(Kind::List, 0));
        let product: Option<Product> = outcome.map_err(|e| Refusal::Database(FetchError::from_write(&e)))?;
        Ok(product.map(|product| shaper.list_item(&product)))
    });
    match changed {
        Some(Ok(Some(json))) => {
            rsp.header("Content-Type: application/json; charset=utf-8").header("Cache-Control: no-store");
            rsp.body_vec(json);
        }
        Some(Ok(None)) => Problem::no_product(id).write(site, req, rsp),
        Some(Err(Refusal::Body(why))) => Problem::bad_request("bad-body", why).write(site, req, rsp),
        Some(Err(Refusal::Value(why))) => Problem::unprocessable(why).write(site, req, rsp),
        Some(Err(Refusal::Database(error))) => Problem::from(&error).write(site, req, rsp),
        None => Problem::from(&FetchError::too_busy()).write(site, req, rsp),
    }
}

/// Why a change was not made, or is not known to be.
enum Refusal {
    Body(String),
    Value(String),
    Database(FetchError),
}

/// The body: every field may be left out, none may be null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductPatch {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    slogan: Option<String>,
    #[serde(default, deserialize_with = "present")]
    description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    category: Option<String>,
    #[serde(default, deserialize_with = "present")]
    default_price: Option<Price>,
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A price as text, as answers carry it, or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Price {
    Text(String),
    Number(serde_json::Number),
}

impl TryFrom<ProductPatch> for ProductChange {
    type Error = String;

    fn try_from(patch: ProductPatch) -> Result<ProductChange, String> {
        let ProductPatch { name, slogan, description, category, default_price } = patch;
        let default_price = default_price.map(|price| match price {
            Price::Text(text) => read_price(text),
            Price::Number(number) => read_price(number.to_string()),
        });
        let change =
            ProductChange { name, slogan, description, category, default_price: default_price.transpose()? };
        let texts = [&change.name, &change.slogan, &change.description, &change.category];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Err("a text can't hold the character U+0000".into());
        }
        match change == ProductChange::default() {
            true => {
                Err("nothing is to change: give name, slogan, description, category or default_price".into())
            }
            false => Ok(change),
        }
    }
}

/// Digits with at most two decimals, below ten thousand million: what the column holds.
fn read_price(text: String) -> Result<String, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, "00"));
    let digits =
        |part: &str, max: usize| (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    match digits(whole, 10) && digits(decimals, 2) {
        true => Ok(text),
        false => {
            Err(format!("default_price is {text:?}; expected at most 10 digits and 2 decimals, as in 140.00"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ProductChange, String> {
        let patch: ProductPatch = serde_json::from_str(json).map_err(|e| e.to_string())?;
        ProductChange::try_from(patch)
    }

    #[test]
    fn changes_are_checked_before_they_are_sent() {
        for price in [r#""140.00""#, "140", "0.5", r#""9999999999.99""#] {
            assert!(read(&format!(r#"{{"default_price": {price}}}"#)).is_ok(), "{price}");
        }
        for body in [
            "{}",
            "[]",
            "null",
            r#"{"name": null}"#,
            r#"{"name": 3}"#,
            r#"{"colour": "red"}"#,
            r#"{"name": "a\u0000b"}"#,
            r#"{"default_price": "1e3"}"#,
            r#"{"default_price": -1}"#,
            r#"{"default_price": "1.234"}"#,
            r#"{"default_price": "12345678901"}"#,
            r#"{"default_price": ""}"#,
            r#"{"default_price": "1."}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
