//! The private cluster: made once, started as a child in a session of its own.
//! Runs in: master.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::dev::place::{Place, DATABASE};
use crate::master::events::{Event, Events};
use crate::os::fork::{self, Ending};
use crate::os::signal;
use crate::programs;

/// Longest initdb, and longest start (crash recovery included).
const INIT_MAX: Duration = Duration::from_secs(120);
const START_MAX: Duration = Duration::from_secs(300);

/// A cluster and the programs that run it.
pub struct Cluster {
    place: Place,
    bin: PathBuf,
}

impl Cluster {
    /// The cluster at `place`, made if it is not there yet.
    pub fn open(place: Place, events: &mut Events) -> Result<Cluster> {
        let cluster = Cluster { bin: programs::find_bin()?, place };
        if !cluster.place.data.join("PG_VERSION").exists() {
            cluster.init(events)?;
        }
        Ok(cluster)
    }

    /// Makes the cluster beside its place and moves it there when it is whole: a run that is stopped half-way
    /// leaves nothing that looks like one.
    fn init(&self, events: &mut Events) -> Result<()> {
        let fresh = self.place.data.with_extension("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
        }
        println!("Making a private PostgreSQL cluster in {} …", self.place.data.display());
        let args = [
            "-D",
            &fresh.to_string_lossy(),
            "-A",
            "trust",
            "-U",
            DATABASE,
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ];
        let child = self.run("initdb", &args)?;
        match events.wait_for(child, INIT_MAX) {
            Some(Ending::Exit(0)) => {}
            Some(ending) => bail!("initdb {ending}; {}", self.log_tail()),
            None => {
                fork::signal(child, Signal::SIGKILL);
                bail!("stopped while making the cluster");
            }
        }
        fs::rename(&fresh, &self.place.data).context("moving the fresh cluster to its place")
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&self, events: &mut Events) -> Result<Pid> {
        let child = self.spawn()?;
        let deadline = Instant::now() + START_MAX;
        while !self.is_ready(child) {
            match events.next(Duration::from_millis(10)) {
                Event::ChildEnded(pid, ending) if pid == child => {
                    bail!("PostgreSQL {ending}; {}", self.log_tail());
                }
                Event::Asked(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => {
                    fork::signal(child, Signal::SIGINT);
                    events.wait_for(child, INIT_MAX);
                    bail!("stopped while PostgreSQL was starting");
                }
                _ if Instant::now() > deadline => {
                    fork::signal(child, Signal::SIGQUIT);
                    bail!("PostgreSQL does not get ready; {}", self.log_tail());
                }
                _ => {}
            }
        }
        Ok(child)
    }

    /// Starts the server. On the socket only: no port, reachable for its user and root alone.
    pub fn spawn(&self) -> Result<Pid> {
        let data = self.place.data.to_string_lossy();
        let socket = format!(
            "unix_socket_directories=\"{}\"",
            self.place.socket.to_string_lossy().replace('"', "\"\"")
        );
        let settings = [
            "listen_addresses=",
            &socket,
            "unix_socket_permissions=0700",
            "port=5432",
            "max_connections=100",
            "shared_buffers=128MB",
            "max_wal_size=4GB",
            "jit=off",
            "log_min_messages=warning",
        ];
        let mut args = vec!["-D", &data];
        settings.iter().for_each(|s| args.extend(["-c", s]));
        self.run("postgres", &args)
    }

    /// The server writes its state into the last line of postmaster.pid.
    fn is_ready(&self, child: Pid) -> bool {
        let text = fs::read_to_string(self.place.data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        let ours = lines.next().and_then(|l| l.parse::<i32>().ok()) == Some(child.as_raw());
        ours && lines.next_back().is_some_and(|l| l.trim() == "ready")
    }

    /// Runs one of PostgreSQL's programs as the cluster's user, its output in the log. In a session of its own,
    /// so that the terminal's Ctrl-C is ours alone to handle; ended by the kernel if this process dies.
    fn run(&self, program: &str, args: &[&str]) -> Result<Pid> {
        let path = self.bin.join(program);
        let args: Vec<String> = args.iter().map(|a| a.to_string()).collect();
        let log = File::options().create(true).append(true).open(&self.place.log);
        let log = log.with_context(|| format!("opening {}", self.place.log.display()))?;
        let (parent, uid, gid) = (fork::own_pid(), self.place.uid, self.place.gid);
        let child = fork::fork(|| {
            let prepared = signal::reset_for_exec()
                .and_then(|()| fork::own_session())
                .and_then(|()| if fork::is_root() { fork::become_user(uid, gid) } else { Ok(()) })
                .and_then(|()| fork::die_with_parent(parent, Signal::SIGINT))
                .and_then(|()| std::env::set_current_dir("/").map_err(|_| nix::Error::EACCES))
                .and_then(|()| fork::redirect_output(log.as_fd()));
            let why = prepared.err().unwrap_or_else(|| fork::exec(&path, &args));
            eprintln!("starting {}: {why}", path.display());
            127
        });
        child.with_context(|| format!("forking for {program}"))
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.place.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("{} ends with:\n{}", self.place.log.display(), lines.join("\n"))
    }
}
