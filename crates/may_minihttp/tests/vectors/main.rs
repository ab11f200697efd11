//! Every vector against a server over a socket: whole, and cut at every byte.

mod table;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use may_minihttp::{HttpServer, HttpService, Request, Response, Server};

/// Says in a header field what it was asked.
#[derive(Clone)]
struct Echo;

impl HttpService for Echo {
    fn call(&mut self, mut req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()> {
        let mut seen = format!("{} {}", req.method(), req.path());
        if !req.query().is_empty() {
            seen += &format!("?{}", req.query());
        }
        if req.path() != "/skip" {
            let mut body = String::new();
            // A body that can't be read is the server's to answer, whatever is answered here.
            if req.body().read_to_string(&mut body).is_ok() && !body.is_empty() {
                seen += &format!(" {}", body.escape_default());
            }
        }
        rsp.header(&format!("X-Seen: {seen}")).body("content");
        Ok(())
    }
}

fn start() -> (Server<HttpServer<Echo>>, SocketAddr) {
    use may_minihttp::HttpServiceFactory;
    may::config().set_workers(1);
    let server = HttpServer(Echo).start("127.0.0.1:0").expect("a free port");
    let address = server.addresses()[0];
    (server, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    stream
}

/// What the server answered until it closed, in the words of a verdict.
fn transcript(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answers is as good an end as any.
    while let Ok(len) = stream.read_to_end(&mut bytes) {
        if len == 0 {
            break;
        }
    }
    let mut rest = String::from_utf8(bytes).expect("answers are text");
    let mut answers = Vec::new();
    while let Some((head, body)) = rest.split_once("\r\n\r\n") {
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::to_string);
        let status = head.split(' ').nth(1).expect("a status").to_string();
        let seen = field("X-Seen: ");
        let headless = status == "100" || seen.as_ref().is_some_and(|s| s.starts_with("HEAD"));
        let len =
            if headless { 0 } else { field("Content-Length: ").map_or(0, |n| n.parse().expect("a length")) };
        if status != "100" {
            answers.push(seen.map_or(status.clone(), |seen| format!("{status} {seen}")));
        }
        rest = body[len..].to_string();
    }
    assert!(rest.is_empty(), "cut: {rest:?}");
    answers.join("|")
}

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    // A server that has refused already may have closed.
    let _ = stream.write_all(bytes);
}

/// All that was sent before this has been received and looked at: events are served in the order of their arrival.
fn settle(ping: &mut TcpStream) {
    for _ in 0..2 {
        ping.write_all(b"HEAD /ping HTTP/1.1\r\nHost: a\r\n\r\n").expect("it serves");
        let mut bytes = [0u8; 1024];
        assert!(ping.read(&mut bytes).expect("it answers") > 0);
    }
}

#[test]
fn every_vector_has_its_verdict_whole_and_cut_at_every_byte() {
    assert!(table::VECTORS.len() >= 150);
    let (_server, address) = start();
    let mut ping = connect(address);
    let mut wrong = Vec::new();
    for vector in table::VECTORS {
        let bytes = table::bytes(vector.raw);
        let whole = connect(address);
        send(&whole, &bytes);
        let _ = whole.shutdown(Shutdown::Write);
        let mut verdicts = vec![(0, whole)];
        let cut: Vec<_> = (1..bytes.len()).map(|at| (at, connect(address))).collect();
        cut.iter().for_each(|(at, stream)| send(stream, &bytes[..*at]));
        settle(&mut ping);
        cut.iter().for_each(|(at, stream)| send(stream, &bytes[*at..]));
        cut.iter().for_each(|(_, stream)| drop(stream.shutdown(Shutdown::Write)));
        verdicts.extend(cut);
        for (at, stream) in verdicts {
            let verdict = transcript(stream);
            if verdict != vector.verdict {
                wrong.push(format!(
                    "{:?} cut at {at}: {verdict:?} instead of {:?}",
                    vector.raw, vector.verdict
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn limits_of_size_hold_to_the_byte() {
    let (_server, address) = start();
    let mut ping = connect(address);
    for (bytes, verdict) in table::large() {
        for at in [0, 1, bytes.len() / 2, 8192.min(bytes.len()), bytes.len() - 1] {
            let stream = connect(address);
            send(&stream, &bytes[..at]);
            settle(&mut ping);
            send(&stream, &bytes[at..]);
            let _ = stream.shutdown(Shutdown::Write);
            let front = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            assert_eq!(transcript(stream), verdict, "{front:?}… of {} bytes, cut at {at}", bytes.len());
        }
    }
}
