//! POST /reviews: all of a review or none of it, in the next answer of any worker.

use crate::routes::send;
use crate::support::Server;

const BODY: &str = r#"{"product_id": 7, "rating": 4, "summary": "Fine", "body": "It's \"good\": é", "recommend": true,
    "name": "ada", "email": "a@example.com", "photos": ["https://x/1", null, "https://x/2"], "characteristics": {"25": 5, "26": "1", "1": 3}}"#;

#[test]
fn a_review_is_in_the_next_answer_with_all_that_belongs_to_it() {
    let server = Server::start(&["--products", "20", "--workers", "2"]);
    let db = server.database();
    db.batch_execute("delete from reviews where product_id = 7").unwrap();
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.get("/reviews?product_id=7");
        connection.get("/reviews/meta?product_id=7");
    }
    let reply = send(&mut connections[0], "POST", "/reviews", BODY);
    assert_eq!((reply.status, reply.text().as_str()), (201, "Created"));
    for connection in &mut connections {
        let json = connection.get("/reviews?product_id=7").json();
        let review = &json["results"][0];
        assert_eq!((&review["body"], &review["summary"]), (&"It's \"good\": é".into(), &"Fine".into()));
        assert_eq!(review["photos"].as_array().unwrap().len(), 2);
        assert_eq!(review["photos"][1]["url"], "https://x/2");
        assert_eq!((&review["helpfulness"], &review["response"]), (&0.into(), &serde_json::Value::Null));
        let meta = connection.get("/reviews/meta?product_id=7").json();
        assert_eq!((&meta["ratings"]["4"], &meta["recommended"]["true"]), (&"1".into(), &"1".into()));
        // Product 7's are 25 to 28; 1 is another product's.
        let rated: Vec<&serde_json::Value> = meta["characteristics"].as_object().unwrap().values().collect();
        assert_eq!(rated.iter().filter(|c| !c["value"].is_null()).count(), 2);
    }
    let date = &server.get("/reviews?product_id=7").json()["results"][0]["date"];
    let rows = db.query_text("select to_char(date at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from reviews where product_id = 7", &[]);
    assert_eq!(date, &rows.unwrap()[0].get::<String>(0));
}

#[test]
fn what_is_no_review_leaves_nothing() {
    let server = Server::start(&["--products", "20"]);
    let db = server.database();
    let counts = || -> Vec<i64> {
        let tables = ["reviews", "reviews_photos", "characteristic_reviews"];
        let count = |t: &str| db.query_text(&format!("select count(*) from {t}"), &[]).unwrap()[0].get(0);
        tables.iter().map(|table| count(table)).collect()
    };
    let before = counts();
    let mut connection = server.connect();
    let unknown = BODY.replace("\"product_id\": 7", "\"product_id\": 777777");
    for body in ["", "{", "[]", "null", &unknown, &BODY.replace("4", "9"), &BODY.replace("ada", "a\\u0000")] {
        let reply = send(&mut connection, "POST", "/reviews", body);
        let text = "Error: Review body contains invalid entries";
        assert_eq!((reply.status, reply.text().as_str()), (422, text), "{body}");
    }
    assert_eq!(counts(), before);
    assert_eq!(send(&mut connection, "POST", "/reviews/8", BODY).status, 201);
    assert_eq!(connection.get("/reviews?product_id=8&sort=newest").json()["results"][0]["summary"], "Fine");
    assert_eq!(send(&mut connection, "POST", "/reviews/x", BODY).status, 422);
}
