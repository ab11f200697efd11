//! A body's own receives filled whole buffers, or swallowed the edge that told of the stream's end, and the connection
//! then waited for an edge that never came: pipelined requests behind the body hung, closed connections stayed.

use std::time::Duration;

use crate::support::Server;

#[test]
fn requests_received_with_the_rest_of_a_body_are_served() {
    let server = Server::shared();
    let mut connection = server.connect();
    connection.send(b"POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    std::thread::sleep(Duration::from_millis(50));
    let next: String =
        (1..=600).map(|id| format!("GET /products/{id} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.send(format!("67890{next}").as_bytes());
    assert_eq!(connection.receive(false).status, 405);
    for id in 1..=600 {
        assert_eq!(connection.receive(false).json()["id"], id);
    }
}

#[test]
fn the_end_of_the_stream_behind_a_body_is_seen() {
    let server = Server::shared();
    let mut connection = server.connect();
    connection.send(b"POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    std::thread::sleep(Duration::from_millis(50));
    connection.send_last(b"67890");
    assert_eq!(connection.receive(false).status, 405);
    assert!(connection.rest().is_empty());
}

#[test]
fn earlier_answers_do_not_wait_for_a_later_body() {
    let server = Server::shared();
    let mut connection = server.connect();
    connection.send(
        b"GET /products/1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(connection.receive(false).json()["id"], 1);
    connection.send(b"12345");
    assert_eq!(connection.receive(false).status, 405);
}
