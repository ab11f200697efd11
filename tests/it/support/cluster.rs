//! A PostgreSQL of a test's own that listens on TCP and can be stopped and started again.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use may_postgres::{connect, Client, Config};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{eventually, server::directory};

/// Where a cluster runs: a network namespace, and an address there.
#[derive(Clone)]
pub struct Place {
    pub namespace: Option<String>,
    pub address: String,
}

impl Place {
    pub fn here() -> Place {
        Place { namespace: None, address: "127.0.0.1".into() }
    }

    /// `command`, there.
    pub fn inside(&self, command: Command) -> Command {
        let Some(namespace) = &self.namespace else { return command };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }
}

/// The cluster; its superuser is `root`, trusted over the socket in its directory.
pub struct Cluster {
    place: Place,
    running: Option<Child>,
    bin: PathBuf,
    pub port: u16,
    options: Vec<String>,
    dir: TempDir,
}

impl Cluster {
    /// Makes and starts a cluster, runs `sql` in it, and lets others in by the lines of `hba`.
    pub fn start(sql: &str, hba: &str, options: &[String]) -> Cluster {
        Cluster::start_at(Place::here(), sql, hba, options)
    }

    /// The same, elsewhere.
    pub fn start_at(place: Place, sql: &str, hba: &str, options: &[String]) -> Cluster {
        let dir = directory();
        let port = free_port();
        let options = options.to_vec();
        let mut cluster = Cluster { place, running: None, bin: find_bin(), port, options, dir };
        if let Some(user) = cluster_user() {
            nix::unistd::chown(cluster.dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let data = cluster.data();
        let mut initdb = cluster.command("initdb");
        initdb.args(["-A", "trust", "-U", "root", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
        assert!(initdb.stdout(Stdio::null()).status().unwrap().success());
        std::fs::write(data.join("pg_hba.conf"), format!("local all root trust\n{hba}\n")).unwrap();
        // Somebody else may take the port in between.
        while !cluster.try_resume() {
            cluster.port = free_port();
        }
        cluster.admin().batch_execute(sql).unwrap();
        cluster
    }

    /// A streaming replica of this one, by the name under which the primary knows it.
    pub fn replica(&self, name: &str, place: Place, through: (&str, u16)) -> Cluster {
        let dir = directory();
        let mut replica = Cluster {
            place,
            running: None,
            bin: find_bin(),
            port: free_port(),
            options: self.options.clone(),
            dir,
        };
        if let Some(user) = cluster_user() {
            nix::unistd::chown(replica.dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let mut copy = replica.command("pg_basebackup");
        let source = format!("host={} port={} user=root", self.dir.path().display(), self.port);
        copy.args(["-X", "stream", "-c", "fast", "--no-sync", "-d", &source, "-D"]).arg(replica.data());
        let out = copy.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        replica.follow(through, name);
        while !replica.try_resume() {
            replica.port = free_port();
        }
        replica
    }

    /// Has it follow whoever is reached at `port`, from its next start on.
    fn follow(&self, (host, port): (&str, u16), name: &str) {
        std::fs::write(self.data().join("standby.signal"), "").unwrap();
        let auto = self.data().join("postgresql.auto.conf");
        let upstream =
            format!("primary_conninfo = 'host={host} port={port} user=root application_name={name}'\n");
        let kept = std::fs::read_to_string(&auto).unwrap_or_default();
        std::fs::write(&auto, kept + &upstream).unwrap();
    }

    /// Becomes a primary.
    pub fn promote(&self) {
        let row = self.admin().query_text("select pg_promote(true, 30)", &[]).unwrap();
        assert!(row[0].get::<bool>(0), "promoted");
    }

    /// Starts it again as a replica, of whoever is reached at `port`, with the WAL that is missing there undone.
    pub fn rewind(&mut self, source: &Cluster) {
        // Until its first checkpoint it doesn't tell which timeline it is on.
        source.admin().batch_execute("checkpoint").unwrap();
        let mut rewind = self.command("pg_rewind");
        let from =
            format!("host={} port={} user=root dbname=postgres", source.dir.path().display(), source.port);
        rewind.args(["--no-sync", "--source-server", &from, "-D"]).arg(self.data());
        let out = rewind.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.follow((&source.place.address, source.port), "back");
        assert!(self.try_resume(), "it starts again on its port");
    }

    /// Starts it and waits until it takes connections.
    pub fn resume(&mut self) {
        assert!(self.try_resume(), "it starts again on its port");
    }

    /// Changes a setting of a running server; a replica may have to be asked again, which cancels what is in its way and
    /// ends whole connections.
    pub fn set(&self, name: &str, value: &str) {
        let change = format!("alter system set {name} = '{value}'");
        for sql in [change.as_str(), "select pg_reload_conf()"] {
            let run = || connect(&self.admin_config()).and_then(|admin| admin.batch_execute(sql));
            eventually("a setting is changed", || run().is_ok());
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.running.as_ref().expect("it runs").id() as i32)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        match (&self.place.namespace, cluster_user()) {
            // Into a namespace as root, and then no longer root.
            (Some(_), Some(user)) => {
                let mut command = Command::new("setpriv");
                let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
                command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]).arg(path);
                command
            }
            _ => run_as_cluster_user(Command::new(path)),
        }
    }

    /// Starts it and waits until it takes connections; false if it ends instead.
    fn try_resume(&mut self) -> bool {
        self.launch();
        let config = self.admin_config();
        let child = self.running.as_mut().expect("launched");
        let mut ended = false;
        eventually("the cluster takes connections", || {
            ended = child.try_wait().unwrap().is_some();
            ended || connect(&config).is_ok()
        });
        !ended
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-c", "fsync=off"]);
        let addresses = match self.place.namespace {
            None => "127.0.0.1,::1",
            Some(_) => &self.place.address,
        };
        command.args(["-c", &format!("listen_addresses={addresses}"), "-k"]).arg(self.dir.path());
        for option in &self.options {
            command.args(["-c", option]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = self.place.inside(command);
        self.running = Some(command.current_dir("/").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Ends it: SIGTERM waits for clients, SIGINT ends them, SIGQUIT is as if the power failed.
    pub fn stop(&mut self, signal: Signal) {
        if let Some(mut child) = self.running.take() {
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
            child.wait().unwrap();
        }
    }

    pub fn admin_config(&self) -> Config {
        format!("host={} port={} user=root dbname=postgres", self.dir.path().display(), self.port)
            .parse()
            .unwrap()
    }

    pub fn admin(&self) -> Client {
        connect(&self.admin_config()).unwrap()
    }

    /// Where it is reached over TCP.
    pub fn url_there(&self) -> String {
        let query = "sslmode=disable&connect_timeout=2";
        self.url("root", &self.place.address, query)
    }

    /// An address of the cluster over TCP.
    pub fn url(&self, user: &str, host: &str, query: &str) -> String {
        format!("postgresql://{user}@{host}:{}/postgres?{query}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root.
fn cluster_user() -> Option<nix::unistd::User> {
    nix::unistd::geteuid().is_root().then(|| nix::unistd::User::from_name("postgres").unwrap()).flatten()
}

/// `command` as a user that PostgreSQL's programs accept, in a directory that this user can reach.
pub fn run_as_cluster_user(mut command: Command) -> Command {
    command.current_dir("/");
    if let Some(user) = cluster_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// The newest server installed.
fn find_bin() -> PathBuf {
    let homes =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let number = |p: &PathBuf| p.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok());
    let newest = homes.filter(|p| p.join("bin/postgres").exists()).max_by_key(number);
    newest.map_or_else(|| PathBuf::from("/usr/bin"), |home| home.join("bin"))
}
