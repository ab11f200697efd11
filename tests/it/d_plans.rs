//! Plans of all statements: by indexes, whatever the size of the table.

use std::collections::BTreeMap;
use std::path::Path;

use may_postgres::Client;
use serde_json::Value;

use crate::support::Server;

/// What a statement is asked with, as SQL.
const ARGUMENTS: &[(&str, &str)] = &[
    ("answers_add", "'{3,4}', '{a,b}', '{n,n}', '{e,e}', '{1}', '{u}'"),
    ("answers_hide", "3, true"),
    ("answers_list", "'{3,4}', '{6,6}', '{0,0}', '{f,t}', '{-9223372036854775808,0}', '{-9223372036854775808,0}'"),
    ("answers_mark_helpful", "'{3,4}'"),
    ("answers_report", "'{3,4}'"),
    ("cart_add", "'{a}', '{3}', '{1}', '{t}'"),
    ("cart_show", "'a', 50"),
    ("features_add", "3, 'f', 'v'"),
    ("features_remove", "3"),
    ("feed_parents", "'{3}', '{3}', '{3}', '{3}'"),
    ("idempotency_find", "'a', 1"),
    ("idempotency_keep", "'a', 'b', 201, '', ''"),
    ("images_add", "3, 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'"),
    ("images_change", "3, 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'"),
    ("images_recommend", "'{3,4}'"),
    ("images_remove", "3"),
    ("images_show", "3"),
    ("interactions_add", "'{a}', '{b}', '{c}'"),
    ("photos_add", "3, 'u', 'u'"),
    ("photos_remove", "3"),
    ("products_add", "'n', 's', 'd', 'c', '1'"),
    ("products_before", "30, 6"),
    ("products_category", "'Pants', 3, false, 6, 0"),
    ("products_fetch", "'{3,4}'"),
    ("products_inspect", "3"),
    ("products_list", "3, 6"),
    ("products_lock", "3"),
    ("products_remove", "3"),
    ("products_search", "'zeppelin', -9223372036854775808, false, 6, 0, null"),
    ("products_some", "'{3,4}'"),
    ("products_update", "3, 'n', null, null, null, null"),
    ("questions_add", "'{3,4}', '{a,b}', '{n,n}', '{e,e}'"),
    ("questions_hide", "3, true"),
    ("questions_list", "'{3,4}', '{6,6}', '{0,0}', '{f,t}', '{-9223372036854775808,0}', '{-9223372036854775808,0}'"),
    ("questions_mark_helpful", "'{3,4}'"),
    ("questions_of", "3"),
    ("questions_report", "'{3,4}'"),
    ("related_add", "3, 4"),
    ("related_fetch", "'{3,4}'"),
    ("related_remove", "3, 4"),
    ("reviews_add", "'{3}', '{4}', '{s}', '{b}', '{t}', '{n}', '{e}', '{1}', '{u}', '{1}', '{9}', '{5}'"),
    ("reviews_helpful", "'{3,4}', '{6,6}', '{0,0}', '{f,t}', '{9,9}', '{infinity,2021-01-01}', '{9,9}'"),
    ("reviews_hide", "3, true"),
    ("reviews_mark_helpful", "'{3,4}'"),
    ("reviews_meta", "'{3,4}'"),
    ("reviews_newest", "'{3,4}', '{6,6}', '{0,0}', '{f,t}', '{infinity,2021-01-01}', '{9,9}'"),
    ("reviews_relevant", "'{3,4}', '{6,6}', '{0,0}', '{f,t}', '{f,t}', '{9,9}', '{infinity,2021-01-01}', '{9,9}', '{null,2021-01-01}', '{null,9}'"),
    ("reviews_report", "'{3,4}'"),
    ("shoppers_trim", "1000, 50"),
    ("skus_add", "3, 'M', 1"),
    ("skus_lock", "3"),
    ("skus_show", "3"),
    ("skus_update", "3, 1"),
    ("styles_add", "3, 'n', '1', null, true"),
    ("styles_fetch", "'{3,4}'"),
    ("styles_lock", "3"),
    ("styles_update", "3, 'n', '1', true, null, true"),
];

/// Statements about the database itself and the change feed's own tables, which d_coherence is about; those of a load; and the ranks, of
/// which all that changed is read.
const OTHERS: &[&str] = &[
    "database_identity",
    "feed_birth",
    "feed_poll",
    "feed_problems",
    "feed_rotate",
    "feed_surroundings",
    "indexes_missing",
    "load_belongings",
    "load_indexes",
    "load_obstacles",
    "load_references",
    "load_shape",
    "node_beat",
    "node_open",
    "node_probe",
    "node_replayed",
    "node_room",
    "node_written",
    "products_ranks",
];

