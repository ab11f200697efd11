//! Positions in the WAL (pg_lsn) as numbers, and what a node says of its own.
//! Runs in: worker, feed | offline.

use std::collections::HashSet;

use may_postgres::{Client, Error};

use crate::db::changes::Snapshot;
use crate::statements::{NODE_BEAT, NODE_OPEN, NODE_PROBE, NODE_REPLAYED, NODE_ROOM, NODE_WRITTEN};

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub role: Role,
    /// Position up to which it has inserted, or replayed.
    pub lsn: u64,
    /// On a primary taken before the position: whatever it shows is written before that.
    pub snapshot: Snapshot,
    pub life: Option<u64>,
    /// Which database, and when its server was started.
    pub server: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary {
        timeline: u64,
        /// Position up to which it has flushed: replicas get no more.
        flushed: u64,
    },
    Replica,
}

/// Asks a node what it is and how far.
pub fn probe(client: &Client) -> Result<Probe, Error> {
    let row = client.query_one(&client.prepare_cached(NODE_PROBE)?, &[])?;
    let role = match (row.try_get::<Option<i64>>(2)?, row.try_get::<Option<i64>>(3)?) {
        (Some(flushed), Some(timeline)) => {
            Role::Primary { timeline: timeline as u64, flushed: flushed as u64 }
        }
        _ => Role::Replica,
    };
    // A replica that has replayed nothing yet has no position.
    let lsn = row.try_get::<Option<i64>>(1)?.unwrap_or(0) as u64;
    let unreadable = || Error::Convert("a node returned no snapshot".into());
    let snapshot = Snapshot::read(&row.try_get::<String>(4)?).ok_or_else(unreadable)?;
    let life = row.try_get::<Option<i64>>(5)?.map(|life| life as u64);
    Ok(Probe { role, lsn, snapshot, life, server: row.try_get(6)? })
}

/// What of a node seldom changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub system_identifier: u64,
    pub segment_size_bytes: u64,
    /// Connections that it takes.
    pub connections: usize,
    /// Boxes that look after it.
    pub boxes: usize,
}

pub fn room(client: &Client) -> Result<Room, Error> {
    let row = client.query_one(&client.prepare_cached(NODE_ROOM)?, &[])?;
    Ok(Room {
        system_identifier: row.try_get::<i64>(0)? as u64,
        segment_size_bytes: row.try_get::<i64>(1)? as u64,
        connections: row.try_get::<i64>(2)?.max(0) as usize,
        boxes: row.try_get::<i64>(3)?.max(1) as usize,
    })
}

/// Position up to which a replica has replayed, and up to which it may show something already: a commit shows before the former has moved
/// behind it.
pub fn replayed(client: &Client) -> Result<(u64, u64), Error> {
    let row = client.query_opt(&client.prepare_cached(NODE_REPLAYED)?, &[])?;
    let Some(row) = row else { return Err(Error::Connect("the node is no replica any more".into())) };
    let get = |at| Ok::<u64, Error>(row.try_get::<Option<i64>>(at)?.unwrap_or(0) as u64);
    Ok((get(0)?, get(1)?))
}

/// Marks the position of a replica's snapshot (`catwalk_snapshot_position()`).
const OF_REPLICA: u64 = 1 << 62;

/// The position in the WAL up to which a replica's snapshot can have seen; None: the node is no replica any more.
pub fn of_replica(position: u64) -> Option<u64> {
    (position & OF_REPLICA != 0).then_some(position & !OF_REPLICA)
}

/// Position up to which a primary has inserted.
pub fn written(client: &Client) -> Result<u64, Error> {
    Ok(client.query_one(&client.prepare_cached(NODE_WRITTEN)?, &[])?.try_get::<i64>(0)? as u64)
}

/// Transactions that have written and have not ended, to whoever reads now: their locks on themselves outlast their commit. A snapshot
/// names only those that are older than the last one that has ended.
pub fn open(client: &Client) -> Result<HashSet<u64>, Error> {
    let row = client.query_one(&client.prepare_cached(NODE_OPEN)?, &[])?;
    Ok(row.try_get::<String>(0)?.split(',').filter_map(|xid| xid.parse().ok()).collect())
}

/// Writes a record to the WAL and has it flushed, with all before it.
pub fn beat(client: &Client) -> Result<(), Error> {
    client.query(&client.prepare_cached(NODE_BEAT)?, &[]).map(|_| ())
}
