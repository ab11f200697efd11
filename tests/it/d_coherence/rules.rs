//! One test for each rule of the change feed.

use std::sync::Arc;
use std::time::Duration;

use catwalk::cache::arena::DatabaseIdentity;
use catwalk::cache::arena::Purpose;
use catwalk::cache::watermark::{self, Reason, State};
use catwalk::cache::{fence, Arena, Key, Kind, Token};
use catwalk::feed::follow::{Follower, Node, Outcome};
use catwalk::metrics::{Counter, MetricsPage, SlotMetrics};
use catwalk::os::mmap::SharedMemory;
use catwalk::topology::Topology;
use may_postgres::Client;

use super::*;
use crate::support::{Cluster, Connection};

/// A feed in this process, over an arena of its own, that looks when it is told to.
struct Feed {
    arena: Arc<Arena>,
    metrics: SlotMetrics,
    follower: Follower,
    client: Client,
}

impl Feed {
    fn start(server: &Server) -> Feed {
        let purpose = Purpose { cache_size_bytes: 4 << 20, workers: 1, settings: 0, nodes: 0 };
        let memory = Arc::new(SharedMemory::create("test", purpose.layout().size_bytes).unwrap());
        let arena = Arc::new(Arena::format(memory, &purpose, 5));
        let metrics = MetricsPage::create(1).unwrap().slot(0);
        let follower = Follower::new(arena.clone(), Topology::create(1).unwrap(), metrics.clone());
        let mut feed = Feed { arena, metrics, follower, client: server.database() };
        assert_eq!(feed.look(), Outcome::Quiet);
        assert_eq!(feed.reason(), Reason::NoCursor);
        feed
    }

    fn look(&mut self) -> Outcome {
        self.follower.look(&self.client, &Node::Primary)
    }

    /// As if this one had died and another were forked.
    fn replace(&mut self) {
        self.follower = Follower::new(self.arena.clone(), Topology::create(1).unwrap(), self.metrics.clone());
    }

    fn token(&self, kind: Kind, id: i64) -> Token {
        fence::token(&self.arena, Key::new(kind, id).fence())
    }

    fn reason(&self) -> Reason {
        watermark::last_void(&self.arena).0
    }

    fn voids(&self) -> u64 {
        self.metrics.page().total(Counter::CacheVoidedAll)
    }

    fn watermark_ns(&self) -> u64 {
        watermark::watermark_ns(&self.arena)
    }
}

