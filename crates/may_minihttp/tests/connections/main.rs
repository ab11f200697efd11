//! What a connection may do and what it gets: deadlines, caps, turns, streams, TLS, proxies. Every server is a test's own.

mod secure;
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::Duration;

use may_minihttp::{Count, Limits, Proxies, Settings};
use support::{
    connect, eventually, get, pid_memory_kib, read_answer, reads_until_closed, respond, settings, Site,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_head_that_does_not_end_is_answered_408() {
    let site = Site::start(settings(|l| l.header_timeout = MS(300)));
    let mut stream = connect(&site);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
    let answer = reads_until_closed(stream);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("Connection: close"), "{answer}");
    assert_eq!(site.server.count(Count::TimedOut), 1);
}

#[test]
fn bytes_that_trickle_in_do_not_move_the_deadline_of_a_head() {
    let site = Site::start(settings(|l| l.header_timeout = MS(600)));
    let mut stream = connect(&site);
    let dripping = stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        let mut dripping = dripping;
        let _ = dripping.write_all(b"GET / HTTP/1.1\r\n");
        while dripping.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(MS(60));
        }
    });
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let _ = stream.shutdown(Shutdown::Both);
    drip.join().unwrap();
}

#[test]
fn a_connection_that_says_nothing_ends_without_a_word() {
    let site = Site::start(settings(|l| l.header_timeout = MS(300)));
    assert_eq!(reads_until_closed(connect(&site)), "");
}

#[test]
fn an_idle_connection_ends_after_the_idle_timeout_and_not_before() {
    let site = Site::start(settings(|l| {
        l.header_timeout = MS(200);
        l.idle_timeout = MS(1500);
    }));
    let mut stream = connect(&site);
    for _ in 0..3 {
        get(&mut stream, "/");
        std::thread::sleep(MS(600));
    }
    assert_eq!(reads_until_closed(stream), "");
}

#[test]
fn a_body_must_come_at_the_least_rate() {
    let slow = |rate| {
        let site = Site::start(settings(|l| {
            l.body_timeout = MS(400);
            l.body_rate_min_bytes = rate;
        }));
        let stream = connect(&site);
        let mut writing = stream.try_clone().unwrap();
        writing
            .write_all(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\nConnection: close\r\n\r\n")
            .unwrap();
        let drip = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(MS(60));
                if writing.write_all(&[b'x'; 200]).is_err() {
                    return;
                }
            }
        });
        let answer = reads_until_closed(stream);
        drip.join().unwrap();
        answer
    };
    assert!(slow(1_000_000).starts_with("HTTP/1.1 408 "));
    assert!(slow(1000).starts_with("HTTP/1.1 200 "));
}

#[test]
fn clients_that_pipeline_and_never_read_cost_little_and_are_closed() {
    const CLIENTS: usize = 100;
    let site = Site::start(settings(|l| l.write_timeout = MS(1500)));
    let before = pid_memory_kib();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(&site)).collect();
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        // As much as the kernel takes: answers of 20 KiB each, and one that is made while it is sent.
        let requests =
            "GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /stream HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
        let _ = client.write(requests.as_bytes());
    }
    eventually("nothing more is taken", || {
        let served = site.served.load(Ordering::Relaxed);
        std::thread::sleep(MS(200));
        served == site.served.load(Ordering::Relaxed)
    });
    let grown = pid_memory_kib().saturating_sub(before);
    assert!(grown < CLIENTS * 256, "{grown} KiB for {CLIENTS} clients");
    eventually("all are closed", || site.server.connections() == 0);
    assert_eq!(site.server.count(Count::TimedOut), CLIENTS as u64);
}

#[test]
fn who_takes_no_answer_is_closed_however_much_it_sends() {
    let site = Site::start(settings(|l| l.write_timeout = MS(600)));
    let mut client = connect(&site);
    client.write_all("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000).as_bytes()).unwrap();
    client.set_nonblocking(true).unwrap();
    // Each byte wakes the connection.
    eventually("it is closed", || {
        let _ = client.write(b"G");
        std::thread::sleep(MS(50));
        site.server.connections() == 0
    });
}

#[test]
fn a_client_that_asks_without_end_leaves_the_others_their_turn() {
    let site = Site::start(Settings::default());
    let mut flood = connect(&site);
    let mut draining = flood.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        // The first request blocks the server's only thread until the ordinary client has asked; others are with it.
        let requests = "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50_000);
        let _ = flood.write_all(format!("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n{requests}").as_bytes());
        let _ = flood.shutdown(Shutdown::Write);
    });
    let reader = std::thread::spawn(move || {
        let mut scrap = vec![0; 1 << 16];
        while matches!(draining.read(&mut scrap), Ok(len) if len > 0) {}
    });
    let mut ordinary = connect(&site);
    eventually("the thread is held", || site.hold.held.load(Ordering::Relaxed));
    ordinary.write_all(b"GET /ordinary HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    site.hold.release.store(true, Ordering::Relaxed);
    assert!(read_answer(&mut ordinary).starts_with("HTTP/1.1 200 "));
    let before = site.hold.served_before_ordinary.load(Ordering::Relaxed);
    assert!(
        before <= 2 * may_minihttp::limits::PIPELINE_TURN_MAX,
        "{before} requests of the flood went first"
    );
    writer.join().unwrap();
    reader.join().unwrap();
    eventually("all of the flood is served", || site.served.load(Ordering::Relaxed) == 50_002);
}

