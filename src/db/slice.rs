//! Which rows of an owner's list are wanted, and the columns of such wishes as a statement takes them.
//! Runs in: worker.

use std::error::Error;

use may_postgres::types::{to_sql_checked, IsNull, ToSql, Type};

use crate::catalogue::{Edge, Page};
use crate::db::products::POSTGRES_EPOCH_US;

/// A place between two rows of a list: numbers that its order is made of, and which way to go from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub backwards: bool,
    pub place: Place,
}

/// The row beside which a cursor stands, by its list's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Products.
    Id(i64),
    /// Reviews, the newest first.
    Date { date_us: i64, id: i64 },
    /// Reviews, the most helpful first.
    Helpfulness { helpfulness: i64, date_us: i64, id: i64 },
    /// Reviews by relevance: `is_rest` behind the recent block, whose beginning was `edge` when the walk began.
    Relevance { is_rest: bool, helpfulness: i64, date_us: i64, id: i64, edge: Edge },
    /// Questions and answers.
    Helpful { helpful: i64, id: i64 },
}

/// `count` rows of what `owner` has, after `skip` of them, or beside `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub owner: i64,
    pub count: i64,
    pub skip: i64,
    pub from: Option<Cursor>,
}

impl Slice {
    /// The first rows.
    pub fn first(owner: i64, count: i64) -> Slice {
        Slice { owner, count, skip: 0, from: None }
    }

    /// The id beside which it begins, in a list that is ordered by ids alone.
    pub fn beside_id(&self) -> i64 {
        match self.place() {
            Some(Place::Id(id)) => id,
            _ => i64::MIN,
        }
    }

    pub fn is_backwards(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.backwards)
    }

    /// The page that `rows` are, sorted and one more than wanted at most. Read backwards, the one too many is the first.
    pub fn cut<T>(&self, mut rows: Vec<T>) -> Page<T> {
        if self.is_backwards() && rows.len() > self.count as usize {
            rows.remove(0);
            return Page { rows, more: true };
        }
        Page::cut(rows, self.count as usize)
    }

    pub fn place(&self) -> Option<Place> {
        self.from.as_ref().map(|from| from.place)
    }
}

/// The columns that every list's statement begins with: owner, rows to be read (one more than wanted), rows to be skipped,
/// direction.
pub(super) struct Columns {
    pub owners: Vec<i64>,
    pub counts: Vec<i64>,
    pub skips: Vec<i64>,
    pub backwards: Vec<bool>,
}

impl Columns {
    pub fn of(slices: &[Slice]) -> Columns {
        Columns {
            owners: slices.iter().map(|s| s.owner).collect(),
            counts: slices.iter().map(|s| s.count.saturating_add(1)).collect(),
            skips: slices.iter().map(|s| s.skip).collect(),
            backwards: slices.iter().map(Slice::is_backwards).collect(),
        }
    }
}

/// A `timestamptz` in microseconds since the Unix epoch; the largest is later than every time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub i64);

impl Time {
    pub const INFINITY: Time = Time(i64::MAX);
}

impl ToSql for Time {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut may_postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let us = if self.0 == i64::MAX { i64::MAX } else { self.0.saturating_sub(POSTGRES_EPOCH_US) };
        out.extend_from_slice(&us.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}
