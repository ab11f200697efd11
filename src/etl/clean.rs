//! A record's cells to what their columns hold, or the reason why not.
//! Runs in: offline.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use memchr::memchr;
use parking_lot::Mutex;
use roaring::RoaringTreemap;
use smallvec::SmallVec;

use crate::etl::csv::{Record, Rejected, Repair};
use crate::etl::rows::Value;
use crate::etl::table::{Cell, Parent, Table, COLUMNS_MAX};

/// Signs that people write in front of prices.
const CURRENCY_SIGNS: [char; 4] = ['$', '€', '£', '¥'];
/// The years 1 to 9999, which every client can read.
const TIME_MIN_MS: i64 = -62_135_596_800_000;
const TIME_MAX_MS: i64 = 253_402_300_799_999;
/// Digits before the decimal point that numeric(12, 2) holds.
const PRICE_DIGITS_MAX: usize = 10;

const RATING_OUT_OF_RANGE: &str = "rating out of range";
/// Reasons to which the cell adds nothing.
const SAYS_ENOUGH: &[&str] = &["is null", "holds a NUL character", RATING_OUT_OF_RANGE];
/// So much of a cell is told.
const CELL_CHARS_MAX: usize = 80;

/// Halfway to the ends of a bigint: votes are added to it, and an index negates it.
pub const NUMBER_MAX: i64 = i64::MAX / 2;

/// Ids that are loaded, for the files whose rows refer to them.
#[derive(Default)]
pub struct Known(Mutex<HashMap<Parent, Arc<RoaringTreemap>>>);

impl Known {
    pub fn add(&self, parent: Parent, ids: RoaringTreemap) {
        self.0.lock().insert(parent, Arc::new(ids));
    }

    /// Whether the ids of `parent` are known.
    pub fn has(&self, parent: Parent) -> bool {
        self.0.lock().contains_key(&parent.whose())
    }

    /// Keys to check a file against: all of its parents' files have been read.
    pub fn keys(&self) -> Keys {
        Keys { own: RoaringTreemap::new(), parents: self.0.lock().clone() }
    }
}

/// The ids of one file so far, and of those that it may refer to.
pub struct Keys {
    pub own: RoaringTreemap,
    parents: HashMap<Parent, Arc<RoaringTreemap>>,
}

impl Keys {
    fn has(&self, parent: Parent, id: i64) -> bool {
        self.parents.get(&parent.whose()).is_some_and(|ids| ids.contains(id as u64))
    }
}

/// A row's values, in the order of the table's columns.
pub type Row<'r> = SmallVec<[Value<'r>; COLUMNS_MAX]>;

/// A reason, and the column it is about where it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// One of a few: rejects are counted by it.
    pub text: &'static str,
    pub column: Option<&'static str>,
    /// What the cell holds, or how it begins, where that says more.
    cell: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)?;
        self.cell.as_ref().map_or(Ok(()), |cell| write!(f, ": {cell:?}"))
    }
}

impl From<Rejected> for Reason {
    fn from(rejected: Rejected) -> Reason {
        Reason { text: rejected.reason, column: None, cell: None }
    }
}

impl Reason {
    fn of(column: &'static str, text: &'static str) -> Reason {
        Reason { text, column: Some(column), cell: None }
    }

    fn with(mut self, cell: &str) -> Reason {
        if !SAYS_ENOUGH.contains(&self.text) {
            self.cell = Some(cell.chars().take(CELL_CHARS_MAX).collect());
        }
        self
    }
}

/// Cleans a record whose fields stand in the order that `order` gives. Keys are looked at first: ids, then parents, then everything
/// else.
///
/// # Errors
/// The reason for which the record is rejected; `keys` is as before then.
pub fn clean<'r>(
    table: &'static Table,
    order: &[usize],
    record: &'r Record,
    keys: &mut Keys,
    repairs: &mut Vec<Repair>,
) -> Result<Row<'r>, Reason> {
    let mut cells = [""; COLUMNS_MAX];
    for (field, column) in record.fields().zip(order) {
        cells[*column] = field;
    }
    let own_id = check_keys(table, &cells, keys)?;
    let mut values = Row::new();
    for (column, cell) in table.columns.iter().zip(cells) {
        let value = read_cell(column.cell, cell, repairs);
        let value = value.map_err(|why| Reason::of(column.name, why).with(cell))?;
        values.push(value);
    }
    keys.own.insert(own_id as u64);
    Ok(values)
}

