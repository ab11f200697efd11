//! PUT /reviews/:id/helpful and /reviews/:id/report, and the same of questions and answers.

use crate::routes::send;
use crate::support::{eventually, Server};

/// Table, its column of votes, path.
const VOTED: [(&str, &str, &str); 3] = [
    ("reviews", "helpfulness", "/reviews/"),
    ("questions", "helpful", "/qa/questions/"),
    ("answers", "helpful", "/qa/answers/"),
];

fn votes(server: &Server, table: &str, column: &str, id: i64) -> i64 {
    server.database().query_text(&format!("select {column} from {table} where id = {id}"), &[]).unwrap()[0]
        .get(0)
}

#[test]
fn a_thousand_concurrent_votes_add_a_thousand() {
    let server = Server::start(&["--products", "40", "--workers", "2"]);
    for (table, column, path) in VOTED {
        let before = votes(&server, table, column, 3);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut connection = server.connect();
                    for n in 0..50 {
                        // Others are voted on meanwhile: batches hold several rows.
                        assert_eq!(send(&mut connection, "PUT", &format!("{path}3/helpful"), "").status, 204);
                        let other = format!("{path}{}/helpful", 4 + n % 5);
                        assert_eq!(send(&mut connection, "PUT", &other, "").status, 204);
                    }
                });
            }
        });
        assert_eq!(votes(&server, table, column, 3) - before, 1000, "{table}");
    }
    let statements = server.metric("catwalk_db_statements_total");
    assert!(statements < 6000, "{statements} statements for 6000 votes");
}

#[test]
fn who_votes_sees_it_and_a_report_hides() {
    let server = Server::start(&["--products", "40", "--workers", "2"]);
    let db = server.database();
    let mut connection = server.connect();
    for (table, list, id_name) in [
        ("reviews", "/reviews?count=100&product_id=", "review_id"),
        ("questions", "/qa/questions?count=100&product_id=", "question_id"),
        ("answers", "/qa/questions/{}/answers?count=100", "answer_id"),
    ] {
        let owner = if table == "answers" { "question_id" } else { "product_id" };
        let row = &db
            .query_text(
                &format!("select id, {owner} from {table} where not reported order by id limit 1"),
                &[],
            )
            .unwrap()[0];
        let (id, owner): (i64, i64) = (row.get(0), row.get(1));
        let list = if list.contains("{}") {
            list.replace("{}", &owner.to_string())
        } else {
            format!("{list}{owner}")
        };
        let path = format!("{}{id}", VOTED.iter().find(|v| v.0 == table).unwrap().2);
        let mut shown = || -> Option<i64> {
            let json = connection.get(&list).json();
            let row = json["results"].as_array().unwrap().iter().find(|row| row[id_name] == id)?.clone();
            row["helpfulness"].as_i64().or(row["question_helpfulness"].as_i64())
        };
        let before = shown().unwrap();
        for n in 1..=5 {
            assert_eq!(send(&mut server.connect(), "PUT", &format!("{path}/helpful"), "").status, 204);
            assert_eq!(shown(), Some(before + n), "{table}");
        }
        // Twice is no error.
        for _ in 0..2 {
            assert_eq!(send(&mut server.connect(), "PUT", &format!("{path}/report"), "").status, 204);
            assert_eq!(shown(), None, "{table}");
        }
    }
}

#[test]
fn one_row_that_is_held_does_not_hold_up_others() {
    let server = Server::start(&["--products", "40", "--workers", "1"]);
    let db = server.database();
    let lock = db.transaction().unwrap();
    db.batch_execute("select from reviews where id = 3 for update").unwrap();
    let mut waiting = server.connect();
    waiting.send(b"PUT /reviews/3/helpful HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let mut connection = server.connect();
    let before = votes(&server, "reviews", "helpfulness", 4);
    for _ in 0..50 {
        assert_eq!(send(&mut connection, "PUT", "/reviews/4/helpful", "").status, 204);
    }
    assert_eq!(votes(&server, "reviews", "helpfulness", 4) - before, 50);
    let held = votes(&server, "reviews", "helpfulness", 3);
    lock.rollback().unwrap();
    assert_eq!(waiting.receive(false).status, 204);
    assert_eq!(votes(&server, "reviews", "helpfulness", 3), held + 1);
    // Who holds it for long gets the others refused, to be tried again; nothing is lost or done twice.
    let lock = db.transaction().unwrap();
    db.batch_execute("select from reviews where id = 3 for update").unwrap();
    let reply = send(&mut connection, "PUT", "/reviews/3/helpful", "");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    lock.rollback().unwrap();
    eventually("it is free again", || send(&mut connection, "PUT", "/reviews/3/helpful", "").status == 204);
    assert_eq!(votes(&server, "reviews", "helpfulness", 3), held + 2);
}

#[test]
fn what_does_not_exist_gets_no_vote() {
    let server = Server::shared();
    let mut connection = server.connect();
    let mut vote = |path: &str| send(&mut connection, "PUT", path, "").status;
    for (_, _, path) in VOTED {
        for verb in ["helpful", "report"] {
            assert_eq!(vote(&format!("{path}999999999/{verb}")), 404);
            assert_eq!(vote(&format!("{path}99999999999999999999/{verb}")), 404);
            assert_eq!(vote(&format!("{path}-1/{verb}")), 404);
            assert_eq!(vote(&format!("{path}x/{verb}")), 400);
        }
    }
    for alias in [
        "/reviews/helpful/2",
        "/qa/question/2/helpful",
        "/qa/answer/2/helpful",
        "/api/fec2/hr-rfp/reviews/2/helpful/",
    ] {
        assert_eq!(vote(alias), 204, "{alias}");
    }
    assert_eq!(server.get("/reviews/2/helpful").status, 405);
}
