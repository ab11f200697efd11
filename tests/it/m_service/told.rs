//! What the service tells: its log, its access log, its metrics, what is wrong with the machine, what it should sustain.

use std::process::{Command, Output};

use serde_json::Value;

use super::manager::Manager;
use crate::support::server::BIN;
use crate::support::{eventually, Connection};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn requests_are_noted_where_and_as_often_as_is_asked() {
    let manager = Manager::new(0);
    let path = manager.dir.path().join("access.log");
    manager.configure(&format!("access_log = {path:?}\naccess_log_one_in = 5"));
    manager.start();
    let mut connection = Connection::open(&manager.address());
    for _ in 0..100 {
        let fields =
            [("X-Request-Id", "mine"), ("Authorization", "Bearer s3cret"), ("Cookie", "s_id=s3cret")];
        assert_eq!(connection.request("GET", "/products/3?q=s3cret", &fields).status, 200);
    }
    eventually("one in five is there", || lines(&path).len() == 20);
    let line = &lines(&path)[7];
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/products/3".into(), &200.into())
    );
    assert_eq!(
        (&line["client"], &line["request_id"], &line["cache"]),
        (&"127.0.0.1".into(), &"mine".into(), &"hit".into())
    );
    assert!(line["duration_us"].is_u64() && line["time"].as_str().unwrap().ends_with('Z'));
    assert!(!std::fs::read_to_string(&path).unwrap().contains("s3cret"));
    // Nobody is noted any more after a reload that says so.
    manager.configure("");
    manager.have("reload");
    let noted = lines(&path).len();
    (0..20).for_each(|_| assert_eq!(Connection::open(&manager.address()).get("/products/3").status, 200));
    assert!(lines(&path).len() <= noted + 1);
}

#[test]
fn no_line_of_the_log_has_a_secret() {
    let manager = Manager::new(0);
    let token = manager.dir.path().join("token");
    std::fs::write(&token, "s3cret-of-administration").unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(&token, mode).unwrap();
    let url = manager.database.database_url();
    let settings = |database: &str| {
        let text = format!(
            "log = \"trace\"\nlog_format = \"json\"\naccess_log = \"log\"\nworkers = 2\n[http]\ntoken = \"s3cret-of-shoppers\"\n\
             admin_token_file = {token:?}\n[database]\nurl = {database:?}\n"
        );
        std::fs::write(manager.config(), text).unwrap();
    };
    settings(&format!("{url}&password=s3cret-of-the-database"));
    manager.start();
    let fields = [("Authorization", "Bearer s3cret-of-shoppers"), ("Cookie", "s_id=s3cret-of-a-session")];
    for path in ["/products/1", "/reviews?product_id=1", "/cart", "/nowhere?token=s3cret-in-a-query"] {
        Connection::open(&manager.address()).request("GET", path, &fields);
    }
    let admin = [("Authorization", "Bearer s3cret-of-administration")];
    assert_eq!(Connection::open(&manager.address()).request("GET", "/admin/products/1", &admin).status, 200);
    Connection::open(&manager.address()).request(
        "GET",
        "/admin/products/1",
        &[("Authorization", "Bearer s3cret-wrong")],
    );
    manager.have("reload");
    settings("postgresql://ann:s3cret-of-the-database@127.0.0.1:1/x");
    assert!(manager.ask("upgrade").status.success() || !manager.log().is_empty());
    eventually("there is something to look at", || manager.log().lines().count() > 50);
    let log = manager.log();
    let leak = log.lines().find(|line| line.contains("s3cret"));
    assert_eq!(leak, None);
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "each line is an object");
    assert!(log.contains("\"path\"") || log.contains("GET /products/1"), "requests are in it");
}

