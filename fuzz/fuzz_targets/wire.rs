//! Everything that reads bytes of a PostgreSQL server: framing, messages, rows, errors.
//! Runs in: offline.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| may_postgres::fuzzing::read_server(bytes));
