//! Made-up catalogues: sizes, profiles, files, and their damage.

use std::path::Path;

use super::{count, digests, load, run, FILES};
use crate::support::server::{directory, Server};

/// Rows of a table a product, as in the real archive.
const SIZES: &[(&str, f64)] = &[
    ("features", 2.0),
    ("styles", 2.0),
    ("photos", 6.0),
    ("skus", 11.0),
    ("related", 4.5),
    ("reviews", 6.0),
    ("questions", 3.5),
];

#[test]
fn sizes_are_those_of_the_real_archive() {
    let server = Server::start(&["--products", "2000"]);
    let db = server.database();
    for (table, each) in SIZES {
        let rows = count(&db, &format!("select count(*) from {table}")) as f64 / 2000.0;
        assert!((rows / each - 1.0).abs() < 0.1, "{table}: {rows} a product");
        assert_eq!(
            count(&db, &format!("select count(*) - max(id) from {table}")),
            0,
            "ids of {table} are dense"
        );
    }
}

#[test]
fn a_catalog_has_products_features_styles_and_images() {
    let server = Server::start(&["--products", "0"]);
    let db = server.database();
    let (status, output) = run(&server, &["seed", "--products", "50", "--profile", "catalog"]);
    assert_eq!(status, 0, "{output}");
    for table in ["products", "features", "styles", "shoe_images"] {
        assert!(count(&db, &format!("select count(*) from {table}")) >= 50, "{table}");
    }
    for table in ["photos", "skus", "reviews", "questions"] {
        assert_eq!(count(&db, &format!("select count(*) from {table}")), 0, "{table}");
    }
    let (status, output) = run(&server, &["seed", "--products", "50"]);
    assert!(status == 1 && output.contains("holds products already"), "{output}");
}

#[test]
fn an_archive_written_is_the_catalogue_seeded() {
    let (server, out) = (Server::start(&["--products", "200"]), directory());
    let db = server.database();
    let before = digests(&db);
    let (status, output) =
        run(&server, &["seed", "--products", "200", "--csv", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 0, "{output}");
    assert_eq!(digests(&db), before);
}

fn lines(path: &Path) -> i64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count() as i64 - 1
}

#[test]
fn every_damaged_line_is_repaired_or_rejected() {
    let (server, out) = (Server::start(&["--products", "0"]), directory());
    let dir = out.path().to_str().unwrap();
    let (status, output) =
        run(&server, &["seed", "--products", "300", "--seed", "5", "--csv", dir, "--dirt", "100"]);
    assert_eq!(status, 0, "{output}");
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    let db = server.database();
    for (file, table, _) in FILES {
        let written = lines(&out.path().join(file));
        let rejected = lines(&out.path().join(format!("{file}.rejects.csv"))).max(0);
        assert_eq!(count(&db, &format!("select count(*) from {table}")) + rejected, written, "{file}");
    }
    for kind in ["closing quote", "currency sign", "Windows-1252 text", "fields missing", "too many fields"] {
        assert!(output.contains(kind), "{kind}: {output}");
    }
    for kind in ["id is not a number", "duplicate id", "product does not exist", "rating out of range"] {
        assert!(output.contains(kind), "{kind}: {output}");
    }
}
