//! The master: who dies, who is replaced, who drains.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};

use crate::support::server::{children_of, directory, BIN};
use crate::support::{eventually, seed, Connection, Dice, Server};

fn is_gone(pid: nix::unistd::Pid) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Workers are killed at random under load. A request may fail only if it was in flight on, or sent on a connection
/// held by, a worker that was killed: so every connect succeeds, the first request of a fresh connection fails only
/// when a kill fell into its life, and no answer is ever wrong.
#[test]
fn killed_workers_fail_only_what_they_held() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let server = Server::start(&["--workers", "2", "--products", "500"]);
    let expected: Vec<Vec<u8>> = {
        let mut connection = server.connect();
        (1..=500).map(|id| connection.get(&format!("/products/{id}")).body).collect()
    };
    let (stop, kills) = (AtomicBool::new(false), AtomicU64::new(0));
    let (served, broken) = (AtomicU64::new(0), AtomicU64::new(0));
    let seed = seed();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (server, expected, stop, kills, served, broken) =
                (&server, &expected, &stop, &kills, &served, &broken);
            scope.spawn(move || {
                let mut dice = Dice(seed + client);
                while !stop.load(Ordering::Relaxed) {
                    let kills_before = kills.load(Ordering::SeqCst);
                    let mut connection =
                        Connection::try_open(&server.address).expect("a connect is never refused");
                    for _ in 0..dice.below(200) + 1 {
                        let id = dice.below(500) as usize + 1;
                        match connection.try_request("GET", &format!("/products/{id}"), &[]) {
                            Ok(reply) => {
                                assert_eq!(reply.status, 200, "{}", reply.text());
                                assert!(reply.body == expected[id - 1], "a wrong answer for {id}");
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(e) => {
                                // A kill is counted before it is done: one must have fallen into this connection's life.
                                assert!(
                                    kills.load(Ordering::SeqCst) > kills_before,
                                    "failed without a kill: {e}"
                                );
                                broken.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                }
            });
        }
        let mut dice = Dice(seed);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(200));
            let workers = server.workers();
            if !workers.is_empty() {
                kills.fetch_add(1, Ordering::SeqCst);
                let _ = kill(workers[dice.below(workers.len() as u64) as usize], Signal::SIGKILL);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (kills, served, broken) = (kills.into_inner(), served.into_inner(), broken.into_inner());
    println!("{kills} kills, {served} served, {broken} connections broken");
    assert!(kills >= seconds * 3 && served > 1000);
    // A kill breaks at most the connections of one worker: at most one for each client.
    assert!(broken <= kills * 8, "{broken} broken by {kills} kills");
    eventually("both seats are filled", || server.workers().len() == 2);
    // A kill may hit one that is dead already and not yet reaped.
    let deaths = server.metric("catwalk_worker_deaths_total");
    assert!(deaths <= kills && deaths > kills / 2, "{deaths} deaths of {kills} kills");
}

#[test]
fn a_dead_worker_is_replaced_at_once() {
    let server = Server::start(&["--workers", "2"]);
    let before = server.workers();
    kill(before[0], Signal::SIGKILL).unwrap();
    eventually("it is replaced", || {
        let now = server.workers();
        now.len() == 2 && !now.contains(&before[0]) && now.contains(&before[1])
    });
    for _ in 0..20 {
        assert_eq!(server.get("/products/1").status, 200);
    }
}

#[test]
fn a_stopped_worker_is_killed_and_replaced() {
    let server = Server::start(&["--workers", "2"]);
    let stopped = server.workers()[1];
    kill(stopped, Signal::SIGSTOP).unwrap();
    eventually("it is killed", || is_gone(stopped));
    eventually("it is replaced", || server.workers().len() == 2);
    assert_eq!(server.metric("catwalk_worker_stuck_total"), 1);
}

#[test]
fn a_worker_that_keeps_dying_is_started_with_pauses_and_its_listener_lent() {
    let server = Server::start(&["--workers", "2"]);
    let steady = server.workers()[0];
    let mut lent = false;
    // SIGABRT is what a panic ends in: it counts against the worker.
    eventually("a crash loop is told, and its listener was lent meanwhile", || {
        if let Some(young) = server.workers().into_iter().find(|pid| *pid != steady) {
            let _ = kill(young, Signal::SIGABRT);
            // What it holds dies with it; what comes afterwards must not notice.
            eventually("it is gone", || is_gone(young));
        }
        // Half of these connections fall to the listener of the one in back-off.
        (0..20).for_each(|_| assert_eq!(server.get("/products/1").status, 200));
        lent |= server.workers() == [steady];
        lent && server.metric("catwalk_workers_crash_looping") == 1
    });
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text());
}

#[test]
fn a_panic_is_told_and_survived() {
    let server = Server::start(&["--workers", "1"]);
    let first = server.workers()[0];
    kill(first, Signal::SIGABRT).unwrap();
    eventually("it is replaced", || server.workers().first().is_some_and(|pid| *pid != first));
    assert_eq!(server.get("/products/1").status, 200);
}

#[test]
fn sigterm_finishes_what_is_under_way_and_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&["--workers", "2"]);
        let (workers, postgres) = (server.workers(), server.postgres());
        let db = server.database();
        let lock = db.transaction().unwrap();
        db.batch_execute("lock table products in access exclusive mode").unwrap();
        let mut busy = server.connect();
        busy.send(b"GET /products/3 HTTP/1.1\r\nHost: a\r\n\r\n");
        server.wait_for_lock_waiter();
        let mut idle: Vec<_> = (0..10).map(|_| server.connect()).collect();
        idle.iter_mut().for_each(|c| assert_eq!(c.get("/healthz").status, 200));
        server.signal(signal);
        // An idle connection is still answered, and once its worker drains told that it is for the last time.
        for connection in &mut idle {
            eventually("it drains", || connection.get("/healthz").header("connection") == Some("close"));
        }
        lock.rollback().unwrap();
        let reply = busy.receive(false);
        assert_eq!((reply.json()["id"].as_i64(), reply.header("connection")), (Some(3), Some("close")));
        drop(db);
        assert!(server.wait().success());
        for pid in workers.into_iter().chain([postgres]) {
            assert!(is_gone(pid), "{pid} is left after {signal}");
        }
    }
}

