//! Physical lines to records, with the quoting damage of real archives mended where that is certain.
//! Runs in: offline. No I/O of its own beyond `BufRead`; memory is one record.
//!
//! Lines whose quoting is in order are split by csv-core; where a quote stands open, or in the middle of a text, the splitting is
//! done here, because mending needs to know where.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Terminator};
use encoding_rs::WINDOWS_1252;
use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize};

use crate::limits::{CSV_JOIN_LINES_MAX, CSV_LINE_SIZE_MAX_BYTES};

/// What had to be mended in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Repair {
    #[serde(rename = "closing quote")]
    ClosingQuote,
    #[serde(rename = "currency sign")]
    CurrencySign,
    #[serde(rename = "Windows-1252 text")]
    Windows1252,
}

impl Repair {
    pub fn name(self) -> &'static str {
        match self {
            Repair::ClosingQuote => "closing quote",
            Repair::CurrencySign => "currency sign",
            Repair::Windows1252 => "Windows-1252 text",
        }
    }
}

/// A record: its fields, unquoted, one behind the other. Reading into the same one again and again allocates nothing.
#[derive(Debug, Default)]
pub struct Record {
    /// First physical line; the header is line 1.
    pub line: u64,
    text: String,
    /// Where each field ends.
    ends: Vec<usize>,
    pub repairs: Vec<Repair>,
}

impl Record {
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }

    fn start(&mut self, line: u64) {
        self.line = line;
        self.text.clear();
        self.ends.clear();
        self.repairs.clear();
    }

    fn push(&mut self, field: &str) {
        self.text.push_str(field);
        self.ends.push(self.text.len());
    }
}

/// A line that is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    pub line: u64,
    pub reason: &'static str,
}

pub const FIELDS_MISSING: &str = "fields missing";
pub const TOO_MANY_FIELDS: &str = "too many fields";
const LINE_TOO_LONG: &str = "line too long";
/// Mark of the byte order, as UTF-8 has it.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Reads records of a file with a header.
pub struct Reader<R> {
    input: R,
    /// Lines read ahead, oldest first.
    ahead: VecDeque<Line>,
    /// Room of lines that were read.
    spare: Vec<Vec<u8>>,
    lines_read: u64,
    columns: usize,
    core: csv_core::Reader,
    /// What csv-core made of a line: fields one behind the other, and where each ends.
    split: Vec<u8>,
    split_ends: Vec<usize>,
}

struct Line {
    number: u64,
    bytes: Vec<u8>,
    too_long: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header; returns its names as they stand, without quotes and blanks.
    pub fn open(input: R) -> io::Result<(Reader<R>, Vec<String>)> {
        let mut reader = Reader {
            input,
            ahead: VecDeque::new(),
            spare: Vec::new(),
            lines_read: 0,
            columns: 0,
            core: csv_core::ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build(),
            split: Vec::new(),
            split_ends: Vec::new(),
        };
        let header = reader.next_line()?.map(|l| l.bytes).unwrap_or_default();
        let header = header.strip_prefix(BOM).unwrap_or(&header);
        let names: Vec<String> =
            split(header, Quotes::AsTheyStand).fields.iter().map(|f| text(f).trim().to_string()).collect();
        reader.columns = names.len();
        Ok((reader, names))
    }

    /// Reads the next record, or says which line is none; None at the end. Empty lines are passed over.
    pub fn read(&mut self, record: &mut Record) -> io::Result<Option<Result<(), Rejected>>> {
        loop {
            let Some(line) = self.next_line()? else { return Ok(None) };
            record.start(line.number);
            if line.too_long {
                return Ok(Some(Err(Rejected { line: line.number, reason: LINE_TOO_LONG })));
            }
            if !line.bytes.trim_ascii().is_empty() {
                let outcome = match self.read_clean(&line.bytes, record) {
                    true => Ok(()),
                    false => self.mend(&line, record)?,
                };
                self.spare.push(line.bytes);
                return Ok(Some(outcome));
            }
            self.spare.push(line.bytes);
        }
    }

