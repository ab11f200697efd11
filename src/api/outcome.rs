//! What becomes of a write: its answer, or why it was refused.
//! Runs in: worker.

use may_postgres::{Client, Error};

use crate::api::body::Invalid;
use crate::api::fetch::FetchError;
use crate::catalogue::Change;

/// Hashes of an Idempotency-Key with what it is for, and of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    pub key: [u8; 32],
    pub body: [u8; 32],
}

/// An answer to a write: status, header lines, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// It is the answer to the first request with this Idempotency-Key.
    pub is_replayed: bool,
    /// Position in the WAL behind its commit: what another box must have seen to show it.
    pub lsn: u64,
}

impl Written {
    pub fn new(status: u16, body: impl Into<String>) -> Written {
        Written { status, head: String::new(), body: body.into(), is_replayed: false, lsn: 0 }
    }
}

/// Why nothing was written.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The body can't be read, and why.
    Body(String),
    /// The body is not what it must be, and why.
    Invalid(String),
    /// What it is for does not exist.
    Missing,
    /// The state is not the one that If-Match names.
    Changed,
    /// Another body came with this Idempotency-Key.
    KeyReused,
    KeyInFlight,
    Database(FetchError),
}

impl From<Invalid> for Refusal {
    fn from(Invalid(why): Invalid) -> Refusal {
        Refusal::Invalid(why)
    }
}

/// What ends work in a transaction early.
pub enum Stop {
    Refused(Refusal),
    Sql(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Sql(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<Invalid> for Stop {
    fn from(invalid: Invalid) -> Stop {
        Stop::Refused(invalid.into())
    }
}

/// Work in a transaction of its own: the answer, and what changes with it.
pub type Work = Box<dyn Fn(&Client) -> Result<(Written, Vec<Change>), Stop> + Send>;

/// It was rolled back for the sake of another transaction: deadlock, serialisation.
pub fn made_way(error: &Error) -> bool {
    matches!(error.code(), Some("40P01" | "40001"))
}

/// Why, of a write that may have been committed.
pub fn refusal(error: &Error) -> Refusal {
    match error.code() {
        Some("40P01" | "40001" | "57014" | "25006") => {
            Refusal::Database(FetchError::Unavailable("the database could not do it now; try again".into()))
        }
        // Its product, or question, went away under it.
        Some("23503") => Refusal::Missing,
        Some("55P03") => Refusal::Database(FetchError::Unavailable(
            "somebody else holds what this would change; try again".into(),
        )),
        _ => Refusal::Database(FetchError::from_write(error)),
    }
}

/// The same, of one that can't have been.
pub fn refusal_before_commit(error: &Error) -> Refusal {
    match refusal(error) {
        Refusal::Database(FetchError::Unknown(_)) => Refusal::Database(FetchError::from(error)),
        refusal => refusal,
    }
}
