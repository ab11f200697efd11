//! A service manager by its protocols: sockets and stored descriptors handed over (sd_listen_fds(3)), notifications taken (sd_notify(3)).

use std::collections::HashMap;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catwalk::os::fd::wait_readable;
use catwalk::os::passing::{self, Message};
use catwalk::os::processes::Stat;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::server::{directory, value_of, workers_of, BIN};
use crate::support::{eventually, Connection, Server};

/// What the service has said.
#[derive(Default)]
struct Heard {
    main: Option<Pid>,
    ready: usize,
    status: String,
    fields: HashMap<String, String>,
    store: HashMap<String, OwnedFd>,
}

/// A service and its manager.
pub struct Manager {
    pub database: Server,
    pub dir: tempfile::TempDir,
    /// The binary that is run, which tests replace.
    pub program: PathBuf,
    /// Of the socket unit, if there is one.
    sockets: Vec<TcpListener>,
    socket: Arc<UnixDatagram>,
    heard: Arc<Mutex<Heard>>,
    over: Arc<AtomicBool>,
}

impl Manager {
    /// A stopped service with so many sockets of its unit.
    pub fn new(sockets: usize) -> Manager {
        let dir = directory();
        let program = dir.path().join("catwalk");
        std::fs::copy(BIN, &program).unwrap();
        let socket = Arc::new(UnixDatagram::bind(dir.path().join("notify")).unwrap());
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let (ear, notes, end) = (socket.clone(), heard.clone(), over.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                wait_readable([ear.as_fd()], Duration::from_millis(50));
                while let Ok(message) = passing::receive(ear.as_fd()) {
                    hear(&mut notes.lock().unwrap(), message);
                }
            }
        });
        let manager = Manager {
            database: Server::start(&["--products", "300"]),
            program,
            sockets: (0..sockets).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect(),
            dir,
            socket,
            heard,
            over,
        };
        manager.configure("");
        manager
    }

    /// Writes the file of settings, with `more`.
    pub fn configure(&self, more: &str) {
        let text = format!("workers = 2\n{more}\n[database]\nurl = {:?}\n", self.database.database_url());
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("catwalk.toml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts it, and waits until it is ready.
    pub fn start(&self) {
        let before = self.ready();
        let fds: Vec<(String, OwnedFd)> = {
            let mut heard = self.heard.lock().unwrap();
            let sockets =
                self.sockets.iter().map(|s| ("http".to_string(), s.as_fd().try_clone_to_owned().unwrap()));
            sockets.chain(heard.store.drain()).collect()
        };
        let names: Vec<&str> = fds.iter().map(|(name, _)| name.as_str()).collect();
        let numbers: Vec<RawFd> = fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        // A shell: the variable names the process that it becomes.
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(&self.program);
        command.args(["serve", "--config"]).arg(self.config());
        command.env("LISTEN_FDS", numbers.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        command.env("CATWALK_LISTEN", "127.0.0.1:0").env("CATWALK_ADMIN_LISTEN", "127.0.0.1:0");
        command.env("CATWALK_PUBLIC_URL", "http://shop.example").env("CATWALK_CACHE_SIZE", "16MiB");
        command.env("CATWALK_RUNTIME_DIR", self.dir.path().join("run")).env("CATWALK_HTTP_WRITE_RATE", "0");
        let log =
            std::fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // SAFETY: all of it may be called between fork and exec; 3 is the first descriptor that sd_listen_fds(3) speaks of. They are
        // moved out of the way first.
        unsafe {
            command.pre_exec(move || {
                let moved: Vec<RawFd> =
                    numbers.iter().map(|fd| libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 64)).collect();
                let placed = (3..).zip(&moved).all(|(place, fd)| libc::dup2(*fd, place) == place);
                match placed {
                    true => Ok(()),
                    false => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let mut child = command.spawn().unwrap();
        self.heard.lock().unwrap().main = Some(Pid::from_raw(child.id() as i32));
        eventually("the service is ready", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            self.ready() > before
        });
        // Whoever is its main process later, this one has to be reaped.
        std::thread::spawn(move || child.wait());
    }

    /// Puts a script in the program's place.
    pub fn replace_program(&self, script: &str) {
        let _ = std::fs::remove_file(&self.program);
        std::fs::write(&self.program, script).unwrap();
        std::fs::set_permissions(&self.program, Permissions::from_mode(0o755)).unwrap();
    }

    pub fn ready(&self) -> usize {
        self.heard.lock().unwrap().ready
    }

    pub fn main(&self) -> Pid {
        self.heard.lock().unwrap().main.expect("it was started")
    }

    pub fn status(&self) -> String {
        self.heard.lock().unwrap().status.clone()
    }

    pub fn address(&self) -> String {
        match self.sockets.first() {
            Some(socket) => socket.local_addr().unwrap().to_string(),
            None => self.field("X_CATWALK_URL").trim_start_matches("http://").to_string(),
        }
    }

    fn field(&self, name: &str) -> String {
        self.heard.lock().unwrap().fields.get(name).cloned().unwrap_or_default()
    }

    pub fn metric(&self, name: &str) -> u64 {
        let admin = self.field("X_CATWALK_ADMIN_URL");
        let text = Connection::open(admin.trim_start_matches("http://")).get("/metrics").text();
        value_of(&text, name)
    }

    pub fn workers(&self) -> Vec<Pid> {
        workers_of(self.main())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.main(), signal).expect("it is running");
    }

    /// Runs a command that asks the service.
    pub fn ask(&self, verb: &str) -> Output {
        let mut command = Command::new(BIN);
        command.args([verb, "--wait", "--runtime-dir"]).arg(self.dir.path().join("run"));
        command.env_clear().output().unwrap()
    }

    /// The same, which has to succeed.
    pub fn have(&self, verb: &str) {
        let out = self.ask(verb);
        assert!(out.status.success(), "{verb}: {}\n{}", String::from_utf8_lossy(&out.stderr), self.log());
    }

    /// Ends it, and waits until it is gone.
    pub fn stop(&self) {
        let main = self.main();
        let _ = kill(main, Signal::SIGTERM);
        eventually("the service ends", || is_gone(main));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let main = self.heard.lock().unwrap().main;
        if let Some(main) = main.filter(|main| !is_gone(*main)) {
            let _ = kill(main, Signal::SIGTERM);
            // Twice: at once.
            let _ = kill(main, Signal::SIGTERM);
        }
        self.over.store(true, Ordering::Relaxed);
        let _ = &self.socket;
    }
}

/// Gone, or waiting for a parent that does not care.
pub fn is_gone(pid: Pid) -> bool {
    Stat::of(pid.as_raw() as u64).is_none_or(|stat| stat.is_zombie)
}

fn hear(heard: &mut Heard, message: Message) {
    let Message { text, mut fds, .. } = message;
    let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |name: &str| fields.get(name).map(|value| value.to_string());
    if let Some(pid) = get("MAINPID").and_then(|pid| pid.parse().ok()) {
        heard.main = Some(Pid::from_raw(pid));
    }
    if get("FDSTOREREMOVE").is_some() {
        heard.store.remove(&get("FDNAME").unwrap());
    }
    if get("FDSTORE").is_some() {
        heard.store.insert(get("FDNAME").unwrap(), fds.remove(0));
    }
    if let Some(status) = get("STATUS") {
        heard.status = status;
    }
    let own = fields.iter().filter(|(name, _)| name.starts_with("X_"));
    heard.fields.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
    if get("READY").is_some() {
        heard.ready += 1;
    }
}
