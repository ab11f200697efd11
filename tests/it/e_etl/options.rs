//! What can be asked of a load, and what it refuses.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::{count, digests, fixture, load, run};
use crate::support::server::{directory, Server};
use crate::support::{eventually, seed, Dice};

const PRODUCTS: &str = "id,name,slogan,description,category,default_price\n1,\"a\",\"b\",\"c\",\"d\",5\n2,\"e\",\"f\",\"g\",\"h\",7.50\n";

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn a_dry_run_reads_all_and_changes_nothing() {
    let server = Server::start(&["--products", "20"]);
    let (out, db) = (directory(), server.database());
    let before = digests(&db);
    let (status, dry) = load(&server, &fixture("atelier-2020"), out.path(), &["--dry-run"]);
    assert_eq!(status, 3, "{dry}");
    assert!(dry.contains("a dry run"), "{dry}");
    assert_eq!(digests(&db), before);
    assert_eq!(count(&db, "select count(*) from pg_namespace where nspname = 'catwalk_load'"), 0);
    let rejects = |dir: &Path| std::fs::read_to_string(dir.join("product.csv.rejects.csv")).unwrap();
    let dry_rejects = rejects(out.path());
    let (_, wet) = load(&server, &fixture("atelier-2020"), out.path(), &[]);
    let summaries =
        |text: &str| text.lines().filter(|l| l.contains(" loaded; ")).map(str::to_string).collect::<Vec<_>>();
    assert_eq!((summaries(&dry), dry_rejects), (summaries(&wet), rejects(out.path())));
}

#[test]
fn a_line_that_is_bad_stops_the_load_when_asked() {
    let server = Server::start(&["--products", "20"]);
    let (out, db) = (directory(), server.database());
    let before = digests(&db);
    let (status, output) = load(&server, &fixture("atelier-2020"), out.path(), &["--on-bad", "stop"]);
    assert!(status == 1 && output.contains(": line "), "{output}");
    assert_eq!(digests(&db), before);
}

#[test]
fn files_are_known_by_their_headers() {
    let server = Server::start(&["--products", "0"]);
    let (dir, db) = (directory(), server.database());
    write(dir.path(), "things.csv", PRODUCTS);
    let photos = "\u{feff}thumbnail_url, url, styleId, id\r\n\"t\", \"u\", 1, 4";
    std::fs::write(dir.path().join("b.csv.zst"), zstd::encode_all(photos.as_bytes(), 1).unwrap()).unwrap();
    let styles = "id,productId,name,sale_price,original_price,default_style\n1,1,s,null,5,1\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(styles.as_bytes()).unwrap();
    std::fs::write(dir.path().join("c.csv.gz"), gzip.finish().unwrap()).unwrap();
    write(dir.path(), "cart.csv", "id,user_session,product_id,active\n1,2,3,1\n");
    write(dir.path(), "colours.csv", "id,colour\n1,red\n");
    let (status, output) = load(&server, dir.path(), dir.path(), &[]);
    // The file of products is not named so: it is asked for by name, not found by chance.
    assert_eq!(status, 0, "{output}");
    assert!(
        output.contains("cart.csv is passed over") && output.contains("colours.csv is passed over"),
        "{output}"
    );
    assert_eq!(count(&db, "select count(*) from products p join styles s on s.product_id = p.id join photos f on f.style_id = s.id"), 1);
    write(dir.path(), "product.csv", PRODUCTS);
    let (status, output) = load(&server, dir.path(), dir.path(), &[]);
    assert!(status == 1 && output.contains("both hold products"), "{output}");
}

#[test]
fn a_part_is_loaded_beside_what_stays() {
    let server = Server::start(&["--products", "30"]);
    let (dir, db) = (directory(), server.database());
    write(
        dir.path(),
        "features.csv",
        "id,product_id,feature,value\n1,1,\"Only\",\"one\"\n2,999999,\"Nobody's\",null\n",
    );
    let (status, output) = load(&server, dir.path(), dir.path(), &["--only", "features"]);
    assert_eq!(status, 3, "{output}");
    assert!(output.contains("product does not exist 1"), "{output}");
    assert_eq!(count(&db, "select count(*) from features"), 1);
    assert_eq!(count(&db, "select count(*) from products"), 30);
    eventually("the part is served", || server.get("/products/1").text().contains("\"Only\""));
    // Parents may not go while their children stay.
    write(dir.path(), "product.csv", PRODUCTS);
    let (status, output) = load(&server, dir.path(), dir.path(), &["--only", "product"]);
    assert!(status == 1 && output.contains("stay and would lose their products"), "{output}");
    let (status, output) = load(&server, dir.path(), dir.path(), &["--only", "colours"]);
    assert!(status == 1 && output.contains("no colours.csv"), "{output}");
    // What is posted together is loaded together.
    write(dir.path(), "reviews_photos.csv", "id,review_id,url\n");
    let (status, output) = load(&server, dir.path(), dir.path(), &["--only", "reviews_photos"]);
    assert!(status == 1 && output.contains("are loaded together"), "{output}");
    // Nor does a table go because its file is not there.
    let (status, output) = load(&server, dir.path(), dir.path(), &[]);
    assert!(status == 1 && output.contains("no file") && output.contains("styles"), "{output}");
    assert_eq!(count(&db, "select count(*) from products"), 30);
}