#[test]
fn every_answer_is_in_one_bucket_of_its_routes_histogram() {
    let manager = Manager::new(0);
    manager.start();
    let mut connection = Connection::open(&manager.address());
    for (path, route, times) in
        [("/products/1", "product", 70), ("/products/1/styles", "styles", 30), ("/nowhere", "other", 20)]
    {
        (0..times).for_each(|_| drop(connection.get(path)));
        let count = |suffix: &str| manager.metric(&format!("catwalk_http_request_duration_seconds_{suffix}"));
        assert_eq!(count(&format!("count{{route=\"{route}\"}}")), times);
        assert_eq!(count(&format!("bucket{{route=\"{route}\",le=\"+Inf\"}}")), times);
        assert!(count(&format!("bucket{{route=\"{route}\",le=\"8.388608\"}}")) <= times);
    }
    let requests = manager.metric("catwalk_http_requests_total");
    assert_eq!(requests, 120, "a worker's own first request is not among them, nor is who looks");
    manager.have("reload");
    manager.have("upgrade");
    eventually("nothing is lost with the workers, nor counted twice", || {
        manager.metric("catwalk_http_requests_total") == 120
    });
    // Levels are of those that live.
    drop(connection);
    eventually("nobody is connected", || manager.metric("catwalk_http_connections_open") == 0);
    assert_eq!(Connection::open(&manager.address()).get("/metrics").status, 404, "not for the public");
}

fn doctor(manager: &Manager) -> (Output, Vec<Value>) {
    let out = Command::new(BIN)
        .args(["doctor", "--json", "--config"])
        .arg(manager.config())
        .env("CATWALK_RUNTIME_DIR", manager.dir.path().join("run"))
        .output()
        .unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    });
    (out, findings)
}

#[test]
fn a_doctor_finds_what_is_wrong_and_how_to_mend_it() {
    let manager = Manager::new(0);
    manager.start();
    let database = manager.database.database();
    let found = |subject: &str, level: &str| {
        let (out, findings) = doctor(&manager);
        let is_it = |finding: &&Value| finding["subject"] == subject && finding["level"] == level;
        let finding =
            findings.iter().find(is_it).unwrap_or_else(|| panic!("{subject} {level}: {findings:?}"));
        (out.status.code(), finding["fix"].as_str().unwrap().to_string())
    };
    found("workers", "ok");
    found("indexes", "ok");
    found("triggers", "ok");
    database.batch_execute("drop index reviews_newest").unwrap();
    let (status, fix) = found("indexes", "fail");
    assert_eq!(status, Some(2));
    // The fix is to be typed as it stands.
    fix.split_terminator(";").for_each(|statement| database.batch_execute(statement).unwrap());
    found("indexes", "ok");
    database.batch_execute("alter table products disable trigger all").unwrap();
    found("triggers", "fail");
    database.batch_execute("alter table products enable trigger all").unwrap();
    let idle = manager.database.database();
    idle.batch_execute("create table big as select generate_series(1, 100000) n").unwrap();
    let (_, fix) = found("statistics", "warn");
    assert!(fix.contains("big"), "{fix}");
    database.batch_execute("delete from catwalk_migrations where name >= '0015'").unwrap();
    let (_, fix) = found("schema", "fail");
    assert_eq!(fix, "catwalk migrate");
}

#[test]
fn a_capacity_is_what_a_core_does_times_what_the_instance_has() {
    let manager = Manager::new(0);
    let out = Command::new(BIN)
        .args(["capacity", "--json", "--seconds", "1", "--instance", "t3.medium", "--config"])
        .arg(manager.config())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let capacity: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&capacity["cores"], &capacity["sustained_cores"]), (&2.0.into(), &0.4.into()));
    for cost in capacity["costs"].as_array().unwrap() {
        let number = |name: &str| cost[name].as_f64().unwrap();
        assert!(number("cpu_us") > 0.0 && number("response_size_bytes") > 100.0, "{cost}");
        assert!((number("burst_per_s") * number("cpu_us") / 2e6 - 1.0).abs() < 0.001, "{cost}");
        assert!((number("sustained_per_s") / number("burst_per_s") - 0.2).abs() < 0.001, "{cost}");
    }
    let out = Command::new(BIN).args(["capacity", "--instance", "t3.giant"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("t3.giant is not known"));
}

/// The parts of Server-Timing, in ms.
fn timing(reply: &crate::support::Reply) -> Vec<(String, f64)> {
    let line = reply.header("server-timing").expect("every answer has it");
    let parts = line.split(", ").map(|part| part.split_once(";dur=").expect("a name and a time"));
    parts.map(|(name, ms)| (name.to_string(), ms.parse().expect("a number"))).collect()
}