    /// Reads a line with its quotes in order, the right number of fields, and text in UTF-8: nearly all are such.
    fn read_clean(&mut self, line: &[u8], record: &mut Record) -> bool {
        let has_quotes = memchr(b'"', line).is_some();
        // csv-core takes a mark of the byte order for none of the text, wherever it begins anew.
        if line.starts_with(BOM) || has_quotes && !quotes_are_in_order(line) {
            return false;
        }
        self.split.resize(line.len().max(self.split.len()), 0);
        self.split_ends.resize(self.columns + 1, 0);
        let (_, _, written, ends) = self.core.read_record(line, &mut self.split, &mut self.split_ends);
        let rest = (&mut self.split[written..], &mut self.split_ends[ends..]);
        let (result, _, more, more_ends) = self.core.read_record(b"\n", rest.0, rest.1);
        if result != ReadRecordResult::Record || ends + more_ends != self.columns {
            self.core.reset();
            return false;
        }
        let Ok(text) = std::str::from_utf8(&self.split[..written + more]) else { return false };
        let (mut start, mut raw) = (0, 0);
        for &end in &self.split_ends[..self.columns] {
            let Some(field) = text.get(start..end) else { return false };
            let is_quoted = has_quotes && line.get(raw) == Some(&b'"');
            raw += field.len() + 1;
            if is_quoted {
                raw += 2 + memchr_iter(b'"', field.as_bytes()).count();
            }
            record.push(if is_quoted { field } else { trim(field) });
            start = end;
        }
        true
    }

    /// Reads a line that needs to be looked at closely, with those that belong to it.
    fn mend(&mut self, line: &Line, record: &mut Record) -> io::Result<Result<(), Rejected>> {
        record.start(line.number);
        let plain = split(&line.bytes, Quotes::AsTheyStand);
        if plain.is_whole() {
            return Ok(self.take(&plain, None, record));
        }
        if plain.open && !plain.stray && plain.fields.len() == self.columns {
            return Ok(self.take(&plain, Some(Repair::ClosingQuote), record));
        }
        let mended = split(&line.bytes, Quotes::EndBeforeNext);
        if mended.fields.len() == self.columns && !mended.stray {
            return Ok(self.take(&mended, Some(Repair::ClosingQuote), record));
        }
        if plain.open && !plain.stray {
            if let Some(joined) = self.join(line)? {
                return Ok(self.take(&split(&joined, Quotes::AsTheyStand), None, record));
            }
        }
        if plain.stray && plain.fields.len() == self.columns {
            // Quotes inside a quoted text, not doubled: the text is plain all the same.
            let repair = plain.open.then_some(Repair::ClosingQuote);
            return Ok(self.take(&plain, repair, record));
        }
        Ok(Err(Rejected { line: line.number, reason: miscount(plain.fields.len(), self.columns) }))
    }

    /// Joins following lines to one whose quote is open, until the fields fit. None, and nothing consumed, when
    /// they don't before a line starts like a record.
    fn join(&mut self, first: &Line) -> io::Result<Option<Vec<u8>>> {
        let mut joined = first.bytes.clone();
        for count in 0..CSV_JOIN_LINES_MAX {
            if !self.look_ahead(count + 1)? {
                return Ok(None);
            }
            let next = &self.ahead[count];
            let is_too_long = next.too_long || joined.len() + next.bytes.len() > CSV_LINE_SIZE_MAX_BYTES;
            if is_too_long || starts_like_record(&next.bytes) {
                return Ok(None);
            }
            joined.push(b'\n');
            joined.extend_from_slice(&next.bytes);
            let split = split(&joined, Quotes::AsTheyStand);
            if split.stray {
                return Ok(None);
            }
            if split.is_whole() {
                if split.fields.len() != self.columns {
                    return Ok(None);
                }
                self.ahead.drain(..=count);
                return Ok(Some(joined));
            }
        }
        Ok(None)
    }

