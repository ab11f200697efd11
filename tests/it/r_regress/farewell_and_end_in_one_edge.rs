//! A server that says "terminating connection" and closes at once raises one edge for both. The short read of the
//! farewell was taken for the last one: the end behind it was never seen, and its waiters waited for ever.

use std::time::Duration;

use may::go;

use crate::support::{eventually, Server};

#[test]
fn a_farewell_and_the_end_of_the_stream_are_both_seen() {
    let server = Server::start(&[]);
    let other = server.database();
    for _ in 0..10 {
        let client = server.database();
        let pid = client.process_id();
        // The only scheduler thread is busy: farewell and end are both there when it looks again.
        let busy = go!(|| std::thread::sleep(Duration::from_millis(30)));
        other.query_text("select pg_terminate_backend($1)", &[&pid]).ok();
        busy.join().unwrap();
        eventually("the loss is noticed", || client.is_closed());
    }
}
