//! Writes of one kind that go to the database together: read from what was sent, applied by one statement.
//! Runs in: worker, on a lane's stack.

use may_postgres::{Client, Error};

use crate::api::body::{self, Invalid};
use crate::api::outcome::Written;
use crate::api::writer::{Sent, Write};
use crate::catalogue::{Change, What};
use crate::db::writes::{self, Opinion, Outcome, Vote};

/// Writes of one kind, checked.
pub enum Batch {
    Votes(Opinion, Vote, Vec<i64>),
    Reviews(Vec<writes::NewReview>),
    Questions(Vec<writes::NewText>),
    Answers(Vec<writes::NewText>),
    CartItems(Vec<writes::CartItem>),
    Interactions(Vec<writes::Interaction>),
}

impl Batch {
    pub fn of(kind: Write) -> Batch {
        match kind {
            Write::Vote(opinion, vote) => Batch::Votes(opinion, vote, Vec::new()),
            Write::Review => Batch::Reviews(Vec::new()),
            Write::Question => Batch::Questions(Vec::new()),
            Write::Answer => Batch::Answers(Vec::new()),
            Write::CartItem => Batch::CartItems(Vec::new()),
            Write::Interaction => Batch::Interactions(Vec::new()),
        }
    }

    pub fn push(&mut self, sent: &Sent) -> Result<(), Invalid> {
        match self {
            Batch::Votes(_, _, ids) => ids.extend(sent.id),
            Batch::Reviews(new) => new.push(body::review(sent)?),
            Batch::Questions(new) => new.push(body::question(sent)?),
            Batch::Answers(new) => new.push(body::answer(sent)?),
            Batch::CartItems(new) => new.push(body::cart_item(sent)?),
            Batch::Interactions(new) => new.push(body::interaction(sent)?),
        }
        Ok(())
    }

    pub fn apply(&self, client: &Client) -> Result<Vec<Outcome>, Error> {
        match self {
            Batch::Votes(opinion, vote, ids) => writes::vote(client, *opinion, *vote, ids),
            Batch::Reviews(new) => writes::add_reviews(client, new),
            Batch::Questions(new) => writes::add_questions(client, new),
            Batch::Answers(new) => writes::add_answers(client, new),
            Batch::CartItems(new) => writes::add_to_carts(client, new),
            Batch::Interactions(new) => writes::add_interactions(client, new),
        }
    }

    /// The n-th of them alone.
    pub fn only(&self, n: usize) -> Batch {
        match self {
            Batch::Votes(opinion, vote, ids) => Batch::Votes(*opinion, *vote, vec![ids[n]]),
            Batch::Reviews(new) => Batch::Reviews(vec![new[n].clone()]),
            Batch::Questions(new) => Batch::Questions(vec![new[n].clone()]),
            Batch::Answers(new) => Batch::Answers(vec![new[n].clone()]),
            Batch::CartItems(new) => Batch::CartItems(vec![new[n].clone()]),
            Batch::Interactions(new) => Batch::Interactions(vec![new[n].clone()]),
        }
    }

    /// What they would change, as the change feed notes it.
    pub fn parts(&self) -> Vec<Change> {
        let change = |what| move |id: i64| Change { what, id };
        match self {
            Batch::Votes(Opinion::Review, _, ids) => ids.iter().copied().map(change(What::Review)).collect(),
            // Its own answers are not touched, and are raised all the same.
            Batch::Votes(Opinion::Question, _, ids) => {
                ids.iter().copied().map(change(What::Question)).collect()
            }
            Batch::Votes(Opinion::Answer, _, ids) => ids.iter().copied().map(change(What::Answer)).collect(),
            Batch::Reviews(new) => new.iter().map(|r| r.product_id).map(change(What::Reviews)).collect(),
            Batch::Questions(new) => new.iter().map(|q| q.owner).map(change(What::Questions)).collect(),
            Batch::Answers(new) => new.iter().map(|a| a.owner).map(change(What::Question)).collect(),
            Batch::CartItems(_) | Batch::Interactions(_) => Vec::new(),
        }
    }
}

/// The old service's answers.
pub fn answer(kind: Write, sent: &Sent) -> Written {
    match kind {
        Write::Vote(..) => Written::new(204, ""),
        _ => Written { head: sent.head.clone(), ..Written::new(201, "Created") },
    }
}

/// What a write that was made changes.
pub fn touched(kind: Write, outcome: Outcome) -> Vec<Change> {
    let Outcome::Done { product, question } = outcome else { return Vec::new() };
    let of_product = |what| product.map(|id| Change { what, id });
    let found = match kind {
        Write::Vote(Opinion::Review, _) | Write::Review => [of_product(What::Reviews), None],
        Write::Vote(Opinion::Question, _) | Write::Question => [of_product(What::Questions), None],
        Write::Vote(Opinion::Answer, _) | Write::Answer => {
            [of_product(What::Questions), question.map(|id| Change { what: What::Answers, id })]
        }
        Write::CartItem | Write::Interaction => [None, None],
    };
    found.into_iter().flatten().collect()
}
