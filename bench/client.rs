//! Requests of a bench over one connection.
//! Runs in: offline.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server takes connections");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// How long a 200 takes, from the request to its last byte.
pub fn get(stream: &mut TcpStream, path: &str) -> Duration {
    let started = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).expect("it reads");
    let (mut got, mut buf) = (Vec::new(), [0u8; 65536]);
    loop {
        let n = stream.read(&mut buf).expect("it answers");
        assert!(n > 0, "it ended while {path} was asked for");
        got.extend_from_slice(&buf[..n]);
        let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if got.len() >= end + 4 + length.parse::<usize>().expect("a number") {
            assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
            return started.elapsed();
        }
    }
}
