//! Ids of paths and numbers of queries, read as the old service's clients send them.
//! Runs in: worker.

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

/// `page` and `count` of a list, as requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub page: i64,
    pub count: i64,
}

/// Which parameter can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadParameter {
    Page,
    Count,
}

impl Page {
    /// Reads a query: page from 1, 5 a page unless said otherwise. Empty values count as absent; values beyond
    /// i64 are as large as can be.
    pub fn read(query: &str) -> Result<Page, BadParameter> {
        let mut page = Page { page: 1, count: 5 };
        // The first of a repeated parameter counts.
        let (mut page_seen, mut count_seen) = (false, false);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "page" if !page_seen && !value.is_empty() => {
                    page.page = number(&value).filter(|n| *n >= 1).ok_or(BadParameter::Page)?;
                    page_seen = true;
                }
                "count" if !count_seen && !value.is_empty() => {
                    page.count = number(&value).ok_or(BadParameter::Count)?;
                    count_seen = true;
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// Rows before the page.
    pub fn offset(self) -> u64 {
        ((self.page - 1) as u64).saturating_mul(self.count as u64)
    }
}

/// Digits only; saturating.
fn number(text: &str) -> Option<i64> {
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

    #[test]
    fn pages_as_clients_send_them() {
        let read = |q| Page::read(q).map(|p| (p.page, p.count));
        assert_eq!(read(""), Ok((1, 5)));
        assert_eq!(read("page=2&count=4"), Ok((2, 4)));
        assert_eq!(read("count=9007199254740991"), Ok((1, 9007199254740991)));
        assert_eq!(read("count=99999999999999999999999"), Ok((1, i64::MAX)));
        assert_eq!(read("count=0&page="), Ok((1, 0)));
        assert_eq!(read("count=3&count=7&x=%zz"), Ok((1, 3)));
        for (query, bad) in [
            ("page=0", BadParameter::Page),
            ("page=-1", BadParameter::Page),
            ("page=abc", BadParameter::Page),
            ("count=abc", BadParameter::Count),
            ("count=-5", BadParameter::Count),
            ("count=1.5", BadParameter::Count),
        ] {
            assert_eq!(read(query), Err(bad), "{query}");
        }
    }

    #[test]
    fn offsets_never_overflow() {
        assert_eq!(Page { page: 2, count: 4 }.offset(), 4);
        assert_eq!(Page { page: i64::MAX, count: i64::MAX }.offset(), u64::MAX);
    }
}
