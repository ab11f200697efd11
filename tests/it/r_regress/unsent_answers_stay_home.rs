//! A client that reset its connection while its request waited for the database left its unsent answer in the buffers,
//! which the next connection took over: it received the stranger's answer in front of its own.

use crate::support::Server;

#[test]
fn an_answer_that_could_not_be_sent_reaches_nobody_else() {
    let server = Server::start(&["--workers", "1"]);
    let db = server.database();
    for round in 0..10 {
        let lock = db.transaction().unwrap();
        db.batch_execute("lock table products in access exclusive mode").unwrap();
        let mut leaving = server.connect();
        leaving.send(format!("GET /products/{} HTTP/1.1\r\nHost: a\r\n\r\n", round + 1).as_bytes());
        server.wait_for_lock_waiter();
        leaving.reset();
        lock.rollback().unwrap();
        for id in [20, 21, 22] {
            let reply = server.connect().get(&format!("/products/{id}"));
            assert_eq!(reply.json()["id"], id, "round {round}");
        }
    }
}
