//! Each rule of reloads, upgrades and sizes, alone.

use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::manager::{is_gone, Manager};
use crate::support::{eventually, seed, Connection, Dice};

fn get(manager: &Manager, path: &str) -> crate::support::Reply {
    Connection::open(&manager.address()).get(path)
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_why() {
    let manager = Manager::new(0);
    manager.start();
    let before = manager.workers();
    manager.configure("campus = 3\nwhat = \"x\"");
    let out = manager.ask("reload");
    assert!(!out.status.success());
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        told.contains("nothing has changed") && told.contains("catwalk.toml:3: unknown key \"what\""),
        "{told}"
    );
    manager.signal(Signal::SIGHUP);
    eventually("the log says so too", || manager.log().matches("unknown key \"what\"").count() >= 2);
    let text = std::fs::read_to_string(manager.config()).unwrap();
    std::fs::write(manager.config(), text.replace("workers = 2", "workers = 9").replace("what = \"x\"", ""))
        .unwrap();
    let told = String::from_utf8_lossy(&manager.ask("reload").stderr).into_owned();
    assert!(told.contains("there is room for") && told.contains("not for 9"), "{told}");
    assert_eq!(manager.workers(), before);
}

#[test]
fn a_reload_has_every_worker_replaced_by_one_with_the_new_settings() {
    let manager = Manager::new(0);
    manager.start();
    let (master, before) = (manager.main(), manager.workers());
    assert_eq!(get(&manager, "/products/1").header("cache-control"), Some("no-cache"));
    // What a reload can't change is named, and the rest is applied.
    manager.configure("[http]\nmax_age = \"7s\"\n[cache]\nsize = \"99MiB\"");
    manager.have("reload");
    assert_eq!(manager.main(), master);
    let control = get(&manager, "/products/1").header("cache-control").unwrap().to_string();
    assert!(control.contains("max-age=7"), "{control}");
    eventually("those before are gone", || before.iter().all(|pid| is_gone(*pid)));
    manager.configure("[http]\nmax_age = \"8s\"");
    manager.signal(Signal::SIGHUP);
    eventually("a signal does the same", || {
        get(&manager, "/products/1").header("cache-control").unwrap().contains("max-age=8")
    });
}

#[test]
fn an_upgrade_keeps_cache_counts_and_listeners() {
    let manager = Manager::new(0);
    manager.start();
    (1..=50).for_each(|id| assert_eq!(get(&manager, &format!("/products/{id}")).status, 200));
    let (master, address) = (manager.main(), manager.address());
    let requests = manager.metric("catwalk_http_requests_total");
    // Whatever a restart changes an upgrade changes too.
    manager.configure("[cart]\nanonymous = \"shared\"");
    manager.have("upgrade");
    eventually("it is another master", || manager.main() != master);
    assert_eq!(manager.address(), address);
    for id in 1..=50 {
        assert_eq!(get(&manager, &format!("/products/{id}")).header("cache-status"), Some("catwalk; hit"));
    }
    assert!(manager.metric("catwalk_http_requests_total") >= requests + 50);
    eventually("the one before is gone", || is_gone(master));
    assert!(get(&manager, "/readyz").status == 200, "{}", get(&manager, "/readyz").text());
    // The successor has what it takes to have one, and the cache is kept for whoever comes after a stop.
    let second = manager.main();
    manager.have("upgrade");
    eventually("it is a third one", || manager.main() != second);
    manager.have("reload");
    manager.stop();
    manager.start();
    assert_eq!(
        get(&manager, "/products/7").header("cache-status"),
        Some("catwalk; hit"),
        "{}",
        manager.log()
    );
}

#[test]
fn an_upgrade_whose_answers_differ_begins_with_a_cache_of_its_own_and_keeps_that() {
    let manager = Manager::new(0);
    manager.start();
    assert_eq!(get(&manager, "/products/7").json()["campus"], "hr-rfp");
    let master = manager.main();
    manager.configure("campus = \"elsewhere\"");
    manager.have("upgrade");
    eventually("it is another master", || manager.main() != master && is_gone(master));
    eventually("its own answers are cached", || {
        let reply = get(&manager, "/products/7");
        assert_eq!(reply.json()["campus"], "elsewhere");
        reply.header("cache-status") == Some("catwalk; hit")
    });
    manager.stop();
    manager.start();
    let reply = get(&manager, "/products/7");
    assert_eq!(reply.header("cache-status"), Some("catwalk; hit"), "{}", manager.log());
    assert_eq!(reply.json()["campus"], "elsewhere");
}

