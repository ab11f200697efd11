//! Damage of the kinds that old archives have, for trying out what reads them.
//! Runs in: offline.

use anyhow::Result;

use crate::etl::rows::{write_cell, CsvRows, Rows, Value};
use crate::etl::seed::Dice;
use crate::etl::table::{Cell, Table};

/// An id that nothing has.
const NOBODY: i64 = 1 << 40;
/// Part of the dice.
const DIRT: u64 = 40;

/// What can happen to a line. Repaired when read: the first four; the others are rejected.
#[derive(Debug, Clone, Copy)]
enum Damage {
    CurrencySign,
    LastQuoteLost,
    QuoteLostBeforeNext,
    Windows1252,
    FieldMissing,
    FieldTooMany,
    IdNotANumber,
    Twice,
    ParentMissing,
    RatingOutOfRange,
}

const DAMAGES: [Damage; 10] = [
    Damage::CurrencySign,
    Damage::LastQuoteLost,
    Damage::QuoteLostBeforeNext,
    Damage::Windows1252,
    Damage::FieldMissing,
    Damage::FieldTooMany,
    Damage::IdNotANumber,
    Damage::Twice,
    Damage::ParentMissing,
    Damage::RatingOutOfRange,
];

/// Writes rows to a CSV file, some of them damaged: the same ones for the same seed.
pub struct DirtyRows<'f> {
    file: &'f mut CsvRows,
    table: &'static Table,
    seed: u64,
    per_mille: u64,
    row: u64,
}

impl DirtyRows<'_> {
    pub fn new<'f>(file: &'f mut CsvRows, table: &'static Table, seed: u64, per_mille: u64) -> DirtyRows<'f> {
        DirtyRows { file, table, seed, per_mille, row: 0 }
    }
}

impl Rows for DirtyRows<'_> {
    fn row(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.row += 1;
        let table = self.table.file.len() as u64 ^ u64::from(self.table.file.as_bytes()[0]) << 8;
        let mut dice = Dice::new(self.seed ^ table, DIRT, self.row);
        if self.per_mille == 0 || dice.below(1000) >= self.per_mille {
            return self.file.row(values);
        }
        let mut cells: Vec<String> = values.iter().map(|value| cell(*value)).collect();
        // Where the damage rolled is not one for this line, the next one that is.
        let first = dice.below(DAMAGES.len() as u64) as usize;
        let damages = DAMAGES.iter().cycle().skip(first).take(DAMAGES.len());
        for damage in damages {
            if let Some(line) = self.damage(*damage, &mut cells) {
                return self.file.line(&line);
            }
        }
        self.file.row(values)
    }
}

fn cell(value: Value<'_>) -> String {
    let mut cell = String::new();
    write_cell(value, &mut cell);
    cell
}

impl DirtyRows<'_> {
    /// The damaged line; None: it has nothing that could be damaged so.
    fn damage(&self, damage: Damage, cells: &mut Vec<String>) -> Option<Vec<u8>> {
        let find =
            |wanted: fn(Cell) -> bool| self.table.columns.iter().position(|column| wanted(column.cell));
        let is_quoted = |cell: &String| cell.len() > 2 && cell.ends_with('"');
        match damage {
            Damage::CurrencySign => cells[find(|cell| cell == Cell::Price)?].insert(0, '$'),
            Damage::LastQuoteLost => {
                let last = cells.last_mut().filter(|cell| is_quoted(cell))?;
                last.pop();
            }
            Damage::QuoteLostBeforeNext => {
                let next = (1..cells.len()).find(|&n| is_quoted(&cells[n - 1]) && is_quoted(&cells[n]))?;
                cells[next - 1].pop();
            }
            Damage::Windows1252 => {
                let cell = cells.iter().position(is_quoted)?;
                let line = cells.join(",").into_bytes();
                let at = cells[..cell].iter().map(|cell| cell.len() + 1).sum::<usize>() + 1;
                // An e with an acute accent.
                return Some([&line[..at], &[0xE9], &line[at..]].concat());
            }
            Damage::FieldMissing => drop(cells.pop()),
            Damage::FieldTooMany => cells.push("1".into()),
            Damage::IdNotANumber => cells[0].insert(0, 'x'),
            Damage::Twice => {
                let line = cells.join(",");
                return Some(format!("{line}\n{line}").into_bytes());
            }
            Damage::ParentMissing => {
                cells[find(|cell| matches!(cell, Cell::Parent(_)))?] = NOBODY.to_string();
            }
            Damage::RatingOutOfRange => cells[find(|cell| cell == Cell::Rating)?] = "9".into(),
        }
        Some(cells.join(",").into_bytes())
    }
}
