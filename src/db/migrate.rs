//! Migrations: numbered SQL in the binary, applied once each, in order, one at a time for all who try.
//! Runs in: offline.
//!
//! ```text
//! expand    adds what the next version needs, and the version before lives with: applied before that one is replaced
//! contract  takes away what only versions before needed: applied when none of them runs any more
//! ```
//! So two versions, and several boxes, work on one database while they are upgraded one after the other. A binary refuses a database only
//! where something it needs is missing, or was taken away.

use std::collections::BTreeMap;

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Error};

/// A migration: its number is its place, its name the file's.
pub struct Migration {
    pub name: &'static str,
    pub sql: &'static str,
}

/// What it does to versions that run meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Expand,
    Contract,
}

impl Migration {
    /// As its header says; without a word it expands.
    pub fn step(&self) -> Step {
        match self.says("Step:") {
            "contract" => Step::Contract,
            _ => Step::Expand,
        }
    }

    /// Which locks it takes, by its header.
    pub fn locks(&self) -> &'static str {
        self.says("Locks:")
    }

    fn says(&self, what: &str) -> &'static str {
        let header = self.sql.lines().take_while(|line| line.starts_with("--"));
        header
            .filter_map(|line| line.split_once(what))
            .map(|(_, text)| text.trim())
            .next()
            .unwrap_or_default()
    }
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        &[$(Migration { name: $name, sql: include_str!(concat!("../../sql/", $name, ".sql")) }),*]
    };
}

pub const MIGRATIONS: &[Migration] = migrations![
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

/// What the database has.
struct Applied {
    checksum: i64,
    contracts: bool,
}

/// Applies what is missing, and of what contracts only with `contracts`; returns the names applied.
///
/// # Errors
/// A database that has lost what this binary needs, one whose applied migrations differ, or a statement refused; nothing
/// of the failed migration is kept.
pub fn migrate(client: &Client, contracts: bool) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    // What has nothing to do waits for nobody: a load keeps migrations out for hours.
    while !pending(client, contracts)?.is_empty() {
        match apply_next(client, contracts)? {
            Some(name) => names.push(name),
            None => break,
        }
    }
    Ok(names)
}

/// What [`migrate`] would apply, in order.
///
/// # Errors
/// As `migrate`.
pub fn pending(client: &Client, contracts: bool) -> Result<Vec<&'static Migration>> {
    check_version(client)?;
    missing(&applied(client)?, contracts)
}

fn missing(applied: &BTreeMap<String, Applied>, contracts: bool) -> Result<Vec<&'static Migration>> {
    verify(applied)?;
    let is_missing =
        |m: &&Migration| !applied.contains_key(m.name) && (contracts || m.step() == Step::Expand);
    Ok(MIGRATIONS.iter().filter(is_missing).collect())
}

/// Applies the first one that is missing, if there is one. The lock ends with its transaction: one of the session
/// would stay behind on a pooled connection.
fn apply_next(client: &Client, contracts: bool) -> Result<Option<&'static str>> {
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
    // Asked for first: the lock would keep running servers from looking, for as long as this transaction lasts.
    let told = "select 1 from pg_attribute where attrelid = 'catwalk_migrations'::regclass and attname = 'contracts' and not attisdropped";
    if client.query_text(told, &[])?.is_empty() {
        client.batch_execute(
            "alter table catwalk_migrations add column contracts boolean not null default false",
        )?;
    }
    let Some(migration) = missing(&applied(client)?, contracts)?.first().copied() else {
        transaction.commit()?;
        return Ok(None);
    };
    client.batch_execute(migration.sql).with_context(|| format!("applying {}", migration.name))?;
    let insert = "insert into catwalk_migrations (name, checksum, contracts) values ($1, $2, $3)";
    client.query_text(
        insert,
        &[&migration.name, &checksum(migration), &(migration.step() == Step::Contract)],
    )?;
    transaction.commit()?;
    Ok(Some(migration.name))
}

/// Checks that the database's schema has what this binary needs, and that its server is new enough.
///
/// # Errors
/// What differs, and what to run.
pub fn check(client: &Client) -> Result<()> {
    match pending(client, false)?.len() {
        0 => Ok(()),
        n => bail!("{n} migrations are missing; run `catwalk migrate`"),
    }
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

fn applied(client: &Client) -> Result<BTreeMap<String, Applied>> {
    // A table of the first versions says nothing of what contracts: nothing did.
    let sql = "select m.name, m.checksum, coalesce((to_jsonb(m) ->> 'contracts')::boolean, false) from catwalk_migrations m";
    let rows = match client.query_text(sql, &[]) {
        Ok(rows) => rows,
        Err(Error::Sql(e)) if e.code == "42P01" => return Ok(BTreeMap::new()),
        Err(e) => return Err(e).context("reading catwalk_migrations"),
    };
    let read = |row: &may_postgres::Row| {
        Ok((row.try_get(0)?, Applied { checksum: row.try_get(1)?, contracts: row.try_get(2)? }))
    };
    rows.iter().map(read).collect()
}

fn verify(applied: &BTreeMap<String, Applied>) -> Result<()> {
    for (name, Applied { checksum: sum, contracts }) in applied {
        match MIGRATIONS.iter().find(|migration| migration.name == name) {
            Some(known) if checksum(known) != *sum => {
                bail!("the database has {name} with another text than this binary's")
            }
            None if *contracts => {
                bail!("the database has {name}, by which a later version has taken away what this binary needs: upgrade it")
            }
            _ => {}
        }
    }
    Ok(())
}

fn checksum(migration: &Migration) -> i64 {
    rapidhash::v3::rapidhash_v3(migration.sql.as_bytes()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(names: &[(&str, bool)]) -> BTreeMap<String, Applied> {
        let sum = |name: &str| MIGRATIONS.iter().find(|m| m.name == name).map_or(1, checksum);
        let row = |(name, contracts): &(&str, bool)| {
            (name.to_string(), Applied { checksum: sum(name), contracts: *contracts })
        };
        names.iter().map(row).collect()
    }

    #[test]
    fn what_a_later_version_has_added_is_no_reason_to_refuse_but_what_it_has_taken_away_is() {
        assert_eq!(missing(&has(&[]), false).unwrap().len(), MIGRATIONS.len());
        let known: Vec<_> = MIGRATIONS.iter().map(|m| (m.name, false)).collect();
        let later = |contracts| [known.clone(), vec![("9999_later", contracts)]].concat();
        assert!(missing(&has(&later(false)), false).unwrap().is_empty());
        assert!(missing(&has(&later(true)), false).is_err());
    }

    #[test]
    fn headers_say_what_a_migration_does() {
        let migration = Migration {
            name: "x",
            sql: "-- Drops a column.\n-- Step: contract\n-- Locks: briefly.\nselect 1;",
        };
        assert_eq!((migration.step(), migration.locks()), (Step::Contract, "briefly."));
        assert!(MIGRATIONS.iter().all(|m| m.step() == Step::Expand && !m.locks().is_empty()));
    }
}