#[test]
fn an_upgrade_to_what_does_not_serve_is_backed_out() {
    let manager = Manager::new(0);
    manager.start();
    let (master, workers) = (manager.main(), manager.workers());
    let script = |text: &str| Some(format!("#!/bin/sh\n{text}\n"));
    // Told that it can take over, this one has given up its feed by the time that the other ends.
    let liar = "IFS=: read -ra names <<<\"$LISTEN_FDNAMES\"; for n in \"${!names[@]}\"; do [ \"${names[n]}\" = master ] && line=$((n + 3)); done\n\
                printf 'serving\\n' >&\"$line\"; sleep 1; exit 1";
    // What is not there, what ends, what becomes something else that ends, and what ends late.
    for (binary, why) in [
        (None, "can't be run"),
        (script("exit 1"), "it ended before it served"),
        (script("exec /bin/false"), "it ended before it served"),
        (Some(format!("#!/bin/bash\n{liar}\n")), "it ended before it served"),
    ] {
        std::fs::remove_file(&manager.program).unwrap();
        if let Some(binary) = binary {
            manager.replace_program(&binary);
        }
        let out = manager.ask("upgrade");
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && told.contains("backed out") && told.contains(why), "{told}");
        assert_eq!((manager.main(), manager.workers()), (master, workers.clone()));
        assert_eq!(get(&manager, "/products/1").status, 200);
        eventually("changes are followed", || {
            std::thread::sleep(Duration::from_millis(300));
            get(&manager, "/products/1").header("cache-status") == Some("catwalk; hit")
        });
        if !manager.program.exists() {
            std::fs::write(&manager.program, "").unwrap();
        }
    }
    std::fs::remove_file(&manager.program).unwrap();
    std::fs::copy(crate::support::server::BIN, &manager.program).unwrap();
    manager.configure("nonsense = 1");
    assert!(!manager.ask("upgrade").status.success());
    assert_eq!((manager.main(), manager.workers()), (master, workers));
    // Nothing of the attempts is left, and the next one succeeds.
    manager.configure("");
    manager.signal(Signal::SIGUSR2);
    eventually("it is another master", || manager.main() != master && is_gone(master));
    assert_eq!(get(&manager, "/products/1").status, 200);
}

#[test]
fn a_successor_that_hangs_is_ended() {
    let manager = Manager::new(0);
    manager.start();
    let (master, pid_file) = (manager.main(), manager.dir.path().join("pid"));
    manager.replace_program(&format!("#!/bin/sh\necho $$ >{}\nexec sleep 600\n", pid_file.display()));
    let told = String::from_utf8_lossy(&manager.ask("upgrade").stderr).into_owned();
    assert!(told.contains("it has not taken over within 30s"), "{told}");
    let hung = Pid::from_raw(std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap());
    eventually("it is gone", || is_gone(hung));
    assert_eq!((manager.main(), get(&manager, "/products/1").status), (master, 200));
}

#[test]
fn workers_come_and_go_by_signals() {
    let manager = Manager::new(0);
    manager.start();
    let ask_often = || (0..40).for_each(|_| assert_eq!(get(&manager, "/products/1").status, 200));
    for (signal, workers) in [
        (Signal::SIGTTIN, 3),
        (Signal::SIGTTIN, 4),
        (Signal::SIGTTOU, 3),
        (Signal::SIGTTOU, 2),
        (Signal::SIGTTOU, 1),
    ] {
        manager.signal(signal);
        eventually("as many serve as were asked for", || {
            manager.metric("catwalk_workers_serving") == workers
        });
        // Connections fall to every listener, also to those whose worker is gone.
        ask_often();
    }
    manager.signal(Signal::SIGTTOU);
    eventually("the last one stays, and that is told", || manager.log().contains("0 workers can't be had"));
    (0..3).for_each(|_| manager.signal(Signal::SIGTTIN));
    // Signals of one kind become one while they wait.
    eventually("there are more again", || manager.metric("catwalk_workers_serving") > 1);
    ask_often();
    assert!(manager.log().contains("workers"));
}

#[test]
fn the_status_line_tells_what_is() {
    let manager = Manager::new(0);
    manager.start();
    let mut connection = Connection::open(&manager.address());
    (0..200).for_each(|_| assert_eq!(connection.get("/products/1").status, 200));
    eventually("the next line has the traffic", || {
        let status = manager.status();
        status.starts_with(&format!("2/2 workers on {}, ", manager.address()))
            && status.contains("hit ratio 99")
            && status.contains("database connections 10/10")
            && !status.contains(" 0 requests/s")
    });
}

