//! Who may take the answer that somebody else's fetch is on its way with: one test for each rule, around a SELECT that has
//! taken its snapshot and is held up before it reads a row.

use nix::sys::signal::{kill, Signal};

use super::*;
use crate::support::Connection;
use may_postgres::Client;

/// A server of one worker whose next fetch waits, its snapshot taken, until it is released.
struct Held {
    server: Server,
    database: Client,
    first: Connection,
}

impl Held {
    /// The first request for `path` is on its way.
    fn start(path: &str, sql: &str) -> Held {
        let server = start(|command| {
            command.env("CATWALK_WORKERS", "1");
        });
        let database = server.database();
        database.batch_execute(sql).unwrap();
        // Every fetch asks for its snapshot's position first.
        let hold = "
            select pg_advisory_lock(7);
            create sequence fetches;
            create or replace function catwalk_snapshot_position() returns bigint language plpgsql stable as $$
            begin
                if nextval('fetches') = 1 then perform pg_advisory_lock_shared(7); perform pg_advisory_unlock_shared(7); end if;
                return (select (pg_snapshot_xmax(pg_current_snapshot())::text::bigint << 16)
                    | (65535 - (select count(*) from pg_snapshot_xip(pg_current_snapshot()))));
            end $$";
        database.batch_execute(hold).unwrap();
        // What was voided up to here is.
        wait(BOUND);
        let mut first = server.connect();
        first.send(request(path).as_bytes());
        server.wait_for_lock_waiter();
        Held { server, database, first }
    }

    fn rename(&self) {
        self.database.batch_execute("update products set name = 'new' where id = 1").unwrap();
        wait(BOUND);
    }

    fn release(&self) {
        self.database.batch_execute("select pg_advisory_unlock(7)").unwrap();
    }

    fn name(&mut self) -> serde_json::Value {
        self.first.receive(false).json()["name"].clone()
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn who_asks_after_a_change_joins_no_fetch_from_before_it() {
    let mut held = Held::start("/products/1", "");
    held.rename();
    assert_eq!(held.server.get("/products/1").json()["name"], "new", "and did not wait for the first");
    held.release();
    assert_eq!(held.name(), "new");
}

#[test]
fn who_asks_while_the_feed_is_behind_joins_no_fetch_older_than_the_bound() {
    let mut held = Held::start("/products/1", "");
    kill(held.server.feed(), Signal::SIGSTOP).unwrap();
    held.rename();
    wait(BOUND);
    assert_eq!(held.server.get("/products/1").json()["name"], "new", "and did not wait for the first");
    kill(held.server.feed(), Signal::SIGCONT).unwrap();
    held.release();
    held.name();
}

#[test]
fn what_was_voided_on_its_way_is_fetched_again() {
    let mut held = Held::start("/products/1", "");
    held.rename();
    held.release();
    assert_eq!(held.name(), "new");
}

/// Nothing orders an answer that the cache does not keep against what others are answered with meanwhile.
#[test]
fn who_joined_late_takes_no_answer_that_was_not_published() {
    let many =
        "insert into photos (style_id, url) select 1000051, repeat('u', 900) from generate_series(1, 100)";
    let mut held = Held::start("/products/51/styles", many);
    let statements = held.server.metric("catwalk_db_statements_total");
    let mut second = held.server.connect();
    second.send(request("/products/51/styles").as_bytes());
    eventually("the second joins", || held.server.metric("catwalk_cache_joined_total") == 1);
    held.release();
    for reply in [held.first.receive(false), second.receive(false)] {
        assert_eq!(reply.json()["results"][0]["photos"].as_array().unwrap().len(), 100);
    }
    assert_eq!(held.server.metric("catwalk_cache_fills_too_large_total"), 2);
    assert_eq!(
        held.server.metric("catwalk_db_statements_total") - statements,
        1,
        "the second read for itself"
    );
}
