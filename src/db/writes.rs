//! What shoppers write, many at a time: one statement, one commit, all of each write or nothing of it.
//! Runs in: worker.

use may_postgres::{Client, Error, Row, ToSql};

use crate::limits::{CART_SHARED_SKUS_MAX, TRIM_ROWS_MAX};
use crate::statements::{
    ANSWERS_ADD, ANSWERS_MARK_HELPFUL, ANSWERS_REPORT, CART_ADD, CART_SHOW, IDEMPOTENCY_FIND,
    IDEMPOTENCY_KEEP, INTERACTIONS_ADD, QUESTIONS_ADD, QUESTIONS_MARK_HELPFUL, QUESTIONS_REPORT, REVIEWS_ADD,
    REVIEWS_MARK_HELPFUL, REVIEWS_REPORT, SHOPPERS_TRIM,
};

/// What is voted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opinion {
    Review,
    Question,
    Answer,
}

impl Opinion {
    pub fn name(self) -> &'static str {
        match self {
            Opinion::Review => "review",
            Opinion::Question => "question",
            Opinion::Answer => "answer",
        }
    }
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vote {
    Helpful,
    Report,
}

/// A review as it was sent, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewReview {
    pub product_id: i64,
    pub rating: i64,
    pub summary: String,
    pub body: String,
    pub recommend: bool,
    pub name: String,
    pub email: String,
    pub photos: Vec<String>,
    /// Characteristics and their ratings; those of other products are passed over.
    pub characteristics: Vec<(i64, i64)>,
}

/// A question or an answer as it was sent, checked. `owner`: the product, or the question.
#[derive(Debug, Clone, PartialEq)]
pub struct NewText {
    pub owner: i64,
    pub body: String,
    pub name: String,
    pub email: String,
    pub photos: Vec<String>,
}

/// So many of a sku, in a session's cart.
#[derive(Debug, Clone, PartialEq)]
pub struct CartItem {
    pub session: Vec<u8>,
    pub sku_id: i64,
    pub count: i64,
    /// On the list that everybody without a session sees, too.
    pub is_shared: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Interaction {
    pub element: String,
    pub widget: String,
    pub time: String,
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Made, to what belongs to this product, and this question.
    Done { product: Option<i64>, question: Option<i64> },
    /// What it was for does not exist.
    Missing,
    /// Somebody else holds the row.
    Busy,
}

/// Reads what a session has in its cart, at most `count` skus: with each how many. The empty session is the shared list.
pub fn cart(client: &Client, session: &[u8], count: i64) -> Result<Vec<(i64, i64)>, Error> {
    let rows = client.query(&client.prepare_cached(CART_SHOW)?, &[&session, &count])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Removes some of what is too old, unless somebody else is at it: idempotency keys after a day, carts after a month, interactions after
/// three, and what the shared cart list no longer shows. How many rows.
pub fn trim(client: &Client) -> Result<i64, Error> {
    let statement = client.prepare_cached(SHOPPERS_TRIM)?;
    client.query_one(&statement, &[&TRIM_ROWS_MAX, &CART_SHARED_SKUS_MAX])?.try_get(0)
}

/// The first answer to a request with an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// SHA-256 of the body.
    pub body: Vec<u8>,
    pub status: i64,
    pub head: String,
    pub answer: String,
}

/// What is known of a key; within a transaction that makes it its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    Ours,
    /// Another transaction has it.
    InFlight,
    Kept(KeptAnswer),
}

/// Claims an Idempotency-Key, by its hash, until the end of the transaction.
pub fn claim_key(client: &Client, key: &[u8; 32]) -> Result<Claim, Error> {
    let lock = i64::from_be_bytes(std::array::from_fn(|n| key[n]));
    let row = client.query_one(&client.prepare_cached(IDEMPOTENCY_FIND)?, &[&&key[..], &lock])?;
    if let Some(body) = row.try_get(1)? {
        let (status, head, answer) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        return Ok(Claim::Kept(KeptAnswer { body, status, head, answer }));
    }
    Ok(if row.try_get(0)? { Claim::Ours } else { Claim::InFlight })
}

/// Keeps the answer to a request whose key was claimed. Violates a unique constraint if another one was kept meanwhile.
pub fn keep_answer(client: &Client, key: &[u8; 32], kept: &KeptAnswer) -> Result<(), Error> {
    let KeptAnswer { body, status, head, answer } = kept;
    client
        .execute(&client.prepare_cached(IDEMPOTENCY_KEEP)?, &[&&key[..], body, status, head, answer])
        .map(|_| ())
}

