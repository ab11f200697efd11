//! /reviews?product_id&page&count&sort: whole bodies, computed here by PostgreSQL from the tables.

use may_postgres::Client;

use super::{photos, TIME};
use crate::support::Server;

const ADD: &str = "insert into reviews
    (product_id, rating, date, summary, body, recommend, reported, reviewer_name, reviewer_email, response, helpfulness)";

/// The order that `sort` means, over reviews with `is_recent`.
fn order(sort: &str) -> &'static str {
    match sort {
        "newest" => "date desc, id desc",
        "helpful" => "helpfulness desc, date desc, id desc",
        _ => "is_recent desc, helpfulness desc, date desc, id desc",
    }
}

fn expected(db: &Client, base: &str, product: i64, sort: &str, page: i64, count: i64) -> String {
    let sql = format!(
        "with shown as (select r.*, row_number() over (order by date desc, id desc) as n, max(date) over () as newest
                        from reviews r where product_id = {product} and not reported),
              ranked as (select s.*, n <= 1000 and date >= newest - interval '90 days' as is_recent from shown s)
         select coalesce(array_to_json(array_agg(x)), '[]')::text from (
             select id as review_id, rating, summary, recommend, response, body,
                    to_char(date_trunc('milliseconds', date), {TIME}) as date, reviewer_name, helpfulness, {} as photos
             from ranked r order by {} limit {count} offset {}) x",
        photos("reviews_photos", "review_id = r.id", base),
        order(sort),
        (page - 1) * count,
    );
    let results: String = db.query_text(&sql, &[]).unwrap()[0].get(0);
    format!(r#"{{"product":"{product}","page":{},"count":{count},"results":{results}}}"#, (page - 1) * count)
}

/// Product 1 has a recent block of more than a thousand, product 2 none but hidden ones, product 3 none at all.
fn server() -> Server {
    let server = Server::start(&["--products", "60", "--cache-size", "8MiB"]);
    let fill = format!(
        "set timezone = 'UTC'; delete from reviews where product_id in (1, 2, 3);
         {ADD} select 1, 1 + g % 5, '2021-06-01'::timestamptz - g * interval '2 hours', 's' || g, 'b', g % 2 = 0, g % 50 = 0,
               'n', 'e', null, (g * 7919) % 23 from generate_series(1, 1500) g;
         {ADD} select 2, 3, now(), 's', 'b', true, true, 'n', 'e', null, 1 from generate_series(1, 3) g;
         insert into reviews_photos (review_id, url)
             select id, 'uhttps://x/' || id from reviews where product_id = 1 and id % 3 = 0"
    );
    server.database().batch_execute(&fill).unwrap();
    server
}

#[test]
fn every_page_of_every_order_is_what_the_tables_say() {
    let server = server();
    let db = server.database();
    db.batch_execute("set timezone = 'UTC'").unwrap();
    let base = format!("http://{}", server.address);
    let mut connection = server.connect();
    for product in (1..=60).chain([-1, 61, i64::MAX]) {
        for sort in ["relevant", "newest", "helpful"] {
            let pages: &[(i64, i64)] = match product {
                1 => {
                    &[(1, 5), (2, 5), (1, 100), (10, 100), (11, 100), (14, 100), (3, 499), (1, 2000), (1, 0)]
                }
                _ => &[(1, 5), (2, 3)],
            };
            for (page, count) in pages {
                let path = format!("/reviews?product_id={product}&sort={sort}&page={page}&count={count}");
                let wanted = expected(&db, &base, product, sort, *page, *count);
                // The second time from the cache.
                for _ in 0..2 {
                    let reply = connection.get(&path);
                    assert_eq!((reply.status, reply.text()), (200, wanted.clone()), "{path}");
                }
            }
        }
    }
}

/// A client's own cursor is echoed in both links.
#[test]
fn the_longest_links_there_can_be() {
    let server = server();
    let db = server.database();
    db.batch_execute("update reviews set helpfulness = 9000000000000000000 - id where product_id = 1")
        .unwrap();
    let last = "9223371331199999999.9223372036854775807.-210866803200000000.-9223372036854775808";
    let cursor = format!("a.0.9223372036854775807.{last}");
    let path = format!("/reviews?product_id=1&count=1&cursor={cursor}");
    let reply = server.get(&path);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("link").unwrap().len() > 255);
}

#[test]
fn parameters_as_old_clients_send_them() {
    let server = Server::shared();
    let get = |query: &str| server.get(&format!("/reviews{query}"));
    for query in
        ["", "?product_id=", "?product_id=hello", "?product_id=null", "?product_id=5.55", "?product_id=%00"]
    {
        let reply = get(query);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (422, "Error: invalid product_id provided"),
            "{query}"
        );
    }
    let problem =
        server.connect().request("GET", "/reviews", &[("Accept", "text/html, application/problem+json;q=1")]);
    assert_eq!(
        (problem.header("content-type"), &problem.json()["code"]),
        (Some("application/problem+json"), &"bad-product-id".into())
    );
    // An unknown word is the default order, and what was sent is echoed.
    assert_eq!(get("?product_id=7&sort=best").text(), get("?product_id=7").text());
    assert_eq!(get("?product_id=007").json()["product"], "007");
    assert_eq!(
        get("?product_id=99999999999999999999").text(),
        r#"{"product":"99999999999999999999","page":0,"count":5,"results":[]}"#
    );
    assert_eq!(get("?product_id=7&count=9007199254740991").json()["count"], 9_007_199_254_740_991i64);
    assert_eq!(get("?product_id=7&page=3&count=4").json()["page"], 8);
    for query in ["page=0", "count=-1", "count=many", "cursor=x", "cursor=a.1"] {
        assert_eq!(get(&format!("?product_id=7&{query}")).status, 400, "{query}");
    }
    for alias in [
        "/reviews/7/list?count=3",
        "/api/fec2/hr-rfp/reviews/?product_id=7&count=3",
        "/api/reviews?count=3&product_id=7",
    ] {
        assert_eq!(server.get(alias).text(), get("?product_id=7&count=3").text(), "{alias}");
    }
}
