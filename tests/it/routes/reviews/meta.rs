//! /reviews/meta?product_id

use crate::support::Server;

#[test]
fn sums_and_averages_are_text_and_hidden_reviews_do_not_count() {
    let server = Server::start(&["--products", "20"]);
    let fill = "delete from reviews where product_id in (1, 2); delete from characteristics where product_id in (1, 2);
        insert into characteristics (id, product_id, name) values (902, 1, 'Size'), (901, 1, 'Fit'), (903, 1, 'Size'), (904, 2, 'Fit');
        insert into reviews (id, product_id, rating, summary, body, recommend, reported, reviewer_name, reviewer_email)
            select 9000 + n, 1, rating, '', 'b', recommend, reported, 'n', 'e'
            from (values (1, 5, true, false), (2, 5, false, false), (3, 1, false, false), (4, 3, true, true)) r (n, rating, recommend, reported);
        insert into characteristic_reviews (characteristic_id, review_id, value)
            values (901, 9001, 2), (901, 9002, 3), (901, 9003, 3), (901, 9004, 5), (902, 9001, 4)";
    server.database().batch_execute(fill).unwrap();
    let get = |product: &str| server.get(&format!("/reviews/meta?product_id={product}"));
    let wanted = concat!(
        r#"{"product_id":"1","ratings":{"1":"1","5":"2"},"recommended":{"false":"2","true":"1"},"characteristics":"#,
        r#"{"Fit":{"id":901,"value":"2.6666666666666667"},"Size":{"id":902,"value":"4.0000000000000000"}}}"#
    );
    (0..2).for_each(|_| assert_eq!(get("1").text(), wanted));
    let none = r#"{"product_id":"2","ratings":{},"recommended":{},"characteristics":{"Fit":{"id":904,"value":null}}}"#;
    assert_eq!(get("2").text(), none);
    assert_eq!(
        get("777777").text(),
        r#"{"product_id":"777777","ratings":{},"recommended":{},"characteristics":{}}"#
    );
    assert_eq!(server.get("/reviews/1/meta").text(), wanted);
    assert_eq!(get("01").json()["product_id"], "01");
    for bad in ["", "hello", "5.55"] {
        assert_eq!((get(bad).status, get(bad).text().as_str()), (422, "Error: invalid product_id provided"));
    }
}
