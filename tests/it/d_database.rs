//! may_postgres and the worker's pool on a real PostgreSQL: pipelining, loss, COPY, restart.

use std::sync::Arc;
use std::time::Duration;

use may::go;
use may_postgres::{connect, Config, Error};
use nix::sys::signal::{kill, Signal};

use crate::support::{eventually, Server};

#[test]
fn coroutines_share_a_connection_and_get_their_own_answers() {
    let server = Server::start(&[]);
    let client = server.database();
    let waiting: Vec<_> = (0..500i64)
        .map(|n| {
            let client = client.clone();
            go!(move || {
                for round in 0..4 {
                    let rows = client
                        .query_text("select $1::int8 + 1, repeat('x', $2::int)", &[&n, &(n as i32 * 20)]);
                    let rows = rows.unwrap();
                    assert_eq!(
                        (rows[0].get::<i64>(0), rows[0].get::<String>(1).len()),
                        (n + 1, n as usize * 20),
                        "{round}"
                    );
                }
            })
        })
        .collect();
    waiting.into_iter().for_each(|handle| handle.join().unwrap());
}

#[test]
fn an_error_is_its_askers_alone() {
    let server = Server::start(&[]);
    let client = server.database();
    let pairs: Vec<_> = (0..50)
        .map(|n: i32| {
            let client = client.clone();
            go!(move || (
                n,
                client.query_text("select 10 / $1::int", &[&(n % 2)]).map(|rows| rows[0].get::<i32>(0))
            ))
        })
        .collect();
    for handle in pairs {
        match handle.join().unwrap() {
            (n, Ok(value)) => assert!(n % 2 == 1 && value == 10),
            (n, Err(Error::Sql(e))) => assert!(n % 2 == 0 && e.code == "22012"),
            (_, Err(other)) => panic!("{other}"),
        }
    }
}

#[test]
fn a_lost_connection_wakes_every_waiter() {
    let server = Server::start(&[]);
    let (client, other) = (server.database(), server.database());
    let pid = client.process_id();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            go!(move || client.query_text("select pg_sleep(60)", &[]).map(|_| ()))
        })
        .collect();
    eventually("the statement runs", || {
        let active = "select 1 from pg_stat_activity where pid = $1 and state = 'active'";
        !other.query_text(active, &[&pid]).unwrap().is_empty()
    });
    other.query_text("select pg_terminate_backend($1)", &[&pid]).unwrap();
    for handle in waiting {
        assert!(handle.join().unwrap().unwrap_err().is_connection());
    }
    assert!(client.is_closed());
    assert!(matches!(client.batch_execute("select 1"), Err(Error::Closed(_))));
}

#[test]
fn a_late_answer_fails_its_asker_and_nobody_else() {
    let server = Server::start(&[]);
    let mut config: Config = server.database_url().parse().unwrap();
    config.request_timeout = Some(Duration::from_secs(1));
    let client = connect(&config).unwrap();
    let ticking = client.clone();
    let ticker = std::thread::spawn(move || {
        for _ in 0..40 {
            std::thread::sleep(Duration::from_millis(50));
            ticking.tick();
        }
    });
    assert!(matches!(client.batch_execute("select pg_sleep(1.5)"), Err(Error::Timeout)));
    ticker.join().unwrap();
    // The late reply has been discarded: the next answer is its own.
    assert_eq!(client.query_text("select 7", &[]).unwrap()[0].get::<i32>(0), 7);
}

#[test]
fn copy_in_and_out_carry_megabytes() {
    let server = Server::start(&[]);
    let client = server.database();
    client.batch_execute("create table t (n bigint, s text)").unwrap();
    let mut copy = client.copy_in("copy t from stdin").unwrap();
    for n in 0..200_000 {
        copy.send(format!("{n}\t{}\n", "y".repeat(40)).as_bytes()).unwrap();
    }
    assert!(matches!(client.batch_execute("select 1"), Err(Error::Protocol(_))), "a COPY is under way");
    assert_eq!(copy.finish().unwrap(), 200_000);
    let mut out = client.copy_out("copy (select * from t order by n) to stdout").unwrap();
    let (mut len, mut lines) = (0, 0);
    while let Some(chunk) = out.next_chunk().unwrap() {
        len += chunk.len();
        lines += chunk.iter().filter(|b| **b == b'\n').count();
    }
    assert!(lines == 200_000 && len > 200_000 * 42, "{lines} lines, {len} bytes");
}

#[test]
fn a_refused_or_abandoned_copy_stores_nothing_and_frees_the_connection() {
    let server = Server::start(&[]);
    let client = server.database();
    client.batch_execute("create table t (n bigint primary key)").unwrap();
    let mut copy = client.copy_in("copy t from stdin").unwrap();
    copy.send(b"1\nnonsense\n").unwrap();
    assert_eq!(copy.finish().unwrap_err().code(), Some("22P02"));
    let mut copy = client.copy_in("copy t from stdin").unwrap();
    copy.send(b"1\n").unwrap();
    drop(copy);
    assert_eq!(client.query_text("select count(*) from t", &[]).unwrap()[0].get::<i64>(0), 0);
}

