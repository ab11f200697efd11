//! From typed fields to the body that goes out: JSON exactly as the old service's clients parse it, and its gzip.
//! Runs in: worker, on a lane's stack.

pub mod encode;
mod opinions;

use std::borrow::Cow;

use encode::Encoder;
use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::api::query::Query;
use crate::cache::record::{etag_of, Bodies};
use crate::cache::Key;
use crate::catalogue::{Feature, Page, Photo, Product, Sku, Style, View};
use crate::config::Config;
use crate::limits::{CODED_SIZE_MAX_BYTES, VALUE_SIZE_MAX_BYTES};

/// How answers say things: JSON exactly as the old service's clients parse it.
#[derive(Debug, Clone)]
pub struct Dialect {
    campus: String,
    public_url: String,
    placeholders: bool,
}

/// Makes bodies; one a lane.
pub struct Shaper {
    dialect: Dialect,
    encoder: Encoder,
}

/// Bodies, and what is archived with them.
pub struct Shaped {
    pub view: View,
    pub bodies: Bodies,
}

impl Clone for Shaper {
    fn clone(&self) -> Shaper {
        Shaper { dialect: self.dialect.clone(), encoder: Encoder::new() }
    }
}

impl Shaper {
    pub fn new(config: &Config) -> Shaper {
        Shaper { dialect: Dialect::new(config), encoder: Encoder::new() }
    }

    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The answer to `key`.
    pub fn shape(&mut self, key: Key, view: View) -> Shaped {
        match Query::of_key(key) {
            Some(query) => {
                let (head, json) = self.dialect.answer(&query, &view);
                self.finish(view, head, json)
            }
            None => {
                let json = self.dialect.json(key, &view);
                self.finish(view, Vec::new(), json)
            }
        }
    }

    /// The answer to `query`, for one who asks for what few others do.
    pub fn shape_query(&mut self, query: &Query<'_>, view: View) -> Shaped {
        let (head, json) = self.dialect.answer(query, &view);
        let gzip = self.encoder.gzip(&json);
        Shaped { view: nobodys(), bodies: Bodies { head, json, gzip, ..Bodies::default() } }
    }

    /// Products that few others ask for together.
    pub fn shape_list(&mut self, products: Vec<Product>) -> Shaped {
        let query = Query::default();
        self.shape_query(&query, View::List(Page { rows: products, more: false }))
    }

    /// Views too large to be kept lose their typed fields: nobody will look at them.
    fn finish(&mut self, view: View, head: Vec<u8>, json: Vec<u8>) -> Shaped {
        let gzip = self.encoder.gzip(&json);
        if json.len() > VALUE_SIZE_MAX_BYTES {
            return Shaped { view: nobodys(), bodies: Bodies { head, json, gzip, ..Bodies::default() } };
        }
        let coded = [gzip, self.encoder.br(&json), self.encoder.zstd(&json)];
        let [gzip, br, zstd] =
            coded.map(|body| if body.len() > CODED_SIZE_MAX_BYTES { Vec::new() } else { body });
        Shaped { view, bodies: Bodies { head, json, gzip, br, zstd } }
    }

    pub fn encoder(&mut self) -> &mut Encoder {
        &mut self.encoder
    }
}

/// The typed fields of what is answered once.
fn nobodys() -> View {
    View::Related(Vec::new())
}

impl Dialect {
    pub fn new(config: &Config) -> Dialect {
        Dialect {
            campus: config.campus.clone(),
            public_url: config.public_url.clone(),
            placeholders: config.placeholders,
        }
    }

    /// The ETag that a record of `view` has.
    pub fn etag(&self, key: Key, view: &View) -> u64 {
        etag_of(&match Query::of_key(key) {
            Some(query) => self.query_json(&query, view),
            None => self.json(key, view),
        })
    }

    /// A product as it stands in a list.
    pub fn list_item(&self, product: &Product) -> String {
        serde_json::to_string(&self.product(product, None)).expect("text and numbers serialise")
    }

