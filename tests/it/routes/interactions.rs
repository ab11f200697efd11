//! POST /interactions

use crate::routes::send;
use crate::support::Server;

#[test]
fn three_required_texts() {
    let server = Server::start(&["--products", "1"]);
    let mut connection = server.connect();
    let good = r#"{"element": "div.star", "widget": "Ratings", "time": "2021-01-01"}"#;
    let reply = send(&mut connection, "POST", "/interactions", good);
    assert_eq!((reply.status, reply.text().as_str()), (201, "Created"));
    for bad in ["{}", r#"{"element": "a", "widget": "b"}"#, r#"{"element": "a", "widget": "b", "time": 1}"#] {
        assert_eq!(send(&mut connection, "POST", "/interactions", bad).status, 422, "{bad}");
    }
    let rows =
        server.database().query_text("select element || widget || time from interactions", &[]).unwrap();
    assert_eq!((rows.len(), rows[0].get::<String>(0).as_str()), (1, "div.starRatings2021-01-01"));
}
