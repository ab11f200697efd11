//! The catalogue's nouns as plain data: what the database yields, what is archived, what is rendered.
//! Runs in: both. Imported by `db`, `cache::record`, `api` and `etl`; imports nothing of ours.

use rkyv::{Archive, Deserialize, Serialize};

/// A product row. Times are microseconds since the Unix epoch, prices decimal text with two places.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Product {
    pub id: i64,
    pub name: String,
    pub slogan: String,
    pub description: String,
    pub category: String,
    pub default_price: String,
    pub created_at_us: i64,
    pub updated_at_us: i64,
}

/// A feature of a product; the value may be NULL.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Feature {
    pub feature: String,
    pub value: Option<String>,
}

/// A style of a product with its photos and skus, each ordered by id.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Style {
    pub id: i64,
    pub name: String,
    pub original_price: String,
    pub sale_price: Option<String>,
    pub default_style: bool,
    pub photos: Vec<Photo>,
    pub skus: Vec<Sku>,
}

#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Photo {
    pub url: Option<String>,
    pub thumbnail_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Sku {
    pub id: i64,
    pub size: Option<String>,
    pub quantity: Option<i64>,
}

/// What an answer is about: the typed fields of a cache record.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum View {
    /// There is no such product.
    Missing,
    Product(Product, Vec<Feature>),
    Styles(Vec<Style>),
    Related(Vec<i64>),
    List(Vec<Product>),
}
