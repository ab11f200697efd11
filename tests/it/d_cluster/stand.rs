//! A primary, two replicas and boxes that serve from them, with a cable between each two that can be cut.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::d_bouncer::{self, Bouncer};
use crate::d_coherence::traffic::{ADMIN_TOKEN, FILL};
use crate::support::cluster::free_port;
use crate::support::server::{directory, BIN};
use crate::support::{eventually, Cluster, Link, Place, Server, DEADLINE};

const HBA: &str = "local replication root trust\nhost all root 127.0.0.1/32 trust\nhost replication root 127.0.0.1/32 trust";
/// The same for hosts of their own.
pub const HBA_HOSTS: &str = "local replication root trust\nhost all root 10.77.0.0/16 trust\nhost replication root 10.77.0.0/16 trust";
pub const OPTIONS: &[&str] =
    &["wal_log_hints=on", "wal_keep_size=512MB", "max_standby_streaming_delay=500ms", "hot_standby=on"];

/// Everything. Nodes are counted as boxes count them: the primary of the beginning, then the replicas.
pub struct Stand {
    pub boxes: Vec<Server>,
    pub balancer: Option<Balancer>,
    /// Between the boxes and the last replica.
    pub _bouncer: Option<Bouncer>,
    pub nodes: Vec<Cluster>,
    /// From the boxes to each node.
    pub cables: Vec<Link>,
    /// From each replica to the primary.
    pub feeders: Vec<Link>,
    pub dir: TempDir,
}

impl Stand {
    /// With `boxes` boxes, started as `configure` says, and few products.
    pub fn start(boxes: usize, configure: impl Fn(&mut Command)) -> Stand {
        Stand::start_with(70, boxes, configure)
    }

    pub fn start_with(products: usize, boxes: usize, configure: impl Fn(&mut Command)) -> Stand {
        let options: Vec<String> = OPTIONS.iter().map(|option| option.to_string()).collect();
        let primary = Cluster::start("select 1", HBA, &options);
        let url = url(primary.port);
        for args in [&["migrate"][..], &["seed", "--products", &products.to_string()]] {
            let mut command = Command::new(BIN);
            command.args(args).args(["--database-url", &url]).stdout(Stdio::null()).stderr(Stdio::null());
            assert!(command.status().unwrap().success(), "{args:?}");
        }
        primary.admin().batch_execute(FILL).unwrap();
        let feeders: Vec<Link> = (0..2).map(|_| Link::to(primary.port)).collect();
        let replicas = feeders.iter().enumerate().map(|(n, feeder)| {
            primary.replica(&format!("replica{}", n + 1), Place::here(), ("127.0.0.1", feeder.port))
        });
        let replicas: Vec<Cluster> = replicas.collect();
        let nodes: Vec<Cluster> = std::iter::once(primary).chain(replicas).collect();
        let (bouncer, port) = match d_bouncer::find() {
            Some(program) => {
                let port = free_port();
                (Some(Bouncer::listen(&program, &nodes[2], "127.0.0.1", port)), port)
            }
            None => (None, nodes[2].port),
        };
        let cables = [nodes[0].port, nodes[1].port, port].map(Link::to).into();
        let dir = directory();
        let mut stand =
            Stand { boxes: Vec::new(), balancer: None, _bouncer: bouncer, nodes, cables, feeders, dir };
        stand.boxes = (0..boxes).map(|n| stand.open_box(n, &configure)).collect();
        stand.wait_until_fit();
        stand
    }

    pub fn open_box(&self, number: usize, configure: impl Fn(&mut Command)) -> Server {
        let urls: Vec<String> = self.cables.iter().map(|cable| url(cable.port)).collect();
        open_box(&Place::here(), &self.dir.path().join(format!("box{number}")), &urls, configure)
    }

    /// Waits until every box reads from both replicas.
    pub fn wait_until_fit(&self) {
        for server in &self.boxes {
            let start = Instant::now();
            eventually("both replicas are read from", || {
                let ready = server.get("/readyz").json();
                let detail = ready["database"]["detail"].as_str().unwrap_or_default().to_string();
                if start.elapsed() > DEADLINE * 3 / 4 {
                    println!("{ready}");
                }
                ready["feed"]["ok"] == true
                    && detail.matches(": replica, ").count() == 2
                    && detail.contains(": primary")
            });
        }
    }

