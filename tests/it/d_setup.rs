//! `catwalk setup`: what it makes can be served from, and what comes to nothing leaves nothing.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::cluster::run_as_cluster_user;
use crate::support::server::{directory, BIN};
use crate::support::{eventually, Cluster, Server};

const HBA: &str = "host all root 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n\
                   host replication catwalk_replica_one 127.0.0.1/32 scram-sha-256";

fn setup(args: &[&str]) -> Output {
    Command::new(BIN).arg("setup").args(args).output().unwrap()
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// As of a managed service: whoever makes roles and databases is no superuser.
fn managed() -> Cluster {
    Cluster::start("create role boss login createrole createdb password 'secret'", HBA, &[])
}

fn serve(config: &Path, dir: &Path) -> Server {
    let mut command = Command::new(BIN);
    command.arg("serve").arg("--config").arg(config).env("CATWALK_LISTEN", "127.0.0.1:0");
    command.env("CATWALK_CACHE_SIZE", "16MiB").env("CATWALK_WORKERS", "1");
    Server::launch(command, dir)
}

#[test]
fn a_managed_database_is_served_from_without_a_superuser() {
    let (cluster, dir) = (managed(), directory());
    let out = dir.path().join("catwalk.toml");
    let url = cluster.url("boss:secret", "127.0.0.1", "sslmode=disable");
    let args = ["--database-url", &url, "--out", &out.display().to_string()];
    let done = setup(&args);
    assert!(done.status.success(), "{}", text(&done));
    let settings = std::fs::read_to_string(&out).unwrap();
    assert!(!text(&done).contains(settings.split(':').nth(2).unwrap()), "the password is not shown");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let rows = cluster.admin().query_text(
        "select rolsuper or rolcreatedb or rolcreaterole from pg_roles where rolname = 'catwalk'",
        &[],
    );
    assert!(!rows.unwrap()[0].get::<bool>(0));
    let server = serve(&out, dir.path());
    eventually("it is ready and followed", || {
        let ready = server.get("/readyz").json();
        ready["ready"] == true && ready["feed"]["ok"] == true
    });
    // Nothing is overwritten, neither the file nor the role's password.
    let again = setup(&args);
    assert!(text(&again).contains("is there already, and may have settings of yours"), "{}", text(&again));
    let other = dir.path().join("other.toml").display().to_string();
    let again = setup(&["--database-url", &url, "--out", &other]);
    assert!(text(&again).contains("the role catwalk is there already"), "{}", text(&again));
    let again = setup(&["--database-url", &url, "--out", &other, "--new-password"]);
    assert!(again.status.success(), "{}", text(&again));
}

#[test]
fn addresses_that_nobody_checks_are_refused() {
    let refused = setup(&["--database-url", "postgresql://a@db.example/shop?sslmode=require"]);
    assert!(
        !refused.status.success() && text(&refused).contains("sslmode=verify-full"),
        "{}",
        text(&refused)
    );
}

#[test]
fn a_second_machine_becomes_a_replica() {
    let (cluster, dir) = (Cluster::start("select 1", HBA, &[]), directory());
    let url = cluster.url("root", "127.0.0.1", "sslmode=disable");
    // A copy that is refused leaves neither slot nor role.
    let data = dir.path().join("replica").display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let refused =
        setup(&["--replica", "--name", "two", "--data-dir", &data, "--port", &port, "--database-url", &url]);
    assert!(text(&refused).contains("pg_hba.conf on the primary needs a line"), "{}", text(&refused));
    let count = |sql: &str| cluster.admin().query_text(sql, &[]).unwrap()[0].get::<i64>(0);
    assert_eq!(count("select count(*) from pg_replication_slots"), 0);
    assert_eq!(count("select count(*) from pg_roles where rolname like 'catwalk%'"), 0);
    let args = [
        "--replica",
        "--name",
        "one",
        "--data-dir",
        &data,
        "--port",
        &port,
        "--synchronous",
        "--database-url",
        &url,
    ];
    let done = setup(&args);
    let stop = Stop(data.clone());
    assert!(done.status.success(), "{}", text(&done));
    let streams =
        "select count(*) from pg_stat_replication where application_name = 'one' and sync_state = 'sync'";
    eventually("it is synchronous", || count(streams) == 1);
    cluster.admin().batch_execute("create table t (n int); insert into t values (7)").unwrap();
    let replica = may_postgres::connect(
        &format!("host=/var/run/postgresql port={port} user=root dbname=postgres").parse().unwrap(),
    );
    let replica = replica.or_else(|_| {
        may_postgres::connect(&format!("host=/tmp port={port} user=root dbname=postgres").parse().unwrap())
    });
    let replica = replica.unwrap();
    eventually("it has what was written", || {
        replica
            .query_text("select n from t", &[])
            .is_ok_and(|rows| rows.first().is_some_and(|row| row.get::<i32>(0) == 7))
    });
    let again = setup(&args);
    assert!(text(&again).contains("is not empty"), "{}", text(&again));
    drop(stop);
}

/// Ends what was started in a directory.
struct Stop(String);

impl Drop for Stop {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(format!("{}/postmaster.pid", self.0)).unwrap_or_default();
        if let Some(Ok(pid)) = pid.lines().next().map(str::parse) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
        }
        let _ = run_as_cluster_user(Command::new("true")).status();
    }
}