/// Sorts of what a page or a request has of rows: all else comes out of an index in order. `relevant` sorts its recent block, a search
/// what it found.
const SORTS: &[(&str, &str)] = &[
    ("answers_add", "the batch"),
    ("answers_mark_helpful", "the batch"),
    ("answers_report", "the batch"),
    ("cart_add", "the batch"),
    ("cart_show", "the skus of one cart"),
    ("images_recommend", "the shoes asked for"),
    ("interactions_add", "the batch"),
    ("products_before", "the page"),
    ("products_category", "the page"),
    ("products_inspect", "parts of one product"),
    ("products_list", "the page"),
    ("products_remove", "products beside one"),
    ("products_search", "what was found, and the page"),
    ("questions_add", "the batch"),
    ("questions_mark_helpful", "the batch"),
    ("questions_report", "the batch"),
    ("reviews_add", "the batch"),
    ("reviews_mark_helpful", "the batch"),
    ("reviews_meta", "the reviews of one product"),
    ("reviews_relevant", "the recent block"),
    ("reviews_report", "the batch"),
    ("feed_parents", "the changes of one look"),
];

/// Tables of one row.
const SMALL: &[&str] = &["product_rank_version"];

fn nodes<'a>(plan: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(plan);
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

fn plan(db: &Client, name: &str, sql: &str, arguments: &str) -> Value {
    db.batch_execute(&format!("prepare {name} as {sql}")).unwrap_or_else(|e| panic!("{name}: {e}"));
    let explain = format!("explain (format json, costs off) execute {name}({arguments})");
    let rows = db.query_text(&explain, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_slice::<Value>(rows[0].bytes(0).unwrap()).unwrap()[0]["Plan"].clone()
}

#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let server = Server::start(&["--products", "3000"]);
    let db = server.database();
    // What shoppers write has no rows yet.
    db.batch_execute(
        "insert into cart_items select sha256((g / 3)::text::bytea), g, 1, now() - g * interval '1 minute' from generate_series(1, 30000) g;
         insert into interactions (element, widget, time, at) select 'a', 'b', 'c', now() - g * interval '1 minute' from generate_series(1, 30000) g;
         insert into idempotency_keys select sha256(g::text::bytea), '', 201, '', '', now() - g * interval '1 second' from generate_series(1, 30000) g;
         insert into shoe_images (shoe_id, img1) select g, 'a' from generate_series(1, 30000) g;
         analyze; set plan_cache_mode = force_generic_plan",
    )
    .unwrap();
    let arguments: BTreeMap<&str, &str> = ARGUMENTS.iter().copied().collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/queries");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        let arguments =
            arguments.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no arguments here"));
        let plan = plan(&db, &name, &std::fs::read_to_string(&path).unwrap(), arguments);
        let mut found = Vec::new();
        nodes(&plan, &mut found);
        for node in found {
            let relation = node["Relation Name"].as_str().unwrap_or("");
            let is_walk = node["Node Type"] == "Seq Scan" && !SMALL.contains(&relation);
            assert!(!is_walk, "{name} walks through {relation}: {plan:#}");
            let sorts = node["Node Type"] == "Sort" || node["Node Type"] == "Incremental Sort";
            assert!(!sorts || SORTS.iter().any(|(known, _)| *known == name), "{name} sorts: {plan:#}");
            // A whole index is a table walked through in another order.
            let whole = node["Node Type"].as_str().is_some_and(|t| t.starts_with("Index"))
                && node["Index Cond"].is_null()
                && !matches!(name.as_str(), "shoppers_trim" | "products_search");
            assert!(!whole, "{name} walks through an index of {relation}: {plan:#}");
        }
    }
}

#[test]
fn every_statement_is_explained_by_its_name() {
    let server = Server::shared();
    let explain = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::support::server::BIN);
        command.arg("explain").args(args).args(["--database-url", &server.database_url()]);
        let out = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    };
    let (_, names, _) = explain(&[]);
    assert_eq!(names.lines().count(), catwalk::statements::STATEMENTS.len());
    for name in names.lines() {
        let (done, plan, why) = explain(&[name]);
        // Some are completed before they are sent, and are no statement as they lie there.
        assert!(done && plan.contains("cost="), "{name}: {plan}{why}");
    }
    let (done, plan, why) = explain(&["products_fetch", "{1,2,3}"]);
    assert!(done && plan.contains("actual time=") && plan.contains("/* products_fetch */"), "{plan}{why}");
    assert!(explain(&["products_fetch", "{1}", "2"]).2.contains("takes 1 values"));
    assert!(explain(&["nothing"]).2.contains("names them all"));
    // What would change something has changed nothing.
    let count =
        || server.database().query_text("select count(*) from interactions", &[]).unwrap()[0].get::<i64>(0);
    let before = count();
    let (_, plan, why) = explain(&["interactions_add", "{a}", "{b}", "{c}"]);
    assert!(plan.contains("Insert on interactions"), "{plan}{why}");
    assert_eq!(count(), before);
}
