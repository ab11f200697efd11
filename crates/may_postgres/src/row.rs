//! A row of a result: columns are found by position and converted when asked for.
//! Runs in: worker | offline.

use std::ops::Range;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::DataRowBody;
use postgres_types::FromSql;

use crate::{Column, Error};

/// One row; the bytes are those of the message.
pub struct Row {
    columns: Arc<[Column]>,
    body: DataRowBody,
    ranges: Vec<Option<Range<usize>>>,
}

impl Row {
    pub(crate) fn new(columns: Arc<[Column]>, body: DataRowBody) -> Result<Row, Error> {
        let ranges: Vec<_> = body.ranges().collect()?;
        if ranges.len() != columns.len() {
            return Err(Error::Protocol(format!("{} values for {} columns", ranges.len(), columns.len())));
        }
        Ok(Row { columns, body, ranges })
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The column's bytes in PostgreSQL's binary format; None for NULL.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        let range = self.ranges.get(index)?.as_ref()?;
        self.body.buffer().get(range.clone())
    }

    /// Converts column `index` (from 0).
    ///
    /// # Errors
    /// [`Error::Convert`] when there is no such column, or its type or a NULL doesn't fit `T`.
    pub fn try_get<'a, T: FromSql<'a>>(&'a self, index: usize) -> Result<T, Error> {
        let column =
            self.columns.get(index).ok_or_else(|| Error::Convert(format!("there is no column {index}")))?;
        if !T::accepts(&column.ty) {
            return Err(Error::Convert(format!("column {:?} is of type {}", column.name, column.ty)));
        }
        T::from_sql_nullable(&column.ty, self.bytes(index))
            .map_err(|e| Error::Convert(format!("column {:?}: {e}", column.name)))
    }

    /// As [`Row::try_get`], for columns whose type is known from the statement's text.
    ///
    /// # Panics
    /// When the column doesn't fit: the statement and the code that reads it disagree.
    pub fn get<'a, T: FromSql<'a>>(&'a self, index: usize) -> T {
        self.try_get(index).unwrap_or_else(|e| panic!("{e}"))
    }
}
