//! What a request asks for beyond a product's own answers: pages of lists, and what reviews come to. Read from the query,
//! turned into a cache key where many ask for the same, into rows to be read, and into links to the pages beside it.
//! Runs in: worker.

use std::borrow::Cow;
use std::fmt::Write;

use crate::api::params::{number, whole_number, BadParameter};
use crate::cache::{Key, Kind};
use crate::catalogue::{Edge, Page, Review, View};
use crate::db::products::Filter;
use crate::db::reviews::Sort;
use crate::db::slice::{Cursor, Place, Slice};
use crate::limits::{LIST_CACHED_COUNT_MAX, LIST_COUNT_MAX, SEARCH_SIZE_MAX_BYTES};

/// Times that PostgreSQL holds, in microseconds since the Unix epoch.
const TIMES_US: std::ops::Range<i64> = -210_866_803_200_000_000..9_223_371_331_200_000_000;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    Products,
    Meta,
    Reviews(Sort),
    Questions,
    /// Of a question.
    Answers,
}

impl Noun {
    pub fn kind(self) -> Kind {
        match self {
            Noun::Products => Kind::List,
            Noun::Meta => Kind::Meta,
            Noun::Reviews(_) => Kind::Reviews,
            Noun::Questions => Kind::Questions,
            Noun::Answers => Kind::Answers,
        }
    }
}

/// What is asked for. `owner`: the product or question whose list it is; `echo`: it as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'q> {
    pub noun: Noun,
    pub owner: i64,
    pub echo: Cow<'q, str>,
    pub page: i64,
    pub count: i64,
    pub cursor: Option<Cursor>,
    /// Of products.
    pub filter: Filter,
}

impl Default for Query<'_> {
    fn default() -> Self {
        let (echo, filter) = (Cow::Borrowed(""), Filter::default());
        Query { noun: Noun::Products, owner: 0, echo, page: 1, count: 5, cursor: None, filter }
    }
}

