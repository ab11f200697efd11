//! The staged tables take the live ones' places in one transaction: what was posted meanwhile is carried over under a lock that only
//! writers wait for; the lock that readers wait for is held for renaming alone, and given up at once where it is not to be had.
//! Runs in: offline.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use may_postgres::{Client, Error};
use serde::Serialize;

use crate::etl::staging::{begin, Reference, Staging, COMMITTED, RANKS, STAGED};
use crate::statements::LOAD_BELONGINGS;

/// Where the old tables go, until the end of the transaction.
const RETIRED: &str = "catwalk_retired";
/// Longest wait for a lock: others queue behind us as long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// One try of so many waits longer for the lock of writers: an autovacuum gives way after a second (`deadlock_timeout`).
const LONG_TRY: u32 = 4;
const LONG_LOCK_TIMEOUT: Duration = Duration::from_millis(1500);
/// Pauses between tries, in which those who queued get on.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What happened while the load ran, and what became of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Posted {
    /// Reviews, questions and answers that were carried over.
    pub carried: u64,
    /// Those whose product or question is not in the new catalogue.
    pub dropped: u64,
    /// Reviews, questions and answers with votes, or reports, that were carried over.
    pub voted: u64,
}

/// How the swap went.
#[derive(Debug)]
pub struct Swapped {
    pub posted: Posted,
    /// How long readers could have waited, and writers.
    pub readers: Duration,
    pub writers: Duration,
}

/// Swaps, as soon as the locks can be had.
///
/// # Errors
/// When `patience` is over: all is as it was, and the staged tables are kept for the next try.
pub fn swap(client: &Client, staging: &Staging, patience: Duration) -> Result<Swapped> {
    let swapped = patiently(patience, |tries| {
        let is_long = tries % LONG_TRY == LONG_TRY - 1;
        try_swap(client, staging, if is_long { LONG_LOCK_TIMEOUT } else { LOCK_TIMEOUT })
    });
    let swapped = swapped.context("putting the new tables in place")?;
    check_references(client, staging)?;
    Ok(swapped)
}

/// Does `work`, again and again while it can't have its locks; it is told how often it was tried before.
///
/// # Errors
/// Those of `work`; that of the lock when `patience` is over.
fn patiently<T>(patience: Duration, mut work: impl FnMut(u32) -> Result<T>) -> Result<T> {
    let (started, mut pause, mut tries) = (Instant::now(), PAUSE_MIN, 0);
    loop {
        match work(tries) {
            Err(e) if is_lock(&e) && started.elapsed() < patience => {
                std::thread::sleep(pause);
                pause = PAUSE_MAX.min(pause * 2);
                tries += 1;
            }
            Err(e) if is_lock(&e) => {
                return Err(e.context(format!(
                    "the live tables could not be locked within {patience:?}: somebody has them locked (select pid, query, xact_start \
                     from pg_stat_activity where xact_start < now() - interval '1 second'); what is made so far is kept, the same \
                     command goes on from here"
                )))
            }
            outcome => return outcome,
        }
    }
}

/// The lock could not be had in time, or only by ending others.
fn is_lock(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Sql(e)) if matches!(e.code.as_str(), "55P03" | "57014" | "40P01"))
}

