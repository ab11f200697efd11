//! /qa/questions/:id/answers?page&count: whole bodies, computed here by PostgreSQL from the tables.

use may_postgres::Client;

use crate::routes::reviews::{photos, TIME};
use crate::support::Server;

fn expected(db: &Client, base: &str, question: i64, page: i64, count: i64) -> String {
    let sql = format!(
        "select coalesce(array_to_json(array_agg(x)), '[]')::text from (
            select id as answer_id, body, to_char(date_written, {TIME}) as date, answerer_name, helpful as helpfulness, {} as photos
            from answers a where question_id = {question} and not reported
            order by helpful desc, id limit {count} offset {}) x",
        photos("answers_photos", "answer_id = a.id", base),
        (page - 1) * count
    );
    let results: String = db.query_text(&sql, &[]).unwrap()[0].get(0);
    format!(r#"{{"question":"{question}","page":{page},"count":{count},"results":{results}}}"#)
}

#[test]
fn pages_of_answers_are_what_the_tables_say() {
    let server = Server::start(&["--products", "60"]);
    let db = server.database();
    db.batch_execute("set timezone = 'UTC'").unwrap();
    let base = format!("http://{}", server.address);
    let mut connection = server.connect();
    for question in (1..=100).chain([777_777]) {
        for (page, count) in [(1, 5), (2, 2), (1, 200)] {
            let path = format!("/qa/questions/{question}/answers?page={page}&count={count}");
            let wanted = expected(&db, &base, question, page, count);
            for _ in 0..2 {
                assert_eq!(connection.get(&path).text(), wanted, "{path}");
            }
        }
    }
    assert_eq!(server.get("/qa/3/answers").text(), expected(&db, &base, 3, 1, 5));
    let reply = server.get("/qa/questions/x/answers");
    assert_eq!((reply.status, reply.text().as_str()), (404, "Error: invalid question id provided"));
}