impl<'q> Query<'q> {
    /// Reads page, count, sort and cursor. Empty values count as absent; the first of a repeated parameter counts; values
    /// beyond i64 are as large as can be.
    ///
    /// # Errors
    /// The parameter that can't be read.
    pub fn read(noun: Noun, query: &str) -> Result<Query<'q>, BadParameter> {
        let mut read = Query { noun, ..Query::default() };
        let (mut page, mut count, mut sort, mut cursor) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
            match &*name {
                "page" => page = page.or(Some(value)),
                "count" => count = count.or(Some(value)),
                "sort" => sort = sort.or(Some(value)),
                "cursor" => cursor = cursor.or(Some(value)),
                "category" if read.filter.category.is_none() => read.filter.category = Some(text(value)?),
                "q" if read.filter.words.is_none() => read.filter.words = Some(text(value)?),
                _ => {}
            }
        }
        if noun != Noun::Products {
            read.filter = Filter::default();
        }
        if let Some(text) = page {
            read.page = number(&text).filter(|n| *n >= 1).ok_or(BadParameter::Page)?;
        }
        if let Some(text) = count {
            read.count = number(&text).ok_or(BadParameter::Count)?;
        }
        if let (Noun::Reviews(_), Some(word)) = (noun, sort) {
            read.noun = Noun::Reviews(Sort::read(&word));
        }
        if let Some(text) = cursor {
            read.cursor = Some(read_cursor(read.noun, &text).ok_or(BadParameter::Cursor)?);
        }
        Ok(read)
    }

    /// Of this owner, as it was sent.
    ///
    /// # Errors
    /// It is no whole number. One beyond i64 is nobody's, like any that does not exist.
    pub fn of(self, echo: Cow<'q, str>) -> Result<Query<'q>, BadParameter> {
        let owner = whole_number(&echo).ok_or(BadParameter::Owner)?;
        Ok(Query { owner, echo, ..self })
    }

    /// What a key of a list, or of what reviews come to, asks for.
    pub fn of_key(key: Key) -> Option<Query<'static>> {
        let count = i64::from(key.variant);
        let query = |noun, count| Query {
            noun,
            owner: key.id,
            echo: Cow::Owned(key.id.to_string()),
            count,
            ..Query::default()
        };
        Some(match key.kind {
            Kind::Product | Kind::Styles | Kind::Related => return None,
            Kind::List => Query { page: key.id / count.max(1) + 1, owner: 0, ..query(Noun::Products, count) },
            Kind::Meta => query(Noun::Meta, 0),
            Kind::Reviews => {
                let sort = Sort::ALL.into_iter().find(|sort| *sort as i64 == count >> 8)?;
                query(Noun::Reviews(sort), count & 0xFF)
            }
            Kind::Questions => query(Noun::Questions, count),
            Kind::Answers => query(Noun::Answers, count),
        })
    }

    /// The key under which the answer is kept: for any page of products, and else the first, of at most a hundred rows.
    pub fn key(&self) -> Option<Key> {
        let count = u16::try_from(self.count).ok().filter(|_| self.count <= LIST_CACHED_COUNT_MAX);
        if self.cursor.is_some() || !self.filter.is_empty() {
            return None;
        }
        if self.noun == Noun::Products {
            return Some(Key::variant(Kind::List, self.skip(), count?));
        }
        // Another way to write the same number has an answer of its own: it is echoed.
        let is_plain = itoa::Buffer::new().format(self.owner) == self.echo;
        match self.noun {
            _ if !is_plain => None,
            Noun::Meta => Some(Key::new(Kind::Meta, self.owner)),
            _ if self.page != 1 => None,
            Noun::Reviews(sort) => Some(Key::variant(Kind::Reviews, self.owner, (sort as u16) << 8 | count?)),
            Noun::Questions => Some(Key::variant(Kind::Questions, self.owner, count?)),
            Noun::Answers => Some(Key::variant(Kind::Answers, self.owner, count?)),
            Noun::Products => None,
        }
    }

    /// Whether it is a page of products that is too long to be kept, or to be made in one piece.
    pub fn is_streamed(&self) -> bool {
        let is_plain = self.cursor.is_none() && self.filter.is_empty();
        self.noun == Noun::Products && self.count > LIST_CACHED_COUNT_MAX && is_plain
    }

    /// Rows before the page, by page and count as requested; of products, by the count that is answered, so that pages follow one
    /// another without a gap.
    pub fn skip(&self) -> i64 {
        let count = if self.noun == Noun::Products { self.count.min(LIST_COUNT_MAX) } else { self.count };
        (self.page - 1).saturating_mul(count)
    }

    /// Rows of the page.
    pub fn count(&self) -> i64 {
        self.count.min(LIST_COUNT_MAX)
    }

    /// The rows to be read.
    pub fn slice(&self) -> Slice {
        let skip = if self.cursor.is_some() { 0 } else { self.skip() };
        Slice { owner: self.owner, count: self.count(), skip, from: self.cursor.clone() }
    }

    /// The query with what it borrows made its own.
    pub fn into_owned(self) -> Query<'static> {
        Query { echo: Cow::Owned(self.echo.into_owned()), ..self }
    }

    /// The `Link` line to the pages beside the one that `view` is (RFC 8288); empty where there are none.
    pub fn links(&self, view: &View) -> String {
        self.link_line(ends(self.noun, view))
    }

    fn link_line(&self, Ends { first, last, more }: Ends) -> String {
        let (forwards, backwards) = match &self.cursor {
            None => (more, false),
            Some(Cursor { backwards: false, .. }) => (more, true),
            Some(Cursor { backwards: true, .. }) => (true, more),
        };
        let mut line = String::new();
        if let Some(place) = last.filter(|_| forwards) {
            self.write_link(&mut line, &cursor_text(&Cursor { backwards: false, place }), "next");
        }
        if let Some(place) = first.filter(|_| backwards) {
            self.write_link(&mut line, &cursor_text(&Cursor { backwards: true, place }), "prev");
        } else if self.cursor.is_none() && self.page > 1 && self.count > 0 {
            self.write_link(&mut line, &format!("page={}", self.page - 1), "prev");
        }
        if !line.is_empty() {
            line.push_str("\r\n");
        }
        line
    }

    /// The `Link` line of a page of products of which only the last is known, if there are others behind it.
    pub fn links_beside(&self, last: Option<i64>) -> String {
        let ends = Ends { first: None, last: last.map(Place::Id), more: last.is_some() };
        self.link_line(ends)
    }

    fn write_link(&self, line: &mut String, place: &str, rel: &str) {
        line.push_str(if line.is_empty() { "Link: <?" } else { ", <?" });
        let mut written = Ok(());
        match self.noun {
            Noun::Reviews(sort) => {
                written = write!(line, "product_id={}&sort={}&", self.owner, sort.word());
            }
            Noun::Questions => written = write!(line, "product_id={}&", self.owner),
            Noun::Products => {
                let values = [("category", &self.filter.category), ("q", &self.filter.words)];
                for (name, value) in
                    values.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
                {
                    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
                    line.extend([name, "=", &value, "&"]);
                }
            }
            Noun::Answers | Noun::Meta => {}
        }
        written
            .and_then(|()| write!(line, "count={}&{place}>; rel=\"{rel}\"", self.count))
            .expect("a string takes everything");
    }
}

