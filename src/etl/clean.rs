//! A record's cells to what their columns hold, or the reason why not.
//! Runs in: offline.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::Timestamp;
use roaring::RoaringTreemap;

use crate::etl::csv::{Record, Repair};
use crate::etl::table::{Cell, Parent, Table};

/// Signs that people write in front of prices.
const CURRENCY_SIGNS: [char; 4] = ['$', '€', '£', '¥'];
/// The years 1 to 9999, which every client can read.
const TIME_MIN_MS: i64 = -62_135_596_800_000;
const TIME_MAX_MS: i64 = 253_402_300_799_999;
/// Digits before the decimal point that numeric(12, 2) holds.
const PRICE_DIGITS_MAX: usize = 10;

/// Ids loaded so far: each file's own, and those that children refer to.
#[derive(Default)]
pub struct Known {
    own: RoaringTreemap,
    parents: HashMap<Parent, RoaringTreemap>,
}

impl Known {
    /// Starts a new file.
    pub fn start(&mut self) {
        self.own.clear();
    }

    /// Ends a file: its ids are known to its children.
    pub fn finish(&mut self, is: Option<Parent>) {
        if let Some(parent) = is {
            let own = std::mem::take(&mut self.own);
            if parent == Parent::Product {
                self.parents.insert(Parent::RelatedProduct, own.clone());
            }
            self.parents.insert(parent, own);
        }
    }

    fn has(&self, parent: Parent, id: i64) -> bool {
        self.parents.get(&parent).is_some_and(|ids| ids.contains(id as u64))
    }
}

/// A cell ready to be copied: NULL or text.
pub type Value<'r> = Option<Cow<'r, str>>;

/// A reason, and the column it is about where it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub text: Cow<'static, str>,
    pub column: Option<&'static str>,
}

impl Reason {
    pub fn new(text: &'static str) -> Reason {
        Reason { text: Cow::Borrowed(text), column: None }
    }

    fn of(column: &'static str, text: impl Into<Cow<'static, str>>) -> Reason {
        Reason { text: text.into(), column: Some(column) }
    }
}

/// Cleans a record whose fields stand in the order that `order` gives; values come in the order of the table's
/// columns. Keys are looked at first: ids, then parents, then everything else.
///
/// # Errors
/// The reason for which the record is rejected; `known` is as before then.
pub fn clean<'r>(
    table: &'static Table,
    order: &[usize],
    record: &'r Record,
    known: &mut Known,
    repairs: &mut Vec<Repair>,
) -> Result<Vec<Value<'r>>, Reason> {
    let mut cells: Vec<&str> = vec![""; table.columns.len()];
    for (field, column) in record.fields.iter().zip(order) {
        cells[*column] = field;
    }
    let own_id = check_keys(table, &cells, known)?;
    let mut values = Vec::with_capacity(cells.len());
    for (column, cell) in table.columns.iter().zip(cells) {
        let value = read_cell(column.cell, cell, repairs).map_err(|why| Reason::of(column.name, why))?;
        values.push(value);
    }
    known.own.insert(own_id as u64);
    Ok(values)
}

fn check_keys(table: &'static Table, cells: &[&str], known: &Known) -> Result<i64, Reason> {
    let mut own_id = 0;
    let mut parents = Vec::new();
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
    if known.own.contains(own_id as u64) {
        return Err(Reason::of("id", "duplicate id"));
    }
    for (column, parent, id) in parents {
        if parent == Parent::RelatedProduct && id == 0 {
            return Err(Reason::of(column, "related product 0"));
        }
        if !known.has(parent, id) {
            return Err(Reason::of(column, parent.missing()));
        }
    }
    Ok(own_id)
}

fn read_id(cell: &str) -> Option<i64> {
    let cell = cell.trim();
    cell.bytes().all(|b| b.is_ascii_digit()).then(|| cell.parse().ok()).flatten()
}

fn read_cell<'r>(kind: Cell, cell: &'r str, repairs: &mut Vec<Repair>) -> Result<Value<'r>, String> {
    let is_null = cell.trim() == "null";
    match kind {
        Cell::Id | Cell::Parent(_) => Ok(Some(Cow::Borrowed(cell.trim()))),
        Cell::TextOrNull if is_null => Ok(None),
        Cell::Text if is_null => Err("is null".into()),
        Cell::Text | Cell::TextOrNull if cell.contains('\0') => Err("holds a NUL character".into()),
        Cell::Text | Cell::TextOrNull => Ok(Some(Cow::Borrowed(cell))),
        Cell::PriceOrNull | Cell::NumberOrNull if is_null || cell.trim().is_empty() => Ok(None),
        Cell::Price | Cell::PriceOrNull => read_price(cell, repairs).map(|price| Some(Cow::Borrowed(price))),
        Cell::NumberOrNull | Cell::Number => {
            let cell = cell.trim();
            cell.parse::<i64>().map_err(|_| format!("{cell:?} is not a whole number"))?;
            Ok(Some(Cow::Borrowed(cell)))
        }
        Cell::Rating => match cell.trim().parse::<i64>() {
            Ok(1..=5) => Ok(Some(Cow::Borrowed(cell.trim()))),
            Ok(_) => Err("rating out of range".into()),
            Err(_) => Err(format!("{cell:?} is not a whole number")),
        },
        Cell::Time => read_time(cell.trim()).map(|time| Some(Cow::Owned(time))),
        Cell::Boolean => match cell.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Some(Cow::Borrowed("t"))),
            "false" | "0" => Ok(Some(Cow::Borrowed("f"))),
            _ => Err(format!("{cell:?} is neither true nor false")),
        },
    }
}

