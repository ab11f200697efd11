//! The only room that speaks libc: processes, descriptors, shared mappings, signals, sockets, CPUs.
//! Runs in: both.

pub mod clock;
pub mod commands;
pub mod fd;
pub mod fork;
pub mod mmap;
pub mod passing;
pub mod processes;
pub mod sched;
pub mod signal;
pub mod socket;