fn try_swap(client: &Client, staging: &Staging, writers_timeout: Duration) -> Result<Swapped> {
    let transaction = begin(client, COMMITTED)?;
    let live: Vec<String> = staging.tables.iter().map(|table| format!("{}.{table}", staging.live)).collect();
    // What readers may wait for is prepared before they wait for anything.
    client.batch_execute(&format!("drop schema if exists {RETIRED} cascade; create schema {RETIRED}"))?;
    let others = staging.references_of_others().map(|reference| reference.table_name.clone());
    let parents =
        staging.references_to_others().map(|reference| format!("{}.{}", staging.live, reference.parent));
    let touched: Vec<String> = live.iter().cloned().chain(others).chain(parents).collect();
    let writers = Instant::now();
    lock(client, &touched, "share row exclusive", writers_timeout)?;
    staging.check_complete(client)?;
    staging.check_others(client)?;
    let mut posted = carry_over(client, staging)?;
    posted.dropped += refer_to_others(client, staging)?;
    if staging.tables.contains(&RANKS) {
        retire_blocks(client, staging)?;
    }
    let belongings = client.query_text(LOAD_BELONGINGS, &[&staging.tables])?;
    let belongings: Vec<String> = belongings.iter().map(|row| row.get(0)).collect();
    let readers = Instant::now();
    lock(client, &touched, "access exclusive", LOCK_TIMEOUT)?;
    client.batch_execute(&format!("set local lock_timeout = '{}ms'", LOCK_TIMEOUT.as_millis()))?;
    client.batch_execute(&renames(staging, &live))?;
    client.batch_execute(&belongings.join(";\n"))?;
    // Whoever depends on an old table and was overlooked keeps it, and this from happening.
    let retired: Vec<String> = staging.tables.iter().map(|table| format!("{RETIRED}.{table}")).collect();
    client.batch_execute(&format!(
        "insert into catwalk_changes (what, id) values ('everything', 0);
         drop table {}; drop schema {RETIRED}; drop schema {STAGED} cascade",
        retired.join(", ")
    ))?;
    transaction.commit()?;
    Ok(Swapped { posted, readers: readers.elapsed(), writers: writers.elapsed() })
}

/// Locks tables, all of them within `timeout`; the transaction ends otherwise.
fn lock(client: &Client, tables: &[String], mode: &str, timeout: Duration) -> Result<()> {
    client.batch_execute(&format!("set local statement_timeout = '{}ms'", timeout.as_millis()))?;
    client.batch_execute(&format!("lock table {} in {mode} mode", tables.join(", ")))?;
    Ok(client.batch_execute("set local statement_timeout = 0")?)
}

/// Foreign keys to tables that stay, whose rows are locked now: those that went since they were read take their children along.
fn refer_to_others(client: &Client, staging: &Staging) -> Result<u64> {
    let mut dropped = 0;
    for Reference { name, table, column, parent, definition, .. } in staging.references_to_others() {
        let sql = format!(
            "with gone as (delete from {STAGED}.{table} c where c.{column} is not null
                 and not exists (select from {}.{parent} p where p.id = c.{column}) returning 1) select count(*) from gone",
            staging.live
        );
        dropped += client.query_text(&sql, &[])?.first().map_or(0, |row| row.get::<i64>(0)) as u64;
        let sql = format!("alter table {STAGED}.{table} add constraint {name} {definition} not valid");
        client.batch_execute(&sql).with_context(|| format!("adding foreign key {name}"))?;
    }
    Ok(dropped)
}

/// References of tables that stayed, and to such, were taken over unchecked. Checking them needs no lock that anybody waits for.
fn check_references(client: &Client, staging: &Staging) -> Result<()> {
    let own = staging.references_to_others().map(|reference| (&reference.table, &reference.name));
    let others = staging.references_of_others().map(|reference| (&reference.table_name, &reference.name));
    for (table, name) in own.chain(others) {
        let sql = format!("alter table {table} validate constraint {name}");
        let transaction = begin(client, COMMITTED)?;
        client.batch_execute(&sql).with_context(|| {
            format!("the new catalogue is in place, but a foreign key is not checked yet ({sql})")
        })?;
        transaction.commit()?;
    }
    Ok(())
}

/// Old tables out, new ones in, with triggers and the references of others.
fn renames(staging: &Staging, live: &[String]) -> String {
    let mut sql = String::new();
    for reference in staging.references_of_others() {
        sql += &format!("alter table {} drop constraint {};\n", reference.table_name, reference.name);
    }
    for (table, live) in staging.tables.iter().zip(live) {
        sql += &format!(
            "alter table {live} set schema {RETIRED};
             alter table {STAGED}.{table} set schema {};
             alter table {live} reset (autovacuum_enabled);\n",
            staging.live
        );
    }
    for reference in staging.references_of_others() {
        let (table, name, definition) = (&reference.table_name, &reference.name, &reference.definition);
        sql += &format!("alter table {table} add constraint {name} {definition} not valid;\n");
    }
    for table in &staging.tables {
        sql += &format!("select catwalk_attach('{table}') from catwalk_followed where name = '{table}';\n");
    }
    if staging.tables.contains(&RANKS) {
        sql += &format!("update product_rank_version set version = greatest(version + 1, (select max(version) from {RANKS}));\n");
    }
    sql
}

