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

/// A photo with an id of its own.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct NumberedPhoto {
    pub id: i64,
    pub url: String,
}

/// A review that is not hidden, with its photos by id.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Review {
    pub id: i64,
    pub rating: i64,
    pub summary: String,
    pub recommend: bool,
    pub response: Option<String>,
    pub body: String,
    pub date_us: i64,
    pub reviewer_name: String,
    pub helpfulness: i64,
    pub photos: Vec<NumberedPhoto>,
}

/// The beginning of the block of recent reviews that `relevant` puts first: its oldest one's date and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Edge {
    pub date_us: i64,
    pub id: i64,
}

/// Some of an ordered list's rows. `more`: there are others beyond, in the direction in which it was read.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Page<T> {
    pub rows: Vec<T>,
    pub more: bool,
}

impl<T> Page<T> {
    /// A page of at most `count` of `rows`, of which one more was asked for.
    pub fn cut(mut rows: Vec<T>, count: usize) -> Page<T> {
        let more = rows.len() > count;
        rows.truncate(count);
        Page { rows, more }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Page<T> {
        Page { rows: Vec::new(), more: false }
    }
}

/// A product's reviews, summed up.
#[derive(Debug, Clone, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct Meta {
    /// Reviews that give so many stars, and recommend or don't.
    pub counts: Vec<RatingCount>,
    /// By id.
    pub characteristics: Vec<Characteristic>,
}

#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct RatingCount {
    pub rating: i64,
    pub recommend: bool,
    pub reviews: i64,
}

/// A characteristic, and the average that reviews give it as decimal text with 16 places.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Characteristic {
    pub id: i64,
    pub name: String,
    pub value: Option<String>,
}

/// A question that is not hidden, with its answers by id.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Question {
    pub id: i64,
    pub body: String,
    pub date_us: i64,
    pub asker_name: String,
    pub helpful: i64,
    pub answers: Vec<Answer>,
}

/// An answer that is not hidden, with its photos by id.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Answer {
    pub id: i64,
    pub body: String,
    pub date_us: i64,
    pub answerer_name: String,
    pub helpful: i64,
    pub photos: Vec<NumberedPhoto>,
}

/// What an answer is about: the typed fields of a cache record.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum View {
    /// There is no such product.
    Missing,
    Product(Product, Vec<Feature>),
    Styles(Vec<Style>),
    Related(Vec<i64>),
    List(Page<Product>),
    Meta(Meta),
    /// Only what is ordered by relevance has an edge.
    Reviews(Page<Review>, Option<Edge>),
    Questions(Page<Question>),
    Answers(Page<Answer>),
}

/// What a change was noted as (sql/0006_change_feed.sql, sql/0009_feed_of_reviews.sql).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    Product,
    Existence,
    Features,
    Styles,
    Related,
    /// Reviews of the product.
    Reviews,
    Characteristics,
    Questions,
    /// Of the question.
    Answers,
    /// Photos or skus of a style.
    Style,
    /// Photos or ratings of a review.
    Review,
    /// Answers of a question.
    Question,
    /// Photos of an answer.
    Answer,
    /// Or a word that this version doesn't know.
    Everything,
}

/// One change: what, and of which product or other owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    pub what: What,
    pub id: i64,
}
