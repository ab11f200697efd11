//! Changes to the catalogue that administrators make, each within the transaction of whoever calls.
//! Runs in: worker.

use may_postgres::{Client, Error, Row, ToSql};

use crate::catalogue::{Change, Product, What};
use crate::db::decimal::Decimal;
use crate::db::products::read_product;
use crate::db::writes::Opinion;
use crate::statements::{
    ANSWERS_HIDE, FEATURES_ADD, FEATURES_REMOVE, PHOTOS_ADD, PHOTOS_REMOVE, PRODUCTS_ADD, PRODUCTS_INSPECT,
    PRODUCTS_LOCK, PRODUCTS_REMOVE, PRODUCTS_UPDATE, QUESTIONS_HIDE, QUESTIONS_OF, RELATED_ADD,
    RELATED_REMOVE, REVIEWS_HIDE, SKUS_ADD, SKUS_LOCK, SKUS_SHOW, SKUS_UPDATE, STYLES_ADD, STYLES_LOCK,
    STYLES_UPDATE,
};

/// What a product is to become; None leaves a column as it is. The price is decimal text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProductChange {
    pub name: Option<String>,
    pub slogan: Option<String>,
    pub description: Option<String>,
    pub category: Option<String>,
    pub default_price: Option<String>,
}

/// A product to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProduct {
    pub name: String,
    pub slogan: String,
    pub description: String,
    pub category: String,
    pub default_price: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NewStyle {
    pub name: String,
    pub original_price: String,
    pub sale_price: Option<String>,
    pub default_style: bool,
}

/// What a style is to become; None leaves a column as it is, `Some(None)` ends a sale.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StyleChange {
    pub name: Option<String>,
    pub original_price: Option<String>,
    pub sale_price: Option<Option<String>>,
    pub default_style: Option<bool>,
}

/// A style's own columns.
#[derive(Debug, Clone, PartialEq)]
pub struct StyleRow {
    pub id: i64,
    pub product_id: i64,
    pub name: String,
    pub original_price: String,
    pub sale_price: Option<String>,
    pub default_style: bool,
}

/// A sku, and the product that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct SkuRow {
    pub id: i64,
    pub size: Option<String>,
    pub quantity: Option<i64>,
    pub product_id: i64,
}

fn one(client: &Client, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
    client.query_opt(&client.prepare_cached(statement)?, params)
}

/// The first column of the one row of a statement.
fn number(client: &Client, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<i64, Error> {
    client.query_one(&client.prepare_cached(statement)?, params)?.try_get(0)
}

/// All of a product with the ids of its parts, as JSON; None when there is none.
pub fn inspect_product(client: &Client, id: i64) -> Result<Option<String>, Error> {
    one(client, PRODUCTS_INSPECT, &[&id])?.map(|row| row.try_get(0)).transpose()
}

/// Changes a product; the product as it then is, None when there is none.
pub fn update_product(client: &Client, id: i64, to: &ProductChange) -> Result<Option<Product>, Error> {
    let params: [&(dyn ToSql + Sync); 6] =
        [&id, &to.name, &to.slogan, &to.description, &to.category, &to.default_price];
    one(client, PRODUCTS_UPDATE, &params)?.map(|row| read_product(&row, 0)).transpose()
}

pub fn add_product(client: &Client, new: &NewProduct) -> Result<Product, Error> {
    let params: [&(dyn ToSql + Sync); 5] =
        [&new.name, &new.slogan, &new.description, &new.category, &new.default_price];
    read_product(&client.query_one(&client.prepare_cached(PRODUCTS_ADD)?, &params)?, 0)
}

/// What the answers to a product's questions are made of.
pub fn answers_of(client: &Client, product: i64) -> Result<Vec<Change>, Error> {
    let rows = client.query(&client.prepare_cached(QUESTIONS_OF)?, &[&product])?;
    rows.iter().map(|row| Ok(Change { what: What::Answers, id: row.try_get(0)? })).collect()
}

/// Removes a product with everything that belongs to it; what that changes, empty when there is none.
pub fn remove_product(client: &Client, id: i64) -> Result<Vec<Change>, Error> {
    let answers = answers_of(client, id)?;
    let rows = client.query(&client.prepare_cached(PRODUCTS_REMOVE)?, &[&id])?;
    let mut changes = Vec::new();
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        let what: &[What] = match row.try_get(1)? {
            true => &[What::Existence, What::Reviews, What::Characteristics, What::Questions],
            false => &[What::Related],
        };
        changes.extend(what.iter().map(|what| Change { what: *what, id }));
    }
    // Those beside a product that does not exist are none.
    let is_gone = changes.iter().any(|change| change.what == What::Existence);
    changes.extend(answers);
    Ok(if is_gone { changes } else { Vec::new() })
}

/// Adds a feature; its id.
pub fn add_feature(client: &Client, product: i64, feature: &str, value: Option<&str>) -> Result<i64, Error> {
    number(client, FEATURES_ADD, &[&product, &feature, &value])
}

