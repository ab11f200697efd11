//! Migrations: numbered SQL in the binary, applied once each, in order, one at a time for all who try.
//! Runs in: offline.

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Error};

/// A migration: its number is its place, its name the file's.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        &[$(Migration { name: $name, sql: include_str!(concat!("../../sql/", $name, ".sql")) }),*]
    };
}

const MIGRATIONS: &[Migration] = migrations![
    "0001_catalogue",
    "0002_updated_at",
    "0003_product_ranks",
    "0004_product_ranks_rebuilt",
    "0005_ranks_applied",
    "0006_change_feed",
    "0007_reviews",
    "0008_questions",
    "0009_feed_of_reviews",
    "0010_shoppers",
    "0011_shoe_images",
    "0012_idempotency",
    "0013_product_search",
    "0014_load",
    "0015_nodes",
];

/// Key of the advisory lock that keeps two migrations apart.
pub const LOCK: i64 = i64::from_be_bytes(*b"catwalk\0");

/// Oldest server that is supported.
const SERVER_VERSION_MIN: i64 = 140_000;

/// Applies what is missing; returns the names applied.
///
/// # Errors
/// A database newer than this binary, one whose applied migrations differ, or a statement refused; nothing
/// of the failed migration is kept.
pub fn migrate(client: &Client) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    // What has nothing to do waits for nobody: a load keeps migrations out for hours.
    if check(client).is_ok() {
        return Ok(names);
    }
    while let Some(name) = apply_next(client)? {
        names.push(name);
    }
    Ok(names)
}

/// Applies the first one that is missing, if there is one. The lock ends with its transaction: one of the session
/// would stay behind on a pooled connection.
fn apply_next(client: &Client) -> Result<Option<&'static str>> {
    let transaction = client.transaction()?;
    let free = client.query_text("select pg_try_advisory_xact_lock($1)", &[&LOCK])?;
    if !free.first().is_some_and(|row| row.get(0)) {
        log::warn!("waiting for the end of another migration, or of a load, in this database");
        client
            .query_text("select pg_advisory_xact_lock($1)", &[&LOCK])
            .context("waiting for other migrations")?;
    }
    client.batch_execute(
        "create table if not exists catwalk_migrations (
            name text primary key, checksum bigint not null, applied_at timestamptz not null default now())",
    )?;
    let done = applied(client)?;
    verify(&done)?;
    let Some(migration) = MIGRATIONS.get(done.len()) else {
        transaction.commit()?;
        return Ok(None);
    };
    client.batch_execute(migration.sql).with_context(|| format!("applying {}", migration.name))?;
    let insert = "insert into catwalk_migrations (name, checksum) values ($1, $2)";
    client.query_text(insert, &[&migration.name, &checksum(migration)])?;
    transaction.commit()?;
    Ok(Some(migration.name))
}

/// Checks that the database's schema is this binary's, and its server new enough.
///
/// # Errors
/// What differs, and what to run.
pub fn check(client: &Client) -> Result<()> {
    check_version(client)?;
    let done = applied(client)?;
    verify(&done)?;
    if done.len() < MIGRATIONS.len() {
        bail!("{} migrations are missing; run `catwalk migrate`", MIGRATIONS.len() - done.len());
    }
    Ok(())
}

/// Checks that the server is new enough.
///
/// # Errors
/// Its version, and the least one.
pub fn check_version(client: &Client) -> Result<()> {
    let rows = client.query_text("select current_setting('server_version_num')::int8", &[])?;
    let version: i64 = rows.first().context("the server does not say its version")?.try_get(0)?;
    if version < SERVER_VERSION_MIN {
        bail!("PostgreSQL {} is too old; 14 or later is needed", version / 10_000);
    }
    Ok(())
}

fn applied(client: &Client) -> Result<Vec<(String, i64)>> {
    let rows = match client.query_text("select name, checksum from catwalk_migrations order by name", &[]) {
        Ok(rows) => rows,
        Err(Error::Sql(e)) if e.code == "42P01" => return Ok(Vec::new()),
        Err(e) => return Err(e).context("reading catwalk_migrations"),
    };
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn verify(done: &[(String, i64)]) -> Result<()> {
    for (n, (name, sum)) in done.iter().enumerate() {
        let Some(known) = MIGRATIONS.get(n) else {
            bail!("the database has {name}, which this binary does not know: it is older than the database");
        };
        if known.name != name || checksum(known) != *sum {
            bail!("the database has {name} with another text than this binary's {}", known.name);
        }
    }
    Ok(())
}

fn checksum(migration: &Migration) -> i64 {
    rapidhash::v3::rapidhash_v3(migration.sql.as_bytes()) as i64
}