    /// Products as they stand in a list, separated by commas, without the list's brackets.
    pub fn list_items(&self, products: &[Product]) -> Vec<u8> {
        let list: Vec<_> = products.iter().map(|p| self.product(p, None)).collect();
        let json = serde_json::to_vec(&list).expect("text and numbers serialise");
        json[1..json.len() - 1].to_vec()
    }

    fn json(&self, key: Key, view: &View) -> Vec<u8> {
        let json = match view {
            View::Product(product, features) => serde_json::to_vec(&self.product(product, Some(features))),
            View::Styles(styles) => serde_json::to_vec(&self.styles(key.id, styles)),
            View::Related(ids) => serde_json::to_vec(ids),
            _ => return Vec::new(),
        };
        json.expect("text and numbers serialise")
    }

    /// Link and JSON of a query's answer.
    fn answer(&self, query: &Query<'_>, view: &View) -> (Vec<u8>, Vec<u8>) {
        (query.links(view).into_bytes(), self.query_json(query, view))
    }

    fn query_json(&self, query: &Query<'_>, view: &View) -> Vec<u8> {
        let json = match view {
            View::List(Page { rows, .. }) => {
                let list: Vec<_> = rows.iter().map(|p| self.product(p, None)).collect();
                serde_json::to_vec(&list)
            }
            View::Meta(meta) => self.meta(query, meta),
            View::Reviews(page, _) => self.reviews(query, &page.rows),
            View::Questions(page) => self.questions(query, &page.rows),
            View::Answers(page) => self.answers(query, &page.rows),
            _ => return Vec::new(),
        };
        json.expect("text and numbers serialise")
    }

    fn product<'a>(&'a self, product: &'a Product, features: Option<&'a [Feature]>) -> ProductJson<'a> {
        ProductJson {
            id: product.id,
            campus: &self.campus,
            name: &product.name,
            slogan: &product.slogan,
            description: &product.description,
            category: &product.category,
            default_price: &product.default_price,
            created_at: iso_time(product.created_at_us),
            updated_at: iso_time(product.updated_at_us),
            features: features.map(|f| f.iter().map(FeatureJson::from).collect()),
        }
    }

    fn styles<'a>(&'a self, product_id: i64, styles: &'a [Style]) -> StylesJson<'a> {
        let style = |style: &'a Style| StyleJson {
            style_id: style.id,
            name: &style.name,
            original_price: &style.original_price,
            sale_price: style.sale_price.as_deref(),
            default: style.default_style,
            photos: self.photos(&style.photos),
            skus: SkusJson { skus: &style.skus, placeholders: self.placeholders },
        };
        StylesJson { product_id: product_id.to_string(), results: styles.iter().map(style).collect() }
    }

    fn photos<'a>(&'a self, photos: &'a [Photo]) -> Vec<PhotoJson<'a>> {
        if photos.is_empty() && self.placeholders {
            return vec![PhotoJson { thumbnail_url: None, url: None }];
        }
        let absolute = |url: &'a Option<String>| url.as_deref().map(|u| self.absolute(u));
        let photo =
            |p: &'a Photo| PhotoJson { thumbnail_url: absolute(&p.thumbnail_url), url: absolute(&p.url) };
        photos.iter().map(photo).collect()
    }

    /// Paths of this server become addresses; addresses stay as they are, whatever they look like.
    pub fn absolute<'a>(&self, url: &'a str) -> Cow<'a, str> {
        match url.starts_with('/') {
            true => Cow::Owned(format!("{}{url}", self.public_url)),
            false => Cow::Borrowed(url),
        }
    }
}

