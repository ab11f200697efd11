//! Ids of paths and numbers of queries, read as the old service's clients send them.
//! Runs in: worker.

use std::borrow::Cow;
use std::fmt::Display;

use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};

/// What is not escaped in a path (RFC 3986: unreserved characters and the slash).
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A path for a URL or a log: nothing in it that ends it, or that a terminal takes for its own.
pub fn escaped(path: &str) -> impl Display + '_ {
    utf8_percent_encode(path, PATH)
}

/// An id in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    Number(i64),
    /// A number that no id can be: such a product does not exist.
    OutOfRange,
    NotANumber,
}

/// Reads an id: digits, with a sign if need be.
pub fn id(text: &str) -> Id {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Id::NotANumber;
    }
    text.parse().map_or(Id::OutOfRange, Id::Number)
}

/// Which parameter can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadParameter {
    Page,
    Count,
    Cursor,
    /// A category or words that no product can have.
    Text,
    /// A list of ids.
    Ids,
    /// The product or question whose list it is.
    Owner,
}

/// The values of `names` in a query: the first of each that is not empty.
pub fn parameters<'q, const N: usize>(query: &'q str, names: [&str; N]) -> [Option<Cow<'q, str>>; N] {
    let mut values = [const { None }; N];
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if let Some(at) = names.iter().position(|name| *name == key) {
            if values[at].is_none() && !value.is_empty() {
                values[at] = Some(value);
            }
        }
    }
    values
}

/// Digits, with a sign if need be; as large or small as can be beyond i64.
pub fn whole_number(text: &str) -> Option<i64> {
    match id(text) {
        Id::Number(number) => Some(number),
        Id::OutOfRange if text.starts_with('-') => Some(i64::MIN),
        Id::OutOfRange => Some(i64::MAX),
        Id::NotANumber => None,
    }
}

/// Digits only; saturating.
pub fn number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_clients_send_them() {
        assert_eq!(id("17"), Id::Number(17));
        assert_eq!(id("-1"), Id::Number(-1));
        assert_eq!(id("99999999999999999999"), Id::OutOfRange);
        for text in ["", "-", "abc", "1a", "5.55", "null", "+1", "１"] {
            assert_eq!(id(text), Id::NotANumber, "{text}");
        }
    }
}