/// Blocks of ids that the new catalogue has none in: whoever knew them learns that they are empty. And the ranks' version is above
/// every one that was ever seen.
fn retire_blocks(client: &Client, staging: &Staging) -> Result<()> {
    let live = &staging.live;
    Ok(client.batch_execute(&format!(
        "update {STAGED}.{RANKS} set version = (select version + 1 from {live}.product_rank_version)
             where (select version from {live}.product_rank_version) >= version;
         insert into {STAGED}.{RANKS} (block, members, version)
             select block, 0, greatest((select version + 1 from {live}.product_rank_version), (select max(version) from {STAGED}.{RANKS}))
             from {live}.{RANKS} l where not exists (select from {STAGED}.{RANKS} n where n.block = l.block)"
    ))?)
}

/// Reviews, questions, answers and votes that became visible since the load began, into the staged tables.
fn carry_over(client: &Client, staging: &Staging) -> Result<Posted> {
    let mut posted = Posted::default();
    if staging.voted().next().is_none() {
        return Ok(posted);
    }
    client.batch_execute(&format!(
        "create temp table touched on commit drop as
             select distinct what, id from catwalk_changes where xid >= (select pg_snapshot_xmin(snapshot) from {STAGED}.load)
                 and not pg_visible_in_snapshot(xid, (select snapshot from {STAGED}.load))
                 and what in ('reviews', 'questions', 'question', 'everything');
         analyze touched"
    ))?;
    let sql = format!(
        "select exists (select from touched where what = 'everything')
             or (select pg_snapshot_xmin(snapshot) from {STAGED}.load) <= (select dropped_xid from catwalk_feed)"
    );
    let is_everything = client.query_text(&sql, &[])?.first().is_some_and(|row| row.get(0));
    for (table, owner, votes) in staging.voted() {
        let part = Part { staging, table, owner, votes, is_everything };
        posted.voted += part.carry_votes(client)?;
        let (carried, dropped) = part.carry_rows(client)?;
        posted.carried += carried;
        posted.dropped += dropped;
    }
    Ok(posted)
}

/// One of the tables that shoppers write to.
struct Part<'s> {
    staging: &'s Staging,
    table: &'static str,
    owner: &'static str,
    votes: &'static str,
    /// Any row may have changed.
    is_everything: bool,
}

