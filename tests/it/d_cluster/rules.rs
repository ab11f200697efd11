//! One test for each rule of several nodes and several boxes.

use std::process::Command;
use std::time::{Duration, Instant};

use super::stand::Stand;
use super::wait;
use crate::d_coherence::traffic::ADMIN_TOKEN;
use crate::routes::send_with;
use crate::support::{eventually, Connection, Reply, Server};

/// Replicas count as fit however far they are behind: nothing but the rules keeps what they lack from being shown.
fn any_lag(command: &mut Command) {
    command.env("CATWALK_DATABASE_REPLICA_LAG_MAX", "1h");
}

/// And nothing but they keeps it from being trusted.
fn any_age(command: &mut Command) {
    any_lag(command);
    command.env("CATWALK_CACHE_STALENESS_MAX", "1h");
}

fn no_cache(command: &mut Command) {
    any_lag(command);
    command.env("CATWALK_CACHE_SIZE", "0");
}

fn name(connection: &mut Connection, id: i64) -> String {
    connection.get(&format!("/products/{id}")).json()["name"].as_str().unwrap().to_string()
}

fn bearer() -> String {
    format!("Authorization: Bearer {ADMIN_TOKEN}\r\n")
}

/// Gives a product a name through a server, and returns the answer.
fn rename(server: &Server, id: i64, name: &str) -> Reply {
    let body = format!(r#"{{"name": "{name}"}}"#);
    let path = format!("/admin/products/{id}");
    let reply = send_with(&mut server.connect(), "PATCH", &path, &bearer(), &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

fn rename_at_the_database(stand: &Stand, id: i64, name: &str) {
    stand.nodes[0]
        .admin()
        .batch_execute(&format!("update products set name = '{name}' where id = {id}"))
        .unwrap();
}

#[test]
fn whoever_writes_reads_it_though_no_replica_has_it() {
    let stand = Stand::start(1, any_age);
    let server = &stand.boxes[0];
    let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(|connection| drop(name(connection, 1)));
    stand.pause();
    for n in 0..20 {
        let new = format!("new {n}");
        rename(server, 1, &new);
        for connection in &mut connections {
            assert_eq!(name(connection, 1), new);
        }
    }
    assert!(server.metric("catwalk_db_primary_reads_total") > 0);
    stand.resume();
}

#[test]
fn what_one_replica_has_shown_no_other_takes_back() {
    let stand = Stand::start(1, no_cache);
    let server = &stand.boxes[0];
    stand.nodes[2].admin().batch_execute("select pg_wal_replay_pause()").unwrap();
    rename_at_the_database(&stand, 1, "later");
    // Many at a time, so that both replicas are asked.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = server.connect();
                let mut seen = false;
                for _ in 0..200 {
                    let is_later = name(&mut connection, 1) == "later";
                    assert!(is_later || !seen, "it went back");
                    seen |= is_later;
                }
                assert!(seen);
            });
        }
    });
    stand.resume();
}

/// A commit that waits for a synchronous replica that does not come: replicas show it, the primary does not.
#[test]
fn what_the_primary_does_not_show_yet_is_not_kept_as_the_present_state() {
    let mut stand = Stand::start(1, any_lag);
    stand.synchronous(0, "first 1 (nobody)");
    let mut connection = stand.boxes[0].connect();
    name(&mut connection, 1);
    let url = super::stand::url(stand.nodes[0].port);
    let writer = std::thread::spawn(move || {
        let client = may_postgres::connect(&url.parse().unwrap()).unwrap();
        client.batch_execute("update products set name = 'early' where id = 1")
    });
    eventually("replicas show it", || name(&mut connection, 1) == "early");
    // Now only the primary can be read from, and has something else.
    stand.kill(1);
    stand.kill(2);
    eventually("both are out of reach", || stand.told(0).matches("can't be reached").count() == 2);
    for _ in 0..10 {
        // Whatever the answer is at the moment, it must not stay.
        name(&mut connection, 1);
        wait(Duration::from_millis(20));
    }
    stand.nodes[0].set("synchronous_standby_names", "");
    writer.join().unwrap().unwrap();
    let start = Instant::now();
    eventually("it is shown for good", || name(&mut connection, 1) == "early");
    assert!(start.elapsed() < Duration::from_secs(5), "before anything grows too old");
}