#[test]
fn workers_whose_master_dies_end() {
    let mut server = Server::start(&["--workers", "2"]);
    let all = children_of(server.pid());
    assert!(all.len() >= 3);
    server.signal(Signal::SIGKILL);
    server.wait();
    eventually("workers and database end", || all.iter().all(|pid| is_gone(*pid)));
}

#[test]
fn a_taken_port_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = directory();
    let mut command = Command::new(BIN);
    command.arg("dev").arg("--dir").arg(dir.path().join("d")).args(["--listen", &address]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&address) && text.contains("--listen"), "{text}");
}

#[test]
fn a_second_run_serves_the_same_data_from_a_path_with_spaces() {
    let dir = directory();
    let path = dir.path().join("a path, with \"spaces\"");
    let mut server = Server::start_in(&path, &["--products", "30"]);
    let first = server.get("/products/30").body;
    let second = Command::new(BIN)
        .arg("dev")
        .arg("--dir")
        .arg(&path)
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("another `catwalk dev`"));
    assert!(server.stop().success());
    let server = Server::start_in(&path, &[]);
    assert_eq!(server.get("/products/30").body, first);
    assert_eq!(server.get("/products/31").status, 404);
}

#[test]
fn settings_that_are_wrong_are_told_with_their_place_and_exit_78() {
    let dir = directory();
    let file = dir.path().join("catwalk.toml");
    std::fs::write(&file, "campus = \"x\"\ncolour = \"red\"\n").unwrap();
    let output = Command::new(BIN).args(["check", "--config"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("catwalk.toml:2") && text.contains("colour"), "{text}");
    let output = Command::new(BIN).arg("config").env("CATWALK_CACHE_SIZE", "64MiB").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("64MiB") && text.contains("environment CATWALK_CACHE_SIZE"), "{text}");
}

/// `serve` with somebody else's database: the same master without a companion.
#[test]
fn serve_uses_the_configured_database() {
    let dev = Server::start(&["--products", "40"]);
    let dir = directory();
    let file = dir.path().join("catwalk.toml");
    let text = format!("listen = \"127.0.0.1:0\"\nworkers = 1\ncampus = \"sea\"\n[database]\nurl = \"{}\"\n[cache]\nsize = \"8MiB\"\n[http]\ntoken = \"t0ken\"\n", dev.database_url());
    std::fs::write(&file, text).unwrap();
    let checked = Command::new(BIN).args(["check", "--database", "--config"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let mut command = Command::new(BIN);
    command.args(["serve", "--config"]).arg(&file);
    let mut server = Server::launch(command, dir.path());
    let mut connection = server.connect();
    assert_eq!(connection.get("/products/1").status, 401);
    for token in ["t0ken", "Bearer t0ken"] {
        let reply = connection.request("GET", "/products/1", &[("Authorization", token)]);
        assert_eq!((reply.status, &reply.json()["campus"]), (200, &"sea".into()));
    }
    assert!(server.stop().success());
}
