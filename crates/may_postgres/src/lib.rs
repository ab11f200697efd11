//! PostgreSQL client for `may` coroutines: extended protocol, statements prepared once per
//! connection, many coroutines pipelined over one socket, COPY in and out, SCRAM bound to TLS, TCP and Unix sockets.
//!
//! A [`Client`] is a cheap handle: clone it into as many coroutines (or threads) as needed. One coroutine
//! owns the socket; requests that wait together leave in one write. When the connection is lost every
//! waiter gets [`Error`] at once; [`Reconnect`] hands out a fresh client afterwards.
//!
//! Source: the PostgreSQL documentation, "Frontend/Backend Protocol" (version 3.0).

mod config;
mod connection;
mod copy;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod observe;
mod prepare;
mod query;
mod reconnect;
mod row;
mod startup;
mod tls;
mod wire;

pub use config::{ChannelBinding, Config, Host, SslMode};
pub use connection::Client;
pub use copy::{CopyIn, CopyOut};
pub use error::{Error, SqlError};
pub use observe::{observe, Ran};
pub use postgres_types as types;
pub use postgres_types::{FromSql, IsNull, ToSql, Type};
pub use prepare::{Column, Statement};
pub use query::Transaction;
pub use reconnect::Reconnect;
pub use row::Row;

/// What a server checks a password with (SCRAM-SHA-256), to be given to it instead of the password.
pub fn scram_verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// Connects, authenticates and returns a client; the connection lives in a coroutine of its own.
///
/// # Errors
/// [`Error::Connect`] when no host of `config` can be reached, [`Error::Sql`] when the server refuses.
pub fn connect(config: &Config) -> Result<Client, Error> {
    startup::connect(config)
}
