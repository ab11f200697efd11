//! /products?category, ?q, ?ids

use serde_json::Value;

use crate::support::Server;

fn ids(server: &Server, query: &str) -> Vec<i64> {
    let reply = server.get(&format!("/products?{query}"));
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json().as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect()
}

#[test]
fn by_category_by_words_and_by_both() {
    let server = Server::start(&["--products", "300"]);
    let db = server.database();
    db.batch_execute("update products set name = 'Singular Zeppelin', category = 'Hats & more' where id in (7, 9); update products set category = 'Odd' where id = 9").unwrap();
    let from_sql = |sql: &str| -> Vec<i64> {
        db.query_text(&format!("select id from products where {sql} order by id"), &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(ids(&server, "category=Pants&count=300"), from_sql("category = 'Pants'"));
    assert_eq!(ids(&server, "category=Hats+%26+more"), [7]);
    assert_eq!(ids(&server, "q=zeppelins"), [7, 9]);
    assert_eq!(ids(&server, "q=%22singular+zeppelin%22&category=Odd"), [9]);
    assert_eq!(ids(&server, "q=zeppelin+-odd"), [7]);
    assert_eq!(ids(&server, "q=nothing+like+it"), [0i64; 0]);
    assert_eq!(ids(&server, "category=Pants&page=2&count=4"), from_sql("category = 'Pants'")[4..8]);
    assert_eq!(ids(&server, "category=&q="), [1, 2, 3, 4, 5]);
    for bad in ["q=%00", &format!("q={}", "x".repeat(1001)), "category=a%00b"] {
        assert_eq!(server.get(&format!("/products?{bad}")).status, 400, "{bad}");
    }
    for odd in ["q=%27%29%3B--", "q=%22", "q=%26%7C!()%3A*", "q=-", "category=%27"] {
        ids(&server, odd);
    }
}

#[test]
fn by_their_ids_in_their_order() {
    let server = Server::shared();
    assert_eq!(ids(server, "ids=9,2,7777777,5"), [9, 2, 5]);
    assert_eq!(ids(server, "ids=3"), [3]);
    assert_eq!(ids(server, "ids=3,3,99999999999999999999"), [3]);
    let one: Value = server.get("/products?ids=3").json();
    assert_eq!(one[0], server.get("/products?count=5").json()[2]);
    for bad in ["ids=a", "ids=1,,2", "ids=1;2", &format!("ids={}", "1,".repeat(100) + "1")] {
        assert_eq!(server.get(&format!("/products?{bad}")).status, 400, "{bad}");
    }
}
