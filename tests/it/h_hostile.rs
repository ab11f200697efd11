//! Clients that mean harm: slow ones, endless ones, ten thousand idle ones, ones that come and go. The others are served
//! all the time and memory stays bounded. How fast the others are served is printed, and with SOAK_SECONDS held to
//! twice what it is in peace.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};

use crate::support::server::{directory, release_binary};
use crate::support::{eventually, Connection, Server};

/// Memory of a worker above what it takes in peace, for ten thousand connections at most.
const GROWTH_MAX_KIB: usize = 128 * 1024;
const REQUESTS: usize = 5000;
/// Rounds of peace and attack by turns, when times are compared.
const ROUNDS: usize = 5;

fn is_soak() -> bool {
    std::env::var_os("SOAK_SECONDS").is_some()
}

/// A server as it is shipped, with one worker and room for all.
fn start(config: &str) -> Server {
    let dir = directory();
    let path = dir.path().join("catwalk.toml");
    std::fs::write(&path, config).unwrap();
    let place = dir.path().join("d");
    let mut command = Command::new(release_binary());
    command.args([
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--products",
        "100",
        "--workers",
        "1",
        "--cache-size",
        "16MiB",
    ]);
    command.arg("--dir").arg(&place).arg("--config").arg(&path);
    let server = Server::launch(command, &place);
    server.keep(dir)
}

/// Anonymous memory of the worker: the shared cache is not counted.
fn memory_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.workers()[0])).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// An ordinary client's slowest request but one in a hundred. Each one must be answered.
fn p99(connection: &mut Connection) -> Duration {
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|n| {
            let start = Instant::now();
            assert_eq!(connection.get(&format!("/products/{}", n % 100 + 1)).status, 200);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[REQUESTS * 99 / 100]
}

/// Serves an ordinary client in peace and under `attack`, by turns; what `attack` returns ends it when dropped.
fn endure<T>(what: &str, server: &Server, attack: impl Fn() -> T) {
    let mut ordinary = server.connect();
    p99(&mut ordinary);
    let calm = memory_kib(server);
    let mut ratios = Vec::new();
    let mut grown = 0;
    for _ in 0..if is_soak() { ROUNDS } else { 1 } {
        let peace = p99(&mut ordinary);
        let attacking = attack();
        let attacked = p99(&mut ordinary);
        grown = grown.max(memory_kib(server).saturating_sub(calm));
        // New clients are served too.
        assert_eq!(server.get("/healthz").status, 200, "{what}");
        drop(attacking);
        ratios.push(attacked.as_secs_f64() / peace.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    println!("{what}: p99 of the others × {ratio:.2}, memory + {grown} KiB");
    assert!(grown < GROWTH_MAX_KIB, "{what}: memory grew by {grown} KiB");
    assert!(!is_soak() || ratio <= 2.0, "{what}: p99 of the others × {ratio:.2}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// slowhttptest with a thousand connections; None where it is not installed.
fn slow(server: &Server, path: &str, args: &[&str]) -> Option<Running> {
    let mut command = Command::new("slowhttptest");
    command.args(["-c", "1000", "-r", "1000", "-l", "240", "-i", "1", "-p", "10"]).args(args);
    command
        .args(["-u", &format!("http://{}{path}", server.address)])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = command.spawn().ok().map(Running)?;
    eventually("the attack is on", || open_connections(server) > 950);
    Some(running)
}

fn open_connections(server: &Server) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", server.workers()[0])).unwrap();
    let is_socket = |e: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_link(e.ok()?.path()).ok().filter(|l| l.to_string_lossy().starts_with("socket"))
    };
    entries.filter_map(is_socket).count()
}

#[test]
fn slow_heads_bodies_and_readers_cost_the_others_nothing() {
    if Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("passed over: there is no slowhttptest here");
        return;
    }
    let server = start("[http]\nwrite_timeout = \"5s\"\n");
    endure("slow heads", &server, || slow(&server, "/products", &["-H"]));
    endure("slow bodies", &server, || slow(&server, "/products", &["-B", "-t", "POST", "-s", "8192"]));
    let read = ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"];
    endure("slow readers", &server, || slow(&server, "/products?count=100", &read));
    eventually("all of them are gone", || open_connections(&server) < 100);
}

/// Threads that do `work` again and again until this is dropped.
struct Crowd(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Crowd {
    fn of(threads: usize, work: impl Fn() + Send + Sync + 'static) -> Crowd {
        let (stop, work) = (Arc::new(AtomicBool::new(false)), Arc::new(work));
        let one = |_| {
            let (stop, work) = (stop.clone(), work.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work();
                }
            })
        };
        let threads = (0..threads).map(one).collect();
        Crowd(stop, threads)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn heads_without_end_and_connections_that_come_and_go_are_borne() {
    let server = start("");
    let address = server.address.clone();
    endure("heads without end", &server, || {
        let address = address.clone();
        Crowd::of(4, move || {
            let mut stream = TcpStream::connect(&address).unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");
            while stream.write_all(&[b'x'; 512]).is_ok() {
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    });
    endure("connections that come and go", &server, || {
        let address = address.clone();
        Crowd::of(4, move || {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /products/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
            std::thread::sleep(Duration::from_millis(4));
        })
    });
}

/// Raises this process's limit of descriptors, and says how many connections it can hold.
fn room_for_connections() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    10_000.min(hard as usize - 1000)
}

#[test]
fn ten_thousand_idle_connections_take_little_and_slow_nobody_down() {
    let count = room_for_connections();
    let server = start("[http]\nconnections = 20000\nidle_timeout = \"5min\"\n");
    endure("idle connections", &server, || {
        let mut idle: Vec<Connection> = (0..count).map(|_| server.connect()).collect();
        for (n, connection) in idle.iter_mut().enumerate() {
            // A miss and a hit on each: the stack and the buffers have been used.
            assert_eq!(connection.get(&format!("/products?count=5&page={}", n % 20 + 1)).status, 200);
            assert_eq!(connection.get("/products/1").status, 200);
        }
        assert!(open_connections(&server) > count);
        idle
    });
}

#[test]
fn over_the_cap_those_who_are_in_are_served_and_the_rest_are_told() {
    let server = start("[http]\nconnections = 500\n");
    let mut inside: Vec<Connection> = (0..499).map(|_| server.connect()).collect();
    inside.iter_mut().for_each(|c| assert_eq!(c.get("/healthz").status, 200));
    let calm = memory_kib(&server);
    let outside: Vec<TcpStream> = (0..1500).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let ordinary = &mut inside[0];
    println!("over the cap: p99 of those inside {:?}", p99(ordinary));
    let mut told = 0;
    for mut stream in outside {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        told += usize::from(answer.starts_with(b"HTTP/1.1 503 "));
    }
    assert!(told >= 200, "{told} of 1500 were told");
    assert!(memory_kib(&server) < calm + 32 * 1024);
    inside.iter_mut().for_each(|c| assert_eq!(c.get("/products/1").status, 200));
    eventually("all are counted", || {
        let text = server.metrics();
        text.contains("catwalk_http_connections_turned_away_total 1499")
            || text.contains("catwalk_http_connections_turned_away_total 1500")
    });
}
