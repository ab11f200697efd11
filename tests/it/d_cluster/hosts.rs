//! The same as separate hosts, each in a network namespace of its own: whole machines lose their network, each way, and two believe to be
//! the primary at the same time.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stand::{open_box, Stand, HBA_HOSTS, OPTIONS};
use super::{under_traffic, wait, SHORT};
use crate::d_coherence::traffic::{Stage, FILL};
use crate::support::server::{directory, BIN};
use crate::support::{eventually, Cluster, Place};

fn ip(args: &str) -> bool {
    let out = Command::new("ip").args(args.split_whitespace()).output();
    out.is_ok_and(|out| out.status.success())
}

fn inside(namespace: &str, program: &str, args: &str) -> bool {
    ip(&format!("netns exec {namespace} {program} {args}"))
}

/// A switch, hosts at it, and this test at it too.
struct Network {
    name: String,
    net: u32,
    hosts: Vec<Place>,
}

impl Network {
    /// None where namespaces are not permitted.
    fn lay(hosts: usize) -> Option<Network> {
        let pid = std::process::id();
        let mut network = Network { name: format!("cw{pid}"), net: pid % 200 + 20, hosts: Vec::new() };
        let switch = format!("{}s", network.name);
        let laid = ip(&format!("netns add {switch}"))
            && ip(&format!("-n {switch} link add br0 type bridge"))
            && ip(&format!("-n {switch} link set br0 up"));
        let joined = laid && network.join(0, None);
        for n in 1..=hosts {
            let namespace = format!("{}h{n}", network.name);
            if !(joined && ip(&format!("netns add {namespace}")) && network.join(n, Some(&namespace))) {
                return None;
            }
            network.hosts.push(Place { namespace: Some(namespace), address: network.address(n) });
        }
        Some(network)
    }

    fn address(&self, n: usize) -> String {
        format!("10.77.{}.{}", self.net, n + 1)
    }

    /// A cable from the switch to a host, or to this test.
    fn join(&self, n: usize, namespace: Option<&str>) -> bool {
        let (name, near) = (&self.name, format!("{}e{n}", self.name));
        let switch = format!("{name}s");
        let there = namespace.map(|namespace| format!("-n {namespace} ")).unwrap_or_default();
        ip(&format!("link add {near} type veth peer name p{n} netns {switch}"))
            && namespace.is_none_or(|namespace| ip(&format!("link set {near} netns {namespace}")))
            && ip(&format!("{there}addr add {}/24 dev {near}", self.address(n)))
            && ip(&format!("{there}link set {near} up"))
            && ip(&format!("{there}link set lo up"))
            && ip(&format!("-n {switch} link set p{n} master br0 up"))
    }

    /// What a host sends is lost from now on, or what is sent to it; a queue that lets nothing through is what the kernel has for it.
    fn cut(&self, n: usize, sends: bool) {
        let (namespace, device) = self.end_of(n, sends);
        assert!(inside(
            &namespace,
            "tc",
            &format!("qdisc add dev {device} root tbf rate 8bit burst 1 latency 1ms")
        ));
    }

    fn mend(&self, n: usize, sends: bool) {
        let (namespace, device) = self.end_of(n, sends);
        assert!(inside(&namespace, "tc", &format!("qdisc del dev {device} root")));
    }