/// ISO 8601 with milliseconds and `Z`; the epoch for times that no calendar holds.
fn iso_time(us: i64) -> String {
    // Cut towards the past, as the old service's clocks were.
    let time = Timestamp::from_millisecond(us.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[derive(Serialize)]
struct ProductJson<'a> {
    id: i64,
    campus: &'a str,
    name: &'a str,
    slogan: &'a str,
    description: &'a str,
    category: &'a str,
    default_price: &'a str,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Vec<FeatureJson<'a>>>,
}

#[derive(Serialize)]
struct FeatureJson<'a> {
    feature: &'a str,
    value: Option<&'a str>,
}

impl<'a> From<&'a Feature> for FeatureJson<'a> {
    fn from(f: &'a Feature) -> FeatureJson<'a> {
        FeatureJson { feature: &f.feature, value: f.value.as_deref() }
    }
}

#[derive(Serialize)]
struct StylesJson<'a> {
    product_id: String,
    results: Vec<StyleJson<'a>>,
}

#[derive(Serialize)]
struct StyleJson<'a> {
    style_id: i64,
    name: &'a str,
    original_price: &'a str,
    sale_price: Option<&'a str>,
    #[serde(rename = "default?")]
    default: bool,
    photos: Vec<PhotoJson<'a>>,
    skus: SkusJson<'a>,
}

#[derive(Serialize)]
struct PhotoJson<'a> {
    thumbnail_url: Option<Cow<'a, str>>,
    url: Option<Cow<'a, str>>,
}

/// An object keyed by sku id; the literal key `null` where there are none.
struct SkusJson<'a> {
    skus: &'a [Sku],
    placeholders: bool,
}

#[derive(Serialize)]
struct SkuJson<'a> {
    quantity: Option<i64>,
    size: Option<&'a str>,
}