#[test]
fn over_the_cap_connections_are_told_so() {
    let site = Site::start(settings(|l| l.connections_max = 3));
    let mut open: Vec<_> = (0..3).map(|_| connect(&site)).collect();
    open.iter_mut().for_each(|stream| get(stream, "/"));
    for _ in 0..10 {
        let mut stream = connect(&site);
        // The answer survives bytes that nobody reads.
        stream.write_all("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = reads_until_closed(stream);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    }
    open.iter_mut().for_each(|stream| get(stream, "/"));
    assert_eq!(site.server.count(Count::TurnedAway), 10);
    open.pop();
    eventually("there is room again", || respond(&mut connect(&site), "/").starts_with("HTTP/1.1 200 "));
}

#[test]
fn the_first_word_about_a_body_is_100_continue() {
    let site = Site::start(Settings::default());
    let mut stream = connect(&site);
    let head = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    get(&mut stream, "/");
}

#[test]
fn an_answer_survives_a_body_that_nobody_reads() {
    let site = Site::start(settings(|l| l.body_size_max_bytes = 1000));
    for _ in 0..20 {
        let mut stream = connect(&site);
        stream.write_all(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").unwrap();
        let _ = stream.write_all(&vec![b'x'; 900_000]);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = reads_until_closed(stream);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:.100}");
    }
}

#[test]
fn bodies_made_while_they_are_sent_arrive_whole_and_are_framed_by_version() {
    let site = Site::start(Settings::default());
    let mut stream = connect(&site);
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let answer = reads_until_closed(stream);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"), "{head}");
    assert!(body.starts_with("7530\r\n000000") && body.ends_with("\r\n0\r\n\r\n"));
    assert_eq!(body.len(), 10 * (6 + 30_000 + 2) + 5);
    let mut stream = connect(&site);
    stream.write_all(b"GET /stream HTTP/1.0\r\n\r\n").unwrap();
    let answer = reads_until_closed(stream);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Connection: close") && !head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(body.len(), 300_000);
    let mut stream = connect(&site);
    stream.write_all(b"HEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(reads_until_closed(stream).ends_with("\r\n\r\n"));
}

#[test]
fn a_body_that_breaks_off_is_seen_to() {
    let site = Site::start(Settings::default());
    let mut stream = connect(&site);
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    // With a reset: a client of HTTP/1.0 sees it too.
    assert!(stream.read_to_end(&mut bytes).is_err());
    assert!(!bytes.ends_with(b"0\r\n\r\n"));
}

#[test]
fn bodies_of_framing_are_refused_and_hold_up_nobody() {
    let site = Site::start(Settings::default());
    let mut stream = connect(&site);
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(4000));
    let _ = stream.write_all(b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let _ = stream.write_all(chunk.repeat(100).as_bytes());
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    // A chunk a byte is wasteful, but a body.
    let mut stream = connect(&site);
    let body = "1\r\nx\r\n".repeat(50_000);
    write!(stream, "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut stream).ends_with("50000"));
}

#[test]
fn draining_answers_what_is_on_its_way_and_ends_the_rest() {
    let site = Site::start(Settings::default());
    let (mut busy, idle) = (connect(&site), connect(&site));
    get(&mut busy, "/");
    eventually("both are open", || site.server.connections() == 2);
    site.server.drain();
    assert!(respond(&mut busy, "/").contains("Connection: close"));
    assert_eq!(reads_until_closed(busy), "");
    site.server.close_idle();
    assert_eq!(reads_until_closed(idle), "");
}

fn behind_proxies(speak_first: bool) -> Settings {
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    Settings {
        limits: Limits { header_timeout: MS(500), ..Limits::default() },
        proxies: Proxies { trusted, speak_first },
    }
}

#[test]
fn the_client_is_whom_a_trusted_proxy_names() {
    let site = Site::start(behind_proxies(false));
    let ask = |fields: &str| {
        let mut stream = connect(&site);
        write!(stream, "GET /client HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n").unwrap();
        reads_until_closed(stream).rsplit("\r\n").next().unwrap().to_string()
    };
    assert_eq!(ask(""), "127.0.0.1");
    assert_eq!(ask("X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n"), "198.51.100.7");
    assert_eq!(ask("Forwarded: for=\"[2001:db8::7]:99\";proto=https\r\n"), "2001:db8::7");
    let site = Site::start(Settings::default());
    let mut stream = connect(&site);
    stream
        .write_all(
            b"GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    assert!(reads_until_closed(stream).ends_with("127.0.0.1"));
}

#[test]
fn a_proxy_header_names_the_client_of_all_requests_that_follow() {
    let site = Site::start(behind_proxies(true));
    let request = b"GET /client HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let line = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n".to_vec();
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    binary.extend([203, 0, 113, 9, 192, 0, 2, 1, 18, 103, 0, 80]);
    for (header, client) in [(line, "198.51.100.7"), (binary, "203.0.113.9")] {
        for cut in 0..=header.len() {
            let mut stream = connect(&site);
            stream.write_all(&header[..cut]).unwrap();
            if cut > 0 && cut % 7 == 0 {
                std::thread::sleep(MS(5));
            }
            stream.write_all(&header[cut..]).unwrap();
            stream.write_all(request).unwrap();
            let answer = reads_until_closed(stream);
            assert!(answer.ends_with(client), "cut at {cut}: {answer}");
        }
    }
    let mut stream = connect(&site);
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    // Closed with a reset: the request is left unread.
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty(), "a trusted proxy must say whom it speaks for");
    assert_eq!(reads_until_closed(connect(&site)), "", "and in time");
}
