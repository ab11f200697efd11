//! The database nodes as this box sees them: which one is the primary, which replicas may be read from.
//! Runs in: both. The feed's watchers write; workers read.
//!
//! ```text
//! page  ┌ box: primary, reign, life, secret … │ 128 bytes ┬ node 0 │ 64 ┬ node 1 │ 64 ┬ … ┐
//!       └─────────────────────────────────────┴───────────┴────────┴────┴────────┴────┴───┘
//! ```
//! Each word stands for itself, but for the reign: it counts up after the others of a new primary are there.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::limits::NODES_MAX;
use crate::os::mmap::SharedMemory;

mod at {
    /// The primary's number plus one; 0: none is known.
    pub const PRIMARY: usize = 0;
    pub const REIGN: usize = 8;
    pub const LIFE: usize = 16;
    pub const TIMELINE: usize = 24;
    pub const WRITTEN: usize = 32;
    pub const SEGMENT_SIZE: usize = 40;
    pub const WANTED: usize = 48;
    pub const HASH: usize = 56;
    pub const SECRET: usize = 64;
    pub const COUNT: usize = 96;
    pub const NODES: usize = 128;
    pub const NODE_SIZE: usize = 64;
    pub const STATE: usize = 0;
    pub const REPLAYED: usize = 8;
    pub const LAG_NS: usize = 16;
    pub const OUT_UNTIL_NS: usize = 24;
    pub const ROOM: usize = 32;
}

/// What a node is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Unknown,
    Primary,
    /// A replica that may be read from.
    Fit,
    /// A replica that lags behind by more than `database.replica_lag_max`.
    Behind,
    Unreachable,
    /// A former primary, or a replica that does not show what the present one has begun with: its history is another one, or it has not
    /// come that far.
    Foreign,
}

impl State {
    fn from_word(word: u64) -> State {
        match word {
            1 => State::Primary,
            2 => State::Fit,
            3 => State::Behind,
            4 => State::Unreachable,
            5 => State::Foreign,
            _ => State::Unknown,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Unknown => "not looked at yet",
            State::Primary => "primary",
            State::Fit => "replica",
            State::Behind => "replica, too far behind to be read from",
            State::Unreachable => "can't be reached",
            State::Foreign => {
                "does not show the primary's present life: a former primary, or a replica that has not come that far, or never will"
            }
        })
    }
}

/// A primary from its inauguration on: another number with each new one, and with each recovery of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    pub number: u64,
    /// The primary's place among the nodes.
    pub node: usize,
}

/// The page.
#[derive(Clone)]
pub struct Topology {
    memory: Arc<SharedMemory>,
    nodes: usize,
}

impl Topology {
    /// The page that was handed on, if it is of the same nodes (`hash`: their addresses as one number); else one of `nodes` nodes of which
    /// nothing is known, but that a single one is the primary.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC.
    pub fn join_or_create(handed_on: Option<OwnedFd>, nodes: usize, hash: u64) -> nix::Result<Topology> {
        let joined = handed_on.and_then(|fd| SharedMemory::open_trusted(fd).ok());
        if let Some(memory) = joined.filter(|memory| memory.word(at::HASH).load(Ordering::Relaxed) == hash) {
            memory.word(at::COUNT).store(nodes as u64, Ordering::Release);
            return Ok(Topology { memory: Arc::new(memory), nodes });
        }
        let topology = Topology::create(nodes)?;
        topology.set(at::HASH, hash);
        Ok(topology)
    }

    /// Of `nodes` nodes, of which nothing is known; but a single one is the primary.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC.
    pub fn create(nodes: usize) -> nix::Result<Topology> {
        let memory = SharedMemory::create("catwalk-nodes", 4096)?;
        let topology = Topology { memory: Arc::new(memory), nodes };
        topology.set(at::COUNT, nodes as u64);
        if nodes == 1 {
            topology.set(at::PRIMARY, 1);
        }
        Ok(topology)
    }

    /// The page of a running server, to look at only.
    ///
    /// # Errors
    /// What mmap(2) says; EINVAL for what is no such page.
    pub fn open_to_read(fd: OwnedFd) -> nix::Result<Topology> {
        let memory = SharedMemory::open_to_read(fd)?;
        let nodes = memory.word(at::COUNT).load(Ordering::Acquire) as usize;
        match (1..=NODES_MAX).contains(&nodes) {
            true => Ok(Topology { memory: Arc::new(memory), nodes }),
            false => Err(nix::errno::Errno::EINVAL),
        }
    }

    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Whether reads may go elsewhere than writes.
    #[inline]
    pub fn has_replicas(&self) -> bool {
        self.nodes > 1
    }