#[test]
fn a_transaction_dropped_is_rolled_back() {
    let server = Server::start(&[]);
    let client = server.database();
    client.batch_execute("create table t (n bigint)").unwrap();
    let transaction = client.transaction().unwrap();
    client.batch_execute("insert into t values (1)").unwrap();
    drop(transaction);
    let transaction = client.transaction().unwrap();
    client.batch_execute("insert into t values (2)").unwrap();
    transaction.commit().unwrap();
    assert_eq!(client.query_text("select sum(n)::int8 from t", &[]).unwrap()[0].get::<i64>(0), 2);
}

#[test]
fn misses_that_wait_together_share_a_statement() {
    let server = Server::start(&["--products", "2000", "--workers", "1"]);
    let mut connections: Vec<_> = (0..64).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(|c| assert_eq!(c.get("/products/1").status, 200));
    let before = (server.metric("catwalk_db_statements_total"), server.metric("catwalk_db_keys_total"));
    for round in 0..20 {
        for (n, connection) in connections.iter_mut().enumerate() {
            let id = 2 + round * 64 + n;
            connection.send(format!("GET /products/{id} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        }
        connections.iter_mut().for_each(|c| assert_eq!(c.receive(false).status, 200));
    }
    let statements = server.metric("catwalk_db_statements_total") - before.0;
    let keys = server.metric("catwalk_db_keys_total") - before.1;
    assert_eq!(keys, 20 * 64, "each product is fetched once");
    assert!(statements * 2 <= keys, "{statements} statements for {keys} keys");
}

#[test]
fn misses_of_one_key_are_one_statement() {
    let server = Server::start(&["--workers", "1"]);
    let mut connections: Vec<_> = (0..100).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(|c| assert_eq!(c.get("/healthz").status, 200));
    // The table is locked: all hundred requests are there before the statement can end.
    let db = server.database();
    let lock = db.transaction().unwrap();
    db.batch_execute("lock table products in access exclusive mode").unwrap();
    let before = server.metric("catwalk_db_statements_total");
    connections.iter_mut().for_each(|c| c.send(b"GET /products/9 HTTP/1.1\r\nHost: a\r\n\r\n"));
    eventually("all have joined", || server.metric("catwalk_cache_joined_total") >= 99);
    lock.rollback().unwrap();
    connections.iter_mut().for_each(|c| assert_eq!(c.receive(false).json()["id"], 9));
    assert_eq!(server.metric("catwalk_db_statements_total") - before, 1);
}

#[test]
fn a_restarted_database_is_found_again_and_nothing_hangs() {
    let server = Server::start(&["--cache-size", "0"]);
    let mut connection = server.connect();
    for _ in 0..2 {
        let reply = connection.get("/products/1");
        assert_eq!((reply.status, reply.header("cache-status")), (200, Some("catwalk; fwd=bypass")));
    }
    // PostgreSQL's immediate shutdown: as if the machine had lost power.
    kill(server.postgres(), Signal::SIGQUIT).unwrap();
    let statuses = Arc::new(parking_lot::Mutex::new(Vec::new()));
    eventually("it is served again", || {
        let reply = connection.get("/products/1");
        assert!(matches!(reply.status, 200 | 503), "{}", reply.text());
        if reply.status == 503 {
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
        statuses.lock().push(reply.status);
        reply.status == 200 && server.get("/readyz").status == 200
    });
}

#[test]
fn a_changed_row_is_served_after_the_stated_age() {
    let dir = crate::support::server::directory();
    let config = dir.path().join("catwalk.toml");
    std::fs::write(&config, "[cache]\nmax_age = \"300ms\"\nmissing_max_age = \"300ms\"\n").unwrap();
    let server = Server::start(&["--config", config.to_str().unwrap()]);
    let mut connection = server.connect();
    assert_eq!(connection.get("/products/77").status, 404);
    let old = connection.get("/products/1").json();
    let db = server.database();
    db.batch_execute("update products set name = 'Renamed' where id = 1").unwrap();
    db.batch_execute("insert into products (id, name, slogan, description, category, default_price) values (77, 'New', '', '', '', 1)").unwrap();
    let changed = std::time::Instant::now();
    eventually("the new name is served", || connection.get("/products/1").json()["name"] == "Renamed");
    eventually("the new product is served", || connection.get("/products/77").status == 200);
    assert!(changed.elapsed() < Duration::from_secs(5));
    let new = connection.get("/products/1").json();
    assert_ne!(new["updated_at"], old["updated_at"]);
    assert_eq!(new["created_at"], old["created_at"]);
}

#[test]
fn statements_are_prepared_anew_when_a_table_changes_under_them() {
    let server = Server::start(&["--cache-size", "0", "--workers", "1"]);
    let mut connection = server.connect();
    let ask = |connection: &mut crate::support::Connection| {
        for path in ["/products/1", "/products?count=7", "/products?count=200"] {
            // Both connections of the worker.
            for _ in 0..6 {
                assert_eq!(connection.get(path).status, 200, "{path}");
            }
        }
    };
    ask(&mut connection);
    let db = server.database();
    db.batch_execute("alter table products alter column name type varchar(500)").unwrap();
    ask(&mut connection);
    // As a pooler or an operator may do it.
    for _ in 0..4 {
        db.batch_execute("alter table products alter column slogan type varchar(500)").unwrap();
        ask(&mut connection);
        db.batch_execute("alter table products alter column slogan type text").unwrap();
        ask(&mut connection);
    }
}
