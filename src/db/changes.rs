//! The change table: what became visible since the last look, and whether its triggers can be relied on.
//! Runs in: feed | offline.
//!
//! A snapshot says which transactions can be seen: those before `xmin`, and those before `xmax` that are not in `open`. What
//! became visible since the last one is what its `open` and `xmax` had kept back. So no order of numbers or times is relied on,
//! and a transaction that is open for a minute costs an index lookup a poll, not reading all since again.

use may_postgres::{Client, Error, Row};

use crate::catalogue::{Change, What};
use crate::limits::FEED_CHANGES_MAX;
use crate::statements::{
    DATABASE_IDENTITY, FEED_BIRTH, FEED_PARENTS, FEED_POLL, FEED_PROBLEMS, FEED_ROTATE, FEED_SURROUNDINGS,
};

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
    pub(super) fn read(text: &str) -> Option<Snapshot> {
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

/// What one look brought.
#[derive(Debug)]
pub struct Poll {
    pub snapshot: Snapshot,
    /// Changes of transactions up to this one may have been dropped.
    pub dropped_xid: u64,
    /// Another one after a crash, a promotion or a restore: commits that were seen may be gone. None: it has to begin.
    pub life: Option<u64>,
    /// None: more than `FEED_CHANGES_MAX`.
    pub changes: Option<Vec<Change>>,
    /// On a replica, whose snapshots don't tell what is open: the transactions that have noted them.
    pub xids: Vec<u64>,
}

/// Looks at what became visible since `seen`, but for what transactions `beyond` it have noted.
pub fn poll(client: &Client, seen: &Snapshot, beyond: &[u64]) -> Result<Poll, Error> {
    let statement = client.prepare_cached(FEED_POLL)?;
    let texts = |xids: &[u64]| xids.iter().map(u64::to_string).collect::<Vec<String>>();
    let (xmax, open, beyond) = (seen.xmax.to_string(), texts(&seen.open), texts(beyond));
    let rows = client.query(&statement, &[&xmax, &open, &beyond])?;
    let unreadable = || Error::Convert("the feed's poll returned no snapshot".into());
    let (first, rest) = rows.split_first().ok_or_else(unreadable)?;
    let snapshot = Snapshot::read(&first.try_get::<String>(2)?).ok_or_else(unreadable)?;
    let dropped_xid = first.try_get::<String>(3)?.parse().map_err(|_| unreadable())?;
    let noted: i64 = first.try_get(4)?;
    let life = first.try_get::<Option<i64>>(5)?.map(|life| life as u64);
    let few = noted as usize <= FEED_CHANGES_MAX && rest.len() <= FEED_CHANGES_MAX;
    let changes = if few { Some(rest.iter().map(read_change).collect::<Result<_, _>>()?) } else { None };
    let xids = first.try_get::<Option<String>>(6)?.unwrap_or_default();
    let xids = xids.split(',').filter_map(|xid| xid.parse().ok()).collect();
    Ok(Poll { snapshot, dropped_xid, life, changes, xids })
}

fn read_change(row: &Row) -> Result<Change, Error> {
    let what = match row.try_get::<String>(0)?.as_str() {
        "product" => What::Product,
        "existence" => What::Existence,
        "features" => What::Features,
        "styles" => What::Styles,
        "style" => What::Style,
        "related" => What::Related,
        "reviews" => What::Reviews,
        "characteristics" => What::Characteristics,
        "questions" => What::Questions,
        "answers" => What::Answers,
        "review" => What::Review,
        "question" => What::Question,
        "answer" => What::Answer,
        _ => What::Everything,
    };
    Ok(Change { what, id: row.try_get(1)? })
}

/// What changes of parts are to those that the parts belong to: a style's photo to its product's styles. Of an owner that is
/// gone, its going was noted itself.
pub fn of_parents(client: &Client, changes: &[Change]) -> Result<Vec<Change>, Error> {
    let ids = |what| -> Vec<i64> { changes.iter().filter(|c| c.what == what).map(|c| c.id).collect() };
    let (styles, reviews) = (ids(What::Style), ids(What::Review));
    let (questions, answers) = (ids(What::Question), ids(What::Answer));
    let rows =
        client.query(&client.prepare_cached(FEED_PARENTS)?, &[&styles, &reviews, &questions, &answers])?;
    let of_questions = questions.iter().map(|id| Change { what: What::Answers, id: *id });
    rows.iter().map(read_change).chain(of_questions.map(Ok)).collect()
}

/// What changes are noted by, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The triggers, their functions and tables, as one number: another one when any was changed, even for a moment.
    pub followed: u64,
    /// Which database, and when its server was started.
    pub server: String,
    /// It is a standby, or has not recovered yet.
    pub in_recovery: bool,
    /// Position in the WAL behind everything that the poll can have seen.
    pub lsn: u64,
}

/// What changes are noted by, now. Asked for after the poll: what hid a change from that has happened by then.
pub fn surroundings(client: &Client) -> Result<Surroundings, Error> {
    let row = client.query_one(&client.prepare_cached(FEED_SURROUNDINGS)?, &[])?;
    // No such tables at all: NULL.
    let followed: Option<String> = row.try_get(0)?;
    let followed = rapidhash::v3::rapidhash_v3(followed.unwrap_or_default().as_bytes());
    let lsn = row.try_get::<Option<i64>>(3)?.unwrap_or(0) as u64;
    Ok(Surroundings { followed, server: row.try_get(1)?, in_recovery: row.try_get(2)?, lsn })
}

/// Begins a life of the database that has none.
pub fn begin_life(client: &Client) -> Result<(), Error> {
    client.query(&client.prepare_cached(FEED_BIRTH)?, &[]).map(|_| ())
}

/// Which database a client speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub system_identifier: u64,
    /// A replica doesn't tell.
    pub timeline: Option<u64>,
    /// What boxes sign with.
    pub secret: [u8; 32],
}

/// Which database a client speaks to.
pub fn identity(client: &Client) -> Result<Identity, Error> {
    let row = client.query_one(&client.prepare_cached(DATABASE_IDENTITY)?, &[])?;
    let secret: Vec<u8> = row.try_get(3)?;
    Ok(Identity {
        system_identifier: row.try_get::<i64>(0)? as u64,
        timeline: row.try_get::<Option<i64>>(2)?.map(|timeline| timeline as u64),
        secret: secret
            .try_into()
            .map_err(|_| Error::Convert("catwalk_feed.secret must have 32 bytes".into()))?,
    })
}

/// What keeps changes from being noted, and the repair; None when all is well.
pub fn problems(client: &Client) -> Result<Option<String>, Error> {
    let rows = client.query(&client.prepare_cached(FEED_PROBLEMS)?, &[])?;
    let problems = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, Error>>()?;
    let repair = "triggers are repaired by: select catwalk_follow(name) from catwalk_followed";
    Ok((!problems.is_empty()).then(|| format!("{}; {repair}", problems.join("; "))))
}

/// Steps of one rotation at most: the others come with the next.
const ROTATE_STEPS_MAX: usize = 8;

/// Makes the change table's partitions of the days to come and drops old ones, as far as nobody is in the way.
pub fn rotate(client: &Client) -> Result<(), Error> {
    let statement = client.prepare_cached(FEED_ROTATE)?;
    for _ in 0..ROTATE_STEPS_MAX {
        if !client.query_one(&statement, &[])?.try_get::<bool>(0)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_reads_one_change_more_than_are_followed_one_by_one() {
        assert_eq!(FEED_POLL.matches(&format!("limit {})\n", FEED_CHANGES_MAX + 1)).count(), 2);
    }

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
