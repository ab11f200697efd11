//! A server that says "terminating connection" and closes at once raises one edge for both. The short read of the
//! farewell was taken for the last one: the end behind it was never seen, and its waiters waited for ever.

use std::time::Duration;

use may::go;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::{eventually, Server};

#[test]
fn a_farewell_and_the_end_of_the_stream_are_both_seen() {
    let server = Server::start(&[]);
    for _ in 0..10 {
        let client = server.database();
        let pid = client.process_id();
        let asking = client.clone();
        let asker = go!(move || asking.batch_execute("select pg_sleep(60)"));
        eventually("it is asked", || client.queued() == 0);
        std::thread::sleep(Duration::from_millis(20));
        // The only scheduler thread is busy: farewell and end are both there when it looks again.
        let busy = go!(|| std::thread::sleep(Duration::from_millis(60)));
        std::thread::sleep(Duration::from_millis(5));
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        busy.join().unwrap();
        eventually("the loss is noticed", || client.is_closed());
        assert!(asker.join().unwrap().is_err());
    }
}
