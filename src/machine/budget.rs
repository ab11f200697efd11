//! How memory is shared out on one machine: the cache's part, PostgreSQL's, and what is left to both as the kernel's page cache.
//! Runs in: offline.
//!
//! ```text
//! ┌ cache ┬ shared_buffers ┬ workers, connections, maintenance ┬ page cache ┐   cache.size auto and shared_buffers: a quarter each
//! ```

use crate::config::Config;

const MIB: u64 = 1 << 20;
/// What PostgreSQL comes with.
const SHARED_BUFFERS_STOCK: u64 = 128 * MIB;
const MAINTENANCE_STOCK: u64 = 64 * MIB;
/// Beyond it more buffers no longer help reads that the page cache serves.
const SHARED_BUFFERS_MAX: u64 = 16 << 30;

/// What a setting of PostgreSQL should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub name: &'static str,
    pub bytes: u64,
    /// What it comes with.
    pub stock_bytes: u64,
    pub why: &'static str,
}

impl Wish {
    /// As postgresql.conf has it.
    pub fn value(&self) -> String {
        format!("{}MB", self.bytes / MIB)
    }

    /// Whether it is worth a change.
    pub fn is_better(&self) -> bool {
        self.bytes != self.stock_bytes
    }
}

/// PostgreSQL's memory on a machine that it shares with this server.
pub fn wishes(config: &Config) -> Vec<Wish> {
    of(config.machine().memory_bytes, config.cache_size_bytes() as u64)
}

fn of(memory: u64, cache: u64) -> Vec<Wish> {
    let buffers = (memory / 4).clamp(64 * MIB, SHARED_BUFFERS_MAX).min(memory.saturating_sub(cache) / 2);
    vec![
        Wish {
            name: "shared_buffers",
            bytes: round(buffers),
            stock_bytes: SHARED_BUFFERS_STOCK,
            why: "a quarter of the memory, as the cache has one",
        },
        Wish {
            name: "effective_cache_size",
            bytes: round(memory.saturating_sub(cache) * 3 / 4),
            stock_bytes: 4 << 30,
            why: "what buffers and page cache hold together, so that plans by index are chosen",
        },
        Wish {
            name: "maintenance_work_mem",
            bytes: round((memory / 16).clamp(MAINTENANCE_STOCK, 1 << 30)),
            stock_bytes: MAINTENANCE_STOCK,
            why: "indexes of a load are built in memory",
        },
    ]
}

/// Whole 16 MiB, and at least so many.
fn round(bytes: u64) -> u64 {
    (bytes / (16 * MIB)).max(1) * 16 * MIB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_fit_on_every_size() {
        for gib_quarters in [2, 4, 8, 16, 32, 64, 128, 512] {
            let memory = gib_quarters * 256 * MIB;
            let cache = memory / 4;
            let wishes = of(memory, cache);
            let [buffers, both, maintenance] = &wishes[..] else { panic!("three") };
            assert!(
                cache + buffers.bytes + maintenance.bytes <= memory * 3 / 4,
                "{memory}: {buffers:?} {maintenance:?}"
            );
            assert!(both.bytes + cache <= memory && both.bytes >= buffers.bytes, "{memory}");
        }
    }

    #[test]
    fn a_large_cache_takes_from_the_buffers() {
        let wishes = of(4 << 30, 3 << 30);
        assert_eq!(wishes[0].value(), "512MB");
    }
}
