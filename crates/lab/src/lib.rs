//! What one looks at and drives catwalk with, apart from the server: a terminal's status page, and a load generator. Imports the server's
//! library to read its shared memory; nothing of the server imports this.

pub mod bench;
pub mod cli;
pub mod rates;
pub mod top;
