//! What tests share: a server of their own, a client that sees every byte.

pub mod cluster;
pub mod http;
pub mod link;
pub mod server;

use std::time::{Duration, Instant};

pub use cluster::{Cluster, Place};
pub use http::{Connection, Reply};
pub use link::Link;
pub use server::Server;

/// Longest wait for anything that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `met`, or fails naming `what`.
pub fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < DEADLINE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A seed to replay a run: `CATWALK_SEED=… make test`.
pub fn seed() -> u64 {
    let given = std::env::var("CATWALK_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("CATWALK_SEED={seed}");
    seed
}

/// Numbers from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}
