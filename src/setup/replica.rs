//! This machine's PostgreSQL as a streaming replica: what takes a page of instructions else. Everything is looked at before anything is
//! made, and what was made is taken back if it comes to nothing.
//! Runs in: offline.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Config, Host};
use nix::unistd::{Gid, Uid};

use super::{ask, connect, done, literal, password, quoted};
use crate::cli::Setup;
use crate::os::fork;
use crate::programs;

/// Longest wait for a replica that has been started to stream.
const STREAM_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a slot to be let go.
const SLOT_RELEASE_MAX: Duration = Duration::from_secs(5);
/// Settings that a replica must have no less of than its primary (PostgreSQL documentation, "Administrator's Overview" of hot standby).
const NO_LESS: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// What is to be made, by name.
struct Plan {
    bin: PathBuf,
    user: (Uid, Gid),
    data: PathBuf,
    /// Of the replica in pg_stat_replication, as an identifier.
    name: String,
    role: String,
    slot: String,
    port: u16,
}

pub fn run(args: &Setup, address: &Config) -> Result<()> {
    let plan = Plan::new(args)?;
    let admin = connect(address)?;
    plan.check(&admin)?;
    let password = password()?;
    let mut made = Made::default();
    if let Err(e) = plan.make(&admin, address, &password, &mut made) {
        plan.take_back(&admin, &made);
        return Err(e);
    }
    if args.synchronous {
        plan.make_synchronous(&admin)?;
    }
    println!(
        "\nOn each box that serves, add this machine's address to the settings, with the user, password and database of database.url:\n\n  \
         [database]\n  replicas = [\"postgresql://…@{}:{}/…\"]\n\n\
         It runs in {}; stop it with: {} -D {} stop -m fast",
        host_name(),
        plan.port,
        plan.data.display(),
        plan.bin.join("pg_ctl").display(),
        plan.data.display()
    );
    Ok(())
}

fn host_name() -> String {
    Some(fork::host_name()).filter(|name| !name.is_empty()).unwrap_or("replica".into())
}

/// Whether a directory is empty, or not there.
fn is_free(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e).with_context(|| format!("looking at {}", dir.display())),
    }
}

/// What was made so far, to be taken back if it comes to nothing.
#[derive(Default)]
struct Made {
    role: bool,
    slot: bool,
    copy: bool,
    started: bool,
}

impl Plan {
    fn new(args: &Setup) -> Result<Plan> {
        let name = args.name.clone().unwrap_or_else(host_name).to_lowercase();
        // What a slot's name may have.
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        // A slot's name has room for 63 bytes.
        let name: String = name.chars().take(40).collect();
        let data = std::path::absolute(&args.data_dir).context("reading --data-dir")?;
        if !is_free(&data)? {
            bail!(
                "{} is not empty: a replica needs a directory of its own, name one with --data-dir",
                args.data_dir.display()
            );
        }
        let (slot, role) = (format!("catwalk_{name}"), format!("catwalk_replica_{name}"));
        Ok(Plan {
            bin: programs::find_bin()?,
            user: programs::user()?,
            data,
            name,
            role,
            slot,
            port: args.port,
        })
    }

    /// What would be in the way later.
    fn check(&self, admin: &Client) -> Result<()> {
        let setting = |name: &str| ask(admin, &format!("select current_setting({})", literal(name)));
        let theirs: i64 = setting("server_version_num")?.parse()?;
        let out = Command::new(self.bin.join("postgres"))
            .arg("-V")
            .output()
            .context("asking this machine's PostgreSQL for its version")?;
        let ours = String::from_utf8_lossy(&out.stdout).into_owned();
        let is_same = ours
            .split_whitespace()
            .any(|word| word.split('.').next() == Some(&(theirs / 10_000).to_string()));
        if !is_same {
            bail!("the primary is PostgreSQL {}, and this machine has {}: a replica needs the same major version", theirs / 10_000, ours.trim());
        }
        if ask(admin, "select pg_is_in_recovery()::text")? == "true" {
            bail!("that server is a replica itself: give the primary's address");
        }
        if setting("wal_level")? == "minimal" {
            bail!("the primary has wal_level = minimal: set it to replica there, and restart it");
        }
        let may = ask(admin, "select (rolsuper or (rolreplication and rolcreaterole))::text from pg_roles where rolname = current_user")?;
        if may != "true" {
            bail!(
                "this role may make no role for replication there (it takes a superuser, or CREATEROLE and REPLICATION). A managed service makes \
                 its replicas itself: do it there, and add their addresses to database.replicas"
            );
        }
        for (limit, used) in [
            ("max_wal_senders", "select count(*)::text from pg_stat_replication"),
            ("max_replication_slots", "select count(*)::text from pg_replication_slots"),
        ] {
            let (limit_value, used): (i64, i64) = (setting(limit)?.parse()?, ask(admin, used)?.parse()?);
            if used >= limit_value {
                bail!("the primary has {limit} = {limit_value}, and all are used: raise it there, and restart it");
            }
        }
        if !admin
            .query_text("select 1 from pg_replication_slots where slot_name = $1", &[&self.slot])?
            .is_empty()
        {
            bail!("the primary has a slot {} already: another replica has this name; choose one with --name, or drop the slot", self.slot);
        }
        done("version, wal_level, senders, slots and rights on the primary");
        Ok(())
    }