fn check_keys(table: &'static Table, cells: &[&str], keys: &Keys) -> Result<i64, Reason> {
    let mut own_id = 0;
    let mut parents = SmallVec::<[_; COLUMNS_MAX]>::new();
    for (column, cell) in table.columns.iter().zip(cells) {
        if !matches!(column.cell, Cell::Id | Cell::Parent(_)) {
            continue;
        }
        let id = read_id(cell).ok_or_else(|| Reason::of(column.name, "id is not a number"))?;
        match column.cell {
            Cell::Parent(parent) => parents.push((column.name, parent, id)),
            _ => own_id = id,
        }
    }
    if keys.own.contains(own_id as u64) {
        return Err(Reason::of("id", "duplicate id"));
    }
    for (column, parent, id) in parents {
        if parent == Parent::RelatedProduct && id == 0 {
            return Err(Reason::of(column, "related product 0"));
        }
        if !keys.has(parent, id) {
            return Err(Reason::of(column, parent.missing()));
        }
    }
    Ok(own_id)
}

fn read_id(cell: &str) -> Option<i64> {
    let cell = cell.trim();
    cell.bytes().all(|b| b.is_ascii_digit()).then(|| cell.parse().ok()).flatten()
}

fn read_cell<'r>(kind: Cell, cell: &'r str, repairs: &mut Vec<Repair>) -> Result<Value<'r>, &'static str> {
    let plain = cell.trim();
    let is_null = plain == "null";
    match kind {
        Cell::Id | Cell::Parent(_) => read_id(cell).map(Value::Bigint).ok_or("id is not a number"),
        Cell::TextOrNull if is_null => Ok(Value::Null),
        kind if kind.is_text() => match is_null {
            true => Err("is null"),
            false => read_text(cell, kind.text_max()).map(Value::Text),
        },
        Cell::PriceOrNull | Cell::NumberOrNull if is_null || plain.is_empty() => Ok(Value::Null),
        Cell::Price | Cell::PriceOrNull => read_price(plain, repairs).map(Value::Cents),
        Cell::NumberOrNull | Cell::Number => read_number(plain).map(Value::Bigint),
        Cell::Rating => match read_number(plain)? {
            rating @ 1..=5 => Ok(Value::Smallint(rating as i16)),
            _ => Err(RATING_OUT_OF_RANGE),
        },
        Cell::Time => read_time(plain).map(Value::Time),
        Cell::Boolean if plain == "1" || plain.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
        Cell::Boolean if plain == "0" || plain.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
        _ => Err("neither true nor false"),
    }
}

fn read_text(cell: &str, bytes_max: Option<usize>) -> Result<&str, &'static str> {
    if memchr(0, cell.as_bytes()).is_some() {
        return Err("holds a NUL character");
    }
    match bytes_max {
        Some(max) if cell.len() > max => Err("longer than its index can hold"),
        _ => Ok(cell),
    }
}

fn read_number(cell: &str) -> Result<i64, &'static str> {
    match cell.parse::<i64>() {
        Ok(number) if (-NUMBER_MAX..=NUMBER_MAX).contains(&number) => Ok(number),
        Ok(_) => Err("number out of range"),
        Err(_) => Err("not a whole number"),
    }
}

/// Epoch milliseconds, or a day (`2018-01-17`) that begins at midnight UTC; in epoch milliseconds.
fn read_time(cell: &str) -> Result<i64, &'static str> {
    let is_day = cell.len() == "2018-01-17".len() && cell.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let time_ms = match cell.parse::<i64>() {
        Ok(ms) => Some(ms),
        Err(_) if is_day => cell
            .parse::<Date>()
            .ok()
            .and_then(|day| day.to_zoned(TimeZone::UTC).ok())
            .map(|midnight| midnight.timestamp().as_millisecond()),
        Err(_) => None,
    };
    time_ms
        .filter(|ms| (TIME_MIN_MS..=TIME_MAX_MS).contains(ms))
        .ok_or("neither epoch milliseconds nor a day")
}