#[test]
fn a_service_without_its_database_is_ready_says_why_not_and_serves_what_it_has() {
    let mut manager = Manager::new(1);
    manager.start();
    assert_eq!(get(&manager, "/products/1").status, 200);
    assert_eq!(get(&manager, "/products/1").header("cache-status"), Some("catwalk; hit"));
    manager.stop();
    let url = manager.database.database_url();
    manager.database.stop();
    std::fs::write(manager.config(), format!("workers = 2\n[database]\nurl = {url:?}\n")).unwrap();
    manager.start();
    let main = manager.main();
    let ready = get(&manager, "/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["database"]["ok"], false, "{}", ready.text());
    eventually("it is known that no database is there", || {
        let reply = get(&manager, "/products/1");
        let detail = reply.header("cache-status").unwrap_or_default().to_string();
        reply.status == 200 && detail.contains("stale-if-error")
    });
    assert_eq!(get(&manager, "/products/2").status, 503, "what was never asked for");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(manager.main(), main, "nobody gives up");
    assert!(!manager.log().contains("has died"), "{}", manager.log());
}

/// How a worker that serves caches, by what clients are told.
fn max_age(manager: &Manager) -> u32 {
    let reply = get(manager, "/products/1");
    let control = reply.header("cache-control").unwrap_or_default().to_string();
    control.split("max-age=").nth(1).and_then(|age| age.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_reload_that_fails_half_way_goes_back_and_leaves_alone_who_was_never_replaced() {
    let manager = Manager::new(0);
    let settings = |max_age: usize| manager.configure(&format!("[http]\nmax_age = \"{max_age}s\""));
    let text = |max_age: usize| {
        settings(max_age);
        let text = std::fs::read_to_string(manager.config()).unwrap();
        std::fs::write(manager.config(), text.replace("workers = 2", "workers = 6")).unwrap();
    };
    text(1);
    manager.start();
    for attempt in 2.. {
        let before = manager.workers();
        text(attempt);
        let told = std::thread::scope(|scope| {
            let asked = scope.spawn(|| manager.ask("reload"));
            let mut seen = 0;
            while !asked.is_finished() && seen < 3 {
                let fresh = manager.workers().into_iter().filter(|pid| !before.contains(pid));
                let fresh: Vec<_> = fresh.collect();
                seen = seen.max(fresh.len());
                if let Some(third) = fresh.get(2) {
                    let _ = kill(*third, Signal::SIGKILL);
                }
            }
            asked.join().unwrap()
        });
        if told.status.success() {
            // It served before it was killed: the next attempt may be faster.
            assert!(attempt < 40, "no successor was ever killed in time");
            eventually("those before are gone", || before.iter().all(|pid| is_gone(*pid)));
            continue;
        }
        let why = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(why.contains("nothing has changed") && why.contains("ended before it served"), "{why}");
        eventually("all have the settings before", || {
            manager.metric("catwalk_workers_serving") == 6
                && (0..60).all(|_| max_age(&manager) == attempt as u32 - 1)
        });
        assert!(before.iter().filter(|pid| !is_gone(**pid)).count() >= 2, "{before:?}\n{}", manager.log());
        text(77);
        manager.have("reload");
        return assert_eq!(max_age(&manager), 77);
    }
}

#[test]
fn a_signal_to_reload_is_kept_until_it_can_be_done() {
    let manager = Manager::new(0);
    manager.start();
    let asks = |max_age: u32| {
        manager.configure(&format!("[http]\nmax_age = \"{max_age}s\""));
        manager.signal(Signal::SIGHUP);
    };
    asks(2);
    eventually("workers are being replaced", || manager.log().contains("the settings are good"));
    asks(3);
    eventually("what was asked for meanwhile is done", || (0..10).all(|_| max_age(&manager) == 3));
    eventually("nothing is under way", || manager.log().matches("reload: done").count() == 2);
    let master = manager.main();
    manager.signal(Signal::SIGUSR2);
    eventually("a successor is started", || manager.log().contains("upgrade: "));
    // Before or after it has read its settings, before or after it has taken over.
    std::thread::sleep(Duration::from_millis(Dice(seed()).below(80)));
    manager.configure("[http]\nmax_age = \"4s\"");
    manager.signal(Signal::SIGHUP);
    eventually("the successor does it", || {
        manager.main() != master && (0..10).all(|_| max_age(&manager) == 4)
    });
    // Whoever has not heard yet who is the server now still sends it to the one before, which is there while a client is.
    let mut idle = Connection::open(&manager.address());
    assert_eq!(idle.get("/products/1").status, 200);
    let before = manager.main();
    // Refused while that reload is under way.
    eventually("an upgrade is done", || manager.ask("upgrade").status.success());
    eventually("it is another master", || manager.main() != before);
    manager.configure("[http]\nmax_age = \"5s\"");
    kill(before, Signal::SIGHUP).expect("it is there still");
    eventually("the signal is passed on", || (0..10).all(|_| max_age(&manager) == 5));
}

#[test]
fn who_drains_at_leisure_hurries_when_it_is_told_to_end() {
    let manager = Manager::new(0);
    manager.configure("shutdown.timeout = \"10min\"");
    manager.start();
    let before = manager.workers();
    let mut idle: Vec<_> = (0..20).map(|_| Connection::open(&manager.address())).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/products/1").status, 200));
    manager.have("reload");
    std::thread::sleep(Duration::from_millis(700));
    let draining: Vec<_> = before.into_iter().filter(|pid| !is_gone(*pid)).collect();
    assert!(!draining.is_empty(), "idle connections are left alone for long");
    draining.iter().for_each(|pid| kill(*pid, Signal::SIGTERM).unwrap());
    eventually("they end", || draining.iter().all(|pid| is_gone(*pid)));
}