impl Part<'_> {
    /// Live rows `l` that may have changed, found by their owner's index.
    fn touched(&self) -> String {
        let what = if self.table == "answers" { "question" } else { self.table };
        match self.is_everything {
            true => "true".into(),
            false => format!("l.{} in (select id from touched where what = '{what}')", self.owner),
        }
    }

    fn count(&self, client: &Client, sql: &str) -> Result<u64> {
        let rows = client.query_text(sql, &[]).with_context(|| format!("carrying over {}", self.table))?;
        Ok(rows.first().map_or(0, |row| row.get::<i64>(0)) as u64)
    }

    /// Votes for rows that both catalogues have.
    fn carry_votes(&self, client: &Client) -> Result<u64> {
        let Part { table, owner, votes, .. } = self;
        self.count(
            client,
            &format!(
                "with voted as (
                     update {STAGED}.{table} n set {votes} = n.{votes} + l.{votes} - b.votes,
                         reported = case when l.reported = b.reported then n.reported else l.reported end
                     from {live}.{table} l join {STAGED}.before_{table} b on b.id = l.id
                     where n.id = l.id and n.{owner} = l.{owner} and (l.{votes}, l.reported) is distinct from (b.votes, b.reported)
                         and {touched}
                     returning 1)
                 select count(*) from voted",
                live = self.staging.live,
                touched = self.touched()
            ),
        )
    }

    /// Rows that were not there when the load began, with what belongs to them. They keep their ids where those are free.
    fn carry_rows(&self, client: &Client) -> Result<(u64, u64)> {
        let Part { staging, table, owner, .. } = self;
        let live = &staging.live;
        // An answer's question may be a carried one, of another id; else it is the same one if it is of the same product.
        let new_owner = match *table {
            "answers" if staging.tables.contains(&"questions") => format!(
                "coalesce((select new_id from carried_questions c where c.id = l.question_id),
                     (select n.id from {STAGED}.questions n join {live}.questions o on o.id = n.id and o.product_id = n.product_id
                      where n.id = l.question_id and not exists (select from carried_questions c where c.id = l.question_id)))"
            ),
            "answers" => "l.question_id".to_string(),
            _ if staging.tables.contains(&"products") => {
                format!("(select p.id from {STAGED}.products p where p.id = l.{owner})")
            }
            _ => format!("l.{owner}"),
        };
        let staged_next = staging.next_id(client, STAGED, table)?;
        if let (Some((sequence, staged)), Some((_, live))) =
            (staged_next, staging.next_id(client, live, table)?)
        {
            // Above every id that either catalogue has given.
            client.batch_execute(&format!("select setval('{sequence}', {}, false)", staged.max(live)))?;
        }
        client.batch_execute(&format!(
            "create temp table carried_{table} on commit drop as
                 select l.id, {new_owner} as new_owner, case when exists (select from {STAGED}.{table} n where n.id = l.id)
                     then nextval(pg_get_serial_sequence('{STAGED}.{table}', 'id')) else l.id end as new_id
                 from {live}.{table} l
                 where {touched} and not exists (select from {STAGED}.before_{table} b where b.id = l.id)",
            touched = self.touched()
        ))?;
        let dropped =
            self.count(client, &format!("select count(*) from carried_{table} where new_owner is null"))?;
        client.batch_execute(&format!("delete from carried_{table} where new_owner is null"))?;
        let columns = self.columns(client, table, &["id", owner])?;
        let carried = self.count(
            client,
            &format!(
                "with added as (
                     insert into {STAGED}.{table} (id, {owner}, {columns}) select c.new_id, c.new_owner, {columns}
                     from {live}.{table} l join carried_{table} c on c.id = l.id returning id)
                 select count(*) from added"
            ),
        )?;
        self.carry_photos(client)?;
        if *table == "reviews" {
            self.carry_ratings(client)?;
        }
        Ok((carried, dropped))
    }

    /// Columns of a live table but some, as a list.
    fn columns(&self, client: &Client, table: &str, but: &[&str]) -> Result<String> {
        let sql = "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                   where attrelid = to_regclass($1) and attnum > 0 and not attisdropped and attgenerated = '' and attname <> all ($2)";
        let rows = client.query_text(sql, &[&format!("{}.{table}", self.staging.live), &but])?;
        Ok(rows.first().context("no answer about columns")?.try_get(0)?)
    }

    fn carry_photos(&self, client: &Client) -> Result<()> {
        let (photos, owner) = match self.table {
            "reviews" => ("reviews_photos", "review_id"),
            "answers" => ("answers_photos", "answer_id"),
            _ => return Ok(()),
        };
        if !self.staging.tables.contains(&photos) {
            return Ok(());
        }
        Ok(client.batch_execute(&format!(
            "insert into {STAGED}.{photos} ({owner}, url) select c.new_id, p.url
             from {}.{photos} p join carried_{} c on c.id = p.{owner} order by p.id",
            self.staging.live, self.table
        ))?)
    }

    /// Ratings by the characteristic of the same name, which is made where the product has none.
    fn carry_ratings(&self, client: &Client) -> Result<()> {
        let staged = |table: &str| self.staging.tables.contains(&table);
        if !staged("characteristic_reviews") || !staged("characteristics") {
            return Ok(());
        }
        Ok(client.batch_execute(&format!(
            "create temp table carried_ratings on commit drop as
                 select c.new_id as review_id, c.new_owner as product_id, h.name, r.value, r.id
                 from carried_reviews c join {live}.characteristic_reviews r on r.review_id = c.id
                 join {live}.characteristics h on h.id = r.characteristic_id;
             insert into {STAGED}.characteristics (product_id, name) select distinct r.product_id, r.name from carried_ratings r
                 where not exists (select from {STAGED}.characteristics h where h.product_id = r.product_id and h.name = r.name);
             insert into {STAGED}.characteristic_reviews (characteristic_id, review_id, value)
                 select (select min(h.id) from {STAGED}.characteristics h where h.product_id = r.product_id and h.name = r.name),
                     r.review_id, r.value
                 from carried_ratings r order by r.id",
            live = self.staging.live
        ))?)
    }
}