/// Epoch milliseconds, or a day that begins at midnight UTC; as PostgreSQL reads times.
fn read_time(cell: &str) -> Result<String, String> {
    let time = match cell.parse::<i64>() {
        Ok(ms) => Timestamp::from_millisecond(ms).ok(),
        Err(_) => cell
            .parse::<Date>()
            .ok()
            .and_then(|day| day.to_zoned(TimeZone::UTC).ok())
            .map(|midnight| midnight.timestamp()),
    };
    let time = time.filter(|time| (TIME_MIN_MS..=TIME_MAX_MS).contains(&time.as_millisecond()));
    time.map(|time| format!("{time:.3}"))
        .ok_or_else(|| format!("{cell:?} is neither epoch milliseconds nor a day"))
}

/// Digits and at most two decimals; a currency sign in front is dropped, and counted.
fn read_price<'r>(cell: &'r str, repairs: &mut Vec<Repair>) -> Result<&'r str, String> {
    let cell = cell.trim();
    let price = cell.trim_start_matches(CURRENCY_SIGNS).trim_start();
    let (whole, decimals) = price.split_once('.').unwrap_or((price, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let significant = decimals.trim_end_matches('0');
    if whole.is_empty() || !digits(whole) || !digits(decimals) {
        return Err(format!("{cell:?} is not a price"));
    }
    if significant.len() > 2 || whole.trim_start_matches('0').len() > PRICE_DIGITS_MAX {
        return Err(format!("{cell:?} does not fit a price of ten digits and two decimals"));
    }
    if price.len() != cell.len() {
        repairs.push(Repair::CurrencySign);
    }
    Ok(price)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etl::table::TABLES;

    fn clean_product(
        fields: &[&str],
        known: &mut Known,
    ) -> Result<(Vec<Option<String>>, Vec<Repair>), Reason> {
        let record =
            Record { line: 2, fields: fields.iter().map(|f| f.to_string()).collect(), repairs: Vec::new() };
        let mut repairs = Vec::new();
        let values = clean(&TABLES[0], &[0, 1, 2, 3, 4, 5], &record, known, &mut repairs)?;
        Ok((values.into_iter().map(|v| v.map(|t| t.into_owned())).collect(), repairs))
    }

    #[test]
    fn the_first_of_two_ids_stays() {
        let mut known = Known::default();
        let row = ["9223372036854775807", "a", "", "c", "d", "1"];
        assert!(clean_product(&row, &mut known).is_ok());
        assert_eq!(clean_product(&row, &mut known).unwrap_err().text, "duplicate id");
        let mut bad = row;
        bad[0] = "7";
        bad[5] = "cheap";
        assert!(clean_product(&bad, &mut known).is_err());
        bad[5] = "7.50";
        assert!(clean_product(&bad, &mut known).is_ok(), "a rejected row does not take its id");
    }

    #[test]
    fn prices() {
        let read = |text: &str| {
            let mut repairs = Vec::new();
            read_price(text, &mut repairs).map(|p| (p.to_string(), repairs.len()))
        };
        assert_eq!(read("140"), Ok(("140".into(), 0)));
        assert_eq!(read(" 99.5 "), Ok(("99.5".into(), 0)));
        assert_eq!(read("$720"), Ok(("720".into(), 1)));
        assert_eq!(read("€ 7.50"), Ok(("7.50".into(), 1)));
        for bad in ["", "free", "-5", "1.2.3", "12.345", "12345678901", "1e5", "NaN"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        let read = |text: &str| read_time(text).ok();
        assert_eq!(read("1628913634932").as_deref(), Some("2021-08-14T04:00:34.932Z"));
        assert_eq!(read("0").as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(read("-1").as_deref(), Some("1969-12-31T23:59:59.999Z"));
        assert_eq!(read("2018-01-17").as_deref(), Some("2018-01-17T00:00:00.000Z"));
        for bad in
            ["", "yesterday", "2018-13-01", "9223372036854775807", "253402300800000", "-62135596800001"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_that_are_no_numbers() {
        let mut known = Known::default();
        for id in ["x1", "", "1.5", "-1", "99999999999999999999", "null"] {
            let error = clean_product(&[id, "a", "b", "c", "d", "1"], &mut known).unwrap_err();
            assert_eq!(error.text, "id is not a number", "{id}");
        }
    }
}
