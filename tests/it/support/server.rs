//! A `catwalk dev` of the test's own: its cluster, its port, its end.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use catwalk::db;
use catwalk::os::fd::wait_readable;
use catwalk::os::passing::{self, Message};
use may_postgres::Client;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{eventually, Connection, Reply};

pub const BIN: &str = env!("CARGO_BIN_EXE_catwalk");

/// A directory that other users may pass: the cluster's is not always ours.
pub fn directory() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("catwalk-test-").permissions(std::fs::Permissions::from_mode(0o755));
    builder.tempdir().expect("a temporary directory")
}

/// A running server.
pub struct Server {
    child: Child,
    pub dir: PathBuf,
    pub address: String,
    /// Where it serves HTTPS.
    pub tls_address: Option<String>,
    /// Where /metrics is.
    pub admin_address: Option<String>,
    /// What it has handed to its service manager, by name.
    pub stored: Vec<(String, OwnedFd)>,
    // Last: the directory goes when the server has ended.
    _dir: Option<TempDir>,
}

impl Server {
    /// A server with few products and `args`.
    pub fn start(args: &[&str]) -> Server {
        let dir = directory();
        let path = dir.path().join("d");
        let mut server = Server::start_in(&path, args);
        server._dir = Some(dir);
        server
    }

    /// A server on a directory that outlives it.
    pub fn start_in(dir: &Path, args: &[&str]) -> Server {
        let mut command = Command::new(BIN);
        command.arg("dev").arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]).args(args);
        if !args.iter().any(|a| a.starts_with("--cache-size")) {
            command.args(["--cache-size", "16MiB"]);
        }
        if !args.iter().any(|a| *a == "--products" || *a == "--load") {
            command.args(["--products", "50"]);
        }
        Server::launch(command, dir)
    }

    /// Starts `command` and waits until it says READY=1 over the notify socket.
    pub fn launch(mut command: Command, dir: &Path) -> Server {
        let notify_dir = directory();
        let path = notify_dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        if command.get_envs().all(|(name, _)| name != "CATWALK_RUNTIME_DIR") {
            command.env("CATWALK_RUNTIME_DIR", dir.join("run"));
        }
        if command.get_envs().all(|(name, _)| name != "CATWALK_ADMIN_LISTEN") {
            command.env("CATWALK_ADMIN_LISTEN", "127.0.0.1:0");
        }
        command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().expect("catwalk starts");
        let (mut address, mut tls_address, mut admin_address, mut stored) = (None, None, None, Vec::new());
        eventually("the server is ready", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("catwalk ended before it was ready: {status}");
            }
            wait_readable([socket.as_fd()], Duration::from_millis(100));
            let Ok(Message { text, fds, .. }) = passing::receive(socket.as_fd()) else { return false };
            let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::to_string);
            if text.lines().any(|line| line == "FDSTORE=1") {
                stored.extend(fds.into_iter().map(|fd| (field("FDNAME=").expect("a name"), fd)));
            }
            address = field("X_CATWALK_URL=http://").or(address.take());
            tls_address = field("X_CATWALK_TLS_URL=https://").or(tls_address.take());
            admin_address = field("X_CATWALK_ADMIN_URL=http://").or(admin_address.take());
            address.is_some()
        });
        let address = address.expect("ready");
        Server { child, dir: dir.to_path_buf(), address, tls_address, admin_address, stored, _dir: None }
    }

    /// One server that all read-only tests share.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = Server::start(&["--products", "2000"]);
            end_with_this_process(server.pid());
            server
        })
    }

    /// The same server, which `dir` now ends with.
    pub fn keep(mut self, dir: TempDir) -> Server {
        self._dir = Some(dir);
        self
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(&self.address)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.connect().get(path)
    }

    pub fn database_url(&self) -> String {
        std::fs::read_to_string(self.dir.join("database.url")).expect("dev writes it").trim().to_string()
    }

    pub fn database(&self) -> Client {
        db::connect(&self.database_url()).expect("the private cluster takes connections")
    }

    /// Waits until a statement waits for a lock. Over a connection of its own: a transaction sees pg_stat_activity as it
    /// first saw it, again and again.
    pub fn wait_for_lock_waiter(&self) {
        let client = self.database();
        eventually("a statement waits for a lock", || {
            let waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock'";
            !client.query_text(waiting, &[]).unwrap().is_empty()
        });
    }

    /// Process ids of the workers.
    pub fn workers(&self) -> Vec<Pid> {
        workers_of(self.pid())
    }

    /// The worker that has accepted `connection`.
    pub fn worker_of(&self, connection: &Connection) -> Pid {
        let mut found = None;
        eventually("a worker has the connection", || {
            found = self.find_worker_of(connection);
            found.is_some()
        });
        found.expect("found")
    }

    fn find_worker_of(&self, connection: &Connection) -> Option<Pid> {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
        // Both ends: connections to other servers may be from the same port.
        let port = |port: u16| format!(":{port:04X}");
        let own = self.address.rsplit_once(':').and_then(|(_, own)| own.parse().ok()).map(port)?;
        let theirs = port(connection.port());
        let row = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|row| row[1].ends_with(&own) && row[2].ends_with(&theirs))?;
        let socket = format!("socket:[{}]", row[9]);
        let has_it = |pid: &Pid| {
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            descriptors
                .filter_map(|fd| fd.path().read_link().ok())
                .any(|link| link.as_os_str() == socket.as_str())
        };
        self.workers().into_iter().find(has_it)
    }

    /// Process id of the change feed.
    pub fn feed(&self) -> Pid {
        let mut found = None;
        eventually("the change feed runs", || {
            found = children_of(self.pid()).into_iter().find(|pid| name_of(*pid) == "catwalk-feed");
            found.is_some()
        });
        found.expect("found")
    }

    /// Process id of the private PostgreSQL.
    pub fn postgres(&self) -> Pid {
        self.find_postgres().expect("dev runs a PostgreSQL")
    }

    /// The same, None while it is down.
    pub fn find_postgres(&self) -> Option<Pid> {
        children_of(self.pid()).into_iter().find(|pid| command_of(*pid).contains("postgres"))
    }

    /// What /metrics says.
    pub fn metrics(&self) -> String {
        let address = self.admin_address.as_ref().expect("it serves /metrics");
        Connection::open(address).get("/metrics").text()
    }

    /// The value of a counter in /metrics.
    pub fn metric(&self, name: &str) -> u64 {
        value_of(&self.metrics(), name)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is running");
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        status.expect("ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Statics are not dropped: a shell of its own ends the server when this process's end of a pipe closes.
fn end_with_this_process(pid: Pid) {
    let watcher = format!("cat >/dev/null; kill -TERM {pid}");
    let child = Command::new("sh").args(["-c", &watcher]).stdin(Stdio::piped()).spawn().expect("a shell");
    // Kept open for the life of this process.
    std::mem::forget(child);
}

/// A metric's value in what /metrics says.
pub fn value_of(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let value = line.unwrap_or_else(|| panic!("no metric {name}")).rsplit(' ').next();
    value.and_then(|v| v.parse().ok()).expect("a number")
}

/// Process ids of a master's workers.
pub fn workers_of(master: Pid) -> Vec<Pid> {
    children_of(master).into_iter().filter(|pid| name_of(*pid).starts_with("catwalk-work")).collect()
}

pub fn children_of(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).map(Pid::from_raw).collect()
}

fn name_of(pid: Pid) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_string()
}

fn command_of(pid: Pid) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).into_owned();
    text.split('\0').next().unwrap_or_default().to_string()
}

/// The binary as it is shipped.
pub fn release_binary() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--release", "--locked", "--bin", "catwalk"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().expect("cargo runs").success());
    Path::new(BIN).parent().and_then(Path::parent).expect("below target").join("release/catwalk")
}
