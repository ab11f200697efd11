//! Tables beside the live ones, in a schema of their own: made, filled, indexed; then `swap` puts them in place. Whatever happens before
//! that, the live ones are as they were; what is there already is kept for whoever goes on.
//! Runs in: offline.

use anyhow::{bail, Context, Result};
use may_postgres::{Client, Error, Transaction};

use crate::db::{indexes, migrate};
use crate::etl::rows::{CopyRows, Rows};
use crate::statements::{LOAD_INDEXES, LOAD_OBSTACLES, LOAD_REFERENCES, LOAD_SHAPE};

/// Schema of the tables to come.
pub const STAGED: &str = "catwalk_load";
/// Key of the advisory lock that keeps two loads apart.
const LOCK: i64 = i64::from_be_bytes(*b"catload\0");
/// The table of ranks comes with products.
pub const RANKS: &str = "product_ranks";
/// The largest id that a sequence can give.
const LAST_ID: i64 = i64::MAX;
/// So far above the live ranks' version are those of the staged ones, whatever is written meanwhile.
const RANKS_VERSION_STEP: i64 = 1 << 32;

/// Tables that shoppers write to while a load runs: owner's column, and the column that counts votes.
pub const VOTED: &[(&str, &str, &str)] = &[
    ("reviews", "product_id", "helpfulness"),
    ("questions", "product_id", "helpful"),
    ("answers", "question_id", "helpful"),
];

/// An index to be made, as the live table has it.
pub struct Index {
    pub table: String,
    pub name: String,
    definition: String,
    /// `p`, `u`, or nothing.
    constraint: String,
    pub is_primary: bool,
}

impl Index {
    /// Of words in text: by far the slowest to build.
    pub fn is_of_words(&self) -> bool {
        self.definition.contains(" USING gin ")
    }
}

/// A foreign key of a staged table, or of another to one.
pub struct Reference {
    pub name: String,
    /// Table that it belongs to, and its name for a statement.
    pub table: String,
    pub table_name: String,
    pub column: String,
    pub parent: String,
    pub definition: String,
    /// Of a staged table.
    pub is_own: bool,
}

/// A transaction's mode: it sees what others commit meanwhile.
pub const COMMITTED: &str = "isolation level read committed, read write";

/// Begins a transaction that may take its time, whatever the role or the database says; `mode` as SET TRANSACTION has it.
pub fn begin<'c>(client: &'c Client, mode: &str) -> Result<Transaction<'c>> {
    let transaction = client.transaction()?;
    client.batch_execute(&format!(
        "set transaction {mode};
         select set_config(name, '0', true) from pg_settings
         where name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
    ))?;
    Ok(transaction)
}

fn shape(client: &Client, tables: &[&'static str]) -> Result<String> {
    let rows = client.query_text(LOAD_SHAPE, &[&tables])?;
    Ok(rows.first().context("no answer about the tables")?.try_get::<Option<String>>(0)?.unwrap_or_default())
}

/// Indexes of the live tables, and those that they have lost and statements need.
fn read_indexes(client: &Client, tables: &[&'static str]) -> Result<Vec<Index>> {
    let rows = client.query_text(LOAD_INDEXES, &[&tables])?;
    let mut found: Vec<Index> = rows
        .iter()
        .map(|row| Index {
            table: row.get(0),
            name: row.get(1),
            definition: row.get(2),
            constraint: row.get(3),
            is_primary: row.get(4),
        })
        .collect();
    for index in indexes::missing(client)?.into_iter().filter(|index| tables.contains(&index.table)) {
        let is_primary = index.name.ends_with("_pkey");
        // Somebody else's index may have its name.
        let is_taken = found.iter().any(|other| other.name == index.name);
        let name = if is_taken { format!("{}_needed", index.name) } else { index.name.to_string() };
        let (definition, constraint) =
            (index.statement(&name), if is_primary { "p" } else { "" }.to_string());
        found.push(Index { table: index.table.into(), name, definition, constraint, is_primary });
    }
    Ok(found)
}

fn read_references(client: &Client, tables: &[&'static str]) -> Result<Vec<Reference>> {
    let rows = client.query_text(LOAD_REFERENCES, &[&tables])?;
    let references = rows.iter().map(|row| Reference {
        name: row.get(0),
        table: row.get(1),
        table_name: row.get(2),
        column: row.get(3),
        parent: row.get(4),
        definition: row.get(5),
        is_own: row.get(6),
    });
    Ok(references.collect())
}

/// Tables under way.
pub struct Staging {
    /// The schema of the live ones, quoted.
    pub live: String,
    /// The whole search path.
    path: String,
    /// Columns, defaults and checks of the live ones.
    shape: String,
    pub tables: Vec<&'static str>,
    pub indexes: Vec<Index>,
    pub references: Vec<Reference>,
    /// Memory for building one index.
    index_memory_bytes: u64,
    /// The snapshot from which on others' writes are not in the rows of this load. No other load has the same.
    began_at: String,
}

/// Where the rows of a load come from.
pub struct Origin {
    /// Another one for other rows.
    pub fingerprint: String,
    /// What an earlier load of the same has left is not gone on with.
    pub start_over: bool,
}

/// One load at a time, and no migration meanwhile. Ends with its connection, whatever ends that.
pub struct Guard<'c> {
    _transaction: Transaction<'c>,
}

impl Guard<'_> {
    /// Waits a moment for the locks: who was killed leaves them when the server notices.
    ///
    /// # Errors
    /// When another load, or a migration, is under way.
    pub fn take(client: &Client) -> Result<Guard<'_>> {
        let transaction = begin(client, COMMITTED)?;
        client.batch_execute("set local lock_timeout = '5s'")?;
        let locks = [
            ("pg_advisory_xact_lock", LOCK, "load or seed"),
            ("pg_advisory_xact_lock_shared", migrate::LOCK, "migration"),
        ];
        for (lock, key, who) in locks {
            match client.query_text(&format!("select {lock}($1)"), &[&key]) {
                Err(Error::Sql(e)) if e.code == "55P03" => {
                    bail!("a {who} is under way in this database; wait for its end, or stop it")
                }
                outcome => outcome?,
            };
        }
        Ok(Guard { _transaction: transaction })
    }
}