    /// Takes over the fields of a line that was split here.
    fn take(&self, split: &Split, repair: Option<Repair>, record: &mut Record) -> Result<(), Rejected> {
        if split.fields.len() != self.columns {
            let reason = miscount(split.fields.len(), self.columns);
            return Err(Rejected { line: record.line, reason });
        }
        record.repairs.extend(repair);
        if split.fields.iter().all(|field| std::str::from_utf8(field).is_ok()) {
            split.fields.iter().for_each(|field| record.push(&text(field)));
        } else {
            // One that is not UTF-8 is none in all of its fields.
            split.fields.iter().for_each(|field| record.push(&from_windows_1252(field)));
            record.repairs.push(Repair::Windows1252);
        }
        Ok(())
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read_line(),
        }
    }

    fn look_ahead(&mut self, count: usize) -> io::Result<bool> {
        while self.ahead.len() < count {
            match self.read_line()? {
                Some(line) => self.ahead.push_back(line),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One physical line without its end; a line over the limit keeps only its beginning.
    fn read_line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        let mut too_long = false;
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                if bytes.is_empty() && !too_long {
                    return Ok(None);
                }
                break;
            }
            let end = memchr(b'\n', chunk);
            let len = end.unwrap_or(chunk.len());
            let room = CSV_LINE_SIZE_MAX_BYTES.saturating_sub(bytes.len());
            too_long |= len > room;
            bytes.extend_from_slice(&chunk[..len.min(room)]);
            let consumed = end.map_or(len, |at| at + 1);
            self.input.consume(consumed);
            if end.is_some() {
                break;
            }
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        self.lines_read += 1;
        Ok(Some(Line { number: self.lines_read, bytes, too_long }))
    }
}

fn miscount(found: usize, expected: usize) -> &'static str {
    if found < expected {
        FIELDS_MISSING
    } else {
        TOO_MANY_FIELDS
    }
}

/// Digits, then a separator.
fn starts_like_record(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && line[digits..].trim_ascii_start().first() == Some(&b',')
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| from_windows_1252(bytes), Cow::Borrowed)
}

fn from_windows_1252(bytes: &[u8]) -> Cow<'_, str> {
    WINDOWS_1252.decode_without_bom_handling(bytes).0
}

/// A field without quotes: without the blanks before it, and whatever is white behind it.
fn trim(field: &str) -> &str {
    field.trim_start_matches([' ', '\t']).trim_end_matches(|c: char| c.is_ascii_whitespace())
}

/// Every quote opens a field, closes it, or is doubled in it, with no blanks between.
fn quotes_are_in_order(line: &[u8]) -> bool {
    let mut at = 0;
    while let Some(open) = memchr(b'"', &line[at..]).map(|n| at + n) {
        if open > 0 && line[open - 1] != b',' {
            return false;
        }
        at = open + 1;
        loop {
            let Some(quote) = memchr(b'"', &line[at..]).map(|n| at + n) else { return false };
            at = quote + 2;
            match line.get(quote + 1) {
                None => return true,
                Some(b'"') => {}
                Some(b',') => break,
                Some(_) => return false,
            }
        }
    }
    true
}

/// How an open quote may end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// At a quote before a separator or the end.
    AsTheyStand,
    /// Also before `,"` or `, "`: the closing one was lost.
    EndBeforeNext,
}

struct Split {
    fields: Vec<Vec<u8>>,
    /// A quote is open at the end.
    open: bool,
    /// A quote stands inside a quoted text without being doubled.
    stray: bool,
}

impl Split {
    fn is_whole(&self) -> bool {
        !self.open && !self.stray
    }
}

fn split(line: &[u8], quotes: Quotes) -> Split {
    let mut split = Split { fields: Vec::new(), open: false, stray: false };
    let mut at = 0;
    loop {
        while at < line.len() && matches!(line[at], b' ' | b'\t') {
            at += 1;
        }
        at = if line.get(at) == Some(&b'"') {
            split_quoted(line, at + 1, quotes, &mut split)
        } else {
            split_bare(line, at, &mut split)
        };
        if at >= line.len() {
            return split;
        }
        at += 1;
    }
}

