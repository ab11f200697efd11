//! A primary with replicas, and more than one box: never stale and never back through everything that happens to them.

mod cold;
mod hosts;
mod rules;
mod stand;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};

use crate::d_coherence::history::Verdict;
use crate::d_coherence::traffic::{self, Stage};
use crate::support::eventually;
use stand::{Balancer, Stand};

const BOUND: Duration = Duration::from_millis(250);
const SHORT: Duration = Duration::from_millis(1500);

fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

/// Runs traffic over all boxes while `disturb` does its worst; what came of it.
fn under_traffic(stand: &mut Stand, disturb: impl FnOnce(&mut Stand, &Stage)) -> Verdict {
    let addresses = match &stand.balancer {
        Some(balancer) => vec![balancer.address.clone()],
        None => stand.boxes.iter().map(|server| server.address.clone()).collect(),
    };
    let mut stage = Stage::new(addresses, stand.database_urls());
    stage.is_shared = stand.boxes.len() > 1;
    traffic::run(&stage, || disturb(stand, &stage));
    let verdict = stage.history.lock().judge(BOUND);
    println!(
        "{} reads, {} writes, {} while nobody took writes, {} refused, {} connections broken; {} of replicas, {} of the primary",
        verdict.reads,
        verdict.writes,
        verdict.stale_if_error,
        stage.refused.load(Ordering::Relaxed),
        stage.broken.load(Ordering::Relaxed),
        stand.metric("catwalk_db_replica_reads_total"),
        stand.metric("catwalk_db_primary_reads_total"),
    );
    verdict.violations.iter().take(10).for_each(|violation| println!("  {violation}"));
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
    assert_eq!(stage.refused.load(Ordering::Relaxed), 0, "readers are never refused");
    assert_eq!(stand.metric("catwalk_cache_inconsistent_total"), 0);
    verdict
}

