//! The change table: what became visible since the last look, and whether its triggers can be relied on.
//! Runs in: feed | offline.
//!
//! A snapshot says which transactions can be seen: those before `xmin`, and those before `xmax` that are not in `open`. What
//! became visible since the last one is what its `open` and `xmax` had kept back. So no order of numbers or times is relied on,
//! and a transaction that is open for a minute costs an index lookup a poll, not reading all since again.

use may_postgres::{Client, Error};

use crate::db::statements::{DATABASE_IDENTITY, FEED_POLL, FEED_PROBLEMS, FEED_ROTATE, FEED_STANDING};

/// Which transactions a statement saw (`pg_current_snapshot()`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction before it has ended.
    pub xmin: u64,
    /// No transaction from it on was seen.
    pub xmax: u64,
    /// Those between that had not ended.
    pub open: Vec<u64>,
}

impl Snapshot {
    /// A snapshot of which only the `xmin` is known: everything from there on counts as not seen.
    pub fn from_xmin(xmin: u64) -> Snapshot {
        Snapshot { xmin, xmax: xmin, open: Vec::new() }
    }

    /// Reads `xmin:xmax:open,open`.
    fn read(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, xmax, open) = (parts.next()?, parts.next()?, parts.next()?);
        let open = open.split(',').filter(|x| !x.is_empty()).map(|x| x.parse().ok());
        Some(Snapshot {
            xmin: xmin.parse().ok()?,
            xmax: xmax.parse().ok()?,
            open: open.collect::<Option<_>>()?,
        })
    }
}

/// What a change was noted as (sql/0005_change_feed.sql).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Product,
    Existence,
    Features,
    Styles,
    Related,
    /// Or a word that this version doesn't know.
    Everything,
}

/// One change: of which product, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    pub product_id: i64,
}

/// What one look brought.
#[derive(Debug)]
pub struct Poll {
    pub snapshot: Snapshot,
    /// The triggers, their functions and tables, as one number: another one when any was changed, even for a moment.
    pub followed: u64,
    /// Which server process answered: another one has to be looked at again.
    pub server: String,
    /// It is a standby, or has not recovered yet.
    pub in_recovery: bool,
    /// At most as many as were asked for.
    pub changes: Vec<Change>,
}

/// Looks at what became visible since `seen`; at most `changes_max` changes.
pub fn poll(client: &Client, seen: &Snapshot, changes_max: usize) -> Result<Poll, Error> {
    let statement = client.prepare_cached(FEED_POLL)?;
    let xmax = seen.xmax.to_string();
    let open: Vec<String> = seen.open.iter().map(u64::to_string).collect();
    let rows = client.query(&statement, &[&xmax, &open, &(changes_max as i64)])?;
    let unreadable = || Error::Convert("the feed's poll returned no snapshot".into());
    let (first, rest) = rows.split_first().ok_or_else(unreadable)?;
    let snapshot = Snapshot::read(&first.try_get::<String>(2)?).ok_or_else(unreadable)?;
    let followed = rapidhash::v3::rapidhash_v3(first.try_get::<String>(3)?.as_bytes());
    let mut changes = Vec::with_capacity(rest.len());
    for row in rest {
        let what = match row.try_get::<String>(0)?.as_str() {
            "product" => What::Product,
            "existence" => What::Existence,
            "features" => What::Features,
            // A style that is gone was noted itself when it went.
            "styles" | "style" => What::Styles,
            "related" => What::Related,
            _ => What::Everything,
        };
        if let Some(product_id) = row.try_get(1)? {
            changes.push(Change { what, product_id });
        }
    }
    Ok(Poll { snapshot, followed, server: first.try_get(4)?, in_recovery: first.try_get(5)?, changes })
}

/// Which database a client speaks to, and in which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub system_identifier: u64,
    pub timeline: u64,
    /// Another one after a crash, a promotion or a restore: commits that were seen may be gone.
    pub life: u64,
    /// Changes of transactions up to this one may have been dropped.
    pub dropped_xid: u64,
}

/// System identifier and timeline of the database that a client speaks to.
pub fn identity(client: &Client) -> Result<(u64, u64), Error> {
    let row = client.query_one(&client.prepare_cached(DATABASE_IDENTITY)?, &[])?;
    Ok((row.try_get::<i64>(0)? as u64, row.try_get::<i64>(1)? as u64))
}

/// Where the database stands. Begins a life where it has none.
pub fn standing(client: &Client) -> Result<Standing, Error> {
    let (system_identifier, timeline) = identity(client)?;
    let row = client.query_one(&client.prepare_cached(FEED_STANDING)?, &[])?;
    let dropped: String = row.try_get(1)?;
    Ok(Standing {
        system_identifier,
        timeline,
        life: row.try_get::<i64>(0)? as u64,
        dropped_xid: dropped.parse().map_err(|_| Error::Convert(format!("dropped_xid is {dropped:?}")))?,
    })
}

/// What keeps changes from being noted, and the repair; None when all is well.
pub fn problems(client: &Client) -> Result<Option<String>, Error> {
    let rows = client.query(&client.prepare_cached(FEED_PROBLEMS)?, &[])?;
    let problems = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, Error>>()?;
    let repair = "triggers are repaired by: select catwalk_follow(name) from catwalk_followed";
    Ok((!problems.is_empty()).then(|| format!("{}; {repair}", problems.join("; "))))
}

/// Makes the change table's partitions of the days to come and drops old ones, as far as nobody is in the way.
pub fn rotate(client: &Client) -> Result<(), Error> {
    client.query(&client.prepare_cached(FEED_ROTATE)?, &[]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::Snapshot;

    #[test]
    fn snapshots_are_read_as_postgres_writes_them() {
        let read = |text| Snapshot::read(text);
        assert_eq!(read("10:20:10,14,15"), Some(Snapshot { xmin: 10, xmax: 20, open: vec![10, 14, 15] }));
        assert_eq!(read("783:783:"), Some(Snapshot::from_xmin(783)));
        for text in ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3;4"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
