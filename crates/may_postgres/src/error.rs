//! Everything that can go wrong between a caller and the server, as one enum.
//! Runs in: worker | offline.

use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// What was being attempted, and why it failed.
#[derive(Debug, Clone)]
pub enum Error {
    /// The server could not be reached; nothing was sent.
    Connect(String),
    /// The connection ended while a request was outstanding; its outcome is unknown.
    Closed(String),
    /// No answer within the deadline; the late reply will be discarded and the outcome is unknown.
    Timeout,
    /// The server refused the request.
    Sql(Box<SqlError>),
    /// The bytes received do not follow the protocol.
    Protocol(String),
    /// A parameter or column could not be converted.
    Convert(String),
    /// The configuration is not usable.
    Config(String),
}

/// An ErrorResponse of the server (PostgreSQL documentation, "Error and Notice Message Fields").
#[derive(Debug, Clone, Default)]
pub struct SqlError {
    /// SQLSTATE, five characters.
    pub code: String,
    pub severity: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub constraint: Option<String>,
    /// "Where": for COPY the line number.
    pub context: Option<String>,
}

impl SqlError {
    pub(crate) fn read(mut fields: ErrorFields<'_>) -> SqlError {
        let mut e = SqlError::default();
        while let Ok(Some(f)) = fields.next() {
            let value = String::from_utf8_lossy(f.value_bytes()).into_owned();
            match f.type_() {
                b'V' => e.severity = value,
                b'C' => e.code = value,
                b'M' => e.message = value,
                b'D' => e.detail = Some(value),
                b'H' => e.hint = Some(value),
                b'n' => e.constraint = Some(value),
                b'W' => e.context = Some(value),
                _ => {}
            }
        }
        e
    }
}

impl Error {
    /// The SQLSTATE when the server refused the request.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Sql(e) => Some(&e.code),
            _ => None,
        }
    }

    /// Whether the prepared statement is no longer what it was: a table has changed its columns under it (0A000, "cached
    /// plan must not change result type"), or the server has dropped it (26000). Prepared anew, it may succeed.
    pub fn is_about_statement(&self) -> bool {
        match self {
            Error::Sql(e) => e.code == "26000" || (e.code == "0A000" && e.message.contains("cached plan")),
            _ => false,
        }
    }

    /// Whether a later attempt on a fresh connection may succeed.
    pub fn is_connection(&self) -> bool {
        match self {
            Error::Connect(_) | Error::Closed(_) | Error::Timeout => true,
            // Class 08: the connection; 53: no resources; 57P: shutting down or starting up. What ends the session is
            // about the connection whatever its code: a pooler reports its dead server so.
            Error::Sql(e) => {
                let about_connection = ["08", "53", "57P"].iter().any(|class| e.code.starts_with(class));
                about_connection || matches!(e.severity.as_str(), "FATAL" | "PANIC")
            }
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect(why) => write!(f, "could not connect to PostgreSQL: {why}"),
            Error::Closed(why) => write!(f, "the connection to PostgreSQL was lost: {why}"),
            Error::Timeout => write!(f, "PostgreSQL did not answer within the deadline"),
            Error::Sql(e) => {
                write!(f, "PostgreSQL refused: {} ({})", e.message, e.code)?;
                if let Some(d) = &e.detail {
                    write!(f, "; {d}")?;
                }
                if let Some(c) = &e.context {
                    write!(f, "; {c}")?;
                }
                if let Some(h) = &e.hint {
                    write!(f, "; hint: {h}")?;
                }
                Ok(())
            }
            Error::Protocol(why) => write!(f, "PostgreSQL sent something unexpected: {why}"),
            Error::Convert(why) => write!(f, "could not convert a value for PostgreSQL: {why}"),
            Error::Config(why) => write!(f, "the database address is not usable: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            // A socket's end reads as nothing; a message's end in the middle of a field reads as this.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                Error::Protocol(e.to_string())
            }
            _ => Error::Closed(e.to_string()),
        }
    }
}