/// Removes a feature; its product, None when there is no such feature.
pub fn remove_feature(client: &Client, id: i64) -> Result<Option<i64>, Error> {
    one(client, FEATURES_REMOVE, &[&id])?.map(|row| row.try_get(0)).transpose()
}

/// Relates a product to another, unless it is already. The product's row is locked: who does the same waits, and finds it done.
pub fn add_related(client: &Client, product: i64, other: i64) -> Result<(), Error> {
    one(client, PRODUCTS_LOCK, &[&product])?;
    client.execute(&client.prepare_cached(RELATED_ADD)?, &[&product, &other]).map(|_| ())
}

/// Whether it was related.
pub fn remove_related(client: &Client, product: i64, other: i64) -> Result<bool, Error> {
    Ok(client.execute(&client.prepare_cached(RELATED_REMOVE)?, &[&product, &other])? > 0)
}

/// Adds a style; its id.
pub fn add_style(client: &Client, product: i64, new: &NewStyle) -> Result<i64, Error> {
    let NewStyle { name, original_price, sale_price, default_style } = new;
    number(client, STYLES_ADD, &[&product, name, original_price, sale_price, default_style])
}

/// Changes a style, and its siblings where it becomes the default one; None when there is none.
pub fn update_style(client: &Client, id: i64, to: &StyleChange) -> Result<Option<StyleRow>, Error> {
    if to.default_style == Some(true) {
        // One after the other: each sees the default one that the other made. In a statement before, whose snapshot this one does
        // not share.
        one(client, STYLES_LOCK, &[&id])?;
    }
    let (has_sale, sale) = (to.sale_price.is_some(), to.sale_price.clone().flatten());
    let params: [&(dyn ToSql + Sync); 6] =
        [&id, &to.name, &to.original_price, &has_sale, &sale, &to.default_style];
    let Some(row) = one(client, STYLES_UPDATE, &params)? else { return Ok(None) };
    Ok(Some(StyleRow {
        id: row.try_get(0)?,
        product_id: row.try_get(1)?,
        name: row.try_get(2)?,
        original_price: row.try_get::<Decimal>(3)?.0,
        sale_price: row.try_get::<Option<Decimal>>(4)?.map(|d| d.0),
        default_style: row.try_get(5)?,
    }))
}

/// Adds a photo to a style; its id, and the style's product.
pub fn add_photo(
    client: &Client,
    style: i64,
    url: Option<&str>,
    thumbnail_url: Option<&str>,
) -> Result<(i64, i64), Error> {
    let statement = client.prepare_cached(PHOTOS_ADD)?;
    let row = client.query_one(&statement, &[&style, &url, &thumbnail_url])?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Removes a photo; its style's product, None when there is no such photo.
pub fn remove_photo(client: &Client, id: i64) -> Result<Option<i64>, Error> {
    one(client, PHOTOS_REMOVE, &[&id])?.map(|row| row.try_get(0)).transpose()
}

/// Adds a sku to a style; its id.
pub fn add_sku(client: &Client, style: i64, size: Option<&str>, quantity: Option<i64>) -> Result<i64, Error> {
    number(client, SKUS_ADD, &[&style, &size, &quantity])
}

/// A sku; None when there is none.
pub fn find_sku(client: &Client, id: i64) -> Result<Option<SkuRow>, Error> {
    one(client, SKUS_SHOW, &[&id])?.map(|row| read_sku(&row)).transpose()
}

/// A sku, locked until the transaction ends; None when there is none.
pub fn lock_sku(client: &Client, id: i64) -> Result<Option<SkuRow>, Error> {
    one(client, SKUS_LOCK, &[&id])?.map(|row| read_sku(&row)).transpose()
}

fn read_sku(row: &Row) -> Result<SkuRow, Error> {
    Ok(SkuRow {
        id: row.try_get(0)?,
        size: row.try_get(1)?,
        quantity: row.try_get(2)?,
        product_id: row.try_get(3)?,
    })
}

pub fn set_quantity(client: &Client, sku: i64, quantity: Option<i64>) -> Result<(), Error> {
    client.execute(&client.prepare_cached(SKUS_UPDATE)?, &[&sku, &quantity]).map(|_| ())
}

/// Hides a review, question or answer, or shows it again; what that changes, empty when there is none.
pub fn hide(client: &Client, opinion: Opinion, id: i64, is_hidden: bool) -> Result<Vec<Change>, Error> {
    let statement = match opinion {
        Opinion::Review => REVIEWS_HIDE,
        Opinion::Question => QUESTIONS_HIDE,
        Opinion::Answer => ANSWERS_HIDE,
    };
    let Some(row) = one(client, statement, &[&id, &is_hidden])? else { return Ok(Vec::new()) };
    let (product, question): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let what = if opinion == Opinion::Review { What::Reviews } else { What::Questions };
    let of_question = question.map(|id| Change { what: What::Answers, id });
    Ok([Change { what, id: product }].into_iter().chain(of_question).collect())
}
