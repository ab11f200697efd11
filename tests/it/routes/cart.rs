//! /cart: of a session, which the Authorization value or a cookie names.

use crate::routes::{send, send_with};
use crate::support::{Reply, Server};

/// The line that hands out a session.
fn line(reply: &Reply) -> Option<&str> {
    let mut lines = reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    lines.find(|(_, value)| value.starts_with("catwalk_session=")).map(|(_, value)| value.as_str())
}

fn cookie(reply: &Reply) -> String {
    line(reply).expect("a session").split(';').next().unwrap().to_string()
}

#[test]
fn a_session_has_a_cart_of_its_own() {
    let server = Server::start(&["--products", "20"]);
    let mut connection = server.connect();
    let one = "Authorization: one\r\n";
    let cart = |connection: &mut crate::support::Connection, fields: &[(&str, &str)]| {
        let reply = connection.request("GET", "/cart", fields);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.text()
    };
    assert_eq!(cart(&mut connection, &[("Authorization", "one")]), "[]");
    for body in [r#"{"sku_id": 3}"#, r#"{"sku_id": "3", "count": "2", "product": 1}"#, r#"{"sku_id": 1}"#] {
        let reply = send_with(&mut connection, "POST", "/cart", one, body);
        assert_eq!((reply.status, reply.text().as_str(), line(&reply)), (201, "Created", None));
    }
    let wanted = r#"[{"sku_id":1,"count":"1"},{"sku_id":3,"count":"3"}]"#;
    assert_eq!(cart(&mut connection, &[("Authorization", "one")]), wanted);
    assert_eq!(cart(&mut connection, &[("Authorization", "two")]), "[]");
    let first = send(&mut connection, "POST", "/cart", r#"{"sku_id": 5}"#);
    let line_of_first = line(&first).unwrap();
    let has = |text| line_of_first.contains(text);
    assert!(has("SameSite=Lax") && has("HttpOnly") && !has("Secure"), "{line_of_first}");
    let session = cookie(&first);
    let again = send_with(
        &mut connection,
        "POST",
        "/cart",
        &format!("Cookie: a=b; {session}\r\n"),
        r#"{"sku_id": 5}"#,
    );
    assert_eq!((again.status, line(&again)), (201, None));
    assert_eq!(cart(&mut connection, &[("Cookie", &session)]), r#"[{"sku_id":5,"count":"2"}]"#);
    // Who has no session sees what all those put in who had none.
    assert_eq!(cart(&mut connection, &[]), r#"[{"sku_id":5,"count":"1"}]"#);
    assert_ne!(cookie(&send(&mut connection, "POST", "/cart", r#"{"sku_id": 5}"#)), session);
    for body in ["", "{}", r#"{"sku_id": 999999999}"#, r#"{"sku_id": "x"}"#, r#"{"sku_id": 3, "count": -1}"#]
    {
        assert_eq!(send_with(&mut connection, "POST", "/cart", one, body).status, 422, "{body}");
    }
}
