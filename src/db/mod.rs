//! PostgreSQL: statements, connections, migrations. Knows rows, not HTTP and not the cache.
//! Runs in: worker | offline.

pub mod changes;
pub mod decimal;
pub mod edits;
pub mod explain;
pub mod images;
pub mod indexes;
pub mod lsn;
pub mod migrate;
pub mod nodes;
pub mod pacer;
pub mod pool;
pub mod products;
pub mod questions;
pub mod ranks;
pub mod reviews;
pub mod slice;
pub mod trace;
pub mod writes;

pub use nodes::Nodes;

use may_postgres::{Config, Error};

/// Reads the address of the configuration.
///
/// # Errors
/// [`Error::Config`] when it is empty or unreadable.
pub fn address(url: &str, application_name: &str) -> Result<Config, Error> {
    if url.is_empty() {
        let why = "none is set; set database.url in the configuration, DATABASE_URL, or --database-url";
        return Err(Error::Config(why.into()));
    }
    let mut config: Config = url.parse()?;
    config.application_name = application_name.into();
    Ok(config)
}

/// The same for all nodes.
///
/// # Errors
/// The first that is unreadable.
pub fn addresses(urls: &[String], application_name: &str) -> Result<Vec<Config>, Error> {
    urls.iter().map(|url| address(url, application_name)).collect()
}

/// Connects for a command: one connection of its own, no deadline for its statements.
pub fn connect(url: &str) -> anyhow::Result<may_postgres::Client> {
    connect_to(&address(url, "catwalk")?)
}

/// The same, to an address that was read.
pub fn connect_to(address: &Config) -> anyhow::Result<may_postgres::Client> {
    may::config().set_worker_pin(false);
    may::config().set_workers(1).set_stack_size(crate::limits::COROUTINE_STACK_SIZE_BYTES / 8);
    may_postgres::connect(address).map_err(|e| anyhow::anyhow!("{}: {e}", address.display()))
}

/// Whether a database is this binary's: its server new enough, its schema of this version, every index there that a statement needs.
///
/// # Errors
/// What differs, and what to run.
pub fn check(client: &may_postgres::Client) -> anyhow::Result<()> {
    migrate::check(client)?;
    indexes::check(client)
}