impl Serialize for SkusJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.skus.is_empty() && self.placeholders {
            map.serialize_entry("null", &SkuJson { quantity: None, size: None })?;
        }
        for sku in self.skus {
            map.serialize_entry(&sku.id, &SkuJson { quantity: sku.quantity, size: sku.size.as_deref() })?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Kind;
    use crate::catalogue::{
        Answer, Characteristic, Edge, Meta, NumberedPhoto, Question, RatingCount, Review,
    };
    use crate::config::Sources;

    fn shaper() -> Shaper {
        let mut config = Config::new(Sources::default()).unwrap();
        config.set_address("127.0.0.1:8080".parse().unwrap());
        Shaper::new(&config)
    }

    fn text(kind: Kind, view: View) -> String {
        String::from_utf8(shaper().shape(Key::new(kind, 1), view).bodies.json).unwrap()
    }

    #[test]
    fn a_product_in_the_wire_format() {
        let product = Product {
            id: 1,
            name: "Camo \"Onesie\"".into(),
            slogan: "é".into(),
            description: String::new(),
            category: "Jackets".into(),
            default_price: "140.00".into(),
            created_at_us: 1_614_054_164_728_999,
            updated_at_us: -1,
        };
        let features = vec![Feature { feature: "UV Protection".into(), value: None }];
        assert_eq!(
            text(Kind::Product, View::Product(product, features)),
            "{\"id\":1,\"campus\":\"hr-rfp\",\"name\":\"Camo \\\"Onesie\\\"\",\"slogan\":\"é\",\"description\":\"\",\
             \"category\":\"Jackets\",\"default_price\":\"140.00\",\"created_at\":\"2021-02-23T04:22:44.728Z\",\
             \"updated_at\":\"1969-12-31T23:59:59.999Z\",\"features\":[{\"feature\":\"UV Protection\",\"value\":null}]}"
        );
    }

    #[test]
    fn styles_without_photos_and_skus_have_placeholders() {
        let style = Style {
            id: 7,
            name: "Plain".into(),
            original_price: "10.00".into(),
            sale_price: None,
            default_style: true,
            photos: Vec::new(),
            skus: Vec::new(),
        };
        assert_eq!(
            text(Kind::Styles, View::Styles(vec![style])),
            "{\"product_id\":\"1\",\"results\":[{\"style_id\":7,\"name\":\"Plain\",\"original_price\":\"10.00\",\
             \"sale_price\":null,\"default?\":true,\"photos\":[{\"thumbnail_url\":null,\"url\":null}],\
             \"skus\":{\"null\":{\"quantity\":null,\"size\":null}}}]}"
        );
    }

    #[test]
    fn only_paths_get_the_public_address() {
        let shaper = shaper();
        assert_eq!(shaper.dialect.absolute("/pictures/1-1.svg"), "http://127.0.0.1:8080/pictures/1-1.svg");
        assert_eq!(shaper.dialect.absolute("uhttps://x/y"), "uhttps://x/y");
    }

    /// One of each kind, with everything in it that there can be.
    fn everything() -> [(Kind, u16, View); 8] {
        let name = |name: &str| name.to_string();
        let product = Product {
            id: 1,
            name: name("Hat"),
            slogan: name("s"),
            description: name("d"),
            category: name("c"),
            default_price: name("1.00"),
            created_at_us: 1,
            updated_at_us: 2,
        };
        let photo = NumberedPhoto { id: 3, url: name("/p") };
        let style = Style {
            id: 4,
            name: name("Red"),
            original_price: name("2.00"),
            sale_price: Some(name("1.50")),
            default_style: true,
            photos: vec![Photo { url: Some(name("/u")), thumbnail_url: None }],
            skus: vec![Sku { id: 5, size: Some(name("M")), quantity: Some(6) }],
        };
        let review = Review {
            id: 7,
            rating: 4,
            summary: name("s"),
            recommend: true,
            response: None,
            body: name("b"),
            date_us: 8,
            reviewer_name: name("r"),
            helpfulness: 9,
            photos: vec![photo.clone()],
        };
        let characteristics = vec![Characteristic { id: 1, name: name("Fit"), value: Some(name("3.5")) }];
        let meta =
            Meta { counts: vec![RatingCount { rating: 4, recommend: true, reviews: 2 }], characteristics };
        let answer = Answer {
            id: 11,
            body: name("b"),
            date_us: 12,
            answerer_name: name("Seller"),
            helpful: 13,
            photos: vec![photo],
        };
        let question = Question {
            id: 14,
            body: name("q"),
            date_us: 15,
            asker_name: name("a"),
            helpful: 16,
            answers: vec![answer.clone()],
        };
        let feature = Feature { feature: name("f"), value: Some(name("v")) };
        [
            (Kind::Product, 0, View::Product(product.clone(), vec![feature])),
            (Kind::Styles, 0, View::Styles(vec![style])),
            (Kind::Related, 0, View::Related(vec![2, 3])),
            (Kind::List, 1, View::List(Page { rows: vec![product], more: true })),
            (Kind::Meta, 0, View::Meta(meta)),
            (
                Kind::Reviews,
                1,
                View::Reviews(Page { rows: vec![review], more: true }, Some(Edge { date_us: 8, id: 7 })),
            ),
            (Kind::Questions, 1, View::Questions(Page { rows: vec![question], more: true })),
            (Kind::Answers, 1, View::Answers(Page { rows: vec![answer], more: true })),
        ]
    }

    /// A cache outlives its server, and an upgrade: an answer that this version would give another look must not be found there.
    #[test]
    fn answers_of_another_look_have_another_schema_version() {
        let mut bytes = Vec::new();
        for (kind, variant, view) in everything() {
            let Bodies { head, json, .. } = shaper().shape(Key::variant(kind, 1, variant), view).bodies;
            assert!(json.len() > 4, "{kind:?}");
            bytes.extend(head.into_iter().chain(json));
        }
        let look = (crate::cache::layout::SCHEMA_VERSION, etag_of(&bytes));
        assert_eq!(
            look,
            (6, 3_604_117_151_237_600_733),
            "if answers look different now, raise SCHEMA_VERSION, and put both here"
        );
    }
}