/// A field without quotes; returns where its separator is.
fn split_bare(line: &[u8], start: usize, split: &mut Split) -> usize {
    let end = memchr(b',', &line[start..]).map_or(line.len(), |n| start + n);
    split.fields.push(line[start..end].trim_ascii_end().to_vec());
    end
}

/// A field after its opening quote; returns where its separator is.
fn split_quoted(line: &[u8], start: usize, quotes: Quotes, split: &mut Split) -> usize {
    let mut field = Vec::new();
    let mut at = start;
    while at < line.len() {
        match line[at] {
            b'"' if line.get(at + 1) == Some(&b'"') => {
                field.push(b'"');
                at += 2;
            }
            b'"' => match end_after_quote(line, at + 1) {
                Some(end) => {
                    split.fields.push(field);
                    return end;
                }
                None => {
                    split.stray = true;
                    field.push(b'"');
                    at += 1;
                }
            },
            b',' if quotes == Quotes::EndBeforeNext && opens_next(line, at + 1) => {
                split.fields.push(field);
                return at;
            }
            byte => {
                field.push(byte);
                at += 1;
            }
        }
    }
    split.open = true;
    split.fields.push(field);
    line.len()
}

/// The separator or end that follows a closing quote, blanks aside.
fn end_after_quote(line: &[u8], at: usize) -> Option<usize> {
    let blanks = line[at..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    match line.get(at + blanks) {
        None => Some(line.len()),
        Some(b',') => Some(at + blanks),
        Some(_) => None,
    }
}

/// A quote that opens a field: not doubled, blanks aside.
fn opens_next(line: &[u8], at: usize) -> bool {
    let blanks = line[at..].iter().take_while(|b| **b == b' ').count();
    line.get(at + blanks) == Some(&b'"') && line.get(at + blanks + 1) != Some(&b'"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a line of a file holds, with the repairs.
    type Item = Result<(u64, Vec<String>, Vec<Repair>), Rejected>;

    fn items(text: &[u8]) -> Vec<Item> {
        let (mut reader, _) = Reader::open(text).unwrap();
        let mut record = Record::default();
        std::iter::from_fn(|| {
            let outcome = reader.read(&mut record).unwrap()?;
            let fields = record.fields().map(str::to_string).collect();
            Some(outcome.map(|()| (record.line, fields, record.repairs.clone())))
        })
        .collect()
    }

    fn fields(text: &str) -> Vec<Vec<String>> {
        items(text.as_bytes()).into_iter().map(|item| item.unwrap().1).collect()
    }

    #[test]
    fn clean_and_loosely_written_records() {
        let expected = vec![vec!["1", "a, b", "c"], vec!["2", "say \"hi\"", "5'10\" #"]];
        assert_eq!(fields("id,x,y\n1,\"a, b\",c\n2,\"say \"\"hi\"\"\",5'10\" #\n"), expected);
        assert_eq!(
            fields("\u{feff}id, x, y\r\n1, \"a, b\" , c \r\n\r\n2, \"say \"\"hi\"\"\",5'10\" #"),
            expected
        );
    }

    #[test]
    fn a_quote_open_at_the_end_is_closed_where_the_fields_fit() {
        let all = items(b"id,x,y\n1,\"a\",\"b\n2,\"c\",\"d\"\n");
        let (_, fields, repairs) = all[0].as_ref().unwrap();
        assert_eq!((fields.join("|"), &repairs[..]), ("1|a|b".into(), &[Repair::ClosingQuote][..]));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_quote_lost_in_the_middle_is_closed_before_the_next() {
        for text in ["id,x,y\n1,\"a,\"b\"\n", "id, x, y\n1, \"a, \"b\"\n"] {
            let (_, fields, repairs) = items(text.as_bytes()).remove(0).unwrap();
            assert_eq!((fields.join("|"), repairs.len()), ("1|a|b".into(), 1), "{text}");
        }
    }

    #[test]
    fn a_quote_open_behind_others_is_a_repair_too() {
        let (_, fields, repairs) = items(b"id,x,y\n1,a,\"the 5\" one\n").remove(0).unwrap();
        assert_eq!((fields.join("|"), &repairs[..]), ("1|a|the 5\" one".into(), &[Repair::ClosingQuote][..]));
    }

    #[test]
    fn quoted_newlines_are_joined_and_never_swallow_a_record() {
        assert_eq!(
            fields("id,x,y\n1,\"a\nb\",c\n2,d,e\n"),
            vec![vec!["1", "a\nb", "c"], vec!["2", "d", "e"]]
        );
        let all = items(b"id,x,y\n1,\"a\n2,d,e\n");
        assert_eq!(all[0], Err(Rejected { line: 2, reason: FIELDS_MISSING }));
        assert_eq!(all[1].as_ref().unwrap().0, 3);
    }

    #[test]
    fn miscounted_fields_are_rejected_with_their_line() {
        let all = items(b"id,x\n1\n2,a,b\n3,c\n");
        assert_eq!(all[0], Err(Rejected { line: 2, reason: FIELDS_MISSING }));
        assert_eq!(all[1], Err(Rejected { line: 3, reason: TOO_MANY_FIELDS }));
        assert_eq!(all[2].as_ref().unwrap().0, 4);
    }

    #[test]
    fn text_that_is_not_utf8_is_windows_1252() {
        let (_, fields, repairs) = items(b"id,x\n1,Caf\xE9\n").remove(0).unwrap();
        assert_eq!((fields[1].as_str(), &repairs[..]), ("Café", &[Repair::Windows1252][..]));
        // One that is not UTF-8 is none in all of its fields; and a character whose bytes are in two fields is none.
        assert_eq!(
            items(
                "id,x\n\u{e9},Caf"
                    .as_bytes()
                    .iter()
                    .copied()
                    .chain([0xE9, b'\n'])
                    .collect::<Vec<_>>()
                    .as_slice()
            )
            .remove(0)
            .unwrap()
            .1,
            ["Ã©", "Café"]
        );
        assert_eq!(items(b"id,x\n1\xC3,\xA9\n").remove(0).unwrap().1, ["1Ã", "©"]);
    }

    /// Quotes and commas, or several lines. Not both, and never lines in the last field: there a quote open at a
    /// line's end is closed when the fields fit.
    fn text_or_lines() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z,\" é]{0,12}", "[a-z\n]{0,12}"]
    }

    proptest! {
        #[test]
        fn what_is_written_properly_is_read_back(rows in proptest::collection::vec((text_or_lines(), "[a-z,\" é]{0,12}"), 1..8)) {
            let quote = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
            let mut text = String::from("id,x,y\n");
            for (n, (a, b)) in rows.iter().enumerate() {
                text += &format!("{n},{},{}\n", quote(a), quote(b));
            }
            let read = fields(&text);
            let expected: Vec<Vec<String>> = rows.iter().enumerate().map(|(n, (a, b))| vec![n.to_string(), a.clone(), b.clone()]).collect();
            prop_assert_eq!(read, expected);
        }

        /// Whatever csv-core is trusted with, the splitting here makes the same of.
        #[test]
        fn both_ways_of_splitting_agree(line in "[a-c,\"\t é]{0,24}") {
            let columns = split(line.as_bytes(), Quotes::AsTheyStand).fields.len();
            let header = vec!["c"; columns].join(",") + "\n";
            let (mut reader, _) = Reader::open(header.as_bytes()).unwrap();
            let (mut fast, mut slow) = (Record::default(), Record::default());
            if reader.read_clean(line.as_bytes(), &mut fast) {
                let line = Line { number: 0, bytes: line.into_bytes(), too_long: false };
                prop_assert_eq!(reader.mend(&line, &mut slow).unwrap(), Ok(()));
                prop_assert_eq!(fast.fields().collect::<Vec<_>>(), slow.fields().collect::<Vec<_>>());
                prop_assert_eq!(fast.repairs, slow.repairs);
            }
        }

        #[test]
        fn no_input_panics_or_loops(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(items(&bytes).len() <= bytes.len() + 1);
        }
    }
}