    fn make(&self, admin: &Client, address: &Config, password: &str, made: &mut Made) -> Result<()> {
        self.make_role(admin, password, made)?;
        self.make_directory()?;
        self.copy(address, password)?;
        made.copy = true;
        self.configure(admin)?;
        made.started = true;
        self.start()?;
        self.wait_for_stream(admin)
    }

    fn make_role(&self, admin: &Client, password: &str, made: &mut Made) -> Result<()> {
        let exists =
            !admin.query_text("select 1 from pg_roles where rolname = $1", &[&self.role])?.is_empty();
        let verb = if exists { "alter" } else { "create" };
        let verifier = literal(&may_postgres::scram_verifier(password));
        admin
            .batch_execute(&format!(
                "{verb} role {} login replication password {verifier}",
                quoted(&self.role)
            ))
            .with_context(|| format!("making the role {}", self.role))?;
        made.role = !exists;
        // WAL that is still needed is kept from now on.
        let slot = format!("select pg_create_physical_replication_slot({}, true)", literal(&self.slot));
        admin.batch_execute(&slot).with_context(|| format!("making the slot {}", self.slot))?;
        made.slot = true;
        done(&format!("role {} and slot {}", self.role, self.slot));
        Ok(())
    }

    fn make_directory(&self) -> Result<()> {
        let problem = || format!("making {}", self.data.display());
        if let Some(parent) = self.data.parent() {
            fs::create_dir_all(parent).with_context(problem)?;
        }
        if !self.data.exists() {
            fs::DirBuilder::new().mode(0o700).create(&self.data).with_context(problem)?;
        }
        if !is_free(&self.data)? {
            bail!("{} has been filled by somebody else meanwhile", self.data.display());
        }
        fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700)).with_context(problem)?;
        if fork::is_root() {
            fork::give(&self.data, self.user.0, self.user.1).with_context(problem)?;
        }
        Ok(())
    }

    /// One of PostgreSQL's programs, as the user that may.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/");
        if fork::is_root() {
            command.uid(self.user.0.as_raw()).gid(self.user.1.as_raw());
        }
        command
    }

    /// The primary's data, with its own progress on the terminal.
    fn copy(&self, address: &Config, password: &str) -> Result<()> {
        let host = match &address.host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(dir) => dir.to_string_lossy().into_owned(),
        };
        let mut source = format!(
            "host='{host}' port={} user={} application_name={} sslmode={}",
            address.port, self.role, self.name, address.sslmode
        );
        if let Some(file) = &address.sslrootcert {
            source += &format!(" sslrootcert='{}'", file.display());
        }
        let mut copy = self.program("pg_basebackup");
        copy.env("PGPASSWORD", password).args(["-d", &source, "-S", &self.slot]);
        copy.args(["-X", "stream", "-R", "-c", "fast", "--progress", "--no-password", "-D"]).arg(&self.data);
        let status = copy.status().context("starting pg_basebackup")?;
        if !status.success() {
            bail!(
                "pg_basebackup could not copy the primary: {status}. If it was refused there, pg_hba.conf on the primary needs a line for this \
                 machine, and a reload (select pg_reload_conf()):\n  host  replication  {}  ADDRESS/32  scram-sha-256",
                self.role
            );
        }
        done(&format!("data copied to {}", self.data.display()));
        Ok(())
    }

    /// What the replica needs beside what came with the data. Debian keeps a cluster's settings elsewhere: then none came.
    fn configure(&self, admin: &Client) -> Result<()> {
        let path = |name: &str| self.data.join(name);
        if !path("postgresql.conf").exists() {
            self.write(&path("postgresql.conf"), "listen_addresses = '*'\n")?;
        }
        if !path("pg_hba.conf").exists() {
            self.write(&path("pg_hba.conf"), "local all all peer\nhost all all samehost scram-sha-256\nhost all all samenet scram-sha-256\n")?;
        }
        if !path("pg_ident.conf").exists() {
            self.write(&path("pg_ident.conf"), "")?;
        }
        let mut own = format!("port = {}\nhot_standby = on\n", self.port);
        // A long query holds up what everybody else waits for: for a second, then it is cancelled.
        own += "max_standby_streaming_delay = '1s'\nmax_standby_archive_delay = '1s'\n";
        for name in NO_LESS {
            own += &format!("{name} = {}\n", ask(admin, &format!("select current_setting('{name}')"))?);
        }
        let auto = path("postgresql.auto.conf");
        let kept = fs::read_to_string(&auto).with_context(|| format!("reading {}", auto.display()))?;
        self.write(&auto, &format!("{kept}{own}"))?;
        done("settings of the replica");
        Ok(())
    }

    /// Writes a file of the data directory for its user. What is there is that user's: a link of theirs is not followed.
    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let problem = || format!("writing {}", path.display());
        let no_link = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let mut options = fs::File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(no_link);
        let mut file = options.open(path).with_context(problem)?;
        file.write_all(text.as_bytes()).with_context(problem)?;
        if fork::is_root() {
            let (uid, gid) = (self.user.0.as_raw(), self.user.1.as_raw());
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).with_context(problem)?;
        }
        Ok(())
    }

    fn start(&self) -> Result<()> {
        let log = self.data.join("replica.log");
        let mut start = self.program("pg_ctl");
        start.arg("-D").arg(&self.data).arg("-l").arg(&log).args(["-s", "-w", "start"]);
        let status = start.status().context("starting pg_ctl")?;
        if !status.success() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("the replica does not start: {status}; its log ends with:\n{}", tail.join("\n"));
        }
        done(&format!("started on port {}", self.port));
        Ok(())
    }

    fn wait_for_stream(&self, admin: &Client) -> Result<()> {
        let start = Instant::now();
        let streams = "select 1 from pg_stat_replication where application_name = $1 and state = 'streaming'";
        while admin.query_text(streams, &[&self.name])?.is_empty() {
            if start.elapsed() > STREAM_MAX {
                bail!(
                    "the replica runs, but does not stream after {STREAM_MAX:?}; {} has the reason",
                    self.data.join("replica.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        done(&format!("it streams, as {} in pg_stat_replication", self.name));
        Ok(())
    }

    fn make_synchronous(&self, admin: &Client) -> Result<()> {
        let present = ask(admin, "select current_setting('synchronous_standby_names')")?;
        let name = quoted(&self.name);
        if !present.is_empty() {
            bail!("the primary has synchronous_standby_names = {present:?} already: add {name} there as you mean it; all else is done");
        }
        admin
            .batch_execute(&format!(
                "alter system set synchronous_standby_names = {}",
                literal(&format!("FIRST 1 ({name})"))
            ))
            .context("setting synchronous_standby_names on the primary; all else is done")?;
        admin.batch_execute("select pg_reload_conf()")?;
        done("commits on the primary wait for it: without it, none succeeds");
        Ok(())
    }

    /// Undoes what came to nothing, and nothing else.
    fn take_back(&self, admin: &Client, made: &Made) {
        if made.started {
            let mut stop = self.program("pg_ctl");
            let _ = stop.arg("-D").arg(&self.data).args(["-s", "-m", "immediate", "stop"]).output();
        }
        let left = |what: &str, outcome: std::result::Result<(), String>| {
            if let Err(why) = outcome {
                eprintln!("catwalk: {what} is left behind: {why}");
            }
        };
        if made.copy {
            let copied = fs::read_dir(&self.data).into_iter().flatten().flatten().map(|entry| entry.path());
            let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let emptied =
                copied
                    .map(|path| if is_dir(&path) { fs::remove_dir_all(path) } else { fs::remove_file(path) });
            let emptied = emptied.collect::<std::io::Result<()>>().map_err(|e| e.to_string());
            left(&self.data.display().to_string(), emptied);
        }
        if made.slot {
            left(&format!("the slot {}", self.slot), self.drop_slot(admin));
        }
        if made.role {
            let role = format!("drop role {}", quoted(&self.role));
            left(&format!("the role {}", self.role), admin.batch_execute(&role).map_err(|e| e.to_string()));
        }
    }

    /// Whoever streamed over it a moment ago may not have been missed yet.
    fn drop_slot(&self, admin: &Client) -> std::result::Result<(), String> {
        let (start, slot) =
            (Instant::now(), format!("select pg_drop_replication_slot({})", literal(&self.slot)));
        loop {
            match admin.batch_execute(&slot) {
                Ok(()) => return Ok(()),
                Err(e) if start.elapsed() > SLOT_RELEASE_MAX => return Err(e.to_string()),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}