impl Staging {
    /// Goes on with what an earlier one of the same origin has left, or starts over. `tables` in the order of their references.
    ///
    /// # Errors
    /// What depends on the live tables and can't be taken along.
    pub fn open(
        client: &Client,
        mut tables: Vec<&'static str>,
        origin: &Origin,
        index_memory_bytes: u64,
    ) -> Result<Staging> {
        if tables.contains(&"products") {
            tables.push(RANKS);
        }
        let obstacles = client.query_text(LOAD_OBSTACLES, &[&tables])?;
        if !obstacles.is_empty() {
            let obstacles: Vec<String> = obstacles.iter().map(|row| row.get(0)).collect();
            bail!("this catalogue can't be swapped as it is: {}", obstacles.join("; "));
        }
        let schemas = client.query_text(
            "select quote_ident(current_schema()),
                 (select string_agg(quote_ident(name), ', ' order by n) from unnest(current_schemas(false)) with ordinality as s (name, n))",
            &[],
        )?;
        let schemas = schemas.first().context("the search path names no schema")?;
        let (live, path) = (schemas.try_get(0)?, schemas.try_get(1)?);
        let (indexes, references) = (read_indexes(client, &tables)?, read_references(client, &tables)?);
        let shape = shape(client, &tables)?;
        let mut staging = Staging {
            live,
            path,
            shape,
            tables,
            indexes,
            references,
            index_memory_bytes,
            began_at: String::new(),
        };
        // Another version cleans otherwise, and what was made like other tables does not fit.
        let (version, fingerprint) = (env!("CARGO_PKG_VERSION"), &origin.fingerprint);
        let fingerprint = format!("{version} {:?} {}\n{fingerprint}", staging.tables, staging.shape);
        if origin.start_over || !staging.is_left_by(client, &fingerprint)? {
            staging.start_over(client, &fingerprint).context("making the schema of the tables to come")?;
        }
        let rows = client.query_text(&format!("select snapshot::text from {STAGED}.load"), &[])?;
        staging.began_at = rows.first().context("the load's beginning was not noted")?.try_get(0)?;
        Ok(staging)
    }