type Fault = (&'static str, fn(&mut Stand, &Stage));

const FAULTS: &[Fault] = &[
    ("peace", |_, _| wait(SHORT)),
    ("a replica replays with a delay of 10 s", delay_replay),
    ("a replica's cable to the primary is cut", cut_feeder),
    ("the boxes' cable to a replica is cut, forth", |stand, _| cut(stand, 1, true)),
    ("the same, back", |stand, _| cut(stand, 2, false)),
    ("the boxes' cable to the primary is cut, back", cut_primary),
    ("a replica is killed", kill_replica),
    ("a long query holds up a replica's replay, until it is cancelled", conflict),
    ("the primary is killed, a replica promoted", fail_over),
];

fn delay_replay(stand: &mut Stand, _: &Stage) {
    stand.nodes[2].set("recovery_min_apply_delay", "10s");
    eventually("it is told to be behind", || stand.told(0).contains("node 2: replica, too far behind"));
    wait(SHORT);
    stand.nodes[2].set("recovery_min_apply_delay", "0");
    stand.wait_until_fit();
}

fn cut_feeder(stand: &mut Stand, _: &Stage) {
    stand.feeders[0].cut_back();
    eventually("it is told to be behind", || stand.told(0).contains("node 1: replica, too far behind"));
    wait(SHORT);
    stand.feeders[0].mend();
    stand.wait_until_fit();
}

fn cut(stand: &mut Stand, node: usize, forth: bool) {
    match forth {
        true => stand.cables[node].cut_forth(),
        false => stand.cables[node].cut_back(),
    }
    let name = format!("node {node}: can't be reached");
    eventually("it is told to be out of reach", || stand.told(0).contains(&name));
    wait(SHORT);
    stand.cables[node].mend();
    stand.wait_until_fit();
}

/// Nobody takes writes; readers go on.
fn cut_primary(stand: &mut Stand, stage: &Stage) {
    stage.outage.store(true, Ordering::SeqCst);
    cut(stand, 0, false);
    wait(Duration::from_millis(300));
    stage.outage.store(false, Ordering::SeqCst);
}

fn kill_replica(stand: &mut Stand, _: &Stage) {
    stand.kill(2);
    eventually("it is told to be out of reach", || stand.told(0).contains("node 2: can't be reached"));
    wait(SHORT);
    stand.nodes[2].resume();
    stand.wait_until_fit();
}

fn conflict(stand: &mut Stand, stage: &Stage) {
    let reader = stand.nodes[1].admin();
    let held = reader.transaction().unwrap();
    reader
        .batch_execute("set transaction isolation level repeatable read; select count(*) from products")
        .unwrap();
    let db = stage.database();
    let start = Instant::now();
    while start.elapsed() < 2 * SHORT {
        db.batch_execute("update products set slogan = slogan where id > 60").unwrap();
        db.batch_execute("vacuum products").unwrap();
        wait(Duration::from_millis(20));
    }
    assert!(reader.batch_execute("select count(*) from products").is_err(), "it was in the way");
    drop(held);
    stand.wait_until_fit();
}

/// The primary's power fails; the synchronous replica takes over, the other one follows it. Then the old one comes back, believing that it
/// still is what it was, and at last as a replica.
fn fail_over(stand: &mut Stand, stage: &Stage) {
    stand.synchronous(0, "first 1 (replica1)");
    wait(Duration::from_millis(500));
    let voided = stand.metric("catwalk_cache_voided_all_total");
    stage.outage.store(true, Ordering::SeqCst);
    stand.kill(0);
    wait(Duration::from_millis(300));
    let written = stand.boxes[0].connect().request("POST", "/interactions", &[("Content-Length", "0")]);
    assert_eq!((written.status, written.header("retry-after").is_some()), (503, true), "{}", written.text());
    stand.nodes[1].promote();
    let promoted = Instant::now();
    eventually("both boxes write to it", || {
        (0..stand.boxes.len()).all(|n| stand.told(n).contains("node 1: primary"))
    });
    println!("  written to {:.0} ms after its promotion", promoted.elapsed().as_secs_f64() * 1e3);
    assert!(promoted.elapsed() < Duration::from_secs(20));
    let port = stand.nodes[1].port;
    stand.nodes[2]
        .set("primary_conninfo", &format!("host=127.0.0.1 port={port} user=root application_name=replica2"));
    wait(Duration::from_millis(500));
    stage.outage.store(false, Ordering::SeqCst);
    wait(SHORT);
    // Once a box, and once more where both find the new primary at the same moment: each begins its life.
    let (voids, boxes) = (stand.metric("catwalk_cache_voided_all_total") - voided, stand.boxes.len() as u64);
    assert!((boxes..=2 * boxes).contains(&voids), "voided {voids} times");
    // The old one is back, by itself.
    stand.nodes[0].resume();
    eventually("it is known for what it is", || stand.told(0).contains("node 0: does not show"));
    // A feed that begins anew knows it too.
    kill(stand.boxes[0].feed(), Signal::SIGKILL).unwrap();
    wait(SHORT);
    assert!((0..2).all(|n| stand.told(n).contains("node 1: primary")), "{}", stand.told(0));
    stand.nodes[0].stop(Signal::SIGINT);
    let (old, others) = stand.nodes.split_at_mut(1);
    old[0].rewind(&others[0]);
    stand.wait_until_fit();
}

/// All of it; with CLUSTER_READS set, again and again until so many reads were made.
#[test]
fn replicas_and_boxes_never_serve_anything_stale_and_nobody_goes_back() {
    let reads_min: Option<usize> = std::env::var("CLUSTER_READS").ok().and_then(|n| n.parse().ok());
    let mut stand = Stand::start(2, |_| {});
    stand.balancer = Balancer::start(&stand);
    if stand.balancer.is_none() {
        println!("haproxy is not installed: clients ask the boxes themselves");
    }
    let verdict = under_traffic(&mut stand, |stand, stage| {
        let (last, others) = FAULTS.split_last().unwrap();
        loop {
            for (name, fault) in others {
                println!("{name} ({} reads so far)", stage.reads.load(Ordering::Relaxed));
                fault(stand, stage);
            }
            if stage.reads.load(Ordering::Relaxed) >= reads_min.unwrap_or(0) {
                break;
            }
        }
        let (name, fault) = last;
        println!("{name} ({} reads so far)", stage.reads.load(Ordering::Relaxed));
        fault(stand, stage);
    });
    assert!(verdict.reads >= reads_min.unwrap_or(5_000), "{} reads", verdict.reads);
    assert!(stand.metric("catwalk_cache_hits_total") > verdict.reads as u64 / 4, "the caches took part");
    assert!(stand.metric("catwalk_tokens_unseen_total") > 0, "tokens took part");
}
