//! What the change feed's triggers cost those who write: each statement with them and without, by turns.
//! Runs in: offline (`make bench`). Medians; without: the triggers of the feed disabled, the others as ever.

use std::time::Instant;

use may_postgres::Client;

#[path = "server.rs"]
#[allow(dead_code, reason = "nobody asks this server over HTTP")]
mod server;
use server::Server;

const PRODUCTS: u64 = 200_000;
const ROUNDS: usize = 7;

/// A name, the statement, and how often it runs in a round.
const WRITES: [(&str, &str, usize); 5] = [
    (
        "one sku's quantity, a transaction each",
        "update skus set quantity = quantity + 1 where id = $1",
        2_000,
    ),
    (
        "one product's price, a transaction each",
        "update products set default_price = default_price + 1 where id = $1",
        2_000,
    ),
    (
        "1,000 products' prices at once",
        "update products set default_price = default_price + 1 where id between $1 and $1 + 999",
        20,
    ),
    (
        "100,000 products' prices at once",
        "update products set default_price = default_price + 1 where id between $1 and $1 + 99999",
        1,
    ),
    (
        "150,000 products' prices at once",
        "update products set default_price = default_price + 1 where id between $1 and $1 + 149999",
        1,
    ),
];

fn main() {
    let server = Server::start(&["--products", &PRODUCTS.to_string(), "--cache-size", "0"]);
    let db = server.database();
    // What is measured is the statement, not the disk under its commit.
    db.batch_execute("set synchronous_commit = off; set session_replication_role = origin")
        .expect("a setting");
    println!("{:<42} | without | with, µs | ratio", "write");
    for (name, statement, repeats) in WRITES {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            follow(&db, true);
            with.push(run(&db, statement, repeats, round));
            follow(&db, false);
            without.push(run(&db, statement, repeats, round));
        }
        let (with, without) = (median(with), median(without));
        println!("{name:<42} | {without:>7.0} | {with:>8.0} | {:.2}", with / without);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn follow(db: &Client, on: bool) {
    let sql = match on {
        true => "select catwalk_follow(name) from catwalk_followed".to_string(),
        false => ["products", "skus"]
            .map(|table| {
                ["added", "removed", "changed"]
                    .map(|trigger| format!("alter table {table} disable trigger catwalk_{trigger};"))
                    .concat()
            })
            .concat(),
    };
    db.batch_execute(&sql).expect("the owner may");
    for sql in ["vacuum products", "vacuum skus", "checkpoint"] {
        db.batch_execute(sql).expect("the owner may");
    }
}

/// µs a statement.
fn run(db: &Client, sql: &str, repeats: usize, round: usize) -> f64 {
    let statement = db.prepare_cached(sql).expect("a statement");
    let start = Instant::now();
    for n in 0..repeats {
        let id = 1 + ((round * 7_919 + n * 13) % 40_000) as i64;
        db.execute(&statement, &[&id]).expect("it commits");
    }
    start.elapsed().as_secs_f64() * 1e6 / repeats as f64
}
