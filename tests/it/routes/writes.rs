//! What all writes have in common: who may, how often, and once.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use crate::routes::{send, send_with};
use crate::support::server::{directory, BIN};
use crate::support::{eventually, Connection, Server};

const QUESTION: &str = r#"{"body": "Once?", "name": "bo", "email": "b@example.com", "product_id": 7}"#;
const TOKEN: &str = "0123456789abcdef0123";

fn questions(server: &Server) -> i64 {
    server.database().query_text("select count(*) from questions where body = 'Once?'", &[]).unwrap()[0]
        .get(0)
}

fn ask(connection: &mut Connection, key: &str, body: &str) -> crate::support::Reply {
    send_with(connection, "POST", "/qa/questions", &format!("Idempotency-Key: {key}\r\n"), body)
}

/// `catwalk serve` on the database of `server`.
fn serve(server: &Server, settings: &[(&str, &str)]) -> Server {
    let dir = directory();
    let mut command = Command::new(BIN);
    command.args(["serve", "--database-url", &server.database_url()]);
    command
        .env("CATWALK_LISTEN", "127.0.0.1:0")
        .env("CATWALK_CACHE_SIZE", "8MiB")
        .envs(settings.iter().copied());
    let path = dir.path().to_path_buf();
    Server::launch(command, &path).keep(dir)
}

#[test]
fn a_key_is_answered_once_and_the_same_again() {
    let server = Server::start(&["--products", "20", "--workers", "2"]);
    for key in ["one", "two"] {
        let before = questions(&server);
        for n in 0..6 {
            let reply = ask(&mut server.connect(), key, QUESTION);
            assert_eq!((reply.status, reply.text().as_str()), (201, "Created"));
            assert_eq!(reply.header("idempotent-replayed").is_some(), n > 0);
        }
        assert_eq!(questions(&server), before + 1);
    }
    let reply = ask(&mut server.connect(), "one", &QUESTION.replace("bo", "cleo"));
    assert_eq!((reply.status, &reply.json()["code"]), (422, &"idempotency-key-reused".into()));
    // What was refused was not done: it may be asked for again, mended.
    let reply = ask(&mut server.connect(), "three", "{}");
    assert_eq!(reply.status, 422);
    assert_eq!(ask(&mut server.connect(), "three", QUESTION).status, 201);
    assert_eq!(ask(&mut server.connect(), &"k".repeat(256), QUESTION).status, 400);
    // The answer that hands a session out hands it out again.
    let line = "Idempotency-Key: cart\r\n";
    let add = || send_with(&mut server.connect(), "POST", "/cart", line, r#"{"sku_id": 3}"#);
    let (first, again) = (add(), add());
    assert_eq!(first.header("set-cookie").unwrap(), again.header("set-cookie").unwrap());
}

#[test]
fn a_key_in_flight_is_told_of_by_every_worker() {
    let server = Server::start(&["--products", "20", "--workers", "2"]);
    let db = server.database();
    let lock = db.transaction().unwrap();
    db.batch_execute("lock table questions in share row exclusive mode").unwrap();
    let mut first = server.connect();
    let head = format!(
        "POST /qa/questions HTTP/1.1\r\nHost: a\r\nIdempotency-Key: slow\r\nContent-Length: {}\r\n\r\n",
        QUESTION.len()
    );
    first.send((head + QUESTION).as_bytes());
    server.wait_for_lock_waiter();
    let mut connections: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        let reply = ask(connection, "slow", QUESTION);
        assert_eq!((reply.status, &reply.json()["code"]), (409, &"idempotency-key-in-flight".into()));
    }
    lock.rollback().unwrap();
    assert_eq!(first.receive(false).status, 201);
    assert_eq!(ask(&mut connections[0], "slow", QUESTION).header("idempotent-replayed"), Some("true"));
    assert_eq!(questions(&server), 1);
}

