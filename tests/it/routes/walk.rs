//! Walking lists by their links (RFC 8288): every row once, forwards and backwards, whatever is added meanwhile.

use std::collections::BTreeSet;

use crate::support::{seed, Connection, Dice, Reply, Server};

/// A list: its path, where its rows and their ids stand, and SQL that adds one row of its own to it.
struct List {
    path: &'static str,
    rows: &'static str,
    id: &'static str,
    add: &'static str,
}

const LISTS: [List; 8] = [
    List { path: "/products", rows: "", id: "/id", add: "insert into products (name, slogan, description, category, default_price) values ('n', 's', 'd', 'c', 1)" },
    List { path: "/products?category=Hats+%26+more", rows: "", id: "/id", add: ADD_HAT },
    List { path: "/products?q=felt", rows: "", id: "/id", add: ADD_HAT },
    List { path: "/reviews?product_id=1&sort=newest", rows: "/results", id: "/review_id", add: ADD_REVIEW },
    List { path: "/reviews?product_id=1&sort=helpful", rows: "/results", id: "/review_id", add: ADD_REVIEW },
    List { path: "/reviews?product_id=1", rows: "/results", id: "/review_id", add: ADD_REVIEW },
    List {
        path: "/qa/questions?product_id=1",
        rows: "/results",
        id: "/question_id",
        add: "insert into questions (product_id, body, asker_name, asker_email, helpful) values (1, 'b', 'n', 'e', random() * 9)",
    },
    List {
        path: "/qa/questions/9001/answers",
        rows: "/results",
        id: "/answer_id",
        add: "insert into answers (question_id, body, answerer_name, answerer_email, helpful) values (9001, 'b', 'n', 'e', random() * 9)",
    },
];
const ADD_HAT: &str =
    "insert into products (name, slogan, description, category, default_price) values ('Felt', 's', 'd', 'Hats & more', 1)";
const ADD_REVIEW: &str = "insert into reviews (product_id, rating, date, summary, body, recommend, reviewer_name, reviewer_email, helpfulness)
    values (1, 3, '2021-06-01'::timestamptz + (random() * 400 - 300) * interval '1 day', 's', 'b', true, 'n', 'e', random() * 9)";

impl List {
    fn ids(&self, reply: &Reply) -> Vec<i64> {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let json = reply.json();
        let rows = json.pointer(self.rows).and_then(|rows| rows.as_array()).expect("rows");
        rows.iter().map(|row| row.pointer(self.id).and_then(|id| id.as_i64()).expect("an id")).collect()
    }

    fn first(&self, count: u64) -> String {
        format!("{}{}count={count}", self.path, if self.path.contains('?') { '&' } else { '?' })
    }

    /// Follows `rel` from `path` to the end, with `between` after each page: pages of ids, and the last page's path.
    fn follow(
        &self,
        c: &mut Connection,
        mut path: String,
        rel: &str,
        mut between: impl FnMut(),
    ) -> (Vec<Vec<i64>>, String) {
        let mut pages = Vec::new();
        loop {
            let reply = c.get(&path);
            pages.push(self.ids(&reply));
            between();
            let Some(next) = link(&reply, rel) else { return (pages, path) };
            path = format!("{}{next}", self.path.split('?').next().unwrap());
        }
    }
}

/// The reference of a link: of a query alone, relative to the request's path.
fn link(reply: &Reply, rel: &str) -> Option<String> {
    let links = reply.header("link")?;
    let found = links.split(", ").find(|link| link.ends_with(&format!("rel=\"{rel}\"")))?;
    Some(found.split_once('<')?.1.split_once('>')?.0.to_string())
}

fn server() -> Server {
    let server = Server::start(&["--products", "90"]);
    let fill = format!(
        "delete from reviews where product_id = 1; delete from questions where product_id = 1;
         insert into questions (id, product_id, body, asker_name, asker_email, helpful)
             select 9000 + g, 1, 'q', 'n', 'e', g % 5 from generate_series(1, 60) g;
         do $$ begin for n in 1..70 loop {ADD_REVIEW}; {}; {ADD_HAT}; end loop; end $$",
        LISTS[7].add
    );
    server.database().batch_execute(&fill).unwrap();
    server
}

#[test]
fn every_row_once_while_rows_are_added() {
    let server = server();
    let db = server.database();
    let mut connection = server.connect();
    let mut dice = Dice(seed());
    for list in &LISTS {
        for _ in 0..4 {
            let all: BTreeSet<i64> = list.ids(&connection.get(&list.first(10_000))).into_iter().collect();
            let count = 1 + dice.below(19);
            let add = || {
                if dice.below(3) == 0 {
                    db.batch_execute(list.add).unwrap();
                }
            };
            let (pages, _) = list.follow(&mut connection, list.first(count), "next", add);
            let walked: Vec<i64> = pages.concat();
            let distinct: BTreeSet<i64> = walked.iter().copied().collect();
            assert_eq!(walked.len(), distinct.len(), "{}: a row came twice", list.path);
            assert!(all.is_subset(&distinct), "{}: a row was left out", list.path);
        }
    }
}

#[test]
fn the_way_back_is_the_way_there() {
    let server = server();
    let mut connection = server.connect();
    for list in &LISTS {
        for count in [1, 7, 100, 150] {
            let (there, last) = list.follow(&mut connection, list.first(count), "next", || ());
            let all = list.ids(&connection.get(&list.first(10_000)));
            assert_eq!(there.concat(), all, "{} {count}", list.path);
            let (mut back, _) = list.follow(&mut connection, last, "prev", || ());
            back.reverse();
            assert_eq!(back.concat(), all, "{} {count}, backwards", list.path);
        }
    }
    // From a page by its number, too.
    let reply = connection.get("/products?page=3&count=4");
    assert_eq!(link(&reply, "prev").as_deref(), Some("?count=4&page=2"));
    assert_eq!(link(&reply, "next").as_deref(), Some("?count=4&cursor=a.12"));
    assert_eq!(connection.get("/products?count=0").header("link"), None);
}

/// The recent block is where it was when the walk began, however much newer a review comes in.
#[test]
fn a_newer_review_moves_no_block_under_a_walk() {
    let server = server();
    let db = server.database();
    let mut connection = server.connect();
    let list = &LISTS[5];
    let all = list.ids(&connection.get(&list.first(10_000)));
    let mut pages = 0;
    let newer = || {
        pages += 1;
        if pages == 2 {
            let add = "insert into reviews (product_id, rating, date, summary, body, recommend, reviewer_name, reviewer_email)
                values (1, 3, now() + interval '9 years', 's', 'b', true, 'n', 'e')";
            db.batch_execute(add).unwrap();
        }
    };
    let (walked, _) = list.follow(&mut connection, list.first(3), "next", newer);
    let known: Vec<i64> = walked.concat().into_iter().filter(|id| all.contains(id)).collect();
    assert_eq!(known, all);
}
