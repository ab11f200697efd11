//! /openapi.json: every path of the route table with its methods, and real answers that are what it says.

use boon::{Compiler, Schemas};
use catwalk::api::route::{find, methods, PATHS};
use serde_json::{json, Value};

use crate::routes::send_with;
use crate::support::server::directory;
use crate::support::Server;

const LOCATION: &str = "http://localhost/openapi.json";

fn description() -> Value {
    Server::shared().get("/openapi.json").json()
}

/// As it stands in the description: `/products/{id}`.
fn braced(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.strip_prefix(':') {
        Some(name) => format!("{{{name}}}"),
        None => segment.to_string(),
    });
    segments.collect::<Vec<_>>().join("/")
}

#[test]
fn every_path_is_described_with_its_methods() {
    let api = description();
    let described = api["paths"].as_object().unwrap();
    for path in PATHS {
        let operations = described.get(&braced(path)).unwrap_or_else(|| panic!("{path} is not described"));
        let mut known: Vec<String> =
            operations.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        let allowed = methods(find(path)).split(", ").filter(|m| !matches!(*m, "HEAD" | "OPTIONS"));
        let mut allowed: Vec<String> = allowed.map(str::to_string).collect();
        known.sort();
        allowed.sort();
        assert_eq!(known, allowed, "{path}");
    }
    assert_eq!(described.len(), PATHS.len());
}

/// Answers of a server, each checked against what the description says of it.
struct Checked {
    server: Server,
    token: String,
    api: Value,
    schemas: Schemas,
    compiler: Compiler,
}

impl Checked {
    fn start() -> Checked {
        let dir = directory();
        let path = dir.path().join("d");
        let server = Server::start_in(&path, &["--products", "30"]).keep(dir);
        let token = std::fs::read_to_string(path.join("admin-token")).unwrap().trim().to_string();
        let mut compiler = Compiler::new();
        compiler.add_resource(LOCATION, description()).unwrap();
        Checked { server, token, api: description(), schemas: Schemas::new(), compiler }
    }

    /// Sends a request to a described path, its parameters put in; returns the answer's body.
    fn ask(&mut self, method: &str, path: &str, sent_to: &str, body: &str, status: u16) -> Value {
        let lines = format!("Authorization: Bearer {}\r\n", self.token);
        let reply = send_with(&mut self.server.connect(), method, sent_to, &lines, body);
        assert_eq!(reply.status, status, "{method} {sent_to}: {}", reply.text());
        let operation = &self.api["paths"][path][method.to_lowercase()];
        let response = &operation["responses"][status.to_string()];
        assert!(response.is_object(), "{method} {path} says nothing of {status}");
        let Some(contents) = response["content"].as_object() else {
            assert!(reply.body.is_empty(), "{method} {path} says nothing of a body");
            return Value::Null;
        };
        let kind = reply.header("content-type").unwrap().split(';').next().unwrap().to_string();
        assert!(contents.contains_key(&kind), "{method} {path} says nothing of {kind}");
        let value = if kind.ends_with("json") { reply.json() } else { Value::from(reply.text()) };
        let pointer = [
            "paths",
            path,
            &method.to_lowercase(),
            "responses",
            &status.to_string(),
            "content",
            &kind,
            "schema",
        ]
        .map(|part| part.replace('~', "~0").replace('/', "~1").replace('{', "%7B").replace('}', "%7D"))
        .join("/");
        let schema = self.compiler.compile(&format!("{LOCATION}#/{pointer}"), &mut self.schemas).unwrap();
        if let Err(e) = self.schemas.validate(&value, schema) {
            panic!("{method} {sent_to} is not what is described: {e:#}\n{value:#}");
        }
        value
    }
}

