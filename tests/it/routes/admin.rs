//! /admin: every change is in the next answer of any worker.

use serde_json::{json, Value};

use crate::routes::send_with;
use crate::support::{Reply, Server};

struct Desk {
    server: Server,
    token: String,
}

impl Desk {
    fn open() -> Desk {
        let dir = crate::support::server::directory();
        let path = dir.path().join("d");
        let server = Server::start_in(&path, &["--products", "20", "--workers", "2"]).keep(dir);
        let token =
            std::fs::read_to_string(path.join("admin-token")).expect("dev makes one").trim().to_string();
        Desk { server, token }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.ask_with(method, path, "", body)
    }

    fn ask_with(&self, method: &str, path: &str, lines: &str, body: &str) -> Reply {
        let lines = format!("Authorization: Bearer {}\r\n{lines}", self.token);
        send_with(&mut self.server.connect(), method, path, &lines, body)
    }

    /// What every worker answers now.
    fn see(&self, path: &str) -> Value {
        let seen: Vec<Value> = (0..6).map(|_| self.server.get(path).json()).collect();
        assert!(seen.iter().all(|json| *json == seen[0]), "workers differ on {path}");
        seen[0].clone()
    }
}

const PRODUCT: &str = r#"{"name": "New", "slogan": "s", "category": "Hats", "default_price": 12.5, "features": [{"feature": "Felt"}],
    "styles": [{"name": "One", "original_price": "12.50", "default_style": true, "photos": [{"url": "https://x/1"}],
    "skus": [{"size": "M", "quantity": 3}]}], "related": [1, 2]}"#;

