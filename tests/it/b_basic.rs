//! Does anything get through at all?

use crate::support::Server;

#[test]
fn a_product_comes_through_and_then_from_the_cache() {
    let server = Server::start(&["--workers", "1"]);
    let mut connection = server.connect();
    let first = connection.get("/products/1");
    assert_eq!((first.status, first.header("cache-status")), (200, Some("catwalk; fwd=miss; stored")));
    let second = connection.get("/products/1");
    assert_eq!((second.status, second.header("cache-status")), (200, Some("catwalk; hit")));
    assert_eq!(first.body, second.body);
    assert_eq!(first.json()["id"], 1);
}

#[test]
fn alive_and_ready() {
    let server = Server::shared();
    assert_eq!(server.get("/healthz").text(), "ok\n");
    // Each worker looks at the database for itself.
    crate::support::eventually("every worker is ready", || {
        (0..20).all(|_| server.get("/readyz").status == 200)
    });
    assert_eq!(server.get("/readyz").json()["ready"], true);
}
