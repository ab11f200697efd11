//! Migrations: what they may do to a catalogue that is served meanwhile, and how two versions get on with one database.

use std::process::Command;

use catwalk::db::migrate::{self, MIGRATIONS};
use may_postgres::Client;

use crate::support::server::BIN;
use crate::support::Server;

/// The last one that came with the tables themselves: those before it made what they lock.
const FOUNDING: &str = "0015_nodes";

/// Which tables there were, with their files and rows.
const TABLES: &str = "select c.oid::int8, c.relname::text, pg_relation_filenode(c.oid)::int8 from pg_class c \
     join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() and c.relkind = 'r' and c.reltuples > 100";

/// Applies `sql` in a transaction that is not committed, and tells what it would hold up.
fn judge(client: &Client, sql: &str) -> Result<(), String> {
    let transaction = client.transaction().unwrap();
    // What the session has read before is in the counts too.
    let before: Vec<_> =
        client.query_text(TABLES, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let before: Vec<(i64, String, Use)> =
        before.into_iter().map(|(oid, name): (i64, String)| (oid, name, Use::of(client, oid))).collect();
    client.batch_execute(sql).map_err(|e| format!("it fails: {e}"))?;
    let mut verdict = Ok(());
    for (oid, name, before) in before {
        let now = Use::of(client, oid);
        let read = now.rows - before.rows;
        if now.file != before.file {
            verdict = Err(format!("{name} is written anew"));
        } else if now.is_locked && read > 100 {
            verdict = Err(format!("{read} rows of {name} are read while others can't write to it"));
        }
    }
    drop(transaction);
    verdict
}

/// What this transaction does with a table: its file, rows that were read or written so far, whether others can't write to it.
struct Use {
    file: i64,
    rows: i64,
    is_locked: bool,
}

impl Use {
    fn of(client: &Client, oid: i64) -> Use {
        let found = client.query_text(
            "select coalesce(pg_relation_filenode($1::int8::oid::regclass)::int8, 0),
                    coalesce((select seq_tup_read + coalesce(idx_tup_fetch, 0) + n_tup_upd
                              from pg_stat_xact_user_tables where relid = $1::int8::oid), 0)::int8,
                    exists (select 1 from pg_locks where relation = $1::int8::oid and pid = pg_backend_pid()
                            and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))",
            &[&oid],
        );
        let row = found.unwrap().remove(0);
        Use { file: row.get(0), rows: row.get(1), is_locked: row.get(2) }
    }
}

#[test]
fn no_migration_holds_up_a_large_table() {
    let server = Server::start(&["--products", "400"]);
    let client = server.database();
    client.batch_execute("analyze").unwrap();
    for (bad, why) in [
        ("alter table products alter column name type varchar(5000)", "written anew"),
        ("alter table products add column x int not null default (random() * 10)::int", "written anew"),
        ("create index on reviews (rating)", "are read while"),
        ("alter table skus add constraint c check (quantity >= 0)", "are read while"),
        ("alter table styles alter column name set not null; alter table photos add foreign key (id) references photos (id)", "are read while"),
        ("lock table products; update products set slogan = slogan", "products"),
    ] {
        let verdict = judge(&client, bad);
        assert!(verdict.as_ref().is_err_and(|told| told.contains(why)), "{bad}: {verdict:?}");
    }
    for good in [
        "alter table products add column x int",
        "alter table products add column x int not null default 7",
        "alter table skus add constraint c check (quantity >= 0) not valid",
        "create table more (id bigint primary key); create index on more (id)",
    ] {
        assert_eq!(judge(&client, good), Ok(()), "{good}");
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.name > FOUNDING) {
        assert_eq!(judge(&client, migration.sql), Ok(()), "{}", migration.name);
    }
}

#[test]
fn a_version_lives_with_what_a_later_one_has_added_but_not_with_what_it_took_away() {
    let server = Server::start(&[]);
    let client = server.database();
    let add = |name: &str, contracts: bool| {
        let row = "insert into catwalk_migrations (name, checksum, contracts) values ($1, 1, $2)";
        client.query_text(row, &[&name, &contracts]).unwrap();
    };
    add("9998_later", false);
    assert!(migrate::check(&client).is_ok());
    assert!(migrate::migrate(&client, true).unwrap().is_empty());
    add("9999_gone", true);
    let told = migrate::check(&client).unwrap_err().to_string();
    assert!(told.contains("9999_gone") && told.contains("taken away"), "{told}");
    // The first versions' table does not know of contracts.
    client.batch_execute("alter table catwalk_migrations drop column contracts").unwrap();
    assert!(migrate::check(&client).is_ok());
}

#[test]
fn a_plan_names_what_it_would_apply_and_its_locks_and_applies_nothing() {
    let server = Server::start(&[]);
    let client = server.database();
    client.batch_execute("delete from catwalk_migrations where name >= '0014'").unwrap();
    let out = Command::new(BIN)
        .args(["migrate", "--plan", "--database-url", &server.database_url()])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("0014_load\tExpand\tlocks: none"), "{text}");
    assert!(lines[1].contains("ACCESS EXCLUSIVE on catwalk_feed"), "{text}");
    assert_eq!(migrate::pending(&client, false).unwrap().len(), 2);
}
