//! A server, managed or not, made ready to be served from: a role that may do nothing else, its database, the schema; then everything is
//! tried as that role. Nobody has to be superuser.
//! Runs in: offline.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Config, Host};
use percent_encoding::{utf8_percent_encode, NON_ALPHANUMERIC};

use super::{connect, done, literal, password, quoted};
use crate::cli::Setup;
use crate::db::{self, changes, lsn, migrate};

pub fn run(args: &Setup, address: &Config) -> Result<()> {
    if args.out.exists() {
        bail!(
            "{} is there already, and may have settings of yours: name another file with --out",
            args.out.display()
        );
    }
    let admin = connect(address)?;
    migrate::check_version(&admin)?;
    let own = make_role(args, address, &admin)?;
    let client = db::connect_to(&own)?;
    done(&format!("connected to {} as {}", own.display(), own.user));
    let applied = migrate::migrate(&client, false)?;
    done(&format!("schema: {} migrations applied", applied.len()));
    try_everything(&client)?;
    write_settings(args, &own)?;
    println!("\nServe with: catwalk serve --config {}", args.out.display());
    Ok(())
}

/// The role and its database, and the address with them.
fn make_role(args: &Setup, address: &Config, admin: &Client) -> Result<Config> {
    let may = may_create(admin)?;
    if !may {
        done(&format!(
            "{} may make neither roles nor databases: its own database is taken as it is",
            address.user
        ));
        return Ok(address.clone());
    }
    let role = &args.role;
    let exists = !admin.query_text("select 1 from pg_roles where rolname = $1", &[role])?.is_empty();
    if exists && !args.new_password {
        bail!("the role {role} is there already: give its own address with --database-url, or a new password with --new-password, or another --role");
    }
    let password = password()?;
    let verb = if exists { "alter" } else { "create" };
    // The server gets no password, only what it can check one with: nothing that its log could give away.
    let verifier = literal(&may_postgres::scram_verifier(&password));
    admin
        .batch_execute(&format!("{verb} role {} login password {verifier}", quoted(role)))
        .with_context(|| format!("making the role {role}"))?;
    done(&format!("role {role}, which may do nothing but serve"));
    make_database(admin, role)?;
    Ok(Config { user: role.clone(), dbname: role.clone(), password: Some(password), ..address.clone() })
}

/// The database of a role, its own.
pub(super) fn make_database(admin: &Client, role: &str) -> Result<()> {
    let has_database =
        !admin.query_text("select 1 from pg_database where datname = $1", &[&role])?.is_empty();
    if !has_database {
        // Whoever is no superuser has to be a member of the role that is to own something.
        admin.batch_execute(&format!("grant {} to current_user", quoted(role)))?;
        admin
            .batch_execute(&format!(
                "create database {} owner {} encoding 'UTF8' template template0",
                quoted(role),
                quoted(role)
            ))
            .with_context(|| format!("making the database {role}"))?;
    }
    done(&format!("database {role}"));
    Ok(())
}

fn may_create(admin: &Client) -> Result<bool> {
    let rows = admin.query_text(
        "select (rolsuper or rolcreaterole) and (rolsuper or rolcreatedb) from pg_roles where rolname = current_user",
        &[],
    )?;
    Ok(rows.first().context("the role is not to be found")?.try_get(0)?)
}

/// What serving takes, once.
pub(super) fn try_everything(client: &Client) -> Result<()> {
    db::check(client)?;
    if let Some(problems) = changes::problems(client)? {
        bail!("changes made by others can't be followed: {problems}");
    }
    let room = lsn::room(client).context("asking for the server's connections")?;
    let probe = lsn::probe(client).context("asking for the server's position")?;
    changes::surroundings(client).context("asking for the change feed's triggers")?;
    changes::identity(client).context("asking which database it is")?;
    if probe.role == lsn::Role::Replica {
        bail!("this server is a replica: set up the primary");
    }
    done("triggers, indexes and rights are there");
    done(&format!("the server takes {} connections", room.connections));
    Ok(())
}

fn write_settings(args: &Setup, own: &Config) -> Result<()> {
    let text = format!("[database]\nurl = {:?}\n", url(own));
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .with_context(|| format!("making {}", args.out.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", args.out.display()))?;
    done(&format!("{} has the address, with the password, for its owner alone", args.out.display()));
    Ok(())
}

/// The address as text.
fn url(config: &Config) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (host, mut query) = match &config.host {
        Host::Tcp(host) => (host.clone(), Vec::new()),
        Host::Unix(dir) => (String::new(), vec![format!("host={}", encode(&dir.to_string_lossy()))]),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    query.push(format!("sslmode={}", config.sslmode));
    if let Some(file) = &config.sslrootcert {
        query.push(format!("sslrootcert={}", encode(&file.to_string_lossy())));
    }
    let password =
        config.password.as_deref().map(|password| format!(":{}", encode(password))).unwrap_or_default();
    let (user, dbname) = (encode(&config.user), encode(&config.dbname));
    format!("postgresql://{user}{password}@{host}:{}/{dbname}?{}", config.port, query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back_as_they_were() {
        for text in [
            "postgresql://ann:p%40ss@db.example:6000/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgresql://ann:x@[::1]:5432/shop?sslmode=disable",
            "postgresql:///shop?host=/var/run/my%20pg&user=ann&sslmode=prefer",
        ] {
            let config: Config = text.parse().unwrap();
            let again: Config = url(&config).parse().unwrap();
            assert!(again == config, "{text}: {}", url(&config));
        }
    }
}