#[test]
fn real_answers_are_what_is_described() {
    let mut c = Checked::start();
    for (path, sent_to) in [
        ("/products", "/products?count=100"),
        ("/products", "/products?ids=1,2&q=x"),
        ("/products/{id}", "/products/3"),
        ("/products/{id}/styles", "/products/3/styles"),
        ("/products/{id}/related", "/products/3/related"),
        ("/reviews", "/reviews?product_id=3&count=100&sort=helpful"),
        ("/reviews/meta", "/reviews/meta?product_id=3"),
        ("/qa/questions", "/qa/questions?product_id=3&count=100"),
        ("/qa/questions/{id}/answers", "/qa/questions/3/answers"),
        ("/cart", "/cart"),
        ("/openapi.json", "/openapi.json"),
        ("/docs", "/docs"),
        ("/pictures/{name}", "/pictures/1-1.svg"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/admin/products/{id}", "/admin/products/3"),
        ("/admin/skus/{id}", "/admin/skus/3"),
    ] {
        c.ask("GET", path, sent_to, "", 200);
    }
    c.ask("GET", "/products/{id}", "/products/999999", "", 404);
    c.ask("GET", "/products/{id}", "/products/x", "", 400);
    c.ask("GET", "/reviews", "/reviews?product_id=x", "", 422);
    let text = json!({"body": "b", "name": "n", "email": "e", "product_id": 3}).to_string();
    let review = json!({"product_id": 3, "rating": 4, "body": "b", "recommend": true, "name": "n", "email": "e", "characteristics": {}});
    for (method, path, sent_to, body, status) in [
        ("POST", "/reviews", "/reviews", review.to_string(), 201),
        ("POST", "/reviews", "/reviews", "{}".into(), 422),
        ("PUT", "/reviews/{id}/helpful", "/reviews/1/helpful", String::new(), 204),
        ("PUT", "/reviews/{id}/report", "/reviews/999999/report", String::new(), 404),
        ("POST", "/qa/questions", "/qa/questions", text.clone(), 201),
        ("POST", "/qa/questions/{id}/answers", "/qa/questions/1/answers", text.clone(), 201),
        ("POST", "/qa/questions/{id}/answers", "/qa/questions/999999/answers", text.clone(), 404),
        ("POST", "/cart", "/cart", r#"{"sku_id": 1}"#.into(), 201),
        (
            "POST",
            "/interactions",
            "/interactions",
            r#"{"element": "a", "widget": "b", "time": "c"}"#.into(),
            201,
        ),
        ("POST", "/api/images", "/api/images", r#"{"shoe_id": 1, "img1": "a"}"#.into(), 201),
        ("PUT", "/api/images", "/api/images", r#"{"shoe_id": 1, "img1": "b"}"#.into(), 200),
        ("GET", "/api/images", "/api/images?shoe_id=1", String::new(), 200),
        ("GET", "/api/recommendedImage", "/api/recommendedImage?shoesArr=1", String::new(), 200),
        ("DELETE", "/api/images", "/api/images", r#"{"shoe_id": 1}"#.into(), 200),
        ("PATCH", "/admin/products/{id}", "/admin/products/3", r#"{"name": "n"}"#.into(), 200),
        ("PATCH", "/admin/styles/{id}", "/admin/styles/3", r#"{"name": "n"}"#.into(), 200),
        ("PUT", "/admin/skus/{id}", "/admin/skus/3", r#"{"quantity": 3}"#.into(), 200),
        (
            "POST",
            "/admin/products/{id}/features",
            "/admin/products/3/features",
            r#"{"feature": "f"}"#.into(),
            201,
        ),
        ("POST", "/admin/styles/{id}/photos", "/admin/styles/3/photos", r#"{"url": "u"}"#.into(), 201),
        ("POST", "/admin/products", "/admin/products", r#"{"name": "n", "default_price": 1}"#.into(), 201),
        ("PUT", "/admin/products/{id}/related/{other}", "/admin/products/3/related/4", String::new(), 204),
        ("DELETE", "/admin/products/{id}/related/{other}", "/admin/products/3/related/4", String::new(), 204),
        ("PUT", "/admin/reviews/{id}/hide", "/admin/reviews/1/hide", String::new(), 204),
        ("POST", "/admin/purge", "/admin/purge", r#"{"product_id": 3}"#.into(), 204),
        ("DELETE", "/admin/products/{id}", "/admin/products/3", String::new(), 204),
    ] {
        c.ask(method, path, sent_to, &body, status);
    }
}
