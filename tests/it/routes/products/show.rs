//! /products/:id, /products/:id/styles, /products/:id/related: whole bodies, computed here from the tables.

use std::collections::{BTreeMap, HashMap};

use may_postgres::Client;
use serde_json::to_string as quote;

use crate::support::{seed, Dice, Server};

/// Id, name, original price, sale price, default.
type StyleRow = (i64, String, String, Option<String>, bool);

/// The tables' text, as the wire format wants it; nothing of the server's own code.
struct Tables {
    products: BTreeMap<i64, Vec<String>>,
    features: HashMap<i64, Vec<(String, Option<String>)>>,
    styles: HashMap<i64, Vec<StyleRow>>,
    photos: HashMap<i64, Vec<(String, String)>>,
    skus: HashMap<i64, Vec<(i64, String, i64)>>,
    related: HashMap<i64, Vec<i64>>,
}

const TIME: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'";

impl Tables {
    fn read(db: &Client) -> Tables {
        let mut t = Tables {
            products: BTreeMap::new(),
            features: HashMap::new(),
            styles: HashMap::new(),
            photos: HashMap::new(),
            skus: HashMap::new(),
            related: HashMap::new(),
        };
        let products = format!(
            "select id, name, slogan, description, category, default_price::text,
             to_char(date_trunc('milliseconds', created_at), {TIME}), to_char(date_trunc('milliseconds', updated_at), {TIME})
             from products"
        );
        for row in db.query_text(&products, &[]).unwrap() {
            t.products.insert(row.get(0), (1..8).map(|n| row.get::<String>(n)).collect());
        }
        for row in db.query_text("select product_id, feature, value from features order by id", &[]).unwrap()
        {
            t.features.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
        }
        let styles = "select product_id, id, name, original_price::text, sale_price::text, default_style from styles order by id";
        for row in db.query_text(styles, &[]).unwrap() {
            let style = (row.get(1), row.get(2), row.get(3), row.get(4), row.get(5));
            t.styles.entry(row.get(0)).or_default().push(style);
        }
        for row in db.query_text("select style_id, thumbnail_url, url from photos order by id", &[]).unwrap()
        {
            t.photos.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
        }
        for row in db.query_text("select style_id, id, size, quantity from skus order by id", &[]).unwrap() {
            t.skus.entry(row.get(0)).or_default().push((row.get(1), row.get(2), row.get(3)));
        }
        for row in db
            .query_text("select current_product_id, related_product_id from related order by id", &[])
            .unwrap()
        {
            t.related.entry(row.get(0)).or_default().push(row.get(1));
        }
        t
    }

    fn product_fields(&self, id: i64) -> String {
        let p = &self.products[&id];
        let q = |n: usize| quote(&p[n]).unwrap();
        format!(
            "\"id\":{id},\"campus\":\"hr-rfp\",\"name\":{},\"slogan\":{},\"description\":{},\"category\":{},\
             \"default_price\":{},\"created_at\":{},\"updated_at\":{}",
            q(0),
            q(1),
            q(2),
            q(3),
            q(4),
            q(5),
            q(6)
        )
    }

    fn product(&self, id: i64) -> String {
        let features: Vec<String> = self
            .features
            .get(&id)
            .into_iter()
            .flatten()
            .map(|(f, v)| format!("{{\"feature\":{},\"value\":{}}}", quote(f).unwrap(), quote(v).unwrap()))
            .collect();
        format!("{{{},\"features\":[{}]}}", self.product_fields(id), features.join(","))
    }

    fn style_list(&self, id: i64, base: &str) -> String {
        let styles: Vec<String> =
            self.styles.get(&id).into_iter().flatten().map(|s| self.style(s, base)).collect();
        format!("{{\"product_id\":\"{id}\",\"results\":[{}]}}", styles.join(","))
    }

    fn style(&self, (id, name, price, sale, default): &StyleRow, base: &str) -> String {
        let mut photos: Vec<String> = self
            .photos
            .get(id)
            .into_iter()
            .flatten()
            .map(|(t, u)| format!("{{\"thumbnail_url\":\"{base}{t}\",\"url\":\"{base}{u}\"}}"))
            .collect();
        if photos.is_empty() {
            photos.push("{\"thumbnail_url\":null,\"url\":null}".into());
        }
        let mut skus: Vec<String> = self
            .skus
            .get(id)
            .into_iter()
            .flatten()
            .map(|(k, size, n)| format!("\"{k}\":{{\"quantity\":{n},\"size\":\"{size}\"}}"))
            .collect();
        if skus.is_empty() {
            skus.push("\"null\":{\"quantity\":null,\"size\":null}".into());
        }
        format!(
            "{{\"style_id\":{id},\"name\":{},\"original_price\":\"{price}\",\"sale_price\":{},\"default?\":{default},\
             \"photos\":[{}],\"skus\":{{{}}}}}",
            quote(name).unwrap(), quote(sale).unwrap(), photos.join(","), skus.join(",")
        )
    }
}

#[test]
fn a_thousand_random_products_equal_their_tables() {
    let server = Server::shared();
    let tables = Tables::read(&server.database());
    let base = format!("http://{}", server.address);
    let mut dice = Dice(seed());
    let mut connection = server.connect();
    let ids: Vec<i64> = tables.products.keys().copied().collect();
    for _ in 0..1000 {
        let id = ids[dice.below(ids.len() as u64) as usize];
        assert_eq!(connection.get(&format!("/products/{id}")).text(), tables.product(id));
        assert_eq!(connection.get(&format!("/products/{id}/styles")).text(), tables.style_list(id, &base));
        let related = quote(tables.related.get(&id).map_or(&[][..], |r| r)).unwrap();
        assert_eq!(connection.get(&format!("/products/{id}/related")).text(), related);
        let (page, count) = (1 + dice.below(300), dice.below(12));
        let expected: Vec<String> = ids
            .iter()
            .skip(((page - 1) * count) as usize)
            .take(count as usize)
            .map(|id| format!("{{{}}}", tables.product_fields(*id)))
            .collect();
        let list = connection.get(&format!("/products?page={page}&count={count}"));
        assert_eq!(list.text(), format!("[{}]", expected.join(",")), "page {page}, count {count}");
    }
}

#[test]
fn unknown_ids_are_404_and_words_are_400() {
    let server = Server::shared();
    let mut connection = server.connect();
    for rest in ["", "/styles", "/related"] {
        for (id, status, code) in [
            ("999999", 404, "no-such-product"),
            ("-1", 404, "no-such-product"),
            ("0", 404, "no-such-product"),
            ("99999999999999999999", 404, "no-such-product"),
            ("abc", 400, "bad-id"),
            ("5.55", 400, "bad-id"),
            ("null", 400, "bad-id"),
        ] {
            // Twice: the second answer comes from the cache.
            for _ in 0..2 {
                let reply = connection.get(&format!("/products/{id}{rest}"));
                assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{id}{rest}");
                assert_eq!(reply.header("content-type"), Some("application/problem+json"));
            }
        }
    }
}