    fn is_left_by(&self, client: &Client, fingerprint: &str) -> Result<bool> {
        let sql = format!("select 1 from {STAGED}.load where fingerprint = $1");
        match client.query_text(&sql, &[&fingerprint]) {
            Ok(rows) => Ok(!rows.is_empty()),
            Err(Error::Sql(e)) if matches!(e.code.as_str(), "42P01" | "3F000") => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Drops what another load has left, and notes where this one begins: what others write from here on is not in its files.
    fn start_over(&self, client: &Client, fingerprint: &str) -> Result<()> {
        let transaction = begin(client, COMMITTED)?;
        client.batch_execute(&format!("drop schema if exists {STAGED} cascade"))?;
        transaction.commit()?;
        let transaction = begin(client, "isolation level repeatable read, read write")?;
        client.batch_execute(&format!(
            "create schema {STAGED};
             create table {STAGED}.filled (name text primary key, report text not null);
             create table {STAGED}.load (fingerprint text not null, snapshot pg_snapshot not null)"
        ))?;
        let sql = format!("insert into {STAGED}.load values ($1, pg_current_snapshot())");
        client.query_text(&sql, &[&fingerprint])?;
        for (table, _, votes) in self.voted() {
            client.batch_execute(&format!(
                "create table {STAGED}.before_{table} as select id, {votes} as votes, reported from {live}.{table};
                 alter table {STAGED}.before_{table} add primary key (id)",
                live = self.live
            ))?;
        }
        Ok(transaction.commit()?)
    }

    /// The staged tables that shoppers write to.
    pub fn voted(&self) -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> + '_ {
        VOTED.iter().filter(|(table, _, _)| self.tables.contains(table))
    }

    /// Tables whose rows come from outside: all but the ranks.
    pub fn filled_from_outside(&self) -> Vec<&'static str> {
        self.tables.iter().copied().filter(|table| *table != RANKS).collect()
    }

    /// Does `work` in a transaction in which tables' names mean the staged ones, and else the live ones.
    pub fn within<T>(&self, client: &Client, work: impl FnOnce(&Client) -> Result<T>) -> Result<T> {
        let transaction = begin(client, COMMITTED)?;
        client.batch_execute(&format!(
            "set local search_path = {STAGED}, {}, pg_temp; set local maintenance_work_mem = '{}kB';
             set local synchronous_commit = off",
            self.path,
            self.index_memory_bytes >> 10
        ))?;
        let done = work(client)?;
        transaction.commit()?;
        Ok(done)
    }

    /// What was reported of a table that is filled already.
    pub fn report_of(&self, client: &Client, table: &str) -> Result<Option<String>> {
        let sql = format!("select report from {STAGED}.filled where name = $1");
        Ok(client.query_text(&sql, &[&table])?.first().map(|row| row.get(0)))
    }

    /// Makes a table like the live one and fills it, all of it or nothing; `fill` returns the report.
    pub fn fill(
        &self,
        client: &Client,
        table: &str,
        columns: &[&str],
        fill: impl FnOnce(&mut dyn Rows) -> Result<String>,
    ) -> Result<()> {
        self.within(client, |client| {
            client.batch_execute(&format!(
                "create table {STAGED}.{table} (like {}.{table} including all excluding indexes)
                 with (autovacuum_enabled = off)",
                self.live
            ))?;
            let mut rows = CopyRows::start(client, &format!("{STAGED}.{table}"), columns)?;
            let report = fill(&mut rows)?;
            rows.finish().with_context(|| format!("copying into {table}"))?;
            let sql = format!("insert into {STAGED}.filled (name, report) values ($1, $2)");
            client.query_text(&sql, &[&table, &report])?;
            Ok(())
        })
    }

    /// Counts the ranks of staged products, as the triggers would have.
    pub fn fill_ranks(&self, client: &Client) -> Result<()> {
        if self.report_of(client, RANKS)?.is_some() {
            return Ok(());
        }
        self.within(client, |client| {
            Ok(client.batch_execute(&format!(
                "create table {STAGED}.{RANKS} (like {live}.{RANKS} including all excluding indexes);
                 insert into {STAGED}.{RANKS} (block, members, version)
                     select id >> 6, bit_or(1::bigint << (id & 63)::int),
                            (select version + {RANKS_VERSION_STEP} from {live}.product_rank_version)
                     from {STAGED}.products group by 1;
                 insert into {STAGED}.filled (name, report) values ('{RANKS}', '')",
                live = self.live
            ))?)
        })
    }

    /// Makes an index that is not there yet.
    pub fn index(&self, client: &Client, index: &Index) -> Result<()> {
        let Index { table, name, definition, constraint, .. } = index;
        let there =
            client.query_text("select to_regclass($1) is not null", &[&format!("{STAGED}.{name}")])?;
        if there.first().is_some_and(|row| row.get(0)) {
            return Ok(());
        }
        self.within(client, |client| {
            client.batch_execute(definition)?;
            let kind = match constraint.as_str() {
                "p" => "primary key",
                "u" => "unique",
                _ => return Ok(()),
            };
            let sql = format!("alter table {table} add constraint {name} {kind} using index {name}");
            Ok(client.batch_execute(&sql)?)
        })
        .with_context(|| format!("building index {name} of {table}"))
    }