#[test]
fn every_answer_says_what_took_how_long() {
    let manager = Manager::new(0);
    manager.start();
    let mut connection = Connection::open(&manager.address());
    let names = |parts: &[(String, f64)]| parts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let miss = timing(&connection.get("/products/5"));
    assert_eq!(names(&miss), ["cache", "db", "total"]);
    let [cache, db, total] = [0, 1, 2].map(|n| miss[n].1);
    assert!(db > 0.0 && (cache + db - total).abs() < 0.01, "{miss:?}");
    eventually("a hit waits for nothing", || timing(&connection.get("/products/5"))[1].1 == 0.0);
    // A list that is sent in pieces waits for them after its head is written; that is none of the next request's.
    assert_eq!(connection.get("/products?count=290").json().as_array().unwrap().len(), 290);
    let next = timing(&connection.get("/products/6"));
    assert!(next[0].1 > 0.0 && next[1].1 > 0.0, "{next:?}");
    for path in ["/nowhere", "/products?ids=1,2", "/shop/"] {
        assert_eq!(timing(&connection.get(path)).len(), 3, "{path}");
    }
    connection.send(b"POST /interactions HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 39\r\n\r\n\
                      {\"element\":\"a\",\"widget\":\"b\",\"time\":\"c\"}");
    let posted = connection.receive(false);
    assert!(posted.status == 201 && timing(&posted)[1].1 > 0.0, "{}", posted.text());
    // How long a client takes to send what it sends is its own doing.
    connection.send(b"POST /interactions HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 39\r\n\r\n{");
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    connection.send(b"\"element\":\"a\",\"widget\":\"b\",\"time\":\"c\"}");
    let posted = connection.receive(false);
    assert!(posted.status == 201 && timing(&posted)[2].1 < 1_000.0, "{:?}", timing(&posted));
    assert_eq!(manager.metric("catwalk_db_statement_seconds_count{statement=\"products_fetch\"}"), 2);
    assert_eq!(manager.metric("catwalk_db_statement_seconds_count{statement=\"interactions_add\"}"), 2);
}

#[test]
fn a_slow_request_is_told_of_with_its_statement_and_backend() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let manager = Manager::new(0);
    manager.configure("slow_log = \"150ms\"\nlog_format = \"json\"");
    manager.start();
    let holder = manager.database.database();
    let transaction = holder.transaction().unwrap();
    transaction.client().batch_execute("lock table products in access exclusive mode").unwrap();
    let address = manager.address();
    let slow = std::thread::spawn(move || {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let fields = [("X-Request-Id", "the-slow-one"), ("traceparent", parent.as_str())];
        Connection::open(&address).request("GET", "/products/9", &fields)
    });
    manager.database.wait_for_lock_waiter();
    std::thread::sleep(std::time::Duration::from_millis(200));
    transaction.rollback().unwrap();
    let reply = slow.join().unwrap();
    assert_eq!(reply.status, 200);
    assert!(timing(&reply)[1].1 > 150.0);
    let log = manager.dir.path().join("log");
    let told = || lines(&log).into_iter().find(|line| line["request_id"] == "the-slow-one");
    eventually("the log has it", || told().is_some());
    let line = told().unwrap();
    assert_eq!((&line["statement"], &line["route"]), (&"products_fetch".into(), &"product".into()), "{line}");
    assert_eq!(line["trace_id"], TRACE);
    assert!(line["statement_ms"].as_u64() >= Some(150) && line["waited_ms"].as_u64() >= Some(150), "{line}");
    let rows = holder
        .query_text(
            "select count(*) from pg_stat_activity where pid = $1::int4",
            &[&(line["backend"].as_u64().unwrap() as i32)],
        )
        .unwrap();
    assert_eq!(rows[0].get::<i64>(0), 1, "{line}");
    // What was fast is not told of, and who was told of is found by the statement's name in the database.
    assert_eq!(lines(&log).iter().filter(|line| line.get("statement").is_some()).count(), 1);
    let rows = holder
        .query_text("select count(*) from pg_stat_activity where query like '/* products_fetch */%'", &[])
        .unwrap();
    assert!(rows[0].get::<i64>(0) >= 1);
}
