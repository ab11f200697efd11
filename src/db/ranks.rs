//! The n-th product by id without walking to it: a bit for each id that exists, kept in memory, checked against
//! the database's version in the statement that uses it.
//! Runs in: worker.
//!
//! A page costs the same wherever it lies: the first one is found the same way as the last.

use std::sync::Arc;

use may_postgres::{Client, Error};
use parking_lot::Mutex;

use crate::catalogue::Product;
use crate::db::products::{read_list, Read};
use crate::statements::{PRODUCTS_LIST, PRODUCTS_RANKS};

/// Ids of a block: one bit each.
const BLOCK_BITS: u32 = 6;
/// Tries to meet the database in one version while products come and go.
const TRIES_MAX: usize = 64;

/// One state of the map.
#[derive(Debug, Clone, Default)]
struct Ranks {
    version: i64,
    /// Block number and members, by block number.
    blocks: Vec<(i64, u64)>,
    /// Products before each block.
    before: Vec<u64>,
    total: u64,
}

impl Ranks {
    /// Takes over blocks that changed, and counts anew.
    fn apply(&mut self, version: i64, changed: &[(i64, u64)]) {
        for &(block, members) in changed {
            match self.blocks.binary_search_by_key(&block, |b| b.0) {
                Ok(at) => self.blocks[at].1 = members,
                // A first load comes mostly in order: pushing is the usual case.
                Err(at) => self.blocks.insert(at, (block, members)),
            }
        }
        self.blocks.retain(|b| b.1 != 0);
        let mut total = 0;
        self.before.clear();
        self.before.extend(self.blocks.iter().map(|b| {
            total += u64::from(b.1.count_ones());
            total - u64::from(b.1.count_ones())
        }));
        self.total = total;
        self.version = version;
    }

    /// The id of the product with `offset` products before it.
    fn id_at(&self, offset: u64) -> Option<i64> {
        if offset >= self.total {
            return None;
        }
        let at = self.before.partition_point(|&before| before <= offset) - 1;
        let (block, mut members) = self.blocks[at];
        for _ in 0..offset - self.before[at] {
            members &= members - 1;
        }
        Some((block << BLOCK_BITS) + i64::from(members.trailing_zeros()))
    }
}

/// The map of one worker, and the history that it was read in.
#[derive(Default)]
pub struct RankMap(Mutex<(u32, Arc<Ranks>)>);

impl RankMap {
    /// `count` products by id, after skipping `offset`. A map of another `history` is not looked at: versions are numbers,
    /// and a database that was replaced may have counted to the same ones.
    ///
    /// # Errors
    /// Those of the statements; [`Error::Timeout`] when products come and go faster than they can be listed.
    pub fn list(
        &self,
        client: &Client,
        history: u32,
        offset: u64,
        count: i64,
    ) -> Result<Read<Vec<Product>>, Error> {
        let statement = client.prepare_cached(PRODUCTS_LIST)?;
        let mut ranks = self.known(history);
        for _ in 0..TRIES_MAX {
            // Beyond the last one nothing is listed, but the statement still says whether this map is the present one.
            let (start, rows_max) = ranks.id_at(offset).map_or((0, 0), |id| (id, count));
            let rows = client.query(&statement, &[&start, &rows_max])?;
            let version: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
            if version == ranks.version {
                return read_list(&rows);
            }
            ranks = self.refresh(client, history, &ranks)?;
        }
        log::warn!("products are added and removed faster than they can be listed");
        Err(Error::Timeout)
    }

    /// The last of `count` products after `offset`, if there are others behind it; as of the last list.
    pub fn last_of(&self, history: u32, offset: u64, count: u64) -> Option<i64> {
        let ranks = self.known(history);
        let next = offset.checked_add(count).filter(|next| *next > offset && *next < ranks.total)?;
        ranks.id_at(next - 1)
    }

    fn known(&self, history: u32) -> Arc<Ranks> {
        let mut present = self.0.lock();
        if present.0 == history {
            return present.1.clone();
        }
        // One who still reads under an older history starts from nothing, and leaves the newer map alone.
        if (history.wrapping_sub(present.0) as i32) > 0 {
            *present = (history, Arc::default());
        }
        Arc::default()
    }

    /// Fetches the blocks that changed since `known`, for everybody if that is still the history.
    fn refresh(&self, client: &Client, history: u32, known: &Ranks) -> Result<Arc<Ranks>, Error> {
        let statement = client.prepare_cached(PRODUCTS_RANKS)?;
        // A version that went back is another database's: start over.
        let rows = client.query(&statement, &[&known.version])?;
        let version: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        let mut next = if version < known.version { Ranks::default() } else { known.clone() };
        let mut changed = Vec::with_capacity(rows.len());
        if version >= known.version {
            for row in &rows {
                if let Some(block) = row.try_get::<Option<i64>>(1)? {
                    changed.push((block, row.try_get::<i64>(2)? as u64));
                }
            }
        }
        changed.sort_unstable();
        next.apply(if version < known.version { -1 } else { version }, &changed);
        let mut present = self.0.lock();
        let is_older = present.1.version <= known.version || present.1.version < next.version;
        let next = Arc::new(next);
        if present.0 == history && is_older {
            present.1 = next.clone();
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranks(ids: &[i64]) -> Ranks {
        let mut blocks = std::collections::BTreeMap::new();
        for id in ids {
            *blocks.entry(id >> BLOCK_BITS).or_insert(0u64) |= 1 << (id & 63);
        }
        let mut ranks = Ranks::default();
        ranks.apply(1, &blocks.into_iter().collect::<Vec<_>>());
        ranks
    }

    #[test]
    fn removed_blocks_are_skipped() {
        let mut r = ranks(&[1, 2, 70, 200]);
        r.apply(2, &[(1, 0)]);
        assert_eq!((r.id_at(2), r.id_at(3), r.total), (Some(200), None, 3));
    }

    proptest! {
        #[test]
        fn nth_id_is_that_of_the_sorted_list(mut ids in proptest::collection::btree_set(-300i64..3000, 0..200)) {
            ids.insert(i64::MAX);
            let ids: Vec<i64> = ids.into_iter().collect();
            let r = ranks(&ids);
            for (n, id) in ids.iter().enumerate() {
                prop_assert_eq!(r.id_at(n as u64), Some(*id));
            }
            prop_assert_eq!(r.id_at(ids.len() as u64), None);
        }
    }
}
