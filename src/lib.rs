//! catwalk: a retail catalogue API on one box. Rooms in layer order; ARCHITECTURE.md has the walk through them.

pub mod api; // HTTP, joined with cache and database
pub mod ask; // `catwalk reload`, `catwalk upgrade`
pub mod cache; // the shared cache
pub mod capacity; // what this machine should sustain
pub mod catalogue; // the nouns as plain data
pub mod cli; // commands and flags
pub mod config; // settings and their origins
pub mod control; // how a running server is asked
pub mod db; // PostgreSQL
pub mod dev; // everything at once, nothing to set up
pub mod doctor; // what should be mended
pub mod etl; // archives and made-up catalogues in
pub mod feed; // the change table to fences and watermark
pub mod front; // the shop, or a front end of somebody's own
pub mod heritage; // what crosses fork
pub mod inspect; // `catwalk cache`
pub mod keep; // the arena over a restart
pub mod limits; // every bound
pub mod logging; // journald, JSON or text
pub mod machine; // what this box has
pub mod master; // the loop that owns them
pub mod metrics; // counters in shared memory
pub mod os; // the only room that speaks libc
pub mod overview; // what a status page shows
pub mod programs; // PostgreSQL's programs on this machine
pub mod runtime; // may in a forked process
pub mod runtime_directory; // where a running server is found
pub mod setup; // a database, or a replica, made ready
pub mod slots; // lives and beats of workers
pub mod statements; // every statement, by name
pub mod succession; // what a process is born with
pub mod throttle; // how often an address may write
pub mod topology; // primary and replicas, as this box sees them
pub mod worker; // one worker