    /// Foreign keys between staged tables.
    pub fn own_references(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| r.is_own && self.tables.contains(&r.parent.as_str()))
    }

    /// Foreign keys of staged tables to tables that stay. They are made with the swap: until then rows of those come and go.
    pub fn references_to_others(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| r.is_own && !self.tables.contains(&r.parent.as_str()))
    }

    /// Adds the foreign keys between staged tables, not yet checked.
    pub fn refer(&self, client: &Client) -> Result<()> {
        self.within(client, |client| {
            for Reference { name, table, definition, .. } in self.own_references() {
                let there = "select 1 from pg_constraint where quote_ident(conname) = $1 and conrelid = to_regclass($2)";
                if client.query_text(there, &[name, &format!("{STAGED}.{table}")])?.is_empty() {
                    let sql = format!("alter table {table} add constraint {name} {definition} not valid");
                    client.batch_execute(&sql).with_context(|| format!("adding foreign key {name}"))?;
                }
            }
            Ok(())
        })
    }

    /// Checks a foreign key of a staged table.
    pub fn check(&self, client: &Client, Reference { name, table, .. }: &Reference) -> Result<()> {
        self.within(client, |client| {
            let sql = format!("alter table {STAGED}.{table} validate constraint {name}");
            Ok(client.batch_execute(&sql)?)
        })
        .with_context(|| format!("checking foreign key {name}"))
    }

    /// Rows of tables that stay whose parents would be gone.
    ///
    /// # Errors
    /// How many, and of which table.
    pub fn check_others(&self, client: &Client) -> Result<()> {
        for Reference { table_name, column, parent, .. } in self.references_of_others() {
            let sql = format!(
                "select count(*) from {table_name} c where c.{column} is not null
                 and not exists (select from {STAGED}.{parent} p where p.id = c.{column})"
            );
            let orphans: i64 = client.query_text(&sql, &[])?.first().map_or(0, |row| row.get(0));
            if orphans > 0 {
                bail!("{orphans} rows of {table_name} stay and would lose their {parent}: load that table too, or remove the rows");
            }
        }
        Ok(())
    }

    /// Foreign keys to staged tables, of tables that stay.
    pub fn references_of_others(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| !r.is_own)
    }

    /// Statistics, and sequences past every id that was ever given.
    pub fn finish(&self, client: &Client, table: &str) -> Result<()> {
        self.within(client, |client| {
            client.batch_execute(&format!("analyze {STAGED}.{table}"))?;
            let staged = self.next_id(client, STAGED, table)?;
            let live = self.next_id(client, &self.live, table)?;
            let (Some((sequence, staged)), Some((_, live))) = (staged, live) else { return Ok(()) };
            let past = format!("select least(coalesce(max(id), 0), {LAST_ID} - 1) + 1 from {STAGED}.{table}");
            let sql = format!("select setval('{sequence}', greatest(({past}), {staged}, {live}), false)");
            Ok(client.batch_execute(&sql)?)
        })
        .with_context(|| format!("analysing {table}"))
    }

    /// The sequence of a table's ids, and the one that it gives next; None: it has no sequence.
    pub fn next_id(&self, client: &Client, schema: &str, table: &str) -> Result<Option<(String, i64)>> {
        if table == RANKS {
            return Ok(None);
        }
        let rows =
            client.query_text("select pg_get_serial_sequence($1, 'id')", &[&format!("{schema}.{table}")])?;
        let Some(sequence) = rows.first().and_then(|row| row.get::<Option<String>>(0)) else {
            return Ok(None);
        };
        let sql = format!("select case when is_called and last_value < {LAST_ID} then last_value + 1 else last_value end from {sequence}");
        let next = client.query_text(&sql, &[])?.first().context("a sequence is empty")?.try_get(0)?;
        Ok(Some((sequence, next)))
    }

    /// # Errors
    /// The staged tables are not those that this load has filled.
    pub fn check_complete(&self, client: &Client) -> Result<()> {
        let sql = format!(
            "select snapshot::text = $1 and $2::text[] <@ (select array_agg(name) from {STAGED}.filled) from {STAGED}.load"
        );
        let rows = client.query_text(&sql, &[&self.began_at, &self.tables])?;
        if rows.first().is_none_or(|row| row.get::<Option<bool>>(0) != Some(true)) {
            bail!(
                "the tables of this load were replaced by another one's: this one has ended without a change"
            );
        }
        Ok(())
    }
}