/// The same while a replica goes on being followed, and has shown it: the primary's older state must not be kept for the present one.
#[test]
fn what_a_replica_has_shown_is_not_overwritten_by_the_primary_that_does_not_show_it_yet() {
    let stand = Stand::start(1, any_age);
    let server = &stand.boxes[0];
    let mut connection = server.connect();
    name(&mut connection, 1);
    stand.synchronous(0, "first 1 (nobody)");
    let url = super::stand::url(stand.nodes[0].port);
    let writer = std::thread::spawn(move || {
        let client = may_postgres::connect(&url.parse().unwrap()).unwrap();
        client.batch_execute("update products set name = 'early' where id = 1")
    });
    eventually("a replica shows it", || {
        let rows = stand.nodes[1].admin().query_text("select name from products where id = 1", &[]);
        rows.is_ok_and(|rows| rows[0].get::<String>(0) == "early")
    });
    eventually("so does the box", || name(&mut connection, 1) == "early");
    stand.pause();
    // WAL beyond both replicas, and somebody who must have seen it: what is read now is read from the primary.
    stand.nodes[0]
        .admin()
        .batch_execute("set synchronous_commit = off; create table beyond (n int)")
        .unwrap();
    let before = server.metric("catwalk_db_primary_reads_total");
    connection.request("GET", "/cart", &[("Authorization", "me")]);
    purge(server, 1);
    name(&mut connection, 1);
    assert!(server.metric("catwalk_db_primary_reads_total") > before + 1);
    stand.nodes[0].set("synchronous_standby_names", "");
    writer.join().unwrap().unwrap();
    let start = Instant::now();
    eventually("it is shown for good", || name(&mut connection, 1) == "early");
    assert!(start.elapsed() < Duration::from_secs(20), "before a replica's lag grows too long to be known");
    stand.resume();
}

