//! A server with a few paths, a ticking thread, and a client that sees every byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use may_minihttp::{
    BodySource, HttpService, HttpServiceFactory, Limits, Request, Response, Server, Settings, Tls,
};

pub struct Site {
    pub server: Arc<Server<Factory>>,
    pub address: SocketAddr,
    pub served: Arc<AtomicUsize>,
    pub hold: Arc<Hold>,
    stop: Arc<AtomicBool>,
}

/// What `/hold` and `/ordinary` say to each other and to the test.
#[derive(Default)]
pub struct Hold {
    pub held: AtomicBool,
    pub release: AtomicBool,
    pub served_before_ordinary: AtomicUsize,
}

pub fn settings(set: impl FnOnce(&mut Limits)) -> Settings {
    let mut limits = Limits::default();
    set(&mut limits);
    Settings { limits, ..Settings::default() }
}

impl Site {
    pub fn start(settings: Settings) -> Site {
        Site::start_with(settings, None)
    }

    pub fn start_with(settings: Settings, tls: Option<Arc<Tls>>) -> Site {
        may::config().set_worker_pin(false);
        may::config().set_workers(1);
        let served = Arc::new(AtomicUsize::new(0));
        let hold = Arc::new(Hold::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server::new(Factory(served.clone(), hold.clone()), settings));
        server.accept_on(listener, tls).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (ticking, stopped) = (server.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                ticking.tick();
            }
        });
        Site { server, address, served, hold, stop }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.drain();
        self.server.close_idle();
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub struct Factory(Arc<AtomicUsize>, Arc<Hold>);
pub struct Service(Arc<AtomicUsize>, Arc<Hold>);

impl HttpServiceFactory for Factory {
    type Service = Service;

    fn new_service(&self, _id: usize) -> Service {
        Service(self.0.clone(), self.1.clone())
    }
}

impl HttpService for Service {
    fn call(&mut self, mut req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match &*req.path() {
            "/read" => {
                let mut body = Vec::new();
                let _ = req.body().read_to_end(&mut body);
                rsp.body(&body.len().to_string());
            }
            "/hold" => {
                self.1.held.store(true, Ordering::Relaxed);
                while !self.1.release.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            "/ordinary" => {
                self.1.served_before_ordinary.store(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            "/large" => {
                rsp.body_mut().resize(20 * 1024, b'x');
            }
            "/client" => {
                rsp.body(&req.client().to_string());
            }
            "/stream" => {
                rsp.stream(Box::new(Pieces { left: 10, breaks: false }));
            }
            "/broken" => {
                rsp.stream(Box::new(Pieces { left: 10, breaks: true }));
            }
            _ => {
                rsp.body("content");
            }
        }
        Ok(())
    }
}

/// Ten pieces of 30,000 bytes, or half of them and an error.
struct Pieces {
    left: usize,
    breaks: bool,
}

impl BodySource for Pieces {
    fn size_bytes(&self) -> Option<u64> {
        None
    }

    fn next_piece(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.breaks && self.left == 5 {
            return Err(io::Error::other("broken"));
        }
        self.left -= 1;
        out.resize(30_000, b'0');
        Ok(self.left > 0)
    }
}

pub fn connect(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(site.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The answer to a request, which has a length.
pub fn respond(stream: &mut (impl Read + Write), path: &str) -> String {
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    read_answer(stream)
}

pub fn read_answer(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return String::from_utf8(bytes).unwrap(),
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let len = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; len.map_or(0, |len| len.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Asks for `path` and expects it to be served.
pub fn get(stream: &mut (impl Read + Write), path: &str) {
    let answer = respond(stream, path);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
}

/// Everything until the server closes.
pub fn reads_until_closed(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the server closes in good order");
    String::from_utf8(bytes).unwrap()
}

pub fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Resident memory of this process.
pub fn pid_memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