/// Votes once for each of `ids`; outcomes in their order.
pub fn vote(client: &Client, opinion: Opinion, vote: Vote, ids: &[i64]) -> Result<Vec<Outcome>, Error> {
    let statement = match (opinion, vote) {
        (Opinion::Review, Vote::Helpful) => REVIEWS_MARK_HELPFUL,
        (Opinion::Review, Vote::Report) => REVIEWS_REPORT,
        (Opinion::Question, Vote::Helpful) => QUESTIONS_MARK_HELPFUL,
        (Opinion::Question, Vote::Report) => QUESTIONS_REPORT,
        (Opinion::Answer, Vote::Helpful) => ANSWERS_MARK_HELPFUL,
        (Opinion::Answer, Vote::Report) => ANSWERS_REPORT,
    };
    let rows = client.query(&client.prepare_cached(statement)?, &[&ids])?;
    let outcomes = rows.iter().map(|row| Ok((row.try_get(0)?, read_vote(row)?)));
    let outcomes: std::collections::HashMap<i64, Outcome> = outcomes.collect::<Result<_, Error>>()?;
    Ok(ids.iter().map(|id| outcomes.get(id).copied().unwrap_or(Outcome::Missing)).collect())
}

fn read_vote(row: &Row) -> Result<Outcome, Error> {
    Ok(match (row.try_get(1)?, row.try_get(2)?) {
        (true, _) => Outcome::Done { product: row.try_get(3)?, question: row.try_get(4)? },
        (false, true) => Outcome::Busy,
        (false, false) => Outcome::Missing,
    })
}

/// Runs a statement that adds `count` things, and returns rows of ordinal, product and question for those that it added.
fn add(
    client: &Client,
    statement: &str,
    count: usize,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = vec![Outcome::Missing; count];
    for row in client.query(&client.prepare_cached(statement)?, params)? {
        let at: i64 = row.try_get(0)?;
        // Ordinality counts from 1.
        outcomes[(at - 1) as usize] = Outcome::Done { product: row.try_get(1)?, question: row.try_get(2)? };
    }
    Ok(outcomes)
}

/// A column of `items`.
fn column<'a, T, C>(items: &'a [T], of: impl Fn(&'a T) -> C) -> Vec<C> {
    items.iter().map(of).collect()
}

/// What each of `items` has several of, with the item's ordinal.
fn parts<'a, T, P: 'a>(items: &'a [T], of: impl Fn(&'a T) -> &'a [P]) -> (Vec<i64>, Vec<&'a P>) {
    let all = items.iter().zip(1i64..).flat_map(|(item, n)| of(item).iter().map(move |part| (n, part)));
    all.unzip()
}

pub fn add_reviews(client: &Client, new: &[NewReview]) -> Result<Vec<Outcome>, Error> {
    let (photo_owners, photos) = parts(new, |r| &r.photos);
    let (rating_owners, ratings) = parts(new, |r| &r.characteristics);
    let characteristics: Vec<i64> = ratings.iter().map(|(id, _)| *id).collect();
    let values: Vec<i64> = ratings.iter().map(|(_, value)| *value).collect();
    add(
        client,
        REVIEWS_ADD,
        new.len(),
        &[
            &column(new, |r| r.product_id),
            &column(new, |r| r.rating),
            &column(new, |r| r.summary.as_str()),
            &column(new, |r| r.body.as_str()),
            &column(new, |r| r.recommend),
            &column(new, |r| r.name.as_str()),
            &column(new, |r| r.email.as_str()),
            &photo_owners,
            &photos,
            &rating_owners,
            &characteristics,
            &values,
        ],
    )
}

pub fn add_questions(client: &Client, new: &[NewText]) -> Result<Vec<Outcome>, Error> {
    add(
        client,
        QUESTIONS_ADD,
        new.len(),
        &[
            &column(new, |q| q.owner),
            &column(new, |q| q.body.as_str()),
            &column(new, |q| q.name.as_str()),
            &column(new, |q| q.email.as_str()),
        ],
    )
}

pub fn add_answers(client: &Client, new: &[NewText]) -> Result<Vec<Outcome>, Error> {
    let (photo_owners, photos) = parts(new, |a| &a.photos);
    add(
        client,
        ANSWERS_ADD,
        new.len(),
        &[
            &column(new, |a| a.owner),
            &column(new, |a| a.body.as_str()),
            &column(new, |a| a.name.as_str()),
            &column(new, |a| a.email.as_str()),
            &photo_owners,
            &photos,
        ],
    )
}

pub fn add_to_carts(client: &Client, new: &[CartItem]) -> Result<Vec<Outcome>, Error> {
    add(
        client,
        CART_ADD,
        new.len(),
        &[
            &column(new, |item| item.session.as_slice()),
            &column(new, |item| item.sku_id),
            &column(new, |item| item.count),
            &column(new, |item| item.is_shared),
        ],
    )
}

pub fn add_interactions(client: &Client, new: &[Interaction]) -> Result<Vec<Outcome>, Error> {
    add(
        client,
        INTERACTIONS_ADD,
        new.len(),
        &[
            &column(new, |i| i.element.as_str()),
            &column(new, |i| i.widget.as_str()),
            &column(new, |i| i.time.as_str()),
        ],
    )
}
