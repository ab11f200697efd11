//! A load beside a running server: the old catalogue until the new one is complete, and nothing lost on the way.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use may_postgres::Client;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::{command, count, digests, load, run};
use crate::support::server::{directory, Server};
use crate::support::{eventually, seed, Dice};

/// The server's own catalogue as an archive, product 1 with another name and product 2 gone.
fn changed_archive(server: &Server, dir: &Path) {
    let (status, output) = run(server, &["export", dir.to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    let path = dir.join("product.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines =
        text.lines().filter(|line| !line.starts_with("2,")).map(|line| match line.strip_prefix("1,\"") {
            Some(rest) => format!("1,\"Renamed {rest}\n"),
            None => format!("{line}\n"),
        });
    let text: String = lines.collect();
    std::fs::write(&path, text).unwrap();
}

fn name_of(server: &Server, id: u32) -> Option<String> {
    let reply = server.get(&format!("/products/{id}"));
    (reply.status == 200).then(|| reply.json()["name"].as_str().unwrap().to_string())
}

#[test]
fn what_is_exported_loads_as_it_was() {
    let server = Server::start(&["--products", "150"]);
    let (out, db) = (directory(), server.database());
    let before = digests(&db);
    let (status, output) = run(&server, &["export", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 0, "{output}");
    assert_eq!(digests(&db), before);
    // What a reader of archives would take for something else is told.
    db.batch_execute(
        "update products set name = 'null' where id = 1; update features set value = E'a\\nb' where id = 2",
    )
    .unwrap();
    let (status, output) = run(&server, &["export", out.path().to_str().unwrap()]);
    assert!(
        status == 3 && output.contains("product.csv: 1 rows") && output.contains("features.csv: 1 rows"),
        "{output}"
    );
}

fn start_load(server: &Server, dir: &Path) -> Child {
    command(server, &["load", dir.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until a load tries to lock the live tables in `mode`.
fn wait_for_swap(db: &Client, mode: &str) {
    eventually("the load wants to swap", || {
        let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'lock table%";
        count(db, &format!("{waits} in {mode} mode'")) > 0
    });
}

#[test]
fn a_long_reader_holds_nobody_up() {
    let server = Server::start(&["--products", "60"]);
    let (out, db) = (directory(), server.database());
    changed_archive(&server, out.path());
    let holder = server.database();
    let held = holder.transaction().unwrap();
    holder.batch_execute("select from products limit 1").unwrap();
    let mut loading = start_load(&server, out.path());
    let reader = server.database();
    reader.batch_execute("set statement_timeout = '10s'").unwrap();
    for _ in 0..5 {
        wait_for_swap(&db, "access exclusive");
        assert_eq!(count(&reader, "select count(*) from products"), 60);
    }
    held.commit().unwrap();
    assert_eq!(loading.wait().unwrap().code(), Some(3));
    assert_eq!(count(&reader, "select count(*) from products"), 59);
}

/// A load that was killed when all but the swap was done.
fn kill_before_swap(server: &Server, dir: &Path) {
    let (db, holder) = (server.database(), server.database());
    let held = holder.transaction().unwrap();
    holder.batch_execute("lock table products in row exclusive mode").unwrap();
    let mut loading = start_load(server, dir);
    wait_for_swap(&db, "share row exclusive");
    loading.kill().unwrap();
    loading.wait().unwrap();
    held.commit().unwrap();
}

#[test]
fn a_load_is_not_gone_on_with_in_another_shape() {
    let server = Server::start(&["--products", "60"]);
    let (out, db) = (directory(), server.database());
    changed_archive(&server, out.path());
    kill_before_swap(&server, out.path());
    db.batch_execute("alter table products add column weight int default 3").unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert!(status == 3 && !output.contains("was copied before"), "{output}");
    assert_eq!(count(&db, "select count(*) from products where weight = 3"), 59);
}

#[test]
fn a_part_goes_without_children_of_parents_that_went() {
    let server = Server::start(&["--products", "60"]);
    let (out, db) = (directory(), server.database());
    let (status, output) = run(&server, &["export", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    let holder = server.database();
    let held = holder.transaction().unwrap();
    holder.batch_execute("lock table features in row exclusive mode").unwrap();
    let args = ["load", out.path().to_str().unwrap(), "--only", "features"];
    let mut loading = command(&server, &args).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_swap(&db, "share row exclusive");
    let parent = count(&db, "select min(product_id) from features");
    db.batch_execute(&format!("delete from products where id = {parent}")).unwrap();
    held.commit().unwrap();
    assert_eq!(loading.wait().unwrap().code(), Some(0));
    assert_eq!(count(&db, &format!("select count(*) from features where product_id = {parent}")), 0);
    let checked = "select count(*) from pg_constraint where conrelid = 'features'::regclass and contype = 'f' and convalidated";
    assert_eq!(count(&db, checked), 1);
}

#[test]
fn a_load_that_was_killed_is_gone_on_with() {
    let server = Server::start(&["--products", "60"]);
    let (out, db) = (directory(), server.database());
    changed_archive(&server, out.path());
    kill_before_swap(&server, out.path());
    // Between the two loads somebody votes: what the first one noted at its beginning is what counts.
    let of_others =
        "select min(a.id) from answers a join questions q on q.id = a.question_id where q.product_id <> 2";
    let answer = count(&db, of_others);
    let helpful = format!("select helpful from answers where id = {answer}");
    let votes = count(&db, &helpful);
    db.batch_execute(&format!("update answers set helpful = helpful + 3 where id = {answer}")).unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    assert!(output.contains("reviews.csv was copied before"), "{output}");
    assert!(
        output.contains("product does not exist"),
        "what was rejected before is told all the same: {output}"
    );
    assert_eq!(count(&db, &helpful), votes + 3);
}

#[test]
fn a_smaller_catalogue_has_no_ghosts() {
    has_no_ghosts(&Server::start(&["--products", "300"]));
}

#[test]
fn a_smaller_catalogue_has_no_ghosts_without_a_cache() {
    has_no_ghosts(&Server::start(&["--products", "300", "--cache-size", "0", "--workers", "1"]));
}

fn has_no_ghosts(server: &Server) {
    let out = directory();
    // Until a worker knows which database it has, it keeps nothing of it.
    eventually("it knows its database", || server.get("/readyz").status == 200);
    let mut connection = server.connect();
    let mut ids = |page: u32| {
        let list = connection.get(&format!("/products?count=20&page={page}")).json();
        list.as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(15).last(), Some(&300));
    let (status, output) =
        run(server, &["seed", "--products", "45", "--seed", "9", "--csv", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    // Ids of their own: none of the blocks of those before.
    let products = std::fs::read_to_string(out.path().join("product.csv")).unwrap();
    let (header, rows) = products.split_once('\n').unwrap();
    let moved: String = rows
        .lines()
        .map(|line| {
            let (id, rest) = line.split_once(',').unwrap();
            format!("{},{rest}\n", id.parse::<i64>().unwrap() + 10_000)
        })
        .collect();
    std::fs::write(out.path().join("product.csv"), format!("{header}\n{moved}")).unwrap();
    let (status, output) = load(server, out.path(), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    eventually("the new catalogue is served", || ids(1).first() == Some(&10_001));
    assert_eq!((ids(2).first(), ids(3).len(), ids(4).len()), (Some(&10_021), 5, 0));
}

#[test]
fn posted_while_a_load_runs_survives_it() {
    let server = Server::start(&["--products", "60"]);
    let (out, db) = (directory(), server.database());
    changed_archive(&server, out.path());
    // The archive has a review of its own by the id that the next one posted gets.
    let next_review = count(&db, "select max(id) + 1 from reviews");
    let mut reviews = std::fs::read_to_string(out.path().join("reviews.csv")).unwrap();
    reviews += &format!("{next_review},1,4,0,\"Of the archive\",\"b\",true,false,\"n\",\"e\",null,0\n");
    std::fs::write(out.path().join("reviews.csv"), reviews).unwrap();
    // Writers are held up, so is the swap; readers are not.
    let holder = server.database();
    let held = holder.transaction().unwrap();
    holder.batch_execute("lock table products in row exclusive mode").unwrap();
    let mut loading = start_load(&server, out.path());
    wait_for_swap(&db, "share row exclusive");
    let helpful = "select helpfulness from reviews where id = 1";
    let (votes, product) = (count(&db, helpful), count(&db, "select product_id from reviews where id = 1"));
    let asked = count(&db, "select min(id) from questions where product_id <> 2");
    let review = |product: i64| {
        format!(
            r#"{{"product_id":{product},"rating":5,"summary":"While it ran","body":"A text that is long enough to be taken for a review.","recommend":true,"name":"n","email":"n@example.com","photos":["https://example.com/p"],"characteristics":{{}}}}"#
        )
    };
    let mut connection = server.connect();
    let mut send = |method: &str, path: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.send(request.as_bytes());
        connection.receive(false).status
    };
    assert_eq!(send("POST", "/reviews", &review(1)), 201);
    assert_eq!(send("POST", "/reviews", &review(2)), 201);
    assert_eq!(send("PUT", "/reviews/1/helpful", ""), 204);
    let question = r#"{"product_id":1,"body":"Is it kept?","name":"n","email":"n@example.com"}"#;
    assert_eq!(send("POST", "/qa/questions", question), 201);
    let answer = r#"{"body":"It is.","name":"n","email":"n@example.com","photos":["https://example.com/a"]}"#;
    let new_question = count(&db, "select max(id) from questions");
    for question in [asked, new_question] {
        assert_eq!(send("POST", &format!("/qa/questions/{question}/answers"), answer), 201);
    }
    let reader = server.database();
    assert_eq!(count(&reader, "select count(*) from products"), 60, "readers go on while the swap waits");
    held.commit().unwrap();
    assert_eq!(loading.wait().unwrap().code(), Some(3), "children of the product that is gone are rejected");

    assert_eq!(count(&db, "select count(*) from products"), 59);
    let carried = "select count(*) from reviews r join reviews_photos p on p.review_id = r.id where r.summary = 'While it ran'";
    assert_eq!(count(&db, &format!("{carried} and r.product_id = 1")), 1);
    assert_eq!(count(&db, &format!("{carried} and r.product_id = 2")), 0);
    if product != 2 {
        assert_eq!(count(&db, helpful), votes + 1);
    }
    let answers =
        "select count(*) from answers a join answers_photos p on p.answer_id = a.id where a.body = 'It is.'";
    assert_eq!(count(&db, answers), 2);
    assert_eq!(count(&db, "select count(*) from questions where body = 'Is it kept?'"), 1);
    eventually("the new catalogue is served", || {
        name_of(&server, 1).is_some_and(|name| name.starts_with("Renamed"))
    });
    assert_eq!(name_of(&server, 2), None);
    assert_eq!(send("POST", "/reviews", &review(1)), 201, "the first id after a load is free");
}

#[test]
fn readers_see_the_old_catalogue_or_the_new_one() {
    let server = Server::start(&["--products", "60"]);
    let out = directory();
    changed_archive(&server, out.path());
    let old = name_of(&server, 1).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = server.connect();
                    let (mut has_changed, mut reads) = (false, 0u64);
                    while !is_over.load(Ordering::Relaxed) {
                        let list = connection.get("/products?count=100").json();
                        let list = list.as_array().expect("a list");
                        let is_new = list[0]["name"] != old.as_str();
                        assert_eq!(list.len(), if is_new { 59 } else { 60 }, "all of one catalogue");
                        assert!(is_new || !has_changed, "the old catalogue came back");
                        has_changed |= is_new;
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let (status, output) = load(&server, out.path(), out.path(), &[]);
        assert_eq!(status, 3, "{output}");
        eventually("the new catalogue is served", || name_of(&server, 1).is_some_and(|name| name != old));
        is_over.store(true, Ordering::Relaxed);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(reads > 10, "{reads} reads");
    });
}

#[test]
fn what_others_made_stays() {
    let server = Server::start(&["--products", "40"]);
    let (out, db) = (directory(), server.database());
    let (status, output) = run(&server, &["export", out.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{output}");
    db.batch_execute(
        "create role analyst; grant select on products to analyst; grant update (slogan) on products to analyst;
         create index products_by_name on products (name);
         create view cheap as select id, name from products where default_price < 100;
         create table wishes (product_id bigint references products, at timestamptz default now());
         insert into wishes (product_id) values (3);
         alter table products set (fillfactor = 90);
         create function cry() returns trigger language plpgsql as 'begin return new; end';
         create trigger crying before insert on products for each row execute function cry();
         alter table products disable trigger crying;
         grant usage on sequence reviews_id_seq to analyst; alter table skus replica identity full",
    )
    .unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 0, "{output}");
    for there in [
        "has_table_privilege('analyst', 'products', 'select')",
        "has_column_privilege('analyst', 'products', 'slogan', 'update')",
        "to_regclass('products_by_name') is not null",
        "(select count(*) from cheap) > 0",
        "exists (select from pg_constraint where conrelid = 'wishes'::regclass and confrelid = 'products'::regclass and convalidated)",
        "(select reloptions from pg_class where oid = 'products'::regclass) = '{fillfactor=90}'",
        "exists (select from pg_trigger where tgrelid = 'products'::regclass and tgname = 'crying' and tgenabled = 'D')",
        "has_sequence_privilege('analyst', 'reviews_id_seq', 'usage')",
        "(select relreplident = 'f' from pg_class where oid = 'skus'::regclass)",
        "to_regnamespace('catwalk_load') is null and to_regnamespace('catwalk_retired') is null",
    ] {
        assert_eq!(count(&db, &format!("select ({there})::int::int8")), 1, "{there}");
    }
    // What would lose its parent is told before anything happens.
    db.batch_execute("insert into products (id, name, slogan, description, category, default_price) values (999, 'n', 's', 'd', 'c', 1); insert into wishes (product_id) values (999)").unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert!(status == 1 && output.contains("1 rows of wishes"), "{output}");
    db.batch_execute("create materialized view counted as select count(*) from products").unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert!(status == 1 && output.contains("materialized view counted reads products"), "{output}");
    db.batch_execute("drop materialized view counted; create function of_row(products) returns int language sql as 'select 1'").unwrap();
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert!(status == 1 && output.contains("function of_row(products) is made of products"), "{output}");
    assert_eq!(count(&db, "select count(*) from products"), 41);
}

/// Kills of one run; the whole is `LOAD_KILLS=20`.
fn kills() -> u32 {
    std::env::var("LOAD_KILLS").map_or(5, |text| text.parse().expect("a number"))
}

#[test]
fn a_killed_load_leaves_the_old_catalogue() {
    let server = Server::start(&["--products", "300"]);
    let (out, db) = (directory(), server.database());
    changed_archive(&server, out.path());
    let mut before = digests(&db);
    let mut dice = Dice(seed());
    let (mut killed, mut ended) = (0, 0);
    while killed < kills() {
        // One goes on from what is there already, another starts over.
        let args = ["load", out.path().to_str().unwrap(), "--start-over"];
        let args = &args[..2 + dice.below(2) as usize];
        let mut loading = command(&server, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + dice.below(500)));
        let is_running = loading.try_wait().unwrap().is_none();
        if is_running {
            kill(Pid::from_raw(loading.id() as i32), Signal::SIGKILL).unwrap();
            loading.wait().unwrap();
        }
        (killed, ended) = (killed + u32::from(is_running), ended + u32::from(!is_running));
        // What was killed in its last moment may have committed all the same: then the new one is there, all of it.
        if digests(&db) != before {
            assert_eq!(count(&db, "select count(*) from products"), 299);
            assert_eq!(count(&db, "select count(*) from products where name like 'Renamed %'"), 1);
            before = digests(&db);
        }
        assert_eq!(server.get("/readyz").status, 200);
        assert!(name_of(&server, 1).is_some(), "after kill {killed}");
    }
    println!("{killed} killed, {ended} ended before");
    let (status, output) = load(&server, out.path(), out.path(), &[]);
    assert_eq!(status, 3, "{output}");
    eventually("the new catalogue is served", || {
        name_of(&server, 1).is_some_and(|name| name.starts_with("Renamed"))
    });
    assert_eq!(count(&db, "select count(*) from pg_namespace where nspname like 'catwalk_%'"), 0);
    assert_eq!(count(&db, "select sum(bit_count(members::bit(64)))::int8 from product_ranks"), 299);
}
