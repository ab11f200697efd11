//! Statements: prepared once per connection, found again by their text.
//! Runs in: worker | offline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use parking_lot::Mutex;
use postgres_protocol::message::backend::Message;
use postgres_types::Type;

use crate::{wire, Client, Error};

/// A column of a result.
#[derive(Debug, Clone)]
pub struct Column {
    pub(crate) name: String,
    pub(crate) ty: Type,
}

impl Column {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn type_(&self) -> &Type {
        &self.ty
    }
}

/// A statement prepared on one connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct Statement(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    label: String,
    params: Vec<Type>,
    columns: Arc<[Column]>,
}

impl Statement {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The comment that its text begins with: what whoever wrote it calls it. Empty: there is none.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    pub fn params(&self) -> &[Type] {
        &self.0.params
    }

    pub fn columns(&self) -> &Arc<[Column]> {
        &self.0.columns
    }
}

/// The statements of one connection by their text.
#[derive(Default)]
pub(crate) struct Statements {
    by_text: Mutex<HashMap<String, Statement>>,
}

impl Statements {
    /// Has `statement` prepared anew when it is next asked for.
    pub(crate) fn forget(&self, statement: &Statement) {
        self.by_text.lock().retain(|_, kept| kept.name() != statement.name());
    }
}

impl Client {
    /// Prepares `sql` on this connection. Parameters and results travel in binary.
    ///
    /// # Errors
    /// [`Error::Sql`] when the server can't parse it.
    pub fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        self.observed(label(sql), true, || self.parse(sql))
    }

    fn parse(&self, sql: &str) -> Result<Statement, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut responses = self.shared.send(wire::prepare(&name, sql)?, false)?;
        let (mut params, mut columns) = (Vec::new(), Vec::new());
        while let Some(message) = responses.next()? {
            match message {
                Message::ParameterDescription(body) => {
                    let described = body.parameters().map(|oid| Ok(known_type(oid))).collect();
                    params = responses.checked(described)?;
                }
                Message::RowDescription(body) => {
                    let describe = |f: postgres_protocol::message::backend::Field<'_>| {
                        Ok(Column { name: f.name().to_string(), ty: known_type(f.type_oid()) })
                    };
                    columns = responses.checked(body.fields().map(describe).collect::<Vec<_>>())?;
                }
                _ => {}
            }
        }
        let label = label(sql).to_string();
        Ok(Statement(Arc::new(Inner { name, label, params, columns: columns.into() })))
    }

    /// Prepares `sql` the first time, and finds it again afterwards. Two coroutines that ask for a new
    /// text at the same time prepare it twice; either one serves.
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement, Error> {
        if let Some(found) = self.shared.statements.by_text.lock().get(sql) {
            return Ok(found.clone());
        }
        let statement = self.prepare(sql)?;
        self.shared.statements.by_text.lock().insert(sql.to_string(), statement.clone());
        Ok(statement)
    }
}

/// `/* label */ select …`
fn label(sql: &str) -> &str {
    let comment = sql.trim_start().strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
    comment.map_or("", |(label, _)| label.trim())
}

/// Types that are not built in travel as text: their binary form is not known here.
fn known_type(oid: u32) -> Type {
    Type::from_oid(oid).unwrap_or(Type::TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_comment_in_front() {
        assert_eq!(label("/* cart_add */\nselect 1"), "cart_add");
        assert_eq!((label("select 1 /* not */"), label("/* open"), label("")), ("", "", ""));
    }
}
