//! Catalogues in and out: CSV archives with their dirt, and made-up products.
//! Runs in: offline.
//!
//! In: `archive` finds the files, `csv` reads lines, `clean` makes values of cells, `rows` sends them, `staging` has the tables that they go
//! to, `swap` puts those in place. `load` and `seed` say what comes when, `tasks` does it on several threads.

pub mod archive;
pub mod clean;
pub mod csv;
pub mod dirt;
pub mod export;
pub mod load;
pub mod opinions;
pub mod progress;
pub mod report;
pub mod rows;
pub mod seed;
pub mod staging;
pub mod swap;
pub mod table;
pub mod tasks;

use crate::machine::Machine;

/// Least and most memory for building one index.
const INDEX_MEMORY_MIN_BYTES: u64 = 64 << 20;
const INDEX_MEMORY_MAX_BYTES: u64 = 1 << 30;

/// How much of the machine a job takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Threads, each with a connection.
    pub jobs: usize,
    /// Memory of the database for building one index: an eighth of this machine's for all.
    pub index_memory_bytes: u64,
}

impl Effort {
    /// A job for each core, at least two: one waits for the database while another reads.
    pub fn of_machine(jobs: Option<usize>) -> Effort {
        let machine = Machine::detect();
        let jobs = jobs.unwrap_or(machine.cores.max(2)).max(1);
        let share = machine.memory_bytes / 8 / jobs as u64;
        Effort { jobs, index_memory_bytes: share.clamp(INDEX_MEMORY_MIN_BYTES, INDEX_MEMORY_MAX_BYTES) }
    }
}

/// Exit status of a load that rejected lines.
pub const EXIT_REJECTS: i32 = 3;