/// A text that the database can look for.
fn text(sent: Cow<'_, str>) -> Result<String, BadParameter> {
    match sent.contains('\0') || sent.len() > SEARCH_SIZE_MAX_BYTES {
        true => Err(BadParameter::Text),
        false => Ok(sent.into_owned()),
    }
}

/// The first and the last row's places, and whether there is more beyond.
#[derive(Default)]
struct Ends {
    first: Option<Place>,
    last: Option<Place>,
    more: bool,
}

fn ends(noun: Noun, view: &View) -> Ends {
    fn of<T>(page: &Page<T>, place: impl Fn(&T) -> Place) -> Ends {
        Ends { first: page.rows.first().map(&place), last: page.rows.last().map(&place), more: page.more }
    }
    match view {
        View::List(page) => of(page, |product| Place::Id(product.id)),
        View::Questions(page) => of(page, |q| Place::Helpful { helpful: q.helpful, id: q.id }),
        View::Answers(page) => of(page, |a| Place::Helpful { helpful: a.helpful, id: a.id }),
        View::Reviews(page, edge) => of(page, |r| place_of(noun, r, *edge)),
        _ => Ends::default(),
    }
}

fn place_of(noun: Noun, review: &Review, edge: Option<Edge>) -> Place {
    let Review { helpfulness, date_us, id, .. } = *review;
    match (noun, edge) {
        (Noun::Reviews(Sort::Newest), _) => Place::Date { date_us, id },
        (_, Some(edge)) => {
            Place::Relevance { is_rest: Edge { date_us, id } < edge, helpfulness, date_us, id, edge }
        }
        (_, None) => Place::Helpfulness { helpfulness, date_us, id },
    }
}

/// `cursor=a.` (after) or `cursor=b.` (before) and the place's numbers.
fn cursor_text(cursor: &Cursor) -> String {
    let way = if cursor.backwards { 'b' } else { 'a' };
    let numbers = match cursor.place {
        Place::Id(id) => vec![id],
        Place::Date { date_us, id } => vec![date_us, id],
        Place::Helpfulness { helpfulness, date_us, id } => vec![helpfulness, date_us, id],
        Place::Relevance { is_rest, helpfulness, date_us, id, edge } => {
            vec![i64::from(is_rest), helpfulness, date_us, id, edge.date_us, edge.id]
        }
        Place::Helpful { helpful, id } => vec![helpful, id],
    };
    numbers.iter().fold(format!("cursor={way}"), |text, number| format!("{text}.{number}"))
}

