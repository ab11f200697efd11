//! Reviews and what they come to, of many products at a time: one statement, plain rows, put in order here.
//! Runs in: worker.

use std::cmp::Reverse;
use std::collections::HashMap;

use may_postgres::{Client, Error, Row};

use crate::catalogue::{Characteristic, Edge, Meta, NumberedPhoto, Page, RatingCount, Review};
use crate::db::products::{read_time, Read};
use crate::db::slice::{Columns, Place, Slice, Time};
use crate::statements::{REVIEWS_HELPFUL, REVIEWS_META, REVIEWS_NEWEST, REVIEWS_RELEVANT};

/// Orders of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Sort {
    Relevant = 0,
    Newest = 1,
    Helpful = 2,
}

impl Sort {
    pub const ALL: [Sort; 3] = [Sort::Relevant, Sort::Newest, Sort::Helpful];

    /// The word in a query; unknown ones are `relevant`.
    pub fn read(word: &str) -> Sort {
        Sort::ALL.into_iter().find(|sort| sort.word() == word).unwrap_or(Sort::Relevant)
    }

    pub fn word(self) -> &'static str {
        match self {
            Sort::Relevant => "relevant",
            Sort::Newest => "newest",
            Sort::Helpful => "helpful",
        }
    }
}

/// A page of reviews, and where the recent block begins if it is by relevance.
pub type ReviewsPage = (Page<Review>, Option<Edge>);

/// A row on its way into its page.
struct Placed {
    slice: usize,
    is_rest: bool,
    review: Review,
}

