//! /products?page&count

use std::collections::BTreeSet;

use crate::support::{seed, Dice, Server};

fn ids(reply: &crate::support::Reply) -> Vec<i64> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().expect("an array").iter().map(|p| p["id"].as_i64().expect("an id")).collect()
}

#[test]
fn pages_as_old_clients_ask_for_them() {
    let server = Server::shared();
    let get = |query: &str| ids(&server.get(&format!("/products{query}")));
    assert_eq!(get(""), [1, 2, 3, 4, 5]);
    assert_eq!(get("?page=2&count=4"), [5, 6, 7, 8]);
    assert_eq!(get("?count=0"), [0i64; 0]);
    assert_eq!(get("?page=100000"), [0i64; 0]);
    assert_eq!(get("?count=10000").len(), 2000);
    assert_eq!(get("?count=9007199254740991").len(), 2000);
    assert_eq!(get("?count=9007199254740991&page=2"), [0i64; 0]);
    assert_eq!(get("?count=99999999999999999999999&page=99999999999999999999"), [0i64; 0]);
    for query in ["?page=0", "?page=-1", "?count=-1", "?count=abc", "?page=1.5"] {
        assert_eq!(server.get(&format!("/products{query}")).status, 400, "{query}");
    }
}

/// Walks with gaps, inserts, deletes, moves and a truncate in between: every id exactly once, whoever changed the table.
#[test]
fn walking_all_pages_yields_every_id_once() {
    let server = Server::start(&["--products", "300", "--cache-size", "0"]);
    let db = server.database();
    let mut dice = Dice(seed());
    let mut connection = server.connect();
    let add = "insert into products (id, name, slogan, description, category, default_price)
               select g, 'n', 's', 'd', 'c', 1 from generate_series";
    let edits = [
        "delete from products where id % 3 = 0".to_string(),
        format!("{add}(5000, 5100) g"),
        "update products set id = id + 100000 where id between 5064 and 5100 and id % 7 = 0".to_string(),
        format!("{add}(9223372036854775800, 9223372036854775807) g"),
        "update products set name = 'renamed'".to_string(),
        "delete from products where id between 5000 and 5063".to_string(),
        "truncate products cascade".to_string(),
        format!("{add}(-3, 3) g"),
    ];
    for edit in &edits {
        db.batch_execute(edit).unwrap();
        let rows = db.query_text("select id from products", &[]).unwrap();
        let expected: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let count = 1 + dice.below(90) as usize;
        let mut walked = Vec::new();
        for page in 1.. {
            let found = ids(&connection.get(&format!("/products?page={page}&count={count}")));
            walked.extend_from_slice(&found);
            if found.len() < count {
                break;
            }
        }
        assert_eq!(walked, expected.into_iter().collect::<Vec<_>>(), "after {edit}, {count} a page");
    }
}