#[test]
fn a_product_from_its_first_to_its_last_day() {
    let desk = Desk::open();
    let last = desk.see("/products?count=100").as_array().unwrap().len();
    let reply = desk.ask("POST", "/admin/products", PRODUCT);
    assert_eq!(reply.status, 201, "{}", reply.text());
    let id = reply.json()["id"].as_i64().unwrap();
    assert_eq!(reply.header("location"), Some(format!("/products/{id}").as_str()));
    let (product, styles, related) =
        (format!("/products/{id}"), format!("/products/{id}/styles"), format!("/products/{id}/related"));
    assert_eq!(desk.see("/products?count=100").as_array().unwrap().len(), last + 1);
    assert_eq!(desk.see(&product)["features"], json!([{"feature": "Felt", "value": null}]));
    let style = desk.see(&styles)["results"][0].clone();
    assert_eq!((&style["original_price"], &style["default?"]), (&"12.50".into(), &true.into()));
    assert_eq!(desk.see(&related), json!([1, 2]));
    let inspected = desk.ask("GET", &format!("/admin{product}"), "").json();
    assert_eq!(inspected["styles"][0]["skus"][0]["quantity"], 3);
    let (style, sku) = (&inspected["styles"][0]["id"], &inspected["styles"][0]["skus"][0]["id"]);

    assert_eq!(
        desk.ask("PATCH", &format!("/admin/styles/{style}"), r#"{"sale_price": "9.99", "name": "Two"}"#)
            .status,
        200
    );
    assert_eq!(desk.see(&styles)["results"][0]["sale_price"], "9.99");
    assert_eq!(desk.ask("PATCH", &format!("/admin/styles/{style}"), r#"{"sale_price": null}"#).status, 200);
    assert_eq!(desk.see(&styles)["results"][0]["sale_price"], Value::Null);

    let added = desk.ask("POST", &format!("/admin/styles/{style}/photos"), r#"{"url": "https://x/2"}"#);
    assert_eq!(added.status, 201);
    assert_eq!(desk.see(&styles)["results"][0]["photos"].as_array().unwrap().len(), 2);
    assert_eq!(desk.ask("DELETE", &format!("/admin/photos/{}", added.json()["id"]), "").status, 204);
    assert_eq!(desk.see(&styles)["results"][0]["photos"].as_array().unwrap().len(), 1);

    let feature =
        desk.ask("POST", &format!("/admin{product}/features"), r#"{"feature": "Brim", "value": "wide"}"#);
    assert_eq!(desk.see(&product)["features"][1], json!({"feature": "Brim", "value": "wide"}));
    assert_eq!(desk.ask("DELETE", &format!("/admin/features/{}", feature.json()["id"]), "").status, 204);
    assert_eq!(desk.see(&product)["features"].as_array().unwrap().len(), 1);

    for _ in 0..2 {
        assert_eq!(desk.ask("PUT", &format!("/admin{product}/related/3"), "").status, 204);
        assert_eq!(desk.see(&related), json!([1, 2, 3]));
    }
    assert_eq!(desk.ask("DELETE", &format!("/admin{product}/related/1"), "").status, 204);
    assert_eq!(desk.see(&related), json!([2, 3]));
    assert_eq!(desk.ask("PUT", &format!("/admin/products/1/related/{id}"), "").status, 204);

    let seen = desk.ask("GET", &format!("/admin/skus/{sku}"), "");
    let etag = seen.header("etag").unwrap().to_string();
    let set = |lines: &str, body: &str| desk.ask_with("PUT", &format!("/admin/skus/{sku}"), lines, body);
    let first = set(&format!("If-Match: {etag}\r\n"), r#"{"quantity": 8}"#);
    assert_eq!((first.status, &first.json()["quantity"]), (200, &8.into()));
    assert_ne!(first.header("etag"), Some(etag.as_str()));
    assert_eq!(set(&format!("If-Match: {etag}\r\n"), r#"{"quantity": 9}"#).status, 412);
    assert_eq!(desk.see(&styles)["results"][0]["skus"][sku.to_string()]["quantity"], 8);
    assert_eq!(set("If-Match: *\r\n", r#"{"quantity": 5}"#).status, 200);
    assert_eq!(set("", r#"{"quantity": -1}"#).status, 422);

    assert_eq!(desk.ask("DELETE", &format!("/admin{product}"), "").status, 204);
    for path in [&product, &styles, &related] {
        assert!((0..6).all(|_| desk.server.get(path).status == 404), "{path}");
    }
    assert_eq!(desk.see("/products?count=100").as_array().unwrap().len(), last);
    assert!(!desk.see("/products/1/related").as_array().unwrap().contains(&id.into()));
    assert_eq!(desk.ask("DELETE", &format!("/admin{product}"), "").status, 404);
}

/// What was said of it goes with a product, answers too, which are asked for by their question.
#[test]
fn a_product_that_goes_takes_along_what_was_said_of_it() {
    let desk = Desk::open();
    let db = desk.server.database();
    let sql = "select q.product_id, q.id from questions q join answers a on a.question_id = q.id where not a.reported limit 1";
    let row = &db.query_text(sql, &[]).unwrap()[0];
    let (product, question): (i64, i64) = (row.get(0), row.get(1));
    let paths = [
        format!("/qa/questions/{question}/answers"),
        format!("/qa/questions?product_id={product}"),
        format!("/reviews?product_id={product}"),
    ];
    assert!(!desk.see(&paths[0])["results"].as_array().unwrap().is_empty());
    paths.iter().for_each(|path| drop(desk.see(path)));
    assert_eq!(desk.ask("DELETE", &format!("/admin/products/{product}"), "").status, 204);
    for path in &paths {
        assert_eq!(desk.see(path)["results"], json!([]), "{path}");
    }
    assert_eq!(desk.see(&format!("/reviews/meta?product_id={product}"))["characteristics"], json!({}));
}

#[test]
fn reviews_questions_and_answers_are_hidden_and_shown() {
    let desk = Desk::open();
    let db = desk.server.database();
    for (table, list, id_name) in [
        ("reviews", "/reviews?count=100&product_id=", "review_id"),
        ("questions", "/qa/questions?count=100&product_id=", "question_id"),
    ] {
        let row = &db
            .query_text(&format!("select id, product_id from {table} where not reported limit 1"), &[])
            .unwrap()[0];
        let (id, product): (i64, i64) = (row.get(0), row.get(1));
        let is_shown = || {
            desk.see(&format!("{list}{product}"))["results"]
                .as_array()
                .unwrap()
                .iter()
                .any(|r| r[id_name] == id)
        };
        assert!(is_shown());
        for (verb, shown) in [("hide", false), ("hide", false), ("show", true)] {
            assert_eq!(desk.ask("PUT", &format!("/admin/{table}/{id}/{verb}"), "").status, 204);
            assert_eq!(is_shown(), shown, "{table} {verb}");
        }
        assert_eq!(desk.ask("PUT", &format!("/admin/{table}/999999/hide"), "").status, 404);
    }
}

#[test]
fn a_purge_asks_the_database_again() {
    let desk = Desk::open();
    let status = |path: &str| desk.server.get(path).header("cache-status").unwrap().to_string();
    for (body, others) in
        [(r#"{"product_id": 3}"#, "catwalk; hit"), (r#"{"everything": true}"#, "catwalk; fwd=miss; stored")]
    {
        for path in ["/products/3", "/products/3/styles", "/reviews?product_id=3", "/products/4"] {
            crate::support::eventually("it is cached", || status(path) == "catwalk; hit");
        }
        assert_eq!(desk.ask("POST", "/admin/purge", body).status, 204);
        for path in ["/products/3", "/products/3/styles", "/reviews?product_id=3"] {
            assert_eq!(status(path), "catwalk; fwd=miss; stored", "{path} {body}");
        }
        assert_eq!(status("/products/4"), others);
    }
    assert_eq!(desk.ask("POST", "/admin/purge", "{}").status, 422);
}

#[test]
fn what_can_not_be_is_refused_and_leaves_nothing() {
    let desk = Desk::open();
    let count = |db: &may_postgres::Client| -> i64 {
        db.query_text("select count(*) from products", &[]).unwrap()[0].get(0)
    };
    let db = desk.server.database();
    let before = count(&db);
    for (method, path, body, status) in [
        ("POST", "/admin/products", "{}", 400),
        ("POST", "/admin/products", r#"{"name": "n", "default_price": "x"}"#, 422),
        ("POST", "/admin/products", r#"{"name": "n", "default_price": 1, "related": [99999]}"#, 422),
        ("POST", "/admin/products", r#"{"name": "n", "default_price": 1, "related": [0]}"#, 422),
        ("POST", "/admin/products", r#"{"name": "n", "default_price": 1, "colour": 1}"#, 400),
        ("PATCH", "/admin/styles/999999", r#"{"name": "n"}"#, 404),
        ("PATCH", "/admin/styles/1", "{}", 422),
        ("PATCH", "/admin/styles/x", "{}", 400),
        ("POST", "/admin/styles/999999/photos", r#"{"url": "u"}"#, 404),
        ("POST", "/admin/products/999999/features", r#"{"feature": "f"}"#, 404),
        ("PUT", "/admin/products/1/related/999999", "", 404),
        ("PUT", "/admin/products/1/related/0", "", 404),
        ("PUT", "/admin/products/1/related/x", "", 400),
        ("DELETE", "/admin/photos/999999", "", 404),
        ("DELETE", "/admin/features/99999999999999999999", "", 404),
        ("PUT", "/admin/skus/999999", r#"{"quantity": 1}"#, 404),
        ("PUT", "/admin/skus/1", r#"{"quantity": 9223372036854775808}"#, 400),
        ("GET", "/admin/products", "", 405),
        ("GET", "/admin/nowhere", "", 404),
    ] {
        let reply = desk.ask(method, path, body);
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text());
    }
    assert_eq!(count(&db), before);
}