/// A page of reviews for each of `slices`, in their order.
pub fn list(client: &Client, sort: Sort, slices: &[Slice]) -> Result<Read<Vec<ReviewsPage>>, Error> {
    let rows = query(client, sort, slices)?;
    let mut pages: Vec<ReviewsPage> = slices.iter().map(|_| Default::default()).collect();
    let mut position = 0;
    let mut placed: Vec<Placed> = Vec::with_capacity(rows.len());
    let mut photos: HashMap<(usize, i64), Vec<NumberedPhoto>> = HashMap::new();
    for row in &rows {
        let (part, n, id): (i16, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // Ordinality counts from 1.
        let slice = (n - 1) as usize;
        match part {
            0 => position = n as u64,
            1 => {
                let is_rest = sort == Sort::Relevant && !row.try_get::<bool>(11)?;
                placed.push(Placed { slice, is_rest, review: read_review(row, id)? });
            }
            2 => {
                let photo = NumberedPhoto { id: row.try_get(3)?, url: row.try_get(4)? };
                photos.entry((slice, id)).or_default().push(photo);
            }
            _ => pages[slice].1 = Some(Edge { date_us: read_time(row, 9)?, id }),
        }
    }
    placed.sort_unstable_by_key(|p| order(sort, p));
    for mut row in placed {
        row.review.photos = photos.remove(&(row.slice, row.review.id)).unwrap_or_default();
        row.review.photos.sort_unstable_by_key(|photo| photo.id);
        pages[row.slice].0.rows.push(row.review);
    }
    for (page, slice) in pages.iter_mut().zip(slices) {
        page.0 = slice.cut(std::mem::take(&mut page.0.rows));
    }
    Ok(Read { found: pages, position })
}

fn query(client: &Client, sort: Sort, slices: &[Slice]) -> Result<Vec<Row>, Error> {
    let Columns { owners, counts, skips, backwards } = Columns::of(slices);
    let places: Vec<_> = slices.iter().map(bounds).collect();
    let helpfulness: Vec<i64> = places.iter().map(|p| p.helpfulness).collect();
    let dates: Vec<Time> = places.iter().map(|p| p.date).collect();
    let ids: Vec<i64> = places.iter().map(|p| p.id).collect();
    match sort {
        Sort::Newest => {
            let statement = client.prepare_cached(REVIEWS_NEWEST)?;
            client.query(&statement, &[&owners, &counts, &skips, &backwards, &dates, &ids])
        }
        Sort::Helpful => {
            let statement = client.prepare_cached(REVIEWS_HELPFUL)?;
            client.query(&statement, &[&owners, &counts, &skips, &backwards, &helpfulness, &dates, &ids])
        }
        Sort::Relevant => {
            let statement = client.prepare_cached(REVIEWS_RELEVANT)?;
            let rest: Vec<bool> = places.iter().map(|p| p.is_rest).collect();
            let edge_dates: Vec<Option<Time>> =
                places.iter().map(|p| p.edge.map(|edge| Time(edge.date_us))).collect();
            let edge_ids: Vec<Option<i64>> = places.iter().map(|p| p.edge.map(|edge| edge.id)).collect();
            let common: [&(dyn may_postgres::ToSql + Sync); 8] =
                [&owners, &counts, &skips, &backwards, &rest, &helpfulness, &dates, &ids];
            client.query(&statement, &[&common[..], &[&edge_dates, &edge_ids]].concat())
        }
    }
}

/// Where a slice begins, as the statements take it; before everything where it has no cursor.
struct Bounds {
    is_rest: bool,
    helpfulness: i64,
    date: Time,
    id: i64,
    edge: Option<Edge>,
}

fn bounds(slice: &Slice) -> Bounds {
    let start =
        Bounds { is_rest: false, helpfulness: i64::MAX, date: Time::INFINITY, id: i64::MAX, edge: None };
    match slice.place() {
        Some(Place::Date { date_us, id }) => Bounds { date: Time(date_us), id, ..start },
        Some(Place::Helpfulness { helpfulness, date_us, id }) => {
            Bounds { helpfulness, date: Time(date_us), id, ..start }
        }
        Some(Place::Relevance { is_rest, helpfulness, date_us, id, edge }) => {
            Bounds { is_rest, helpfulness, date: Time(date_us), id, edge: Some(edge) }
        }
        _ => start,
    }
}

/// Sort key of a row: its slice, then what the list is ordered by.
fn order(sort: Sort, placed: &Placed) -> (usize, bool, Reverse<(i64, i64, i64)>) {
    let review = &placed.review;
    let helpfulness = if sort == Sort::Newest { 0 } else { review.helpfulness };
    (placed.slice, placed.is_rest, Reverse((helpfulness, review.date_us, review.id)))
}

fn read_review(row: &Row, id: i64) -> Result<Review, Error> {
    Ok(Review {
        id,
        rating: row.try_get(3)?,
        summary: row.try_get(4)?,
        body: row.try_get(5)?,
        reviewer_name: row.try_get(6)?,
        response: row.try_get(7)?,
        recommend: row.try_get(8)?,
        date_us: read_time(row, 9)?,
        helpfulness: row.try_get(10)?,
        photos: Vec::new(),
    })
}

/// What the reviews of the products `ids` come to; nothing for those without reviews and characteristics.
pub fn meta(client: &Client, ids: &[i64]) -> Result<Read<HashMap<i64, Meta>>, Error> {
    let rows = client.query(&client.prepare_cached(REVIEWS_META)?, &[&ids])?;
    let mut found: HashMap<i64, Meta> = HashMap::with_capacity(ids.len());
    let mut position = 0;
    for row in &rows {
        let (part, product_id, id): (i16, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match part {
            0 => position = product_id as u64,
            1 => found.entry(product_id).or_default().counts.push(RatingCount {
                rating: id,
                recommend: row.try_get(3)?,
                reviews: row.try_get(4)?,
            }),
            _ => found.entry(product_id).or_default().characteristics.push(Characteristic {
                id,
                name: row.try_get(5)?,
                value: row.try_get(6)?,
            }),
        }
    }
    for meta in found.values_mut() {
        meta.counts.sort_unstable_by_key(|count| (count.rating, count.recommend));
        meta.characteristics.sort_unstable_by_key(|characteristic| characteristic.id);
    }
    Ok(Read { found, position })
}