/// Which of product 1's and 2's answers a change makes void.
#[test]
fn every_change_of_every_table_voids_what_is_made_from_it_and_nothing_else() {
    use Kind::{Answers, List, Meta, Product, Questions, Related, Reviews, Styles};
    let server = start(|_| {});
    let db = server.database();
    db.batch_execute(
        "delete from styles where product_id < 3; insert into styles (id, product_id, name, original_price, default_style)
         values (9001, 1, 'a', 1, true), (9002, 2, 'b', 1, true);
         insert into photos (id, style_id, url) values (9001, 9001, 'u'); delete from related where current_product_id < 3;
         delete from reviews where product_id < 3; delete from questions where product_id < 3;
         insert into reviews (id, product_id, rating, summary, body, recommend, reviewer_name, reviewer_email)
             values (9001, 1, 1, '', '', true, '', ''), (9002, 2, 1, '', '', true, '', '');
         insert into characteristics (id, product_id, name) values (9001, 1, 'a');
         insert into questions (id, product_id, body, asker_name, asker_email) values (9001, 1, '', '', ''), (9002, 2, '', '', '');
         insert into answers (id, question_id, body, answerer_name, answerer_email) values (9001, 9001, '', '', '')",
    )
    .unwrap();
    let mut feed = Feed::start(&server);
    let all = [
        (Product, 1),
        (Styles, 1),
        (Related, 1),
        (List, 0),
        (Product, 2),
        (Styles, 2),
        (Related, 2),
        (Meta, 1),
        (Reviews, 1),
        (Questions, 1),
        (Answers, 9001),
        (Meta, 2),
        (Reviews, 2),
        (Questions, 2),
        (Answers, 9002),
    ];
    let changes: [(&str, &[(Kind, i64)]); 28] = [
        ("update products set name = 'x' where id = 1", &[(Product, 1), (List, 0)]),
        ("insert into features (product_id, feature) values (1, 'f')", &[(Product, 1)]),
        ("update features set product_id = 2 where product_id = 1", &[(Product, 1), (Product, 2)]),
        ("delete from features where product_id = 2", &[(Product, 2)]),
        ("update styles set name = 'c' where id = 9001", &[(Styles, 1)]),
        ("update photos set url = 'v' where id = 9001", &[(Styles, 1)]),
        ("insert into skus (id, style_id, size) values (9001, 9001, 'M')", &[(Styles, 1)]),
        ("update skus set style_id = 9002 where id = 9001", &[(Styles, 1), (Styles, 2)]),
        ("update styles set product_id = 2 where id = 9001", &[(Styles, 1), (Styles, 2)]),
        ("begin; update photos set url = 'w' where id = 9001; delete from styles where id = 9001; commit", &[(Styles, 2)]),
        ("insert into related (current_product_id, related_product_id) values (1, 2)", &[(Related, 1)]),
        ("delete from related where current_product_id = 1", &[(Related, 1)]),
        ("merge into related r using (values (2)) v (id) on r.current_product_id = v.id when not matched then
          insert (current_product_id, related_product_id) values (v.id, 1)", &[(Related, 2)]),
        ("insert into products select * from products where id = 2 on conflict (id) do update set slogan = 'y'", &[(Product, 2), (List, 0)]),
        ("begin; savepoint a; update products set name = 'z' where id = 1; release a; commit", &[(Product, 1), (List, 0)]),
        ("set session_replication_role = replica; update products set name = 'r' where id = 1; reset session_replication_role", &[(Product, 1), (List, 0)]),
        ("update reviews set helpfulness = helpfulness + 1 where id = 9001", &[(Meta, 1), (Reviews, 1)]),
        ("update reviews set product_id = 2 where id = 9001", &[(Meta, 1), (Reviews, 1), (Meta, 2), (Reviews, 2)]),
        ("update reviews set product_id = 1 where id = 9001", &[(Meta, 1), (Reviews, 1), (Meta, 2), (Reviews, 2)]),
        ("insert into reviews_photos (review_id, url) values (9001, 'u')", &[(Meta, 1), (Reviews, 1)]),
        ("insert into characteristic_reviews (characteristic_id, review_id, value) values (9001, 9001, 1)", &[(Meta, 1), (Reviews, 1)]),
        ("update characteristics set name = 'b' where id = 9001", &[(Meta, 1)]),
        ("update questions set helpful = 3 where id = 9001", &[(Questions, 1)]),
        ("update answers set helpful = 3 where id = 9001", &[(Questions, 1), (Answers, 9001)]),
        ("insert into answers_photos (answer_id, url) values (9001, 'u')", &[(Questions, 1), (Answers, 9001)]),
        ("update answers set question_id = 9002 where id = 9001", &[(Questions, 1), (Questions, 2), (Answers, 9001), (Answers, 9002)]),
        ("delete from questions where id = 9002", &[(Questions, 2), (Answers, 9002)]),
        ("delete from reviews where id = 9001", &[(Meta, 1), (Reviews, 1)]),
    ];
    for (sql, expected) in changes {
        let before = all.map(|(kind, id)| feed.token(kind, id));
        db.batch_execute(sql).unwrap();
        assert_eq!(feed.look(), Outcome::Changes, "{sql}");
        for (n, (kind, id)) in all.into_iter().enumerate() {
            let is_void = feed.token(kind, id) != before[n];
            // ON CONFLICT fires the triggers of both; an insert of nothing touches nothing.
            assert_eq!(is_void, expected.contains(&(kind, id)), "{kind:?} {id}: {sql}");
        }
    }
    let before = [Product, Styles, Related].map(|kind| feed.token(kind, 1));
    db.batch_execute("delete from products where id = 1").unwrap();
    feed.look();
    let after = [Product, Styles, Related].map(|kind| feed.token(kind, 1));
    assert!(
        before.iter().zip(after).all(|(b, a)| *b != a),
        "a product that goes takes all its answers along"
    );
    assert_eq!(feed.voids(), 1, "nothing was voided as a whole but at the start");
}

#[test]
fn a_transaction_that_began_first_and_commits_last_is_not_missed() {
    let server = start(|_| {});
    let (early, late) = (server.database(), server.database());
    let mut feed = Feed::start(&server);
    let transaction = early.transaction().unwrap();
    early.batch_execute("update products set name = 'early' where id = 1").unwrap();
    late.batch_execute("update products set name = 'late' where id = 2").unwrap();
    let before = (feed.token(Kind::Product, 1), feed.token(Kind::Product, 2));
    assert_eq!(feed.look(), Outcome::Changes);
    assert_eq!(feed.token(Kind::Product, 1), before.0);
    assert_ne!(feed.token(Kind::Product, 2), before.1);
    // What was seen is not read again while the early one stays open.
    assert_eq!(feed.look(), Outcome::Quiet);
    // Another feed goes on where this one stood, and so does not miss it either.
    feed.replace();
    transaction.commit().unwrap();
    assert_eq!(feed.look(), Outcome::Changes);
    assert_ne!(feed.token(Kind::Product, 1), before.0);
    assert_eq!(feed.voids(), 1, "a feed that takes over voids nothing");
}

#[test]
fn the_watermark_is_the_time_before_the_look() {
    let server = start(|_| {});
    let mut feed = Feed::start(&server);
    let blocker = server.database();
    let transaction = blocker.transaction().unwrap();
    blocker.batch_execute("lock table catwalk_changes in access exclusive mode").unwrap();
    let before_ns = now_ns();
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| feed.look());
        server.wait_for_lock_waiter();
        wait(Duration::from_millis(50));
        transaction.commit().unwrap();
        looking.join().unwrap()
    });
    let after_ns = now_ns();
    let watermark_ns = feed.watermark_ns();
    assert!(before_ns <= watermark_ns && watermark_ns + 50_000_000 <= after_ns);
}

