//! Physical lines to records, with the quoting damage of real archives mended where that is certain.
//! Runs in: offline. No I/O of its own beyond `BufRead`; memory is one record.
//!
//! A general CSV reader gives fields but not where a quote stood open, and takes a quote after a blank for text;
//! both are what mending needs, so the splitting is done here.

use std::io::{self, BufRead};

use encoding_rs::WINDOWS_1252;
use memchr::memchr;

use crate::limits::{CSV_JOIN_LINES_MAX, CSV_LINE_SIZE_MAX_BYTES};

/// What had to be mended in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    ClosingQuote,
    CurrencySign,
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

/// A record: its fields, unquoted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// First physical line; the header is line 1.
    pub line: u64,
    pub fields: Vec<String>,
    pub repairs: Vec<Repair>,
}

/// What a position of the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Record(Record),
    Reject { line: u64, reason: &'static str },
}

pub const FIELDS_MISSING: &str = "fields missing";
pub const TOO_MANY_FIELDS: &str = "too many fields";
const LINE_TOO_LONG: &str = "line too long";

/// Reads records of a file with a header.
pub struct Reader<R> {
    input: R,
    /// Lines read ahead, oldest first.
    ahead: std::collections::VecDeque<Line>,
    lines_read: u64,
    columns: usize,
}

struct Line {
    number: u64,
    bytes: Vec<u8>,
    too_long: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header; returns its names as they stand, without quotes and blanks.
    pub fn open(input: R) -> io::Result<(Reader<R>, Vec<String>)> {
        let mut reader = Reader { input, ahead: Default::default(), lines_read: 0, columns: 0 };
        let header = reader.next_line()?.map(|l| l.bytes).unwrap_or_default();
        let header = header.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&header);
        let names: Vec<String> =
            split(header, Quotes::AsTheyStand).fields.iter().map(|f| text(f).0.trim().to_string()).collect();
        reader.columns = names.len();
        Ok((reader, names))
    }

    /// The next record or rejected line; None at the end. Empty lines are passed over.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(line) = self.next_line()? else { return Ok(None) };
            if line.too_long {
                return Ok(Some(Item::Reject { line: line.number, reason: LINE_TOO_LONG }));
            }
            if !line.bytes.trim_ascii().is_empty() {
                return self.read_record(line).map(Some);
            }
        }
    }

    fn read_record(&mut self, line: Line) -> io::Result<Item> {
        let plain = split(&line.bytes, Quotes::AsTheyStand);
        if plain.is_whole() {
            return Ok(self.check(line.number, &plain, &[]));
        }
        if plain.open && !plain.stray && plain.fields.len() == self.columns {
            return Ok(self.check(line.number, &plain, &[Repair::ClosingQuote]));
        }
        let mended = split(&line.bytes, Quotes::EndBeforeNext);
        if mended.fields.len() == self.columns && !mended.stray {
            return Ok(self.check(line.number, &mended, &[Repair::ClosingQuote]));
        }
        if plain.open {
            if let Some(joined) = self.join(&line)? {
                return Ok(self.check(line.number, &split(&joined, Quotes::AsTheyStand), &[]));
            }
        }
        if plain.stray && plain.fields.len() == self.columns {
            // Quotes inside a quoted text, not doubled: the text is plain all the same.
            return Ok(self.check(line.number, &plain, &[]));
        }
        Ok(Item::Reject { line: line.number, reason: miscount(plain.fields.len(), self.columns) })
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
            if next.too_long || starts_like_record(&next.bytes) {
                return Ok(None);
            }
            joined.push(b'\n');
            joined.extend_from_slice(&next.bytes);
            let split = split(&joined, Quotes::AsTheyStand);
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

    fn check(&self, line: u64, split: &Split, repairs: &[Repair]) -> Item {
        if split.fields.len() != self.columns {
            return Item::Reject { line, reason: miscount(split.fields.len(), self.columns) };
        }
        let mut record = Record { line, fields: Vec::with_capacity(self.columns), repairs: repairs.to_vec() };
        let mut decoded = false;
        for field in &split.fields {
            let (text, foreign) = text(field);
            decoded |= foreign;
            record.fields.push(text);
        }
        if decoded {
            record.repairs.push(Repair::Windows1252);
        }
        Item::Record(record)
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
        let mut bytes = Vec::new();
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

/// A field as text, and whether it had to be decoded.
fn text(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_string(), false),
        Err(_) => (WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(), true),
    }
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

    fn items(text: &[u8]) -> Vec<Item> {
        let (mut reader, _) = Reader::open(text).unwrap();
        std::iter::from_fn(|| reader.next_item().unwrap()).collect()
    }

    fn fields(text: &str) -> Vec<Vec<String>> {
        let record = |item| match item {
            Item::Record(r) => r.fields,
            other => panic!("{other:?}"),
        };
        items(text.as_bytes()).into_iter().map(record).collect()
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
        let Item::Record(first) = &all[0] else { panic!() };
        assert_eq!(
            (first.fields.join("|"), &first.repairs[..]),
            ("1|a|b".into(), &[Repair::ClosingQuote][..])
        );
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_quote_lost_in_the_middle_is_closed_before_the_next() {
        for text in ["id,x,y\n1,\"a,\"b\"\n", "id, x, y\n1, \"a, \"b\"\n"] {
            let Item::Record(r) = &items(text.as_bytes())[0] else { panic!("{text}") };
            assert_eq!((r.fields.join("|"), r.repairs.len()), ("1|a|b".into(), 1), "{text}");
        }
    }

    #[test]
    fn quoted_newlines_are_joined_and_never_swallow_a_record() {
        assert_eq!(
            fields("id,x,y\n1,\"a\nb\",c\n2,d,e\n"),
            vec![vec!["1", "a\nb", "c"], vec!["2", "d", "e"]]
        );
        let all = items(b"id,x,y\n1,\"a\n2,d,e\n");
        assert_eq!(all[0], Item::Reject { line: 2, reason: FIELDS_MISSING });
        assert!(matches!(&all[1], Item::Record(r) if r.line == 3));
    }

    #[test]
    fn miscounted_fields_are_rejected_with_their_line() {
        let all = items(b"id,x\n1\n2,a,b\n3,c\n");
        assert_eq!(all[0], Item::Reject { line: 2, reason: FIELDS_MISSING });
        assert_eq!(all[1], Item::Reject { line: 3, reason: TOO_MANY_FIELDS });
        assert!(matches!(&all[2], Item::Record(r) if r.line == 4));
    }

    #[test]
    fn text_that_is_not_utf8_is_windows_1252() {
        let Item::Record(r) = &items(b"id,x\n1,Caf\xE9\n")[0] else { panic!() };
        assert_eq!((r.fields[1].as_str(), &r.repairs[..]), ("Café", &[Repair::Windows1252][..]));
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

        #[test]
        fn no_input_panics_or_loops(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(items(&bytes).len() <= bytes.len() + 1);
        }
    }
}
