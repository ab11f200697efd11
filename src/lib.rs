//! catwalk: a retail catalogue API on one box. Rooms in layer order; ARCHITECTURE.md has the walk through them.

pub mod api; // HTTP, joined with cache and database
pub mod cache; // the shared cache
pub mod catalogue; // the nouns as plain data
pub mod cli; // commands and flags
pub mod config; // settings and their origins
pub mod control; // how a running server is asked
pub mod db; // PostgreSQL
pub mod dev; // everything at once, nothing to set up
pub mod etl; // archives and made-up catalogues in
pub mod feed; // the change table to fences and watermark
pub mod heritage; // what crosses fork
pub mod inspect; // `catwalk cache`
pub mod keep; // the arena over a restart
pub mod limits; // every bound
pub mod machine; // what this box has
pub mod master; // the loop that owns them
pub mod metrics; // counters in shared memory
pub mod os; // the only room that speaks libc
pub mod programs; // PostgreSQL's programs on this machine
pub mod runtime; // may in a forked process
pub mod runtime_directory; // where a running server is found
pub mod setup; // a database, or a replica, made ready
pub mod slots; // lives and beats of workers
pub mod throttle; // how often an address may write
pub mod topology; // primary and replicas, as this box sees them
pub mod worker; // one worker

/// Starts logging to standard error, once; later calls change nothing.
pub fn start_log(level: log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    // may tells of every descriptor it sees at info.
    builder.filter_level(level).filter_module("may", log::LevelFilter::Warn).format_target(false);
    // journald stamps lines itself, and takes the level from the prefix.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    }
    let _ = builder.try_init();
}