fn purge(server: &Server, id: i64) {
    let body = format!(r#"{{"product_id": {id}}}"#);
    send_with(&mut server.connect(), "POST", "/admin/purge", &bearer(), &body);
}

#[test]
fn a_cache_is_not_trusted_longer_than_the_bound_when_replicas_stand_still() {
    let stand = Stand::start(1, any_lag);
    let mut connection = stand.boxes[0].connect();
    name(&mut connection, 1);
    stand.pause();
    rename_at_the_database(&stand, 1, "unseen by replicas");
    wait(Duration::from_millis(300));
    assert_eq!(name(&mut connection, 1), "unseen by replicas");
    stand.resume();
}

#[test]
fn a_client_reads_on_one_box_what_it_has_written_on_another() {
    let stand = Stand::start(2, any_age);
    let (here, there) = (&stand.boxes[0], &stand.boxes[1]);
    let mut connection = there.connect();
    for path in ["/products/1", "/products?count=5", "/products?ids=1"] {
        connection.get(path);
    }
    stand.pause();
    let written = rename(here, 1, "written elsewhere");
    let token = written.header("catwalk-seen").unwrap().to_string();
    let cookie = written.header("set-cookie").unwrap().split(';').next().unwrap().to_string();
    assert_eq!(cookie, format!("catwalk_seen={token}"));
    // Others may have what they had: nothing tells this box of the change.
    assert_ne!(name(&mut connection, 1), "written elsewhere");
    let forged = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    let reply = connection.request("GET", "/products/1", &[("Catwalk-Seen", &forged)]);
    assert_ne!(reply.json()["name"], "written elsewhere", "a forged token counts for nothing");
    for field in [("Catwalk-Seen", token.as_str()), ("Cookie", &format!("a=b; {cookie}"))] {
        for (path, at) in
            [("/products/1", "/name"), ("/products?count=5", "/0/name"), ("/products?ids=1", "/0/name")]
        {
            let reply = connection.request("GET", path, &[field]);
            assert_eq!(reply.json().pointer(at).unwrap(), "written elsewhere", "{path} with {field:?}");
        }
    }
    assert!(there.metric("catwalk_tokens_unseen_total") > 0);
    stand.resume();
}

#[test]
fn a_cart_is_whole_on_every_box() {
    let stand = Stand::start(2, any_age);
    stand.pause();
    let sku = stand.nodes[0].admin().query_text("select min(id) from skus", &[]).unwrap()[0].get::<i64>(0);
    let body = format!(r#"{{"sku_id": {sku}}}"#);
    for n in 1..=4 {
        let mut connection = stand.boxes[n % 2].connect();
        let head = format!(
            "POST /cart HTTP/1.1\r\nHost: a\r\nAuthorization: me\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send((head + &body).as_bytes());
        assert_eq!(connection.receive(false).status, 201);
        for server in &stand.boxes {
            let items = server.connect().request("GET", "/cart", &[("Authorization", "me")]).json();
            assert_eq!(items[0]["count"], n.to_string(), "{items}");
        }
    }
    stand.resume();
}

/// Connections are what the server has for them, shared among boxes and workers.
#[test]
fn a_small_server_is_not_asked_for_more_connections_than_it_has() {
    use crate::support::Cluster;
    let options = ["max_connections=24".to_string()];
    let hba = "host all root 127.0.0.1/32 trust";
    let cluster = Cluster::start("select 1", hba, &options);
    let url = super::stand::url(cluster.port);
    for args in [&["migrate"][..], &["seed", "--products", "50"]] {
        let mut command = Command::new(crate::support::server::BIN);
        assert!(command.args(args).args(["--database-url", &url]).output().unwrap().status.success());
    }
    let mut command = Command::new(crate::support::server::BIN);
    command.args(["serve", "--database-url", &url]).env("CATWALK_LISTEN", "127.0.0.1:0");
    command.env("CATWALK_WORKERS", "3").env("CATWALK_CACHE_SIZE", "0");
    let server = Server::launch(command, cluster.path());
    eventually("it is ready", || server.get("/readyz").status == 200);
    wait(Duration::from_millis(600));
    let count = "select count(*) from pg_stat_activity where application_name = 'catwalk'";
    let connections = cluster.admin().query_text(count, &[]).unwrap()[0].get::<i64>(0);
    // One for reads by ids, one for lists, two for writes, each of three workers.
    assert_eq!(connections, 12);
    for id in 1..=50 {
        assert_eq!(server.get(&format!("/products/{id}")).status, 200);
    }
}

/// What waits for a lock on one table holds up its own lane and no other; who waits too long is told when to come back.
#[test]
fn lists_do_not_hold_up_what_is_asked_for_by_id() {
    let server = Server::start(&["--cache-size", "0", "--workers", "1"]);
    let holder = server.database();
    let held = holder.transaction().unwrap();
    holder.batch_execute("lock table reviews in access exclusive mode").unwrap();
    let mut waiting: Vec<_> = (1..=12).map(|_| server.connect()).collect();
    for (n, connection) in waiting.iter_mut().enumerate() {
        connection.send(
            format!("GET /reviews?product_id={}&count=7{n} HTTP/1.1\r\nHost: a\r\n\r\n", n + 1).as_bytes(),
        );
    }
    eventually("they wait", || server.metric("catwalk_db_lane_waiting") > 0);
    let start = Instant::now();
    for id in 1..=50 {
        assert_eq!(server.get(&format!("/products/{id}")).status, 200);
    }
    println!("50 products beside blocked lists: {:?}", start.elapsed());
    let answers: Vec<Reply> = waiting.iter_mut().map(|connection| connection.receive(false)).collect();
    let refused: Vec<&Reply> = answers.iter().filter(|reply| reply.status == 503).collect();
    assert!(!refused.is_empty() && refused.iter().all(|reply| reply.header("retry-after").is_some()));
    assert!(server.metric("catwalk_db_lane_refused_total") > 0);
    assert_eq!(server.metric("catwalk_db_lane_waiting"), 0);
    drop(held);
    eventually("lists are read again", || server.get("/reviews?product_id=1").status == 200);
}