#[test]
fn an_address_writes_so_often_whatever_worker_it_meets() {
    let database = Server::start(&["--products", "20"]);
    let server = serve(
        &database,
        &[
            ("CATWALK_WORKERS", "2"),
            ("CATWALK_HTTP_WRITE_RATE", "1"),
            ("CATWALK_HTTP_WRITE_BURST", "10"),
            ("CATWALK_HTTP_TRUSTED_PROXIES", "127.0.0.0/8"),
        ],
    );
    let start = Instant::now();
    let from = |address: &str| {
        let line = format!("X-Forwarded-For: {address}\r\n");
        send_with(&mut server.connect(), "PUT", "/reviews/3/helpful", &line, "")
    };
    let replies: Vec<_> = (0..30).map(|_| from("192.0.2.1")).collect();
    let admitted = replies.iter().filter(|reply| reply.status == 204).count();
    // One more for each second that this took.
    let limit = 10 + start.elapsed().as_secs() as usize;
    assert!((10..=limit + 1).contains(&admitted), "{admitted} of 30 were admitted, the limit is {limit}");
    let refused = replies.iter().find(|reply| reply.status != 204).unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (429, &"too-many-writes".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(from("192.0.2.2").status, 204, "others are not held back");
    assert_eq!(server.get("/products/1").status, 200, "reads are not counted");
    // In development nobody is held back.
    assert!((0..150).all(|_| send(&mut database.connect(), "PUT", "/reviews/3/helpful", "").status == 204));
}

#[test]
fn administration_and_images_need_a_token_that_only_its_owner_can_read() {
    let database = Server::start(&["--products", "20"]);
    let writes =
        [("POST", "/admin/purge", r#"{"everything": true}"#), ("POST", "/api/images", r#"{"shoe_id": 1}"#)];
    let without = serve(&database, &[]);
    for (method, path, body) in writes {
        let reply = send(&mut without.connect(), method, path, body);
        assert_eq!((reply.status, &reply.json()["code"]), (403, &"no-token-configured".into()), "{path}");
        assert!(reply.text().contains("http.admin_token_file"), "{}", reply.text());
    }
    let dir = directory();
    let file = dir.path().join("admin-token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let with_mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    with_mode(0o640);
    let refused = Command::new(BIN)
        .args(["serve", "--database-url", &database.database_url()])
        .env("CATWALK_HTTP_ADMIN_TOKEN_FILE", &file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("chmod 600"), "{text}");
    with_mode(0o400);
    let path = dir.path().to_str().unwrap().to_string();
    for setting in
        [("CATWALK_HTTP_ADMIN_TOKEN_FILE", file.to_str().unwrap()), ("CREDENTIALS_DIRECTORY", path.as_str())]
    {
        let server = serve(&database, &[setting]);
        for (method, path, body) in writes {
            let with = |line: &str| send_with(&mut server.connect(), method, path, line, body);
            let reply = with("");
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            assert_eq!(with(&format!("Authorization: Bearer {TOKEN}x\r\n")).status, 401);
            assert!(with(&format!("Authorization: Bearer {TOKEN}\r\n")).status < 300, "{path}");
        }
        // Shoppers need none, and nobody who has no session sees a cart, not even what a development server left there.
        let left = "insert into cart_items (session, sku_id, count) values ('', 3, 1) on conflict do nothing";
        database.database().batch_execute(left).unwrap();
        assert_eq!(send(&mut server.connect(), "PUT", "/reviews/3/helpful", "").status, 204);
        assert_eq!(send(&mut server.connect(), "POST", "/cart", r#"{"sku_id": 3}"#).status, 201);
        assert_eq!(server.get("/cart").text(), "[]");
    }
}

#[test]
fn what_is_too_old_is_trimmed() {
    let server = Server::start(&["--products", "20"]);
    let db = server.database();
    db.batch_execute(
        "insert into idempotency_keys select sha256(g::text::bytea), '', 201, '', '', now() - g * interval '1 minute' from generate_series(1, 4320) g;
         insert into interactions (element, widget, time, at) select 'a', 'b', 'c', now() - g * interval '1 day' from generate_series(1, 100) g;
         insert into cart_items select sha256(g::text::bytea), 1, 1, now() - g * interval '1 day' from generate_series(1, 100) g;
         insert into cart_items select '', g, 1, now() - g * interval '1 second' from generate_series(1, 100) g",
    )
    .unwrap();
    let left = || -> Vec<i64> {
        let sql = "select (select count(*) from idempotency_keys), (select count(*) from interactions),
            (select count(*) from cart_items where session <> ''), (select count(*) from cart_items where session = '')";
        let rows = db.query_text(sql, &[]).unwrap();
        (0..4).map(|n| rows[0].get(n)).collect()
    };
    eventually("what is too old is gone", || {
        left().iter().zip([1440, 90, 30, 50]).all(|(left, kept)| *left <= kept)
    });
    assert!(left().iter().zip([1430, 89, 29, 50]).all(|(left, kept)| *left >= kept), "{:?}", left());
}
