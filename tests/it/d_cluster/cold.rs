//! Cold reads with two replicas and with none, in one run: what each node has to do for a request, and so what a node of its own could take.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::stand::{open_box, Stand};
use crate::support::server::children_of;
use crate::support::{Dice, Place, Server};

const PRODUCTS: u64 = 20_000;
const CLIENTS: u64 = 32;
const ROUND: Duration = Duration::from_secs(3);

/// CPU seconds of a process and its children, ended ones included.
fn cpu_s(pid: Pid) -> f64 {
    let of = |pid: Pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime, stime, cutime, cstime, after the command's name.
        let ticks: u64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    };
    of(pid) + children_of(pid).into_iter().map(of).sum::<f64>()
}

/// Asks for products at random for a while: how many, and the CPU that each of `processes` took.
fn round(server: &Server, processes: &[Pid], seed: u64) -> (u64, Vec<f64>) {
    let before: Vec<f64> = processes.iter().map(|pid| cpu_s(*pid)).collect();
    let (answered, start) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let answered = &answered;
            scope.spawn(move || {
                let (mut dice, mut connection) = (Dice(seed + client), server.connect());
                while start.elapsed() < ROUND {
                    let path = format!("/products/{}", 1 + dice.below(PRODUCTS));
                    assert_eq!(connection.get(&path).status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let took = processes.iter().zip(before).map(|(pid, before)| cpu_s(*pid) - before).collect();
    (answered.load(Ordering::Relaxed), took)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One short round of each, or CLUSTER_ROUNDS of them.
#[test]
fn cold_reads_go_to_replicas_and_leave_the_primary_alone() {
    let rounds: u64 = std::env::var("CLUSTER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut stand = Stand::start_with(PRODUCTS as usize, 1, |command| {
        command.env("CATWALK_CACHE_SIZE", "0");
    });
    let alone = [stand.database_urls()[0].clone()];
    let alone = open_box(&Place::here(), &stand.dir.path().join("alone"), &alone, |command| {
        command.env("CATWALK_CACHE_SIZE", "0");
    });
    let nodes: Vec<Pid> = stand.nodes.iter().map(|node| node.pid()).collect();
    let mut figures: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    for n in 0..rounds {
        for (name, server) in [("none", &alone), ("two replicas", &stand.boxes[0])] {
            let processes: Vec<Pid> = nodes.iter().copied().chain([server.pid()]).collect();
            let (answered, took) = round(server, &processes, n * 1000);
            figures.entry((name, 4)).or_default().push(answered as f64 / ROUND.as_secs_f64());
            for (at, took_s) in took.iter().enumerate() {
                figures.entry((name, at)).or_default().push(took_s * 1e6 / answered as f64);
            }
        }
    }
    let get = |name, at| median(figures[&(name, at)].clone());
    println!("replicas, requests/s here, µs CPU a request: primary, replica 1, replica 2, box; requests/s that a core of the busiest node takes");
    for name in ["none", "two replicas"] {
        let node = (0..3).map(|at| get(name, at)).fold(0.0, f64::max);
        let [primary, one, two, server] = [0, 1, 2, 3].map(|at| get(name, at));
        println!(
            "| {name} | {:.0} | {primary:.1} | {one:.1} | {two:.1} | {server:.1} | {:.0} |",
            get(name, 4),
            1e6 / node
        );
    }
    assert!(get("two replicas", 0) < get("none", 0) / 2.0, "the primary does little of it");
    assert!(get("two replicas", 1) > 0.0 && get("two replicas", 2) > 0.0);
    stand.boxes.clear();
}
