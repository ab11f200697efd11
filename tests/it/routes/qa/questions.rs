//! /qa/questions?product_id&page&count: whole bodies, computed here by PostgreSQL from the tables.

use may_postgres::Client;

use crate::routes::reviews::TIME;
use crate::support::Server;

fn expected(db: &Client, base: &str, product: i64, page: i64, count: i64) -> String {
    let sql = format!(
        "select coalesce(array_to_json(array_agg(x)), '[]')::text from (
            select id as question_id, body as question_body, to_char(date_written, {TIME}) as question_date, asker_name,
                   helpful as question_helpfulness, false as reported,
                   (select ('{{' || coalesce(string_agg(to_json(a.id::text)::text || ':' || row_to_json(a)::text, ',' order by a.id), '') || '}}')::json
                    from (select id, body, to_char(date_written, {TIME}) as date, answerer_name, helpful as helpfulness,
                                 (select coalesce(array_to_json(array_agg(case when url like '/%' then '{base}' else '' end || url order by id)), '[]')
                                  from answers_photos where answer_id = w.id) as photos
                          from answers w where question_id = q.id and not reported) a) as answers
            from questions q where product_id = {product} and not reported
            order by helpful desc, id limit {count} offset {}) x",
        (page - 1) * count
    );
    let results: String = db.query_text(&sql, &[]).unwrap()[0].get(0);
    format!(r#"{{"product_id":"{product}","results":{results}}}"#)
}

#[test]
fn questions_with_all_their_answers_are_what_the_tables_say() {
    let server = Server::start(&["--products", "60"]);
    let db = server.database();
    let fill = "set timezone = 'UTC'; delete from questions where product_id = 1;
        insert into questions (id, product_id, body, asker_name, asker_email, reported, helpful)
            select 9000 + g, 1, 'q', 'n', 'e', g % 9 = 0, g % 4 from generate_series(1, 150) g;
        insert into answers (question_id, body, answerer_name, answerer_email, reported, helpful)
            select 9001 + g % 30, 'a', 'n', 'e', g % 7 = 0, g % 5 from generate_series(1, 200) g";
    db.batch_execute(fill).unwrap();
    let base = format!("http://{}", server.address);
    let mut connection = server.connect();
    for product in (1..=60).chain([61]) {
        let pages: &[(i64, i64)] =
            if product == 1 { &[(1, 5), (2, 50), (1, 100), (1, 500)] } else { &[(1, 5), (2, 2)] };
        for (page, count) in pages {
            let path = format!("/qa/questions?product_id={product}&page={page}&count={count}");
            let wanted = expected(&db, &base, product, *page, *count);
            for _ in 0..2 {
                assert_eq!(connection.get(&path).text(), wanted, "{path}");
            }
        }
    }
    assert_eq!(server.get("/qa/1?count=7").text(), expected(&db, &base, 1, 1, 7));
}

#[test]
fn a_question_needs_a_product() {
    for query in ["", "?product_id=x", "?product_id=1.5"] {
        let reply = Server::shared().get(&format!("/qa/questions{query}"));
        assert_eq!((reply.status, reply.text().as_str()), (422, "Error: invalid product_id provided"));
    }
}
