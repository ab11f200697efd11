//! Instructions of a worker per hot request, counted by callgrind on a fixed script: what the processor does for one, whatever
//! else the machine does meanwhile. A ratchet: `instructions.txt` may only fall.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::server::{children_of, directory, release_binary};
use crate::support::Server;

/// Name in `instructions.txt`, path, further fields.
const KINDS: [(&str, &str, &str); 4] = [
    ("product", "/products/17", ""),
    ("product_gzip", "/products/17", "Accept-Encoding: gzip, deflate, br\r\n"),
    ("styles", "/products/17/styles", ""),
    ("page", "/products", ""),
];
const REQUESTS: u64 = 2000;
const WARM_UP: u64 = 50;
/// What an unlucky tick of a clock may add, in hundredths.
const TOLERANCE: u64 = 3;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn output_of(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// `serve` under callgrind with one worker.
struct Counted {
    server: Server,
    dir: tempfile::TempDir,
}

impl Counted {
    fn start(binary: &Path, database: &str) -> Counted {
        let dir = directory();
        let out = format!("--callgrind-out-file={}/%p", dir.path().display());
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind", &out]).arg(binary);
        command.args(["serve", "--database-url", database]).stderr(Stdio::null());
        command.env("CATWALK_LISTEN", "127.0.0.1:0").env("CATWALK_WORKERS", "1");
        command.env("CATWALK_CACHE_SIZE", "16MiB").env("CATWALK_CACHE_MAX_AGE", "1h");
        Counted { server: Server::launch(command, dir.path()), dir }
    }

    fn ask(&self, path: &str, fields: &str, count: u64) {
        let mut stream = TcpStream::connect(&self.server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: callgrind\r\nAccept: */*\r\n{fields}\r\n"
        );
        let mut answer = vec![0; 64 * 1024];
        for _ in 0..count {
            stream.write_all(request.as_bytes()).unwrap();
            let len = stream.read(&mut answer).unwrap();
            assert!(answer[..len].starts_with(b"HTTP/1.1 200 "), "{path}");
        }
    }

    /// Ends it; the worker's instructions from its start to its end.
    fn count(mut self) -> u64 {
        let worker = children_of(self.server.pid())[0];
        self.server.stop();
        let text = std::fs::read_to_string(self.dir.path().join(worker.to_string())).unwrap();
        let line = text.lines().rev().find_map(|l| l.strip_prefix("totals: ")).expect("a total");
        line.trim().parse().unwrap()
    }
}

/// Instructions per request: a long run less a short one, which has the same start, miss and end.
fn measure(binary: &Path, database: &str, path: &str, fields: &str) -> u64 {
    let run = |count| {
        let server = Counted::start(binary, database);
        server.ask(path, fields, count);
        server.count()
    };
    (run(WARM_UP + REQUESTS) - run(WARM_UP)) / REQUESTS
}

#[test]
fn a_hot_request_takes_no_more_instructions_than_recorded() {
    if output_of(Command::new("valgrind").arg("--version")).is_none() {
        println!("passed over: there is no valgrind here");
        return;
    }
    let compiler = output_of(Command::new("rustc").arg("--version").current_dir(root())).unwrap_or_default();
    let record = std::fs::read_to_string(root().join("tests/it/instructions.txt")).unwrap();
    let recorded =
        |name: &str| record.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap();
    let is_same = compiler.starts_with(&format!("rustc {} ", recorded("rustc")));
    let server = Server::start(&["--products", "50"]);
    let binary = release_binary();
    let mut wrong = Vec::new();
    for (name, path, fields) in KINDS {
        let (now, before) = (measure(&binary, &server.database_url(), path, fields), recorded(name));
        println!("{name}: {now} instructions a request, {before} recorded");
        let before: u64 = before.parse().unwrap();
        if now * 100 > before * (100 + TOLERANCE) {
            wrong.push(format!("{name}: {now} instructions a request instead of {before}"));
        }
        if now * 100 < before * (100 - 2 * TOLERANCE) {
            wrong.push(format!("{name}: {now} instructions a request; lower the record from {before}"));
        }
    }
    assert!(wrong.is_empty() || !is_same, "{}", wrong.join("\n"));
}
