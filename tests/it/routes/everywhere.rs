//! What holds on every route: bases, methods, CORS, validators, encodings, framing.

use std::io::Read;

use crate::support::{Server, DEADLINE};

#[test]
fn every_base_and_a_trailing_slash() {
    let mut connection = Server::shared().connect();
    for path in ["/products/1", "/products", "/products/1/styles", "/products/1/related"] {
        let plain = connection.get(path);
        assert_eq!(plain.status, 200);
        for base in ["/api", "/api/fec2/hr-rfp", "/api/fec2/hratx"] {
            for slash in ["", "/"] {
                assert_eq!(
                    connection.get(&format!("{base}{path}{slash}")).body,
                    plain.body,
                    "{base}{path}{slash}"
                );
            }
        }
    }
    assert_eq!(connection.get("/nowhere").status, 404);
    assert_eq!(connection.get("/%70roducts/%31").json()["id"], 1);
    for unclear in ["/products/%00", "/products/%ff", "/products/..", "/products%2f1"] {
        let reply = Server::shared().get(unclear);
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{unclear}");
    }
    assert_eq!(connection.get("http://any.host/products/1").json()["id"], 1);
}

#[test]
fn methods_and_cors() {
    let mut connection = Server::shared().connect();
    let head = connection.request("HEAD", "/products/1", &[]);
    let get = connection.get("/products/1");
    assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
    assert_eq!(head.header("etag"), get.header("etag"));
    let post = connection.request("POST", "/products/1", &[("Content-Length", "0")]);
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let asked = [
        ("Origin", "https://shop.example"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let preflight = connection.request("OPTIONS", "/products/1", &asked);
    assert_eq!((preflight.status, preflight.body.len()), (204, 0));
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert!(preflight
        .header("access-control-allow-headers")
        .unwrap()
        .contains("Authorization, Content-Type"));
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(preflight.header("access-control-allow-methods").unwrap().contains(method));
    }
    assert_eq!(get.header("access-control-allow-origin"), Some("*"));
    assert_eq!(connection.get("/nowhere").header("access-control-allow-origin"), Some("*"));
}

#[test]
fn validators_answer_304_in_either_encoding() {
    let mut connection = Server::shared().connect();
    let path = "/products?count=20";
    let plain = connection.get(path);
    let zipped = connection.request("GET", path, &[("Accept-Encoding", "gzip")]);
    let (tag, zipped_tag) = (plain.header("etag").unwrap(), zipped.header("etag").unwrap());
    assert_ne!(tag, zipped_tag);
    for value in [tag, zipped_tag, &format!("W/{tag}"), "*", &format!("\"x\", {tag}")] {
        let reply = connection.request("GET", path, &[("If-None-Match", value)]);
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{value}");
        assert_eq!(reply.header("etag"), Some(tag));
    }
    assert_eq!(connection.request("GET", path, &[("If-None-Match", "\"other\"")]).status, 200);
    assert_eq!(plain.header("cache-control"), Some("no-cache"));
    assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
}

#[test]
fn every_encoding_unpacks_to_the_plain_body_and_has_a_tag_of_its_own() {
    let mut connection = Server::shared().connect();
    for path in ["/products?count=100", "/qa/questions?product_id=3&count=100"] {
        let plain = connection.get(path);
        let mut tags = vec![plain.header("etag").unwrap().to_string()];
        assert_eq!(plain.header("content-encoding"), None);
        for (accepted, coding) in [
            ("gzip", "gzip"),
            ("gzip, deflate, br, zstd", "br"),
            ("br;q=0.1, zstd;q=0.5, gzip;q=0.2", "zstd"),
        ] {
            for _ in 0..2 {
                let reply = connection.request("GET", path, &[("Accept-Encoding", accepted)]);
                assert_eq!(reply.header("content-encoding"), Some(coding), "{path}");
                let mut out = Vec::new();
                match coding {
                    "gzip" => {
                        let mut decoder = flate2::read::GzDecoder::new(&reply.body[..]);
                        let _ = decoder.read_to_end(&mut out).unwrap();
                    }
                    "br" => brotli::BrotliDecompress(&mut &reply.body[..], &mut out).unwrap(),
                    _ => out = zstd::decode_all(&reply.body[..]).unwrap(),
                }
                assert!(out == plain.body && reply.body.len() < plain.body.len(), "{path} {coding}");
                let tag = reply.header("etag").unwrap().to_string();
                let again = connection.request(
                    "GET",
                    path,
                    &[("Accept-Encoding", accepted), ("If-None-Match", &tag)],
                );
                assert_eq!((again.status, again.header("etag")), (304, Some(tag.as_str())));
                tags.push(tag);
            }
        }
        tags.dedup();
        assert_eq!(tags.len(), 4, "{tags:?}");
    }
}

#[test]
fn every_answer_has_a_request_id() {
    let mut connection = Server::shared().connect();
    let id = |r: &crate::support::Reply| r.header("x-request-id").expect("an id").to_string();
    let (first, second) = (connection.get("/products/1"), connection.get("/nowhere"));
    assert_ne!(id(&first), id(&second));
    assert_eq!(id(&connection.request("GET", "/", &[("X-Request-Id", "mine-1")])), "mine-1");
    assert_ne!(id(&connection.request("GET", "/", &[("X-Request-Id", "a b<c>")])), "a b<c>");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut connection = Server::shared().connect();
    let all: String = (1..=500).map(|id| format!("GET /products/{id} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.send(all.as_bytes());
    for id in 1..=500 {
        assert_eq!(connection.receive(false).json()["id"], id);
    }
}

#[test]
fn a_request_split_anywhere_is_one_request() {
    let server = Server::shared();
    let text = "GET /products/1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
    for at in (1..text.len()).step_by(7) {
        let mut connection = server.connect();
        connection.send(&text.as_bytes()[..at]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        connection.send(&text.as_bytes()[at..]);
        assert_eq!(connection.receive(false).json()["id"], 1, "split at {at}");
    }
}

/// With edge-triggered epoll, a FIN in the same segment as the request raises one edge for both.
#[test]
fn a_request_and_the_end_of_the_stream_in_one_segment() {
    let server = Server::shared();
    for _ in 0..20 {
        let mut connection = server.connect();
        // The coroutine waits already: the edge for both comes afterwards.
        assert_eq!(connection.get("/products/1").status, 200);
        connection.send_last(b"GET /products/1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.receive(false).status, 200);
        let start = std::time::Instant::now();
        assert!(connection.rest().is_empty() && start.elapsed() < DEADLINE / 4);
    }
}

#[test]
fn versions_and_connection_options() {
    let server = Server::shared();
    let mut old = server.connect();
    old.send(b"GET /products/1 HTTP/1.0\r\n\r\n");
    assert_eq!(old.receive(false).header("connection"), Some("close"));
    assert!(old.rest().is_empty());
    let mut kept = server.connect();
    for _ in 0..2 {
        kept.send(b"GET /products/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.receive(false).header("connection"), Some("keep-alive"));
    }
    let mut closing = server.connect();
    closing.send(b"GET /products/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(closing.receive(false).header("connection"), Some("close"));
    assert!(closing.rest().is_empty());
}

#[test]
fn bodies_are_framed_and_never_parsed_as_requests() {
    let server = Server::shared();
    let next = "GET /products/3 HTTP/1.1\r\nHost: a\r\n\r\n";
    let smuggled = "GET /products/2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked =
        format!("{:x};ext=1\r\n{smuggled}\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", smuggled.len());
    for (fields, body) in [
        (format!("Content-Length: {}", smuggled.len()), smuggled.to_string()),
        ("Transfer-Encoding: chunked".to_string(), chunked),
    ] {
        for pause in [false, true] {
            let mut connection = server.connect();
            connection.send(format!("POST /products HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").as_bytes());
            if pause {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            connection.send(format!("{body}{next}").as_bytes());
            assert_eq!(connection.receive(false).status, 405, "{fields}");
            assert_eq!(connection.receive(false).json()["id"], 3, "{fields}");
        }
    }
}

#[test]
fn what_cannot_be_framed_is_refused_and_closed() {
    let server = Server::shared();
    for (request, status) in [
        ("POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", 413),
    ] {
        let mut connection = server.connect();
        connection.send(format!("{request}GET /products/1 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let reply = connection.receive(false);
        assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{request:?}");
        assert!(connection.rest().is_empty(), "{request:?}");
    }
    let fields: String = (0..99).map(|n| format!("X-{n}: {}\r\n", "v".repeat(100))).collect();
    let mut connection = server.connect();
    connection.send(format!("GET /products/1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    assert_eq!(connection.receive(false).status, 200);
}

#[test]
fn how_long_others_may_keep_an_answer_is_set_by_kind() {
    let dir = crate::support::server::directory();
    let mut command = std::process::Command::new(crate::support::server::BIN);
    command.arg("dev").arg("--dir").arg(dir.path().join("d"));
    command.args(["--listen", "127.0.0.1:0", "--products", "10", "--cache-size", "8MiB"]);
    command.env("CATWALK_HTTP_MAX_AGE", "1s").env("CATWALK_HTTP_MAX_AGES", "reviews=10s, styles = 1min");
    let path = dir.path().join("d");
    let server = Server::launch(command, &path).keep(dir);
    for (path, age) in [
        ("/products/1", "max-age=1"),
        ("/products", "max-age=1"),
        ("/products/1/styles", "max-age=60"),
        ("/reviews?product_id=1", "max-age=10"),
        ("/reviews?product_id=1&page=2", "max-age=10"),
        ("/reviews/meta?product_id=1", "max-age=1"),
    ] {
        for _ in 0..2 {
            assert_eq!(server.get(path).header("cache-control"), Some(age), "{path}");
        }
    }
}
