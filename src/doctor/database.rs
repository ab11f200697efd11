//! The database: schema, triggers, indexes, statistics, settings.
//! Runs in: offline.

use anyhow::Result;
use may_postgres::Client;

use super::{Finding, Level};
use crate::config::Config;
use crate::db::{self, changes, indexes, lsn, migrate};
use crate::machine::budget;

type Check = fn(&Client, &Config) -> Result<Vec<Finding>>;

pub fn examine(config: &Config) -> Vec<Finding> {
    let client = match db::connect(&config.database_url) {
        Ok(client) => client,
        Err(e) => {
            let why = "while it can't be reached, answers come from the cache for cache.stale_if_error, then they are 503";
            return vec![Finding::new(
                Level::Fail,
                "database",
                format!("{e:#}"),
                "catwalk check --database, as the server's user",
                why,
            )];
        }
    };
    let checks: [Check; 7] = [schema, triggers, missing_indexes, unanalysed, settings, connections, dangers];
    let run = |check: &Check| {
        check(&client, config).unwrap_or_else(|e| {
            vec![Finding::new(Level::Note, "database", format!("a check could not be made: {e:#}"), "", "")]
        })
    };
    checks.iter().flat_map(run).collect()
}

fn schema(client: &Client, _: &Config) -> Result<Vec<Finding>> {
    const SUBJECT: &str = "schema";
    Ok(vec![match migrate::check(client) {
        Ok(()) => Finding::ok(SUBJECT, "of this version"),
        Err(e) => Finding::new(
            Level::Fail,
            SUBJECT,
            format!("{e:#}"),
            "catwalk migrate",
            "without it this version does not get ready",
        ),
    }])
}

fn triggers(client: &Client, _: &Config) -> Result<Vec<Finding>> {
    const SUBJECT: &str = "triggers";
    Ok(vec![match changes::problems(client)? {
        None => Finding::ok(SUBJECT, "every change is noted"),
        Some(problems) => Finding::new(
            Level::Fail,
            SUBJECT,
            problems,
            "make them again, as the message says",
            "a change that is not noted would be served stale: so nothing is served from the cache",
        ),
    }])
}

fn missing_indexes(client: &Client, _: &Config) -> Result<Vec<Finding>> {
    const SUBJECT: &str = "indexes";
    let missing = indexes::missing(client)?;
    if missing.is_empty() {
        return Ok(vec![Finding::ok(
            SUBJECT,
            format!("all {} that statements need are there", indexes::NEEDED.len()),
        )]);
    }
    let finding = |index: indexes::Index| {
        let statement = index.statement(index.name).replacen("INDEX", "INDEX CONCURRENTLY", 1);
        Finding::new(
            Level::Fail,
            SUBJECT,
            format!("{} is missing, or not valid", index.name),
            format!("DROP INDEX CONCURRENTLY IF EXISTS {}; {statement};", index.name),
            "without it a statement reads the whole table for each request",
        )
    };
    Ok(missing.into_iter().map(finding).collect())
}

fn unanalysed(client: &Client, _: &Config) -> Result<Vec<Finding>> {
    const SUBJECT: &str = "statistics";
    let rows = client.query_text(
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_stat_user_tables s on s.relid = c.oid
         where c.relkind = 'r' and n.nspname = current_schema() and pg_relation_size(c.oid) > 1048576
           and (c.reltuples < 0 or s.n_mod_since_analyze > 10000 + c.reltuples * 0.5)
         order by 1",
        &[],
    )?;
    let tables = rows.iter().map(|row| row.try_get::<String>(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![match tables.is_empty() {
        true => Finding::ok(SUBJECT, "every table of size was analysed"),
        false => Finding::new(
            Level::Warn,
            SUBJECT,
            format!("never analysed, or changed by more than half since: {}", tables.join(", ")),
            format!("ANALYZE {};", tables.join(", ")),
            "plans are chosen by statistics: without them an index may be passed over",
        ),
    }])
}

fn settings(client: &Client, config: &Config) -> Result<Vec<Finding>> {
    let is_here =
        matches!(db::address(&config.database_url, "catwalk doctor")?.host, may_postgres::Host::Unix(_));
    let mut findings = Vec::new();
    for wish in budget::wishes(config).into_iter().filter(|_| is_here) {
        let rows = client.query_text(
            "select pg_size_bytes(current_setting($1))::int8, current_setting($1)",
            &[&wish.name],
        )?;
        let Some(row) = rows.first() else { continue };
        let (bytes, text): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let (name, value) = (wish.name, wish.value());
        findings.push(match bytes as u64 >= wish.bytes / 2 {
            true => Finding::ok(name, text),
            false => Finding::new(
                Level::Warn,
                name,
                format!("{text}; {value} would fit beside the cache"),
                format!("ALTER SYSTEM SET {name} = '{value}'; then systemctl restart postgresql. `catwalk setup` does both where nobody has chosen"),
                wish.why,
            ),
        });
    }
    let autovacuum = client.query_text("select current_setting('autovacuum')", &[])?;
    if autovacuum.first().is_some_and(|row| row.get::<String>(0) == "off") {
        findings.push(Finding::new(
            Level::Warn,
            "autovacuum",
            "off",
            "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();",
            "tables grow, statistics age, and in the end the server refuses writes",
        ));
    }
    Ok(findings)
}

fn connections(client: &Client, config: &Config) -> Result<Vec<Finding>> {
    const SUBJECT: &str = "connections";
    let room = lsn::room(client)?.connections;
    let wanted = config.connections_per_worker() * config.workers();
    let found = format!("the server takes {room}; this box wants {wanted}");
    Ok(vec![match wanted <= room || config.connections_are_auto() {
        true => Finding::ok(SUBJECT, found),
        false => Finding::new(
            Level::Warn,
            SUBJECT,
            found,
            format!("database.connections = \"auto\", or ALTER SYSTEM SET max_connections = {}; and a restart of it", wanted + 30),
            "those that are refused are missing to requests, which wait for others",
        ),
    }])
}

/// What ends badly if nobody looks.
fn dangers(client: &Client, _: &Config) -> Result<Vec<Finding>> {
    let rows = client.query_text(
        "select (select max(age(datfrozenxid))::int8 from pg_database),
                (select count(*) from pg_stat_activity where state like 'idle in transaction%' and state_change < now() - interval '1 minute'),
                (select count(*) from pg_index where not indisvalid
                  and indexrelid not in (select index_relid from pg_stat_progress_create_index))",
        &[],
    )?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let (age, idle, invalid): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let mut findings = Vec::new();
    if age > 1_000_000_000 {
        findings.push(Finding::new(
            Level::Fail,
            "transaction ids",
            format!("{age} of 2,147,483,648 are used since the last freeze"),
            "vacuumdb --all --freeze --jobs 2; and look why autovacuum does not get there",
            "at the end the server takes no more writes",
        ));
    }
    if idle > 0 {
        findings.push(Finding::new(
            Level::Warn,
            "idle transactions",
            format!("{idle} have been open for more than a minute with nothing to do"),
            "SELECT pid, usename, application_name, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'; then pg_terminate_backend(pid)",
            "what they hold back is not cleaned up, and their locks hold up others",
        ));
    }
    if invalid > 0 {
        findings.push(Finding::new(
            Level::Warn,
            "indexes",
            format!("{invalid} are not valid: their building was broken off"),
            "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid; then DROP INDEX CONCURRENTLY, or REINDEX INDEX CONCURRENTLY",
            "they cost every write and serve no read",
        ));
    }
    Ok(findings)
}