#[test]
fn what_cannot_be_followed_voids_everything_once_and_says_why() {
    let server = start(|_| {});
    let db = server.database();
    let mut feed = Feed::start(&server);
    let mut voided = 1;
    let mut expect = |feed: &mut Feed, reason: Reason| {
        let epoch = feed.token(Kind::Product, 1).epoch;
        if feed.look() == Outcome::Lost {
            feed.look();
        }
        voided += 1;
        assert_eq!((feed.reason(), feed.voids()), (reason, voided));
        assert_ne!(feed.token(Kind::Product, 1).epoch, epoch);
        feed.look();
        assert_eq!(feed.voids(), voided, "once");
    };
    db.batch_execute("truncate related").unwrap();
    expect(&mut feed, Reason::Noted);
    let hidden = "begin; alter table skus disable trigger user; update skus set quantity = 1; select catwalk_follow('skus'); commit";
    db.batch_execute(hidden).unwrap();
    expect(&mut feed, Reason::Triggers);
    db.batch_execute("update catwalk_feed set dropped_xid = pg_current_xact_id()").unwrap();
    expect(&mut feed, Reason::Dropped);
    // As a crash, a promotion or a restore leaves it: whoever looks first begins another life.
    db.batch_execute("truncate catwalk_life").unwrap();
    expect(&mut feed, Reason::Life);
    // A server put back to what it was counts its transactions from there.
    let mut ahead = watermark::cursor(&feed.arena).unwrap();
    ahead.xmin += 1_000;
    watermark::set_cursor(&feed.arena, ahead);
    feed.replace();
    expect(&mut feed, Reason::Life);
    feed.arena.bind(DatabaseIdentity { system_identifier: 1, timeline: 1 });
    feed.replace();
    expect(&mut feed, Reason::Identity);
    for ddl in [
        "alter table skus rename size to was",
        "alter table skus rename was to size",
        "cluster skus using skus_pkey",
    ] {
        db.batch_execute(ddl).unwrap();
        expect(&mut feed, Reason::Triggers);
    }
    db.batch_execute("truncate catwalk_changes").unwrap();
    expect(&mut feed, Reason::Dropped);
    db.batch_execute("insert into skus (style_id, size) select 1000051, 'S' from generate_series(1, 131073)")
        .unwrap();
    expect(&mut feed, Reason::Noted);
    let gone = "delete from skus; insert into skus (style_id, size) select 1000000 + n % 5 + 51, 'S' from generate_series(1, 100000) n; truncate photos";
    db.batch_execute(gone).unwrap();
    expect(&mut feed, Reason::Noted);
    let many = "begin; insert into skus (style_id) select 1000051 from generate_series(1, 10); insert into catwalk_changes (what, id)
                select 'related', n from generate_series(1, 140000) n; commit";
    db.batch_execute(many).unwrap();
    expect(&mut feed, Reason::TooMany);
}

