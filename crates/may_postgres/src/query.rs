//! Asking: prepared queries, plain SQL text, transactions.
//! Runs in: worker | offline.

use std::sync::atomic::Ordering;

use postgres_protocol::message::backend::Message;
use postgres_types::ToSql;

use crate::connection::Responses;
use crate::{wire, Client, Error, Row, Statement};

impl Client {
    /// Runs a prepared statement and returns all its rows.
    ///
    /// # Errors
    /// [`Error::Convert`] for parameters that don't fit, [`Error::Sql`] when refused, [`Error::Closed`] or
    /// [`Error::Timeout`] when no answer came.
    pub fn query(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let rows = self.observed(statement.label(), false, || self.fetch_rows(statement, params));
        if rows.as_ref().is_err_and(Error::is_about_statement) {
            self.shared.statements.forget(statement);
        }
        rows
    }

    fn fetch_rows(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let mut responses = self.shared.send(wire::execute(statement, params)?, false)?;
        let mut rows = Vec::new();
        while let Some(message) = responses.next()? {
            if let Message::DataRow(body) = message {
                rows.push(responses.checked(Row::new(statement.columns().clone(), body))?);
            }
        }
        Ok(rows)
    }

    /// Prepares (once per connection) and runs `sql`.
    pub fn query_text(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.query(&self.prepare_cached(sql)?, params)
    }

    /// The only row of a result.
    pub fn query_one(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        let rows = self.query_opt(statement, params)?;
        rows.ok_or_else(|| Error::Convert("the query returned no row".into()))
    }

    /// The only row of a result, if there is one.
    pub fn query_opt(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        let mut rows = self.query(statement, params)?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            n => Err(Error::Convert(format!("the query returned {n} rows instead of one"))),
        }
    }

    /// Runs a prepared statement and returns how many rows it touched.
    pub fn execute(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        let run = || read_count(&mut self.shared.send(wire::execute(statement, params)?, false)?);
        let count = self.observed(statement.label(), false, run);
        if count.as_ref().is_err_and(Error::is_about_statement) {
            self.shared.statements.forget(statement);
        }
        count
    }

    /// Runs several statements given as text, without parameters, through the simple protocol; a
    /// string of them without BEGIN is one transaction.
    pub fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        let mut responses = self.shared.send(wire::simple_query(sql)?, false)?;
        while responses.next()?.is_some() {}
        Ok(())
    }

    /// True when the server says that it has committed, and not rolled back.
    fn commit(&self) -> Result<bool, Error> {
        self.observed("commit", false, || self.send_commit())
    }

    fn send_commit(&self) -> Result<bool, Error> {
        let mut responses = self.shared.send(wire::simple_query("commit")?, false)?;
        let mut committed = false;
        while let Some(message) = responses.next()? {
            if let Message::CommandComplete(body) = message {
                committed = responses.checked(body.tag())? == "COMMIT";
            }
        }
        Ok(committed)
    }

    /// Opens a transaction. The connection should be the caller's own: statements that others send
    /// over it meanwhile become part of the transaction.
    pub fn transaction(&self) -> Result<Transaction<'_>, Error> {
        self.shared.in_transaction.store(true, Ordering::Relaxed);
        self.settled(self.batch_execute("begin"))?;
        Ok(Transaction { client: self, open: true })
    }
}

impl Client {
    /// Hands on how a transaction began or ended. Where that is not known, nobody may use the connection any more.
    fn settled<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|e| match e {
            e @ Error::Sql(_) => e,
            e => self.shared.break_off(e),
        })
    }
}

pub(crate) fn read_count(responses: &mut Responses) -> Result<u64, Error> {
    let mut count = 0;
    while let Some(message) = responses.next()? {
        if let Message::CommandComplete(body) = message {
            let tag = responses.checked(body.tag())?;
            count = tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    Ok(count)
}

/// A transaction; rolled back when dropped without a commit.
pub struct Transaction<'a> {
    client: &'a Client,
    open: bool,
}

impl Transaction<'_> {
    pub fn client(&self) -> &Client {
        self.client
    }

    /// # Errors
    /// [`Error::Protocol`] when a statement had failed: the server rolls back then, and says so only in its tag.
    pub fn commit(mut self) -> Result<(), Error> {
        self.open = false;
        match self.client.settled(self.client.commit())? {
            true => Ok(()),
            false => {
                Err(Error::Protocol("a statement had failed, so the transaction was rolled back".into()))
            }
        }
    }

    pub fn rollback(mut self) -> Result<(), Error> {
        self.open = false;
        self.client.settled(self.client.batch_execute("rollback"))
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open && !self.client.is_closed() {
            // A lost connection has rolled back already.
            let _ = self.client.settled(self.client.batch_execute("rollback"));
        }
        self.client.shared.in_transaction.store(false, Ordering::Relaxed);
    }
}
