//! Catalogues in: CSV archives with their dirt, and made-up products.
//! Runs in: offline.

pub mod clean;
pub mod copy;
pub mod csv;
pub mod load;
pub mod opinions;
pub mod report;
pub mod seed;
pub mod table;

/// Exit status of a load that rejected lines.
pub const EXIT_REJECTS: i32 = 3;
