//! A `catwalk dev` for a bench: started on a free port, ended with it.
//! Runs in: offline.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[allow(dead_code)] // Not every bench needs all of it.
pub struct Server {
    child: Child,
    dir: PathBuf,
    is_kept: bool,
    pub address: String,
    /// Where /metrics is.
    pub admin_address: String,
    pub database_url: String,
}

#[allow(dead_code)]
impl Server {
    /// Starts it with `args`, and waits until it says READY=1.
    pub fn start(args: &[&str]) -> Server {
        let dir = std::env::temp_dir().join(format!("catwalk-bench-{}", std::process::id()));
        let mut server = Server::start_in(&dir, args);
        server.is_kept = false;
        server
    }

    /// The same, on what lies in `dir`, which stays.
    pub fn start_in(dir: &Path, args: &[&str]) -> Server {
        std::fs::create_dir_all(dir).expect("a directory");
        let notify = dir.join("notify");
        // One that ended has left its own.
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("a socket");
        let mut command = Command::new(env!("CARGO_BIN_EXE_catwalk"));
        command.args(["dev", "--listen", "127.0.0.1:0", "--dir"]).arg(dir.join("d")).args(args);
        let child = command
            .env("NOTIFY_SOCKET", &notify)
            .env("CATWALK_ADMIN_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .spawn()
            .expect("catwalk starts");
        let [address, admin_address] = wait_ready(&socket);
        let database_url = std::fs::read_to_string(dir.join("d/database.url")).expect("dev writes it");
        let dir = dir.to_path_buf();
        Server {
            child,
            dir,
            is_kept: true,
            address,
            admin_address,
            database_url: database_url.trim().to_string(),
        }
    }

    /// The value of a counter in /metrics.
    pub fn metric(&self, name: &str) -> u64 {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.admin_address).expect("it takes connections");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).expect("a counter")
    }

    /// Size of a cached record of a kind, on the average.
    pub fn record_size_bytes(&self, kind: &str) -> usize {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catwalk"));
        let out =
            command.args(["cache", "status", "--json", "--runtime-dir"]).arg(self.dir.join("d/run")).output();
        let status: serde_json::Value = serde_json::from_slice(&out.expect("it runs").stdout).expect("JSON");
        let number = |name: &str| status["valid"][kind][name].as_u64().expect("a number") as usize;
        number("size_bytes") / number("records")
    }

    pub fn database(&self) -> may_postgres::Client {
        catwalk::db::connect(&self.database_url).expect("the cluster takes connections")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where it serves, and where its /metrics is.
fn wait_ready(socket: &UnixDatagram) -> [String; 2] {
    let mut buf = [0u8; 4096];
    loop {
        let len = socket.recv(&mut buf).expect("a message");
        let text = String::from_utf8_lossy(&buf[..len]).into_owned();
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::to_string);
        if let (Some(address), Some(admin)) =
            (field("X_CATWALK_URL=http://"), field("X_CATWALK_ADMIN_URL=http://"))
        {
            return [address, admin];
        }
    }
}
