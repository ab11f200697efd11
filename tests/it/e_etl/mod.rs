//! Dirty CSV in, counts and digests out.

mod options;
mod seeds;
mod swaps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use may_postgres::Client;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::server::{directory, Server, BIN};

const TIME_OF_REVIEW: &str = r#"to_char(date at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#;
const TIME_WRITTEN: &str = r#"to_char(date_written at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#;

/// Files and, for each column of their header, the SQL that gives the digest's text of it.
const FILES: &[(&str, &str, &[&str])] = &[
    (
        "product.csv",
        "products",
        &["id::text", "name", "slogan", "description", "category", "default_price::numeric(12,2)::text"],
    ),
    ("features.csv", "features", &["id::text", "product_id::text", "feature", "value"]),
    (
        "styles.csv",
        "styles",
        &[
            "id::text",
            "product_id::text",
            "name",
            "sale_price::numeric(12,2)::text",
            "original_price::numeric(12,2)::text",
            "default_style::text",
        ],
    ),
    ("photos.csv", "photos", &["id::text", "style_id::text", "url", "thumbnail_url"]),
    ("skus.csv", "skus", &["id::text", "style_id::text", "size", "quantity::text"]),
    ("related.csv", "related", &["id::text", "current_product_id::text", "related_product_id::text"]),
    (
        "reviews.csv",
        "reviews",
        &[
            "id::text",
            "product_id::text",
            "rating::text",
            TIME_OF_REVIEW,
            "summary",
            "body",
            "recommend::text",
            "reported::text",
            "reviewer_name",
            "reviewer_email",
            "response",
            "helpfulness::text",
        ],
    ),
    ("reviews_photos.csv", "reviews_photos", &["id::text", "review_id::text", "url"]),
    ("characteristics.csv", "characteristics", &["id::text", "product_id::text", "name"]),
    (
        "characteristic_reviews.csv",
        "characteristic_reviews",
        &["id::text", "characteristic_id::text", "review_id::text", "value::text"],
    ),
    (
        "questions.csv",
        "questions",
        &[
            "id::text",
            "product_id::text",
            "body",
            TIME_WRITTEN,
            "asker_name",
            "asker_email",
            "reported::text",
            "helpful::text",
        ],
    ),
    (
        "answers.csv",
        "answers",
        &[
            "id::text",
            "question_id::text",
            "body",
            TIME_WRITTEN,
            "answerer_name",
            "answerer_email",
            "reported::text",
            "helpful::text",
        ],
    ),
    ("answers_photos.csv", "answers_photos", &["id::text", "answer_id::text", "url"]),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn digest(db: &Client, table: &str, columns: &[&str]) -> String {
    let rows = db
        .query_text(&format!("select {} from {table} order by {table}.id", columns.join(", ")), &[])
        .unwrap();
    let mut hash = Sha256::new();
    for row in &rows {
        let cells: Vec<String> =
            (0..columns.len()).map(|n| row.get::<Option<String>>(n).unwrap_or("\\N".into())).collect();
        hash.update(cells.join("\u{1f}"));
        hash.update("\n");
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `line → reason` of a rejects file.
fn rejects(path: &Path) -> BTreeMap<i64, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .skip(1)
        .map(|line| {
            let (number, rest) = line.split_once(',').unwrap();
            (number.parse().unwrap(), rest.split_once(',').unwrap().1.trim_matches('"').to_string())
        })
        .collect()
}

/// Repairs by kind, from the summary line of a file.
fn repairs(output: &str, file: &str) -> BTreeMap<String, i64> {
    let line = output.lines().find(|l| l.starts_with(&format!("{file}:"))).expect("a summary");
    let part = line.split("; ").find_map(|p| p.strip_prefix("repaired ")).expect("repairs");
    let Some((_, kinds)) = part.split_once('(') else { return BTreeMap::new() };
    kinds
        .trim_end_matches(')')
        .split(", ")
        .map(|kind| {
            let (name, n) = kind.rsplit_once(' ').unwrap();
            (name.to_string(), n.parse().unwrap())
        })
        .collect()
}

fn load(server: &Server, archive: &Path, rejects: &Path, more: &[&str]) -> (i32, String) {
    let (archive, rejects) = (archive.to_str().unwrap(), rejects.to_str().unwrap());
    run(server, &[&["load", archive, "--rejects", rejects], more].concat())
}

/// A command on the server's database.
fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.args(args).arg("--database-url").arg(server.database_url());
    command
}

/// Its exit status, and what it printed.
fn run(server: &Server, args: &[&str]) -> (i32, String) {
    let output = command(server, args).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

fn count(db: &Client, sql: &str) -> i64 {
    db.query_text(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e}"))[0].get(0)
}

/// Digests of all tables of the archive.
fn digests(db: &Client) -> Vec<String> {
    FILES.iter().map(|(_, table, columns)| digest(db, table, columns)).collect()
}

fn loads_as_expected(archive: &str) -> Server {
    let server = Server::start(&["--products", "0"]);
    let out = directory();
    let (status, output) = load(&server, &fixture(archive), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    let db = server.database();
    let text = std::fs::read_to_string(fixture(archive).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for (file, table, columns) in FILES {
        let wanted = &expected["files"][file];
        let loaded: i64 = db.query_text(&format!("select count(*) from {table}"), &[]).unwrap()[0].get(0);
        let rejected = rejects(&out.path().join(format!("{file}.rejects.csv")));
        let wanted_rejects: BTreeMap<i64, String> = wanted["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["line"].as_i64().unwrap(), r["reason"].as_str().unwrap().to_string()))
            .collect();
        assert_eq!(rejected, wanted_rejects, "{file}");
        assert_eq!(loaded, wanted["loaded"].as_i64().unwrap(), "{file}");
        assert_eq!(loaded + rejected.len() as i64, wanted["records"].as_i64().unwrap(), "{file}");
        let wanted_repairs: BTreeMap<String, i64> =
            serde_json::from_value(wanted["repaired"].clone()).unwrap();
        assert_eq!(repairs(&output, file), wanted_repairs, "{file}");
        assert_eq!(digest(&db, table, columns), wanted["digest"].as_str().unwrap(), "{file}");
    }
    server
}

#[test]
fn the_2020_archive_loads_as_expected() {
    loads_as_expected("atelier-2020");
}

#[test]
fn the_2021_archive_loads_as_expected_and_answers_the_golden_values() {
    let server = loads_as_expected("atelier-2021");
    let mut connection = server.connect();
    let golden = [
        ("Camo Onesie", "140.00", "Jackets"),
        ("Bright Future Sunglasses", "69.00", "Accessories"),
        ("Morning Joggers", "40.00", "Pants"),
        ("Slacker's Slacks", "65.00", "Pants"),
        ("Heir Force Ones", "99.00", "Kicks"),
    ];
    let list = connection.get("/products").json();
    for (n, (name, price, category)) in golden.iter().enumerate() {
        let product = &list[n];
        assert_eq!(
            (&product["name"], &product["default_price"], &product["category"]),
            (&Value::from(*name), &Value::from(*price), &Value::from(*category))
        );
    }
    let features = |id: u32, c: &mut crate::support::Connection| {
        c.get(&format!("/products/{id}")).json()["features"].to_string()
    };
    assert_eq!(
        features(1, &mut connection),
        r#"[{"feature":"Fabric","value":"Canvas"},{"feature":"Buttons","value":"Brass"}]"#
    );
    assert_eq!(
        features(2, &mut connection),
        r#"[{"feature":"Lenses","value":"Ultrasheen"},{"feature":"UV Protection","value":null},{"feature":"Frames","value":"LightCompose"}]"#
    );
    let styles = connection.get("/products/1/styles").json();
    let expected = [
        ("Forest Green & Black", "140.00", None, true),
        ("Desert Brown & Tan", "140.00", None, false),
        ("Ocean Blue & Grey", "140.00", Some("100.00"), false),
        ("Digital Red & Black", "140.00", None, false),
        ("Sky Blue & White", "140.00", Some("100.00"), false),
        ("Dark Grey & Black", "170.00", None, false),
    ];
    assert_eq!(styles["product_id"], "1");
    assert_eq!(styles["results"].as_array().unwrap().len(), expected.len());
    for (style, (name, price, sale, default)) in styles["results"].as_array().unwrap().iter().zip(expected) {
        assert_eq!((&style["name"], &style["original_price"]), (&Value::from(name), &Value::from(price)));
        assert_eq!((&style["sale_price"], &style["default?"]), (&Value::from(sale), &Value::from(default)));
        assert_eq!(style["photos"].as_array().unwrap().len(), 5);
    }
    let sizes = [("XS", 8), ("S", 16), ("M", 17), ("L", 10), ("XL", 15), ("XL", 4)];
    for (n, (size, quantity)) in sizes.iter().enumerate() {
        let sku = &styles["results"][0]["skus"][(n + 1).to_string()];
        assert_eq!((&sku["size"], &sku["quantity"]), (&Value::from(*size), &Value::from(*quantity)));
    }
    assert_eq!(connection.get("/products/1/related").text(), "[2,3,8,7]");
}

#[test]
fn the_first_row_after_a_load_gets_an_id_of_its_own() {
    let server = Server::start(&["--products", "20"]);
    let out = directory();
    let (status, output) = load(&server, &fixture("atelier-2020"), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    let db = server.database();
    let added = "insert into products (name, slogan, description, category, default_price) values ('n', 's', 'd', 'c', 1) returning id";
    let largest: i64 = db.query_text("select max(id) from products", &[]).unwrap()[0].get(0);
    assert_eq!(db.query_text(added, &[]).unwrap()[0].get::<i64>(0), largest + 1);
}

#[test]
fn a_load_that_fails_leaves_nothing_behind() {
    let server = Server::start(&["--products", "0"]);
    let dir = directory();
    std::fs::write(
        dir.path().join("product.csv"),
        "id,name,slogan,description,category,default_price\n1,a,b,c,d,5\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("styles.csv"), "id,product,colour\n1,1,red\n").unwrap();
    let (status, output) = load(&server, dir.path(), dir.path(), &[]);
    assert!(status == 1 && output.contains("styles.csv") && output.contains("\"product\""), "{output}");
    let count: i64 = server.database().query_text("select count(*) from products", &[]).unwrap()[0].get(0);
    assert_eq!(count, 0);
}

#[test]
fn the_same_seed_makes_the_same_catalogue() {
    let (one, two) = (Server::start(&["--products", "200"]), Server::start(&["--products", "200"]));
    let (one, two) = (one.database(), two.database());
    assert_eq!(digests(&one), digests(&two));
}
