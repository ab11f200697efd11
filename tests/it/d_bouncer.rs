//! The whole server behind pgbouncer in transaction mode, where every transaction may run on another backend.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::cluster::run_as_cluster_user;
use crate::support::server::BIN;
use crate::support::{eventually, Cluster, Server};

/// A pgbouncer that knows prepared statements (from 1.21): the system's, or the one that `.ci/instruments` builds.
pub fn find() -> Option<PathBuf> {
    let built = PathBuf::from(BIN).parent()?.parent()?.join("pgbouncer/pgbouncer");
    [built, "/usr/sbin/pgbouncer".into()].into_iter().find(|path| {
        let Ok(out) = Command::new(path).arg("-V").output() else { return false };
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let version = text.split_whitespace().nth(1).unwrap_or("");
        let mut numbers = version.split('.').filter_map(|n| n.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(1), Some(21))
    })
}

pub struct Bouncer(Child);

impl Bouncer {
    pub fn start(program: &std::path::Path, cluster: &Cluster) -> Bouncer {
        Bouncer::listen(program, cluster, "", 6432)
    }

    /// On a port too, if there is an address.
    pub fn listen(program: &std::path::Path, cluster: &Cluster, address: &str, port: u16) -> Bouncer {
        // Fewer than there are connections to it, where that is what a test is about.
        let pool = if address.is_empty() { 3 } else { 10 };
        // Where the cluster's user can reach it.
        let copy = cluster.path().join("pgbouncer");
        if !copy.exists() {
            std::fs::copy(program, &copy).unwrap();
        }
        let dir = cluster.path().display().to_string();
        let settings = format!(
            "[databases]\nshop = host={dir} port={} user=root dbname=postgres\npostgres = host={dir} port={} user=root dbname=postgres\n\
             [pgbouncer]\nlisten_addr = {address}\nunix_socket_dir = {dir}\nlisten_port = {port}\nignore_startup_parameters = options\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {pool}\nmax_prepared_statements = 100\n",
            cluster.port, cluster.port
        );
        std::fs::write(cluster.path().join("pgbouncer.ini"), settings).unwrap();
        let mut command = run_as_cluster_user(Command::new(copy));
        command.arg("-q").arg(cluster.path().join("pgbouncer.ini")).stderr(Stdio::null());
        Bouncer(command.spawn().unwrap())
    }

    fn stop(&mut self) {
        // At once: SIGTERM would wait for its clients.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGQUIT);
        let _ = self.0.wait();
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn catwalk_works_behind_pgbouncer_in_transaction_mode() {
    let Some(program) = find() else {
        println!("passed over: there is no pgbouncer >= 1.21 here; `.ci/instruments` builds one");
        return;
    };
    let cluster = Cluster::start("select 1", "", &[]);
    let mut bouncer = Bouncer::start(&program, &cluster);
    let url = format!("host={} port=6432 user=root dbname=shop", cluster.path().display());
    let config = url.parse().unwrap();
    eventually("the bouncer takes connections", || may_postgres::connect(&config).is_ok());
    let run = |args: &[&str]| {
        let mut command = Command::new(BIN);
        command.args(args).args(["--database-url", &url]).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    };
    run(&["migrate"]);
    run(&["seed", "--products", "300"]);
    run(&["check", "--database"]);
    let mut serve = Command::new(BIN);
    serve
        .args(["serve", "--database-url", &url])
        .env("CATWALK_LISTEN", "127.0.0.1:0")
        .env("CATWALK_CACHE_SIZE", "0");
    // More connections than backends: transactions of one connection move between them.
    serve.env("CATWALK_DATABASE_CONNECTIONS", "16");
    let server = Server::launch(serve, cluster.path());
    eventually("it is ready", || server.get("/readyz").status == 200);
    let ask_all = || {
        let mut connections: Vec<_> = (0..16).map(|_| server.connect()).collect();
        for id in 1..=300 {
            let connection = &mut connections[id % 16];
            assert_eq!(connection.get(&format!("/products/{id}")).json()["id"], id);
            let kind = ["styles", "related"][id % 2];
            assert_eq!(connection.get(&format!("/products/{id}/{kind}")).status, 200, "{kind} of {id}");
        }
        assert_eq!(server.get("/products?count=300").json().as_array().unwrap().len(), 300);
    };
    ask_all();
    bouncer.stop();
    eventually("the loss is seen", || server.get("/products/1").status == 503);
    let _again = Bouncer::start(&program, &cluster);
    eventually("it is ready again", || (0..20).all(|_| server.get("/readyz").status == 200));
    ask_all();
}
