//! A cache that outlives its server: handed to a service manager and back by its protocol, or left as a file; and every reason not to
//! take it over.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;

use catwalk::os::mmap::SharedMemory;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::server::{children_of, directory, BIN};
use crate::support::{eventually, Connection, Server};

/// `serve` on a database that outlives it, without logs for others to see.
struct Shop {
    database: Server,
    dir: tempfile::TempDir,
}

impl Shop {
    fn new() -> Shop {
        Shop { database: Server::start(&["--products", "60"]), dir: directory() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn command(&self, born_with: Option<BorrowedFd<'_>>) -> Command {
        // A shell: the variable names the process that it becomes.
        let mut command = Command::new("sh");
        match born_with {
            Some(_) => command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", BIN]),
            None => command.args(["-c", "exec \"$0\" \"$@\"", BIN]),
        };
        command.arg("serve").env("DATABASE_URL", self.database.database_url());
        command.env("CATWALK_LISTEN", "127.0.0.1:0").env("CATWALK_PUBLIC_URL", "http://shop.example");
        command.env("CATWALK_WORKERS", "2").env("CATWALK_CACHE_SIZE", "8MiB");
        // What is counted here is not to depend on a feed that has to wait for its turn.
        command.env("CATWALK_CACHE_STALENESS_MAX", "10s");
        command.stderr(File::create(self.dir.path().join("log")).unwrap());
        if let Some(fd) = born_with {
            let fd = fd.as_raw_fd();
            command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "arena");
            // SAFETY: both may be called between fork and exec; 3 is the first descriptor that sd_listen_fds(3) speaks of.
            unsafe {
                // It may be that one already, and be closed by exec then.
                command.pre_exec(move || {
                    match libc::dup2(fd, 3) == 3 && libc::fcntl(3, libc::F_SETFD, 0) == 0 {
                        true => Ok(()),
                        false => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        }
        command
    }

    fn start(&self, born_with: Option<BorrowedFd<'_>>, change: impl Fn(&mut Command)) -> Server {
        let mut command = self.command(born_with);
        change(&mut command);
        Server::launch(command, self.dir.path())
    }

    /// A server that has answered for all products, and was stopped; the memory that it handed over.
    fn used(&self) -> OwnedFd {
        let mut server = self.start(None, |_| {});
        ask_for_all(&server.address);
        assert!(server.stop().success());
        let (name, memory) = server.stored.remove(0);
        assert_eq!(name, "arena");
        memory
    }
}

fn ask_for_all(address: &str) {
    let mut connection = Connection::open(address);
    for id in 1..=60 {
        assert_eq!(connection.get(&format!("/products/{id}")).status, 200);
    }
}

fn cache_status(server: &Server, id: u32) -> String {
    server.get(&format!("/products/{id}")).header("cache-status").unwrap().to_string()
}

#[test]
fn a_cache_outlives_a_restart_and_a_crash() {
    let shop = Shop::new();
    let mut memory = shop.used();
    for crashes in [false, true] {
        let mut server = shop.start(Some(memory.as_fd()), |_| {});
        ask_for_all(&server.address);
        assert_eq!(server.metric("catwalk_cache_misses_total"), 0, "{}", shop.log());
        assert_eq!(server.metric("catwalk_cache_hits_total"), 60);
        let is_told = shop.log().contains("8 MiB of the server before are gone on with");
        assert!(is_told || shop.log().contains("7 MiB of the server before"), "{}", shop.log());
        if crashes {
            let children = children_of(server.pid());
            server.signal(Signal::SIGKILL);
            server.wait();
            eventually("its children end", || children.iter().all(|pid| kill(*pid, None).is_err()));
        } else {
            assert!(server.stop().success());
        }
        // A store has one of each: the one that it was born with.
        assert!(server.stored.is_empty());
        memory = memory.try_clone().unwrap();
    }
    let server = shop.start(Some(memory.as_fd()), |_| {});
    assert_eq!(cache_status(&server, 7), "catwalk; hit", "after the crash");
}

#[test]
fn what_changed_while_no_server_ran_is_not_served_from_before() {
    let shop = Shop::new();
    let memory = shop.used();
    shop.database.database().batch_execute("update products set name = 'changed' where id = 5").unwrap();
    let server = shop.start(Some(memory.as_fd()), |_| {});
    for id in 1..=60 {
        let reply = server.get(&format!("/products/{id}"));
        assert_eq!(reply.json()["name"] == "changed", id == 5, "product {id}");
    }
    assert!(server.metric("catwalk_cache_hits_total") >= 56, "what did not change is there");
}

/// What is done to the memory or the configuration, and what the log says of it.
#[test]
fn each_gate_says_why_and_the_server_starts_empty() {
    let shop = Shop::new();
    let nothing = |_: &mut Command| {};
    let refuses = |memory: &OwnedFd, change: &dyn Fn(&mut Command), why: &str| {
        let mut server = shop.start(Some(memory.as_fd()), change);
        assert_eq!(server.get("/products/7").status, 200);
        assert_eq!(server.metric("catwalk_cache_hits_total"), 0, "{why}");
        assert!(server.metric("catwalk_cache_misses_total") > 0);
        let log = shop.log();
        let told = log.lines().filter(|line| line.contains("what was kept of the server before is not used"));
        let told: Vec<&str> = told.collect();
        assert!(told.len() == 1 && told[0].contains(why), "{why}: {log}");
        assert_eq!(server.stored.len(), 1, "the fresh memory is handed over instead");
        server.stop();
    };
    let memory = || shop.used();
    refuses(
        &memory(),
        &|c| {
            c.env("CATWALK_CACHE_SIZE", "16MiB");
        },
        "cache.size or workers",
    );
    refuses(
        &memory(),
        &|c| {
            c.env("CATWALK_WORKERS", "5");
        },
        "cache.size or workers",
    );
    refuses(
        &memory(),
        &|c| {
            c.env("CATWALK_CAMPUS", "other");
        },
        "settings differ",
    );
    let poked = |word: usize, value: u64| {
        let memory = memory();
        let mapped = SharedMemory::open(memory.try_clone().unwrap()).unwrap();
        mapped.word(word).store(value, Ordering::Relaxed);
        memory
    };
    refuses(&poked(0, 7), &nothing, "magic number");
    refuses(&poked(8, 7), &nothing, "schema version is 7");
    refuses(&poked(16, 7), &nothing, "binary interface");
    refuses(&poked(24, 7), &nothing, "size is");
    refuses(&poked(40, 0), &nothing, "can't be");
    refuses(&poked(80, u64::MAX), &nothing, "ahead of the clock");
    let small = SharedMemory::create("small", 64 << 10).unwrap();
    refuses(&small.fd().try_clone().unwrap(), &nothing, "magic number");
    let tiny = SharedMemory::create("tiny", 64).unwrap();
    refuses(&tiny.fd().try_clone().unwrap(), &nothing, "size is 64 bytes");
    let loose = OwnedFd::from(tempfile::tempfile().unwrap());
    refuses(&loose, &nothing, "it is no shared memory");
    let held = memory();
    // Until this process ends.
    let _hold =
        SharedMemory::open(held.try_clone().unwrap()).unwrap().hold().unwrap().expect("nobody has it");
    refuses(&held, &nothing, "still use it");
}

#[test]
fn another_databases_records_are_void() {
    let shop = Shop::new();
    let memory = shop.used();
    let other = Shop::new();
    other.database.database().batch_execute("update products set name = 'other'").unwrap();
    let server = other.start(Some(memory.as_fd()), |_| {});
    for id in 1..=60 {
        assert_eq!(server.get(&format!("/products/{id}")).json()["name"], "other");
    }
    assert!(other.log().contains("every cached answer is void: it is another database"), "{}", other.log());
}

/// What the memory says of freshness was said of the database of then.
#[test]
fn for_a_database_that_nobody_has_seen_nothing_is_answered() {
    let shop = Shop::new();
    let memory = shop.used();
    let server = shop.start(Some(memory.as_fd()), |command| {
        command
            .env("CATWALK_CACHE_STALENESS_MAX", "1h")
            .env("DATABASE_URL", "postgresql:///gone?host=/nowhere");
    });
    assert_eq!(server.get("/products/7").status, 503);
}

#[test]
fn a_damaged_record_is_found_at_its_first_touch() {
    let shop = Shop::new();
    let memory = shop.used();
    let mapped = SharedMemory::open(memory.try_clone().unwrap()).unwrap();
    let words = mapped.words(0, mapped.size_bytes() / 8);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    // A letter of each body.
    let name = b"\"name\":\"";
    let places: Vec<usize> =
        (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(name)).map(|at| at + 2).collect();
    for at in &places {
        words[at / 8].fetch_xor(1 << (at % 8 * 8), Ordering::Relaxed);
    }
    assert_eq!(places.len(), 60);
    let server = shop.start(Some(memory.as_fd()), |_| {});
    for id in 1..=60 {
        assert!(server.get(&format!("/products/{id}")).json()["name"].is_string(), "product {id}");
    }
    assert_eq!(server.metric("catwalk_cache_damaged_total"), 60);
}

/// A server without a service manager, its runtime directory in memory.
struct Lone {
    child: Child,
    address: String,
}

impl Lone {
    fn start(shop: &Shop, run: &Path) -> Lone {
        let mut command = shop.command(None);
        command
            .env("CATWALK_RUNTIME_DIR", run)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let mut address = None;
        eventually("it serves", || {
            let log = shop.log();
            address = log
                .split_once("serving http://")
                .and_then(|(_, rest)| rest.split(' ').next())
                .map(str::to_string);
            let ready = |address: &String| {
                Connection::try_open(address).is_ok_and(|mut c| c.get("/readyz").json()["feed"]["ok"] == true)
            };
            address.as_ref().is_some_and(ready)
        });
        Lone { child, address: address.unwrap() }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn end(mut self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A directory in memory, gone with the test.
fn directory_in_memory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("catwalk-test-").tempdir_in("/dev/shm").unwrap()
}

fn verb(run: &Path, args: &[&str]) -> Output {
    Command::new(BIN).arg("cache").arg("--runtime-dir").arg(run).args(args).output().unwrap()
}

#[test]
fn without_a_service_manager_the_cache_is_a_file() {
    let shop = Shop::new();
    let memory = directory_in_memory();
    let run: PathBuf = memory.path().join("run");
    let first = Lone::start(&shop, &run);
    ask_for_all(&first.address);
    // A client that is slow to ask holds up those who come after for a second at most.
    let mut slow = Connection::open(&first.address);
    slow.send(b"GET /products/1 HTTP/1.1\r\n");
    let children = children_of(first.pid());
    first.end(Signal::SIGKILL);
    eventually("its children end", || children.iter().all(|pid| kill(*pid, None).is_err()));
    let file = run.join("arena");
    let out = verb(&run, &["verify", "--file", file.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.contains("violations  0") && text.contains("60 items"), "{text}");
    let second = Lone::start(&shop, &run);
    ask_for_all(&second.address);
    let status = verb(&run, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["counters"]["misses"], 0, "{status}");
    assert_eq!(status["valid"]["product"]["records"], 60);
    second.end(Signal::SIGTERM);
    // Cut short by somebody: the size no longer fits.
    File::options().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    let third = Lone::start(&shop, &run);
    assert!(shop.log().contains("is not used: the size is 1048576 bytes"), "{}", shop.log());
    third.end(Signal::SIGTERM);
}

/// A file system in memory of a few MiB, where that may be mounted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Tmpfs> {
        let dir = directory();
        let options = format!("size={size},mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_directory_without_room_keeps_nobody_from_serving() {
    let Some(small) = Tmpfs::mount("4m") else {
        println!("a tmpfs can't be mounted here");
        return;
    };
    let shop = Shop::new();
    let lone = Lone::start(&shop, small.0.path());
    assert!(shop.log().contains("can't be made (ENOSPC"), "{}", shop.log());
    ask_for_all(&lone.address);
    assert!(!small.0.path().join("arena.new").exists() && !small.0.path().join("arena").exists());
    lone.end(Signal::SIGTERM);
}

#[test]
fn a_second_server_leaves_the_firsts_directory_alone() {
    let shop = Shop::new();
    let memory = directory_in_memory();
    let run = memory.path().join("run");
    let first = Lone::start(&shop, &run);
    ask_for_all(&first.address);
    let other = Shop::new();
    let second = Lone::start(&other, &run);
    assert!(other.log().contains("is another server's"), "{}", other.log());
    ask_for_all(&second.address);
    second.end(Signal::SIGTERM);
    let out = verb(&run, &["verify"]);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("60 items"));
    first.end(Signal::SIGTERM);
}

#[test]
fn the_verbs_show_and_clear_a_running_cache() {
    let server = Server::start(&["--products", "60"]);
    ask_for_all(&server.address);
    (0..200).for_each(|_| drop(server.get("/products/7")));
    let run = server.dir.join("run");
    let text = |args: &[&str]| {
        let out = verb(&run, args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(text(&["status"]).contains("60 valid"));
    assert!(text(&["top", "-n", "1"]).trim_end().ends_with("product:7"));
    let body: serde_json::Value = serde_json::from_str(&text(&["dump", "product:7", "--body"])).unwrap();
    assert_eq!(body, server.get("/products/7").json());
    assert!(text(&["dump", "product:7"]).contains("checksum and archive checked"));
    assert_eq!(verb(&run, &["dump", "product:4000"]).status.code(), Some(1));
    assert!(text(&["verify"]).contains("violations  0"));
    let hits = server.metric("catwalk_cache_hits_total");
    assert_eq!(text(&["clear"]).trim_end(), "every cached answer is void: 60 were valid");
    assert!(server.get("/products/7").header("cache-status").unwrap().contains("fwd=miss"));
    assert_eq!(server.metric("catwalk_cache_hits_total"), hits);
    // Nobody but its owner can ask, and whoever finds no server is told so.
    let mode = std::os::unix::fs::MetadataExt::mode(&run.join("control").metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let absent = Command::new(BIN).args(["cache", "status", "--runtime-dir", "/tmp"]).output().unwrap();
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no catwalk runs with"));
}