#[test]
fn while_a_trigger_is_missing_the_watermark_stands_still() {
    let server = start(|_| {});
    let db = server.database();
    let mut feed = Feed::start(&server);
    for (broken, problem, repair) in [
        ("alter table features disable trigger catwalk_changed", "catwalk_changed on features", ""),
        ("alter table features enable trigger catwalk_changed", "catwalk_changed on features", ""),
        ("drop trigger catwalk_emptied on styles", "catwalk_emptied on styles", ""),
        ("alter table products disable trigger products_rank_added", "products_rank_added on products", ""),
        ("create table more () inherits (related)", "related has child tables", "drop table more;"),
        (
            "create table more (like styles); alter table styles inherit more",
            "styles has child tables or is one",
            "alter table styles no inherit more; drop table more;",
        ),
        (
            "alter table photos enable row level security",
            "photos has row security",
            "alter table photos disable row level security;",
        ),
    ] {
        feed.look();
        let (stood_ns, voids) = (feed.watermark_ns(), feed.voids());
        db.batch_execute(broken).unwrap();
        (0..3).for_each(|_| assert_eq!(feed.look(), Outcome::Lost, "{broken}"));
        assert_eq!((feed.watermark_ns(), feed.voids()), (stood_ns, voids + 1), "{broken}");
        assert_eq!(watermark::state(&feed.arena), State::Unfollowable);
        assert_eq!(watermark::cursor(&feed.arena), None, "whoever comes next begins anew");
        let why = catwalk::db::changes::problems(&db).unwrap().unwrap();
        assert!(why.contains(problem), "{why}");
        db.batch_execute(&format!("{repair} select catwalk_follow(name) from catwalk_followed")).unwrap();
        assert_ne!(feed.look(), Outcome::Lost, "{broken}");
        assert!(feed.watermark_ns() > stood_ns && feed.voids() == voids + 2, "{broken}");
    }
}

#[test]
fn the_repair_counts_the_ranks_anew() {
    let server = start(|_| {});
    let db = server.database();
    let mut connection = server.connect();
    db.batch_execute(
        "alter table products disable trigger user;
         insert into products (id, name, slogan, description, category, default_price) values (71, 'hidden', '', '', '', 1);
         select catwalk_follow('products')",
    )
    .unwrap();
    eventually("the product is in its list", || {
        let list = connection.get("/products?count=100").json();
        list.as_array().unwrap().last().unwrap()["id"] == 71
    });
}