/// Digits and at most two decimals, in cents; a currency sign in front is dropped, and counted.
fn read_price(cell: &str, repairs: &mut Vec<Repair>) -> Result<u64, &'static str> {
    let price = cell.trim_start_matches(CURRENCY_SIGNS).trim_start();
    let (whole, decimals) = price.split_once('.').unwrap_or((price, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let significant = decimals.trim_end_matches('0');
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return Err("not a price");
    }
    let whole = whole.trim_start_matches('0');
    if significant.len() > 2 || whole.len() > PRICE_DIGITS_MAX {
        return Err("more than ten digits and two decimals");
    }
    if price.len() != cell.len() {
        repairs.push(Repair::CurrencySign);
    }
    let number = |digits: &str| digits.bytes().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let hundredths = number(significant) * if significant.len() == 1 { 10 } else { 1 };
    Ok(number(whole) * 100 + hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etl::csv::Reader;
    use crate::etl::table::TABLES;

    /// Cleans one product after the ids in `keys`; how many repairs it took.
    fn clean_product(fields: &[&str], keys: &mut Keys) -> Result<usize, Reason> {
        let text = format!("id,name,slogan,description,category,default_price\n{}\n", fields.join(","));
        let mut record = Record::default();
        Reader::open(text.as_bytes()).unwrap().0.read(&mut record).unwrap().unwrap().unwrap();
        let mut repairs = Vec::new();
        clean(&TABLES[0], &[0, 1, 2, 3, 4, 5], &record, keys, &mut repairs).map(|_| repairs.len())
    }

    #[test]
    fn the_first_of_two_ids_stays() {
        let mut keys = Known::default().keys();
        let row = ["9223372036854775807", "a", "", "c", "d", "1"];
        assert!(clean_product(&row, &mut keys).is_ok());
        assert_eq!(clean_product(&row, &mut keys).unwrap_err().text, "duplicate id");
        let mut bad = row;
        bad[0] = "7";
        bad[5] = "cheap";
        assert!(clean_product(&bad, &mut keys).is_err());
        bad[5] = "7.50";
        assert!(clean_product(&bad, &mut keys).is_ok(), "a rejected row does not take its id");
    }

    #[test]
    fn prices() {
        let read = |text: &str| {
            let mut repairs = Vec::new();
            read_price(text.trim(), &mut repairs).map(|cents| (cents, repairs.len()))
        };
        assert_eq!(read("140"), Ok((14_000, 0)));
        assert_eq!(read(" 99.5 "), Ok((9_950, 0)));
        assert_eq!(read("$720"), Ok((72_000, 1)));
        assert_eq!(read("€ 7.50"), Ok((750, 1)));
        for bad in ["", "free", "-5", "1.2.3", "12.345", "12345678901", "1e5", "NaN"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        let read = |text: &str| read_time(text).ok();
        assert_eq!(read("1628913634932"), Some(1_628_913_634_932));
        assert_eq!((read("0"), read("-1")), (Some(0), Some(-1)));
        assert_eq!(read("2018-01-17"), Some(1_516_147_200_000));
        for bad in [
            "2018-01-17T23:59:59",
            "2018-01-17 23:30-05:00",
            "",
            "yesterday",
            "2018-13-01",
            "9223372036854775807",
            "253402300800000",
            "-62135596800001",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_that_are_no_numbers() {
        let mut keys = Known::default().keys();
        for id in ["x1", "", "1.5", "-1", "99999999999999999999", "null"] {
            let error = clean_product(&[id, "a", "b", "c", "d", "1"], &mut keys).unwrap_err();
            assert_eq!(error.text, "id is not a number", "{id}");
        }
    }
}