    /// Addresses of the nodes themselves, without a cable between.
    pub fn database_urls(&self) -> Vec<String> {
        self.nodes.iter().map(Cluster::url_there).collect()
    }

    /// Has replicas show nothing new, for as long as this is kept.
    pub fn pause(&self) {
        for node in &self.nodes[1..] {
            // What is asked may be cancelled for being in the way.
            let (pause, state) = ("select pg_wal_replay_pause()", "select pg_get_wal_replay_pause_state()");
            eventually("a replica has paused", || {
                node.admin().batch_execute(pause).is_ok()
                    && node
                        .admin()
                        .query_text(state, &[])
                        .is_ok_and(|rows| rows[0].get::<String>(0) == "paused")
            });
        }
    }

    pub fn resume(&self) {
        for node in &self.nodes[1..] {
            let resume = "select pg_wal_replay_resume()";
            eventually("a replica goes on", || node.admin().batch_execute(resume).is_ok());
        }
    }

    /// What a box says of its nodes.
    pub fn told(&self, number: usize) -> String {
        self.boxes[number].get("/readyz").json()["database"]["detail"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    /// Sum over all boxes.
    pub fn metric(&self, name: &str) -> u64 {
        self.boxes.iter().map(|server| server.metric(name)).sum()
    }

    /// Has a write wait for `name` to have it, as `alter system` goes.
    pub fn synchronous(&self, node: usize, name: &str) {
        self.nodes[node].set("synchronous_standby_names", name);
    }

    /// The primary's power fails.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].stop(Signal::SIGQUIT);
    }
}

/// A box at `place` that serves from the nodes at `urls`.
pub fn open_box(place: &Place, dir: &Path, urls: &[String], configure: impl Fn(&mut Command)) -> Server {
    std::fs::create_dir_all(dir).unwrap();
    let token = dir.join("token");
    std::fs::write(&token, ADMIN_TOKEN).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(BIN);
    command.arg("serve").env("CATWALK_LISTEN", format!("{}:0", place.address)).env("CATWALK_WORKERS", "2");
    command.env("CATWALK_CACHE_SIZE", "16MiB").env("CATWALK_CACHE_AUDIT_ONE_IN", "20");
    command.env("CATWALK_HTTP_ADMIN_TOKEN_FILE", token).env("CATWALK_DATABASE_URL", &urls[0]);
    command.env("CATWALK_DATABASE_REPLICAS", urls[1..].join(",")).env("CATWALK_HTTP_WRITE_RATE", "0");
    command.env("CATWALK_RUNTIME_DIR", dir.join("run"));
    command.env("CATWALK_ADMIN_LISTEN", format!("{}:0", place.address));
    configure(&mut command);
    Server::launch(place.inside(command), dir)
}

pub fn url(port: u16) -> String {
    format!("postgresql://root@127.0.0.1:{port}/postgres?sslmode=disable&connect_timeout=2")
}

/// A real haproxy before the boxes: clients with a name stay with a box while it lives, others go round.
pub struct Balancer {
    child: Child,
    pub address: String,
}

impl Balancer {
    /// None: there is none here.
    pub fn start(stand: &Stand) -> Option<Balancer> {
        let port = free_port();
        let servers: String = stand
            .boxes
            .iter()
            .enumerate()
            .map(|(n, server)| {
                format!("    server box{n} {} check inter 200ms fall 1 rise 1\n", server.address)
            })
            .collect();
        let settings = format!(
            "global\n    maxconn 2000\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    timeout server 30s\n\
             \n    retries 3\n    option redispatch 1\nlisten shop\n    bind 127.0.0.1:{port}\n    balance hdr(X-Client)\n    \
             option httpchk GET /readyz\n{servers}"
        );
        let file = stand.dir.path().join("haproxy.cfg");
        std::fs::write(&file, settings).unwrap();
        let child =
            Command::new("haproxy").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let balancer = Balancer { child: child.ok()?, address: format!("127.0.0.1:{port}") };
        eventually("the balancer takes connections", || {
            std::net::TcpStream::connect(&balancer.address).is_ok()
        });
        Some(balancer)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