    fn get(&self, at: usize) -> u64 {
        self.memory.word(at).load(Ordering::Acquire)
    }

    /// ORDERING: Release pairs with the Acquire of `get`: who sees a primary sees what was said of it before.
    fn set(&self, at: usize, value: u64) {
        self.memory.word(at).store(value, Ordering::Release);
    }

    fn get_of(&self, node: usize, at: usize) -> u64 {
        self.get(at::NODES + node * at::NODE_SIZE + at)
    }

    fn set_of(&self, node: usize, at: usize, value: u64) {
        self.set(at::NODES + node * at::NODE_SIZE + at, value);
    }

    /// Who takes writes, if anybody is known to.
    pub fn reign(&self) -> Option<Reign> {
        let number = self.get(at::REIGN);
        let node = self.get(at::PRIMARY).checked_sub(1)?;
        Some(Reign { number, node: node as usize })
    }

    /// The timeline of the present primary, or the last one.
    pub fn timeline(&self) -> u64 {
        self.get(at::TIMELINE)
    }

    /// The life of the database: what is known of its WAL positions holds within it. 0: none is known.
    pub fn life(&self) -> u64 {
        self.get(at::LIFE)
    }

    /// Has `node` take writes from now on.
    pub fn inaugurate(&self, node: usize, timeline: u64) {
        if self.reign().is_some_and(|reign| reign.node == node) && self.timeline() == timeline {
            return;
        }
        self.set(at::TIMELINE, timeline);
        self.set(at::PRIMARY, node as u64 + 1);
        self.memory.word(at::REIGN).fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody takes writes.
    pub fn lose_primary(&self) {
        self.set(at::PRIMARY, 0);
    }

    /// What was noted of positions is of a history that may be over.
    pub fn forget_positions(&self) {
        self.set(at::WRITTEN, 0);
        self.set(at::WANTED, 0);
    }

    /// What tokens are signed with, and the life that they are good for.
    pub fn set_secret(&self, life: u64, secret: &[u8; 32]) {
        for (n, word) in secret.chunks_exact(8).enumerate() {
            self.set(at::SECRET + n * 8, u64::from_le_bytes(std::array::from_fn(|at| word[at])));
        }
        self.set(at::LIFE, life);
    }

    pub fn secret(&self) -> [u8; 32] {
        let words: [u64; 4] = std::array::from_fn(|n| self.get(at::SECRET + n * 8));
        std::array::from_fn(|n| words[n / 8].to_le_bytes()[n % 8])
    }

    /// WAL position up to which the primary has written, when it was last asked.
    pub fn written(&self) -> u64 {
        self.get(at::WRITTEN)
    }

    pub fn set_written(&self, lsn: u64) {
        self.set(at::WRITTEN, lsn);
    }

    /// The end of the last record before an insert position of the primary's.
    pub fn end_of_record(&self, insert: u64) -> u64 {
        match self.get(at::SEGMENT_SIZE) {
            0 => insert,
            segment_size_bytes => end_of_record(insert, segment_size_bytes),
        }
    }

    pub fn set_segment_size(&self, bytes: u64) {
        self.set(at::SEGMENT_SIZE, bytes);
    }

    pub fn state(&self, node: usize) -> State {
        State::from_word(self.get_of(node, at::STATE))
    }

    pub fn set_state(&self, node: usize, state: State) {
        self.set_of(node, at::STATE, state as u64);
    }

    /// Whether `node` is a replica that may be read from at `now_ns` (CLOCK_BOOTTIME).
    pub fn is_fit(&self, node: usize, now_ns: u64) -> bool {
        self.state(node) == State::Fit && !self.is_out(node, now_ns)
    }

    /// Whether reads of it have failed lately.
    pub fn is_out(&self, node: usize, now_ns: u64) -> bool {
        self.get_of(node, at::OUT_UNTIL_NS) > now_ns
    }

    /// A read of `node` has failed: it is left alone until `until_ns` (CLOCK_BOOTTIME).
    pub fn take_out(&self, node: usize, until_ns: u64) {
        self.set_of(node, at::OUT_UNTIL_NS, until_ns);
    }

    /// WAL position up to which a replica has replayed, at least.
    pub fn replayed(&self, node: usize) -> u64 {
        self.get_of(node, at::REPLAYED)
    }

    /// A replica has told how far it is; of two who asked the later answer counts.
    pub fn saw_replayed(&self, node: usize, lsn: u64) {
        self.memory.word(at::NODES + node * at::NODE_SIZE + at::REPLAYED).fetch_max(lsn, Ordering::AcqRel);
    }

    /// The same from whoever looks after it: it may have begun anew, further back.
    pub fn set_replayed(&self, node: usize, lsn: u64) {
        self.set_of(node, at::REPLAYED, lsn);
    }

    /// A client has written up to `lsn`, and nobody can say yet whether the feed has come there.
    pub fn want_written(&self, lsn: u64) {
        self.memory.word(at::WANTED).fetch_max(lsn, Ordering::AcqRel);
    }

    pub fn wanted_written(&self) -> u64 {
        self.get(at::WANTED)
    }

    /// For how long a replica's state has been behind the primary's, at most.
    pub fn lag_ns(&self, node: usize) -> u64 {
        self.get_of(node, at::LAG_NS)
    }

    pub fn set_lag(&self, node: usize, ns: u64) {
        self.set_of(node, at::LAG_NS, ns);
    }

    /// Connections that this box may have to `node`; None: it has not said yet.
    pub fn room(&self, node: usize) -> Option<usize> {
        let room = self.get_of(node, at::ROOM);
        (room > 0).then_some(room as usize)
    }

    pub fn set_room(&self, node: usize, connections: usize) {
        self.set_of(node, at::ROOM, connections as u64);
    }
}

/// Page of the WAL, and the headers with which a page and a segment's first page begin (xlog_internal.h, 64 bits).
const PAGE_SIZE_BYTES: u64 = 8192;
const PAGE_HEADER_SIZE_BYTES: u64 = 24;
const SEGMENT_HEADER_SIZE_BYTES: u64 = 40;

/// The end of the last record before an insert position: that lies behind the header of a page in which nothing is written yet, and no
/// replica gets there until something is.
fn end_of_record(insert: u64, segment_size_bytes: u64) -> u64 {
    if insert % segment_size_bytes.max(PAGE_SIZE_BYTES) == SEGMENT_HEADER_SIZE_BYTES {
        insert - SEGMENT_HEADER_SIZE_BYTES
    } else if insert % PAGE_SIZE_BYTES == PAGE_HEADER_SIZE_BYTES {
        insert - PAGE_HEADER_SIZE_BYTES
    } else {
        insert
    }
}

const _: () = assert!(at::NODES + NODES_MAX * at::NODE_SIZE <= 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_node_is_the_primary_and_of_several_none_is_until_it_was_looked_at() {
        assert_eq!(Topology::create(1).unwrap().reign(), Some(Reign { number: 0, node: 0 }));
        let topology = Topology::create(3).unwrap();
        assert_eq!(topology.reign(), None);
        topology.inaugurate(2, 7);
        assert_eq!((topology.reign(), topology.timeline()), (Some(Reign { number: 1, node: 2 }), 7));
        topology.lose_primary();
        assert_eq!(topology.reign(), None);
    }

    #[test]
    fn a_node_that_failed_is_left_alone_for_a_while() {
        let topology = Topology::create(2).unwrap();
        topology.set_state(1, State::Fit);
        topology.take_out(1, 100);
        assert!(!topology.is_fit(1, 99) && topology.is_fit(1, 100) && !topology.is_fit(0, 100));
    }

    #[test]
    fn headers_of_empty_pages_are_not_waited_for() {
        let segment = 16 << 20;
        let end = |insert| end_of_record(insert, segment);
        assert_eq!(end(3 * segment + 40), 3 * segment, "a segment's first page");
        assert_eq!(end(3 * segment + 8192 + 24), 3 * segment + 8192, "a page");
        assert_eq!(end(3 * segment + 8192 + 40), 3 * segment + 8192 + 40, "a record of sixteen bytes there");
        assert_eq!(end(3 * segment + 8192 + 100), 3 * segment + 8192 + 100);
    }

    #[test]
    fn secrets_come_back_as_they_were() {
        let topology = Topology::create(1).unwrap();
        let secret: [u8; 32] = std::array::from_fn(|n| n as u8 ^ 0x5a);
        topology.set_secret(9, &secret);
        assert_eq!((topology.secret(), topology.life()), (secret, 9));
    }
}