#[test]
fn machines_are_told_in_json() {
    let server = Server::start(&["--products", "0"]);
    let out = directory();
    let (_, output) = load(&server, &fixture("atelier-2020"), out.path(), &["--json"]);
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let (summary, progress) = lines.split_last().unwrap();
    assert!(
        progress.iter().any(|line| line["phase"] == "copying" && line["total"].as_u64() > Some(0)),
        "{output}"
    );
    assert!(
        summary["loaded"].as_u64() > Some(1000) && summary["files"][0]["file"] == "product.csv",
        "{output}"
    );
}

#[test]
fn two_loads_at_once_are_one_too_many() {
    let server = Server::start(&["--products", "0"]);
    let (out, holder) = (directory(), server.database());
    let lock = i64::from_be_bytes(*b"catload\0");
    let _held = holder.transaction().unwrap();
    holder.batch_execute(&format!("select pg_advisory_xact_lock({lock})")).unwrap();
    // The other one keeps migrations out too, and whoever has none to make does not wait for it.
    let lock = i64::from_be_bytes(*b"catwalk\0");
    holder.batch_execute(&format!("select pg_advisory_xact_lock_shared({lock})")).unwrap();
    let (status, output) = load(&server, &fixture("atelier-2020"), out.path(), &[]);
    assert!(status == 1 && output.contains("is under way in this database"), "{output}");
}

#[test]
fn an_index_that_statements_need_is_missed_and_made_again() {
    let server = Server::start(&["--products", "20"]);
    let (out, db) = (directory(), server.database());
    let (status, output) = run(&server, &["check", "--database"]);
    assert_eq!(status, 0, "{output}");
    assert_eq!(run(&server, &["export", out.path().to_str().unwrap()]).0, 0);
    db.batch_execute("drop index features_product_id; drop index products_words").unwrap();
    let (status, output) = run(&server, &["check", "--database"]);
    assert!(
        status == 1
            && output.contains("CREATE INDEX features_product_id ON features USING btree (product_id)"),
        "{output}"
    );
    eventually("the box is not ready", || {
        let reply = server.get("/readyz");
        reply.status == 503 && reply.text().contains("CREATE INDEX products_words")
    });
    // Another name does as well, and so do other storage parameters.
    db.batch_execute(
        "create index of_products on features (product_id); alter index features_pkey set (fillfactor = 90)",
    )
    .unwrap();
    assert!(!run(&server, &["check", "--database"]).1.contains("features"));
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 0, "{output}");
    assert_eq!(run(&server, &["check", "--database"]).0, 0);
    eventually("the box is ready", || server.get("/readyz").status == 200);
}

#[test]
fn every_index_of_the_schema_is_known_to_be_needed() {
    let server = Server::shared();
    let rows = server
        .database()
        .query_text(
            "select indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid
             where relnamespace = 'public'::regnamespace and c.relname !~ '^catwalk_(changes_|migrations)' order by 1",
            &[],
        )
        .unwrap();
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut needed: Vec<&str> = catwalk::db::indexes::NEEDED.iter().map(|index| index.name).collect();
    needed.sort_unstable();
    let mut there: Vec<&str> = there.iter().map(String::as_str).collect();
    there.sort_unstable();
    assert_eq!(needed, there);
}

#[test]
fn what_an_index_cannot_hold_is_one_line_and_not_the_load() {
    let server = Server::start(&["--products", "0"]);
    let (dir, db) = (directory(), server.database());
    // Text that can't be pressed together: an index holds a third of a page, a tsvector a MiB.
    let mut dice = Dice(seed());
    let mut noise = |len: usize| {
        (0..len)
            .map(|n| if n % 8 == 7 { ' ' } else { (b'a' + dice.below(26) as u8) as char })
            .collect::<String>()
    };
    let header = PRODUCTS.lines().next().unwrap();
    let (long, words) = (noise(4_000), noise(900_000));
    let largest = i64::MAX;
    write(
        dir.path(),
        "product.csv",
        &format!("{header}\n1,\"a\",\"b\",\"c\",\"{long}\",5\n2,\"a\",\"b\",\"{words}\",\"d\",5\n{largest},\"a\",\"b\",\"c\",\"d\",5\n"),
    );
    let least = i64::MIN;
    let question = "id,product_id,body,date_written,asker_name,asker_email,reported,helpful";
    write(
        dir.path(),
        "questions.csv",
        &format!(
            "{question}\n1,{largest},\"q\",0,\"n\",\"e\",0,{least}\n2,{largest},\"q\",0,\"n\",\"e\",0,5\n"
        ),
    );
    let (status, output) = load(&server, dir.path(), dir.path(), &[]);
    assert_eq!(status, 3, "{output}");
    assert!(
        output.contains("longer than its index can hold 2") && output.contains("number out of range 1"),
        "{output}"
    );
    assert_eq!(count(&db, "select count(*) from products p join questions q on q.product_id = p.id"), 1);
}
