//! PostgreSQL on this machine, made ready: role and database over its socket, as the users that it knows by the kernel's word (peer
//! authentication), so that nobody has a password; its memory is set to fit beside the server's.
//! Runs in: offline; each part in a child that becomes the user it is for.

use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context, Result};
use may_postgres::Client;
use nix::unistd::{Gid, Uid};

use super::database::{make_database, try_everything};
use super::{connect, done, literal, quoted};
use crate::cli::Setup;
use crate::config::{Config, Sources};
use crate::db::{self, migrate};
use crate::machine::budget::{self, Wish};
use crate::os::fork::{self, Ending};

/// Where Debian's, Amazon Linux's and PGDG's packages have their sockets.
const SOCKET_DIRECTORY: &str = "/run/postgresql";

/// Whether there is a server to be set up without an address.
pub fn is_there() -> bool {
    Path::new(SOCKET_DIRECTORY).join(".s.PGSQL.5432").exists()
}

pub fn run(args: &Setup) -> Result<()> {
    if !fork::is_root() {
        bail!("PostgreSQL of this machine is set up as root (sudo catwalk setup); for another one, give its address with --database-url")
    }
    let role = args.role.as_str();
    let postgres = fork::user("postgres").context("there is no user named postgres; whose is the server?")?;
    let own = fork::user(role).with_context(|| {
        format!("there is no user named {role}, whom PostgreSQL would know: the package makes catwalk (systemd-sysusers), or give another one with --role")
    })?;
    // The cache that PostgreSQL's memory has to fit beside.
    let config = Config::new(Sources::read_with_default(None)?)?;
    let wishes = budget::wishes(&config);
    match as_user("postgres", postgres, || prepare(role, &wishes))? {
        Ending::Exit(0) => {}
        Ending::Exit(RESTART) => restart_server()?,
        _ => bail!("the server is not prepared; see above"),
    }
    match as_user(role, own, || migrate_and_try(role))? {
        Ending::Exit(0) => {
            println!("\nServe with: systemctl enable --now catwalk");
            Ok(())
        }
        _ => bail!("the database can't be served from; see above"),
    }
}

/// Status of a child whose work is done, but for a restart of the server.
const RESTART: i32 = 10;

/// Runs `work` in a child that is `name`.
fn as_user(name: &str, (uid, gid): (Uid, Gid), work: impl FnOnce() -> Result<i32>) -> Result<Ending> {
    let child = fork::fork(|| {
        let became = fork::become_user(uid, gid).with_context(|| format!("becoming {name}"));
        match became.and_then(|()| work()) {
            Ok(status) => status,
            Err(e) => {
                eprintln!("catwalk setup: as {name}: {e:#}");
                1
            }
        }
    })?;
    fork::wait(child).with_context(|| format!("waiting for what runs as {name}"))
}

fn address(role: &str, dbname: &str) -> Result<may_postgres::Config> {
    let url = format!("postgresql:///{dbname}?host={SOCKET_DIRECTORY}&user={role}");
    Ok(db::address(&url, "catwalk setup")?)
}

/// As the server's owner: role, database, memory.
fn prepare(role: &str, wishes: &[Wish]) -> Result<i32> {
    let admin = connect(&address("postgres", "postgres")?)?;
    migrate::check_version(&admin)?;
    if admin.query_text("select 1 from pg_roles where rolname = $1", &[&role])?.is_empty() {
        admin.batch_execute(&format!("create role {} login", quoted(role)))?;
    }
    done(&format!("role {role}: whoever is {role} on this machine; it has no password"));
    make_database(&admin, role)?;
    set_memory(&admin, role, wishes)
}

/// Sets what still is as it came. Whatever somebody has chosen stays.
fn set_memory(admin: &Client, role: &str, wishes: &[Wish]) -> Result<i32> {
    let mut changed = Vec::new();
    for wish in wishes.iter().filter(|wish| wish.is_better()) {
        let rows = admin.query_text(
            "select setting = boot_val or (name = 'shared_buffers' and setting::int8 <= 16384) from pg_settings where name = $1",
            &[&wish.name],
        )?;
        if rows.first().context("the server does not know its own settings")?.try_get(0)? {
            admin.batch_execute(&format!("alter system set {} = {}", wish.name, literal(&wish.value())))?;
            changed.push(format!("{} = {}", wish.name, wish.value()));
        }
    }
    if changed.is_empty() {
        done("memory: as somebody has set it, or as it should be");
        return Ok(0);
    }
    done(&format!("memory to fit beside catwalk: {}", changed.join(", ")));
    admin.query_text("select pg_reload_conf()", &[])?;
    if !changed.iter().any(|change| change.starts_with("shared_buffers")) {
        return Ok(0);
    }
    let others = admin.query_text(
        "select (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid())
              + (select count(*) from pg_database where not datistemplate and datname not in ('postgres', $1))",
        &[&role],
    )?;
    let others: i64 = others.first().context("no row")?.try_get(0)?;
    if others > 0 {
        println!("!    this server has other users: shared_buffers takes effect when you restart it (systemctl restart postgresql)");
        return Ok(0);
    }
    Ok(RESTART)
}

fn restart_server() -> Result<()> {
    let is_booted = Path::new("/run/systemd/system").exists();
    let (program, args) = if is_booted {
        ("systemctl", ["restart", "postgresql"])
    } else {
        ("service", ["postgresql", "restart"])
    };
    let status = Command::new(program).args(args).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!(
            "the server could not be restarted with `{program} {}`: restart it, then run this again",
            args.join(" ")
        );
    }
    done("the server was restarted: nobody else uses it");
    Ok(())
}

/// As the role itself: schema, and everything that serving takes.
fn migrate_and_try(role: &str) -> Result<i32> {
    let client = connect(&address(role, role)?)?;
    let applied = migrate::migrate(&client, false)?;
    done(&format!("schema: {} migrations applied", applied.len()));
    try_everything(&client)?;
    Ok(0)
}