    fn end_of(&self, n: usize, sends: bool) -> (String, String) {
        let name = &self.name;
        match sends {
            true => (format!("{name}h{n}"), format!("{name}e{n}")),
            false => (format!("{name}s"), format!("p{n}")),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for n in 1..=5 {
            ip(&format!("netns del {}h{n}", self.name));
        }
        ip(&format!("netns del {}s", self.name));
    }
}

/// Hosts 1 to 3 are nodes, 4 and 5 boxes.
fn build(network: &Network) -> Stand {
    let options: Vec<String> = OPTIONS.iter().map(|option| option.to_string()).collect();
    let primary = Cluster::start_at(network.hosts[0].clone(), "select 1", HBA_HOSTS, &options);
    for args in [&["migrate"][..], &["seed", "--products", "70"]] {
        let mut command = Command::new(BIN);
        let out = command.args(args).args(["--database-url", &primary.url_there()]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    primary.admin().batch_execute(FILL).unwrap();
    let upstream = (network.hosts[0].address.as_str(), primary.port);
    let replica = |n: usize| primary.replica(&format!("replica{n}"), network.hosts[n].clone(), upstream);
    let (one, two) = (replica(1), replica(2));
    let nodes = vec![primary, one, two];
    let urls: Vec<String> = nodes.iter().map(Cluster::url_there).collect();
    let dir = directory();
    let boxes =
        (3..5).map(|n| open_box(&network.hosts[n], &dir.path().join(format!("box{n}")), &urls, |_| {}));
    let boxes = boxes.collect();
    let stand =
        Stand { boxes, balancer: None, _bouncer: None, nodes, cables: Vec::new(), feeders: Vec::new(), dir };
    stand.wait_until_fit();
    stand
}

#[test]
fn hosts_that_lose_their_network_make_nobody_stale_and_two_primaries_lose_no_write() {
    let Some(network) = Network::lay(5) else {
        println!("passed over: network namespaces can't be made here (they take root and CAP_NET_ADMIN)");
        return;
    };
    let mut stand = build(&network);
    under_traffic(&mut stand, |stand, stage| {
        wait(SHORT);
        for (host, sends) in [(2, true), (3, false)] {
            println!("host {host} of a replica is cut off, {}", if sends { "sending" } else { "receiving" });
            network.cut(host, sends);
            let name = format!("node {}: can't be reached", host - 1);
            eventually("it is told to be out of reach", || stand.told(0).contains(&name));
            wait(SHORT);
            network.mend(host, sends);
            stand.wait_until_fit();
        }
        split(&network, stand, stage);
    });
}

/// The primary's host loses its network, and runs on; a synchronous replica is promoted; then both are there.
fn split(network: &Network, stand: &mut Stand, stage: &Stage) {
    println!("the primary's host is cut off, a replica promoted, and the cable mended");
    stand.synchronous(0, "first 1 (replica1)");
    wait(Duration::from_millis(500));
    stage.outage.store(true, Ordering::SeqCst);
    network.cut(1, true);
    eventually("it is out of reach", || stand.told(0).contains("node 0: can't be reached"));
    stand.nodes[1].promote();
    let (host, port) = (&network.hosts[1].address, stand.nodes[1].port);
    stand.nodes[2]
        .set("primary_conninfo", &format!("host={host} port={port} user=root application_name=replica2"));
    eventually("both boxes write to the other", || (0..2).all(|n| stand.told(n).contains("node 1: primary")));
    network.mend(1, true);
    eventually("it is known for what it is", || {
        (0..2).all(|n| stand.told(n).contains("node 0: does not show"))
    });
    stage.outage.store(false, Ordering::SeqCst);
    let before = names(&stand.nodes[1]);
    release_waiters(&stand.nodes[0]);
    eventually("the other one is written to", || names(&stand.nodes[1]) != before);
    let left = names(&stand.nodes[0]);
    wait(SHORT);
    assert!((0..2).all(|n| stand.told(n).contains("node 1: primary")));
    assert_eq!(names(&stand.nodes[0]), left, "nobody writes to the former primary");
    // The former one is not taken for it either when it is the only one that is heard.
    stage.outage.store(true, Ordering::SeqCst);
    network.cut(2, true);
    eventually("the present one is out of reach", || stand.told(0).contains("node 1: can't be reached"));
    wait(SHORT);
    assert!((0..2).all(|n| stand.told(n).contains("node 0: does not show")), "{}", stand.told(0));
    network.mend(2, true);
    eventually("it is back", || (0..2).all(|n| stand.told(n).contains("node 1: primary")));
    release_waiters(&stand.nodes[0]);
    wait(SHORT);
    stage.outage.store(false, Ordering::SeqCst);
}

/// What waits on the former primary for a replica that will never come is not waited for any longer; for a while, in which whoever still has
/// a connection to it gets to its commit.
fn release_waiters(former: &Cluster) {
    let stuck = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'";
    let admin = former.admin();
    for _ in 0..20 {
        admin.query_text(stuck, &[]).unwrap();
        wait(Duration::from_millis(100));
    }
}

fn names(node: &Cluster) -> String {
    let rows =
        node.admin().query_text("select string_agg(name, ',' order by id) from products", &[]).unwrap();
    rows[0].get(0)
}
