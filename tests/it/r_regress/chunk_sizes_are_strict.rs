//! An empty chunk-size line counted as size 0, and a bare LF inside a chunk extension passed: two readers of one stream
//! could disagree where a body ends.

use crate::support::Server;

#[test]
fn chunk_size_lines_that_two_readers_could_take_differently_end_the_connection() {
    let server = Server::shared();
    for body in ["\r\n\r\n", "2;\nxx\r\nab\r\n0\r\n\r\n", ";x\r\n\r\n", "zz\r\n\r\n", "5\r\nabcdeXX0\r\n\r\n"]
    {
        let mut connection = server.connect();
        let head = "POST /products HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(format!("{head}{body}GET /products/1 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let reply = connection.receive(false);
        assert_eq!(reply.header("connection"), Some("close"), "{body:?}");
        assert!(connection.rest().is_empty(), "{body:?}");
    }
}
