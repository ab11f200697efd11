//! How often each client address may write: counted in shared memory, so that any number of workers gives one limit.
//! Runs in: both. The master makes the table; workers count.
//!
//! ```text
//! table  ┌ set 0 ┬ set 1 ┬ … ┐     set, one cache line half: 4 words, one a client address
//!        └ 4 × 64┴       ┴   ┘     word   63           44 43                  0
//!                                         │ tag 20       │ theoretical arrival │   in 2^16 ns of CLOCK_BOOTTIME
//! ```
//! The generic cell rate algorithm (ITU-T I.371): each write moves the theoretical arrival time on by the pause between two;
//! one that would move it further ahead of now than a burst takes is refused. A set that is full forgets whoever wrote
//! least lately. One word says everything about an address, so a compare-and-swap is all the order that is needed.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::limits::THROTTLE_SETS;
use crate::os::mmap::SharedMemory;

const SET_WORDS: usize = 4;
const TAG_BITS: u32 = 20;
const TIME_BITS: u32 = 64 - TAG_BITS;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Resolution of times.
const TICK_SHIFT: u32 = 16;

/// The limit and its table.
#[derive(Clone)]
pub struct Throttle {
    memory: Arc<SharedMemory>,
    seed: u64,
    /// Whether this machine's own addresses are limited.
    includes_loopback: bool,
}

/// Words of the limit, behind the table: pause between two writes, and how far ahead of now a burst may be, in ticks; 0: no limit.
const PAUSE_AT: usize = THROTTLE_SETS * SET_WORDS * 8;
const AHEAD_AT: usize = PAUSE_AT + 8;

impl Throttle {
    /// The table that was handed on, or an empty one; no limit yet. Addresses are hashed with `seed`.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC.
    pub fn join_or_create(
        handed_on: Option<OwnedFd>,
        includes_loopback: bool,
        seed: u64,
    ) -> nix::Result<Throttle> {
        let memory = match handed_on.and_then(|fd| SharedMemory::open_trusted(fd).ok()) {
            Some(memory) if memory.size_bytes() == AHEAD_AT + 8 => memory,
            _ => SharedMemory::create("catwalk-throttle", AHEAD_AT + 8)?,
        };
        Ok(Throttle { memory: Arc::new(memory), seed, includes_loopback })
    }

    /// `per_second` writes an address, `burst` at once; 0 a second: no limit.
    pub fn set_rate(&self, per_second: u64, burst: u64) {
        let pause = 1_000_000_000_u64.checked_div(per_second).map_or(0, |ns| (ns >> TICK_SHIFT).max(1));
        self.memory.word(AHEAD_AT).store(pause.saturating_mul(burst.max(1)), Ordering::Relaxed);
        self.memory.word(PAUSE_AT).store(pause, Ordering::Relaxed);
    }

    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Counts a write of `client` at `now_ns` (CLOCK_BOOTTIME).
    ///
    /// # Errors
    /// The seconds after which one will be taken.
    pub fn admit(&self, client: IpAddr, now_ns: u64) -> Result<(), u32> {
        let limit = |at: usize| self.memory.word(at).load(Ordering::Relaxed);
        let (pause, ahead_max) = (limit(PAUSE_AT), limit(AHEAD_AT));
        if pause == 0 {
            return Ok(());
        }
        if client.is_loopback() && !self.includes_loopback {
            return Ok(());
        }
        let now = (now_ns >> TICK_SHIFT) & TIME_MASK;
        let hash = self.hash(client);
        let set = (hash as usize % THROTTLE_SETS) * SET_WORDS * 8;
        let tag = hash >> TIME_BITS;
        loop {
            let words: [u64; SET_WORDS] =
                std::array::from_fn(|n| self.memory.word(set + n * 8).load(Ordering::Relaxed));
            let own = words.iter().position(|word| word >> TIME_BITS == tag && *word != 0);
            let at = own.unwrap_or_else(|| {
                // INVARIANT: a set has words.
                (0..SET_WORDS).min_by_key(|n| words[*n] & TIME_MASK).expect("four words")
            });
            let before = own.map_or(now, |at| (words[at] & TIME_MASK).max(now));
            let after = before + pause;
            if after - now > ahead_max {
                let wait_ns = (after - now - ahead_max) << TICK_SHIFT;
                return Err(u32::try_from(wait_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX));
            }
            let next = tag << TIME_BITS | (after & TIME_MASK);
            let word = self.memory.word(set + at * 8);
            if word.compare_exchange(words[at], next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
    }

    /// An address; of IPv6 the network that one customer has.
    fn hash(&self, client: IpAddr) -> u64 {
        let bytes = match client.to_canonical() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
        };
        rapidhash::v3::rapidhash_v3(&(bytes ^ self.seed).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn create(per_second: u64, burst: u64, includes_loopback: bool, seed: u64) -> nix::Result<Throttle> {
        let throttle = Throttle::join_or_create(None, includes_loopback, seed)?;
        throttle.set_rate(per_second, burst);
        Ok(throttle)
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let throttle = create(10, 5, true, 1).unwrap();
        let admit = |now| throttle.admit(address(1), now).is_ok();
        let start = 77 * SECOND;
        assert_eq!((0..9).filter(|_| admit(start)).count(), 5);
        assert_eq!(throttle.admit(address(1), start), Err(1));
        assert_eq!((1..=100).filter(|n| admit(start + n * SECOND / 10)).count(), 100);
        let later = (1..=1000).filter(|n| admit(start + 11 * SECOND + n * SECOND / 100)).count();
        assert!((104..=105).contains(&later), "{later}");
        assert!(throttle.admit(address(2), start).is_ok(), "others are not held back");
    }

    #[test]
    fn workers_count_together() {
        let throttle = create(1, 1000, true, 1).unwrap();
        let admitted: usize = std::thread::scope(|scope| {
            let count = || (0..1000).filter(|_| throttle.admit(address(3), SECOND).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }

    #[test]
    fn who_is_limited() {
        let unlimited = create(0, 0, true, 1).unwrap();
        assert!((0..1000).all(|_| unlimited.admit(address(1), SECOND).is_ok()));
        let limited = create(1, 1, false, 1).unwrap();
        let admit = |text: &str| limited.admit(text.parse().unwrap(), SECOND).is_ok();
        assert!((0..9).all(|_| admit("127.0.0.1") && admit("::1")));
        assert!(admit("2001:db8::1") && !admit("2001:db8::ffff") && admit("2001:db8:0:1::1"));
        assert!(admit("192.0.2.1") && !admit("::ffff:192.0.2.1"));
    }
}