#[test]
fn a_change_of_many_rows_is_noted_by_one_call() {
    let server = start(|_| {});
    let db = server.database();
    db.batch_execute(
        "insert into products (name, slogan, description, category, default_price)
         select 'n', '', '', '', 1 from generate_series(1, 100000); set track_functions = 'pl'",
    )
    .unwrap();
    let transaction = db.transaction().unwrap();
    db.batch_execute("update products set slogan = 's' where name = 'n'").unwrap();
    let count = |sql: &str| db.query_text(sql, &[]).unwrap()[0].get::<i64>(0);
    assert_eq!(count("select count(*) from catwalk_changes where xid = pg_current_xact_id()"), 100_000);
    assert_eq!(count("select pg_stat_get_xact_function_calls('catwalk_note_products'::regproc)"), 1);
    transaction.rollback().unwrap();
}

#[test]
fn who_may_write_the_catalogue_needs_no_right_on_the_change_table() {
    let server = start(|_| {});
    let db = server.database();
    db.batch_execute("create role clerk; grant select, update, insert, delete on products to clerk").unwrap();
    let mut feed = Feed::start(&server);
    let before = feed.token(Kind::Product, 1);
    // A table of theirs with the same name is not written to instead.
    db.batch_execute(
        "set role clerk; create temp table catwalk_changes (what text, id bigint); update products set name = 'c' where id = 1;
         insert into products (name, slogan, description, category, default_price) values ('n', '', '', '', 1); reset role",
    )
    .unwrap();
    feed.look();
    assert_ne!(feed.token(Kind::Product, 1), before);
    assert!(db.batch_execute("set role clerk; delete from public.catwalk_changes").is_err());
    // Nor can they make triggers of the functions that run with the owner's rights.
    for function in ["catwalk_note_product_id", "catwalk_note_row", "products_rank_follow"] {
        let own = format!(
            "create temp table own (id bigint, product_id bigint);
             create trigger own after insert on own referencing new table as added for each statement execute function public.{function}()"
        );
        let db = server.database();
        db.batch_execute("set role clerk").unwrap();
        assert_eq!(db.batch_execute(&own).unwrap_err().code(), Some("42501"), "{function}");
    }
}

#[test]
fn writers_go_on_without_a_days_partition_and_old_ones_are_dropped() {
    let server = start(|_| {});
    let db = server.database();
    let today = "select 'catwalk_changes_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')";
    let today: String = db.query_text(today, &[]).unwrap()[0].get(0);
    let mut feed = Feed::start(&server);
    db.batch_execute(&format!("drop table {today}")).unwrap();
    db.batch_execute("update products set name = 'n' where id = 1").unwrap();
    assert_eq!(feed.look(), Outcome::Changes);
    let count = |sql: &str| db.query_text(sql, &[]).unwrap()[0].get::<i64>(0);
    assert!(count("select count(*) from catwalk_changes_default") > 0);
    db.batch_execute(
        "create table catwalk_changes_20200101 partition of catwalk_changes for values from ('2020-01-01Z') to ('2020-01-02Z');
         insert into catwalk_changes (xid, what, id, at) values ('7', 'product', 1, '2020-01-01 12:00Z')",
    )
    .unwrap();
    // Somebody's long transaction is in the way: given up for now, and nobody waits.
    let busy = server.database();
    let transaction = busy.transaction().unwrap();
    busy.batch_execute("update products set name = 'm' where id = 2").unwrap();
    let there = "select count(*) from pg_class where relname = 'catwalk_changes_20200101'";
    db.batch_execute("select catwalk_rotate_changes('2 days')").unwrap();
    assert_eq!(count(there), 1);
    transaction.commit().unwrap();
    eventually("it is dropped", || {
        db.batch_execute("select catwalk_rotate_changes('2 days')").unwrap();
        count(there) == 0
    });
    assert_eq!(count("select dropped_xid::text::bigint from catwalk_feed"), 7);
    let kept = count("select count(*) from pg_inherits where inhparent = 'catwalk_changes'::regclass");
    assert!(kept >= 3, "the default, and the days to come");
}