fn read_cursor(noun: Noun, text: &str) -> Option<Cursor> {
    let (way, numbers) = text.split_once('.')?;
    let backwards = match way {
        "a" => false,
        "b" => true,
        _ => return None,
    };
    let numbers: Vec<i64> = numbers.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let place = match (noun, &numbers[..]) {
        (Noun::Products, &[id]) => Place::Id(id),
        (Noun::Reviews(Sort::Newest), &[date_us, id]) => Place::Date { date_us, id },
        (Noun::Reviews(Sort::Helpful), &[helpfulness, date_us, id]) => {
            Place::Helpfulness { helpfulness, date_us, id }
        }
        (Noun::Reviews(Sort::Relevant), &[is_rest @ 0..=1, helpfulness, date_us, id, edge_us, edge_id]) => {
            let edge = Edge { date_us: edge_us, id: edge_id };
            Place::Relevance { is_rest: is_rest == 1, helpfulness, date_us, id, edge }
        }
        (Noun::Questions | Noun::Answers, &[helpful, id]) => Place::Helpful { helpful, id },
        _ => return None,
    };
    let times = match place {
        Place::Date { date_us, .. } | Place::Helpfulness { date_us, .. } => [date_us; 2],
        Place::Relevance { date_us, edge, .. } => [date_us, edge.date_us],
        Place::Id(_) | Place::Helpful { .. } => [0; 2],
    };
    times.iter().all(|time| TIMES_US.contains(time)).then_some(Cursor { backwards, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(noun: Noun, query: &str) -> Result<Query<'static>, BadParameter> {
        Query::read(noun, query)
    }

    #[test]
    fn pages_as_clients_send_them() {
        let read = |q| read(Noun::Questions, q).map(|q| (q.page, q.count));
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
            ("cursor=5", BadParameter::Cursor),
        ] {
            assert_eq!(read(query), Err(bad), "{query}");
        }
    }

    #[test]
    fn what_many_ask_for_has_a_key_that_says_what_it_is() {
        for (noun, query) in [
            (Noun::Products, "page=7&count=3"),
            (Noun::Meta, ""),
            (Noun::Reviews(Sort::Relevant), "count=100&sort=helpful"),
            (Noun::Questions, "count=0"),
            (Noun::Answers, ""),
        ] {
            let asked = read(noun, query).unwrap();
            let asked = if noun == Noun::Products { asked } else { asked.of("17".into()).unwrap() };
            let again = Query::of_key(asked.key().unwrap()).unwrap();
            assert_eq!(again.key(), asked.key());
            assert_eq!((again.noun, again.owner, again.page), (asked.noun, asked.owner, asked.page));
        }
        for (query, owner) in [("page=2", "17"), ("count=101", "17"), ("", "017"), ("cursor=a.1.2", "17")] {
            assert_eq!(
                read(Noun::Questions, query).unwrap().of(owner.into()).unwrap().key(),
                None,
                "{query}"
            );
        }
    }

    #[test]
    fn cursors_survive_their_text() {
        let edge = Edge { date_us: -5, id: i64::MIN };
        for (noun, place) in [
            (Noun::Products, Place::Id(i64::MAX)),
            (Noun::Reviews(Sort::Newest), Place::Date { date_us: 1, id: 2 }),
            (Noun::Reviews(Sort::Helpful), Place::Helpfulness { helpfulness: -3, date_us: 1, id: 2 }),
            (
                Noun::Reviews(Sort::Relevant),
                Place::Relevance { is_rest: true, helpfulness: 3, date_us: 1, id: 2, edge },
            ),
            (Noun::Answers, Place::Helpful { helpful: 3, id: 2 }),
        ] {
            for backwards in [false, true] {
                let cursor = Cursor { backwards, place };
                let text = cursor_text(&cursor);
                assert_eq!(read_cursor(noun, text.strip_prefix("cursor=").unwrap()), Some(cursor));
            }
        }
        for text in ["", "a", "c.1", "a.x", "a.1.2.3", "a.9223372036854775807.1"] {
            assert_eq!(read_cursor(Noun::Reviews(Sort::Newest), text), None, "{text}");
        }
    }

    #[test]
    fn offsets_never_overflow() {
        let query = read(Noun::Questions, &format!("page={0}&count={0}", i64::MAX)).unwrap();
        assert_eq!(query.slice().skip, i64::MAX);
        assert_eq!(query.slice().count, LIST_COUNT_MAX);
    }
}
