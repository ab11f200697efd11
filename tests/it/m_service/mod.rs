//! The service as its manager sees it: reloads, upgrades, deaths, stops and starts under a constant load, and each rule of it.
//!
//! `STORM=whole` for as often as `make system` has it.

mod crowd;
mod manager;
mod rules;
mod told;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};

use crate::support::{eventually, seed, Dice};
use crowd::Crowd;
use manager::Manager;

/// How often: whole, or short.
fn times(whole: usize, short: usize) -> usize {
    match std::env::var("STORM").as_deref() {
        Ok("whole") => whole,
        _ => short,
    }
}

fn tell(what: &str, times: usize, start: Instant, crowd: &Crowd) {
    println!(
        "{what}: {times} in {:.1} s; {} requests served, {} failed, {} with a worker that was killed",
        start.elapsed().as_secs_f64(),
        crowd.served.load(Ordering::Relaxed),
        crowd.failures.lock().unwrap().len(),
        crowd.excused.load(Ordering::Relaxed)
    );
}

#[test]
fn reloads_upgrades_and_kills_fail_no_request_but_those_on_a_killed_worker() {
    let manager = Manager::new(0);
    manager.start();
    let seed = seed();
    let start = Instant::now();
    let reloads = times(200, 12);
    let crowd = Crowd::during(manager.address(), seed, |_| {
        (0..reloads).for_each(|_| manager.have("reload"));
    });
    tell("reloads", reloads, start, &crowd);
    crowd.assert_unharmed();
    let (start, upgrades) = (Instant::now(), times(50, 5));
    let crowd = Crowd::during(manager.address(), seed, |_| {
        for _ in 0..upgrades {
            let before = manager.main();
            manager.have("upgrade");
            eventually("it is another master", || manager.main() != before);
        }
    });
    tell("upgrades", upgrades, start, &crowd);
    crowd.assert_unharmed();
    let (start, kills) = (Instant::now(), times(50, 10));
    let mut dice = Dice(seed);
    let crowd = Crowd::during(manager.address(), seed, |crowd| {
        for _ in 0..kills {
            eventually("both workers are there", || manager.workers().len() == 2);
            std::thread::sleep(Duration::from_millis(100));
            let workers = manager.workers();
            let worker = workers[dice.below(workers.len() as u64) as usize];
            crowd.kill(|| kill(worker, Signal::SIGKILL).unwrap_or_default());
        }
    });
    tell("kill -9 of a worker", kills, start, &crowd);
    crowd.assert_unharmed();
    assert!(crowd.excused.load(Ordering::Relaxed) <= kills as u64 * 8);
    // Counted over all of them, none twice: only what a kill broke off has no answer.
    let (requests, answered) = (manager.metric("catwalk_http_requests_total"), responses(&manager));
    let excused = crowd.excused.load(Ordering::Relaxed);
    assert!((answered..=answered + excused).contains(&requests), "{answered} answers, {requests} requests");
    manager.stop();
}

fn responses(manager: &Manager) -> u64 {
    ["2xx", "3xx", "4xx", "5xx"]
        .iter()
        .map(|class| manager.metric(&format!("catwalk_http_responses_total{{class=\"{class}\"}}")))
        .sum()
}

#[test]
fn stops_and_starts_behind_a_socket_unit_fail_no_request() {
    let manager = Manager::new(1);
    manager.start();
    let (start, stops) = (Instant::now(), times(20, 4));
    let crowd = Crowd::during(manager.address(), seed(), |_| {
        for _ in 0..stops {
            std::thread::sleep(Duration::from_millis(300));
            manager.stop();
            manager.start();
        }
    });
    tell("stops and starts behind a socket unit", stops, start, &crowd);
    crowd.assert_unharmed();
    assert_eq!(manager.metric("catwalk_cache_inconsistent_total"), 0);
    manager.stop();
}