/// The apply worker of a subscription fires row triggers only.
#[test]
fn changes_that_arrive_by_logical_replication_are_followed() {
    let publisher = Cluster::start(
        "create table products (id bigint primary key, name text not null, slogan text not null, description text not null,
             category text not null, default_price numeric(12, 2) not null);
         create table related (id bigint primary key, current_product_id bigint not null, related_product_id bigint not null);
         create publication all_of_it for all tables",
        "",
        &["wal_level=logical".to_string()],
    );
    let server = start(|_| {});
    let db = server.database();
    let address =
        format!("host={} port={} user=root dbname=postgres", publisher.path().display(), publisher.port);
    db.batch_execute(&format!(
        "create subscription from_there connection '{address}' publication all_of_it with (copy_data = false)"
    ))
    .unwrap();
    let there = publisher.admin();
    let mut connection = server.connect();
    let mut get = |path: &str| connection.get(path);
    assert_eq!(get("/products/5000").status, 404);
    there.batch_execute("insert into products values (5000, 'first', '', '', '', 1)").unwrap();
    eventually("the new product is served", || get("/products/5000").status == 200);
    // In lists too: the ranks follow.
    let last = get("/products?count=100").json();
    assert_eq!(last.as_array().unwrap().last().unwrap()["id"], 5000);
    assert_eq!(get("/products/5000/related").json(), serde_json::json!([]));
    there
        .batch_execute(
            "insert into related values (5000, 5000, 1); update products set name = 'second' where id = 5000",
        )
        .unwrap();
    eventually("the change is served", || get("/products/5000").json()["name"] == "second");
    eventually("the relation is served", || get("/products/5000/related").json() == serde_json::json!([1]));
    there.batch_execute("truncate related").unwrap();
    eventually("its end is served", || get("/products/5000/related").json() == serde_json::json!([]));
    there.batch_execute("delete from products where id = 5000").unwrap();
    eventually("the product is gone", || get("/products/5000").status == 404);
    db.batch_execute(
        "alter subscription from_there disable; alter subscription from_there set (slot_name = none)",
    )
    .unwrap();
    db.batch_execute("drop subscription from_there").unwrap();
}

#[test]
fn a_change_that_went_by_unnoticed_is_found_by_the_auditor() {
    let server = start(|command| {
        command.env("CATWALK_CACHE_AUDIT_ONE_IN", "1");
    });
    let mut connection = server.connect();
    let get = |connection: &mut Connection| connection.get("/products/31");
    (0..3).for_each(|_| assert_eq!(get(&mut connection).status, 200));
    // An honest change is no inconsistency, however close the audit.
    let db = server.database();
    for n in 0..20 {
        db.batch_execute(&format!("update features set value = 'w{n}' where product_id = 31")).unwrap();
        (0..20).for_each(|_| assert_eq!(get(&mut connection).status, 200));
    }
    eventually("hits are audited", || server.metric("catwalk_cache_audited_total") > 5);
    assert_eq!(server.metric("catwalk_cache_inconsistent_total"), 0);
    // The last honest change has been applied, and what it left is cached: nothing else puts the lie right.
    wait(BOUND);
    eventually("it is cached", || get(&mut connection).header("cache-status") == Some("catwalk; hit"));
    let lie = "begin; update features set value = 'lie' where product_id = 31; delete from catwalk_changes where xid = pg_current_xact_id(); commit";
    db.batch_execute(lie).unwrap();
    eventually("it is found", || {
        get(&mut connection);
        server.metric("catwalk_cache_inconsistent_total") > 0
    });
    assert_eq!(get(&mut connection).json()["features"][0]["value"], "lie", "and put right");
}

/// Their COMMIT waits, and their connection is lost meanwhile.
#[test]
fn a_write_whose_outcome_nobody_knows_voids_all_the_same() {
    let server = start(|_| {});
    let db = server.database();
    db.batch_execute(
        "create function wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(7); return null; end $$;
         create constraint trigger wait after update on products deferrable initially deferred for each row execute function wait();
         create constraint trigger wait after update on reviews deferrable initially deferred for each row execute function wait();
         update reviews set product_id = 21 where id = (select min(id) from reviews)",
    )
    .unwrap();
    let review: i64 = db.query_text("select min(id) from reviews", &[]).unwrap()[0].get(0);
    let vote = format!("/reviews/{review}/helpful");
    let writes = [
        ("PATCH", "/admin/products/21", r#"{"name": "unknown"}"#, "/products/21"),
        ("PUT", vote.as_str(), "", "/reviews?product_id=21"),
    ];
    for (method, path, body, read) in writes {
        let mut connection = server.connect();
        wait(BOUND);
        eventually("it is cached", || connection.get(read).header("cache-status") == Some("catwalk; hit"));
        let before = connection.get(read).text();
        db.batch_execute("select pg_advisory_lock(7)").unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send((head + body).as_bytes());
        server.wait_for_lock_waiter();
        let kill_waiters =
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'";
        server.database().query_text(kill_waiters, &[]).unwrap();
        let reply = connection.receive(false);
        assert_eq!((reply.status, &reply.json()["code"]), (503, &"outcome-unknown".into()), "{path}");
        db.batch_execute("select pg_advisory_unlock(7)").unwrap();
        let reply = connection.get(read);
        assert!(reply.header("cache-status").unwrap().contains("fwd=miss"), "it was void");
        assert_eq!(reply.text(), before);
    }
}

#[test]
fn changes_through_the_server_are_checked_and_seen_at_once() {
    let server = start(|_| {});
    let mut connection = server.connect();
    let mut ask = |method: &str, path: &str, token: &str, body: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send((head + body).as_bytes());
        connection.receive(false)
    };
    for path in ["/products/3", "/products?count=3"] {
        eventually("it is cached", || server.get(path).header("cache-status") == Some("catwalk; hit"));
    }
    let reply =
        ask("PATCH", "/admin/products/3", ADMIN_TOKEN, r#"{"name": "Renamed", "default_price": 12.5}"#);
    assert_eq!(
        (reply.status, &reply.json()["name"], &reply.json()["default_price"]),
        (200, &"Renamed".into(), &"12.50".into())
    );
    for _ in 0..8 {
        assert_eq!(server.get("/products/3").json()["name"], "Renamed");
        assert_eq!(server.get("/products?count=3").json()[2]["default_price"], "12.50");
    }
    for (method, path, token, body, status, code) in [
        ("PATCH", "/admin/products/3", "wrong", "{}", 401, "unauthorized"),
        ("PATCH", "/admin/products/99999", ADMIN_TOKEN, r#"{"name": "x"}"#, 404, "no-such-product"),
        ("PATCH", "/admin/products/x", ADMIN_TOKEN, r#"{"name": "x"}"#, 400, "bad-id"),
        ("PATCH", "/admin/products/3", ADMIN_TOKEN, "{", 400, "bad-body"),
        ("PATCH", "/admin/products/3", ADMIN_TOKEN, r#"{"nmae": "x"}"#, 400, "bad-body"),
        ("PATCH", "/admin/products/3", ADMIN_TOKEN, "{}", 422, "bad-value"),
        ("PATCH", "/admin/products/3", ADMIN_TOKEN, r#"{"default_price": -1}"#, 422, "bad-value"),
        ("PUT", "/admin/products/3", ADMIN_TOKEN, "{}", 405, "method-not-allowed"),
    ] {
        let reply = ask(method, path, token, body);
        assert_eq!((reply.status, &reply.json()["code"]), (status, &code.into()), "{method} {path} {body}");
    }
}

#[test]
fn the_feed_ends_after_the_last_worker_and_with_its_master() {
    let mut server = start(|_| {});
    let feed = server.feed();
    kill(feed, Signal::SIGKILL).unwrap();
    eventually("it is replaced", || server.feed() != feed);
    let feed = server.feed();
    assert!(server.stop().success());
    assert!(!std::path::Path::new(&format!("/proc/{feed}")).exists());
}
