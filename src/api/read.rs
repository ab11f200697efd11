//! What handlers and fetches read: keys and queries to the catalogue's nouns.
//! Runs in: worker, on a lane's stack.

use std::collections::HashMap;
use std::sync::Arc;

use may_postgres::{Client, Error};

use crate::api::query::{Noun, Query};
use crate::cache::{floor, Cache, Key, Kind, Order};
use crate::catalogue::{Page, Product, View};
use crate::db::nodes::{Seen, Wanted};
use crate::db::pool::Lane;
use crate::db::products::{self, Read};
use crate::db::ranks::RankMap;
use crate::db::reviews::{self, Sort};
use crate::db::slice::{Cursor, Place, Slice};
use crate::db::{questions, Nodes};
use crate::os::clock;

/// Where a piece of a list of products begins.
#[derive(Debug, Clone, Copy)]
pub enum ListStart {
    Offset(i64),
    /// Behind this one.
    After(i64),
}

/// A worker's way to read the database.
pub struct Reader {
    nodes: Arc<Nodes>,
    cache: Arc<Cache>,
    ranks: RankMap,
}

/// What was read, in what order to others', and whether it may be shown to more than whoever asked.
pub struct Found<T> {
    pub found: T,
    pub position: u64,
    pub order: Order,
    pub is_settled: bool,
}

impl Reader {
    pub fn new(nodes: Arc<Nodes>, cache: Arc<Cache>) -> Reader {
        Reader { nodes, cache, ranks: RankMap::default() }
    }

    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// Reads from a node that nobody has seen more of than it shows; from the primary while nobody knows how fresh replicas are.
    fn read<T>(
        &self,
        lane: Lane,
        keys: usize,
        work: impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Result<Found<T>, Error> {
        let is_known = self.cache.is_trusted(clock::boottime_ns());
        self.read_at(lane, !is_known, keys, work)
    }

    /// The same, from the primary if there is one and `primary` says so.
    pub fn read_at<T>(
        &self,
        lane: Lane,
        primary: bool,
        keys: usize,
        work: impl Fn(&Client) -> Result<Read<T>, Error>,
    ) -> Result<Found<T>, Error> {
        self.nodes.count_statement(keys);
        let wanted = Wanted { lane, primary, floor: floor::floor(self.cache.arena()) };
        let (Read { found, position }, seen) = self.nodes.read(wanted, work)?;
        let Some(Seen { since, upto, is_settled }) = seen else {
            return Ok(Found { found, position, order: Order::Snapshots, is_settled: true });
        };
        // Before anybody is answered with it.
        floor::raise(self.cache.arena(), upto);
        Ok(Found { found, position: upto, order: Order::Wal { since }, is_settled })
    }

    /// What the database has for keys that travel together: of one kind, lists of products alone, reviews of one order.
    pub fn views(&self, keys: &[Key]) -> Result<Found<HashMap<Key, View>>, Error> {
        let ids: Vec<i64> = keys.iter().map(|key| key.id).collect();
        let kind = keys[0].kind;
        let by_id = |id| Key::new(kind, id);
        self.read(lane(kind), keys.len(), |client| match kind {
            Kind::Product => Ok(keyed(products::fetch(client, &ids)?, by_id, |(product, features)| {
                View::Product(product, features)
            })),
            Kind::Styles => Ok(keyed(products::fetch_styles(client, &ids)?, by_id, View::Styles)),
            Kind::Related => Ok(keyed(products::fetch_related(client, &ids)?, by_id, View::Related)),
            Kind::Meta => Ok(keyed(reviews::meta(client, &ids)?, by_id, View::Meta)),
            Kind::List | Kind::Reviews | Kind::Questions | Kind::Answers => self.pages(client, keys),
        })
    }

    fn pages(&self, client: &Client, keys: &[Key]) -> Result<Read<HashMap<Key, View>>, Error> {
        let queries: Vec<Query<'_>> = keys.iter().filter_map(|key| Query::of_key(*key)).collect();
        let slices: Vec<Slice> = queries.iter().map(Query::slice).collect();
        let Read { found, position } = self.lists(client, queries[0].noun, &slices)?;
        Ok(Read { found: keys.iter().copied().zip(found).collect(), position })
    }

    /// What the database has for `query`.
    pub fn view(&self, query: &Query<'_>) -> Result<View, Error> {
        let read = self.read(Lane::Slow, 1, |client| match query.noun {
            Noun::Meta => {
                let Read { mut found, position } = reviews::meta(client, &[query.owner])?;
                Ok(Read { found: View::Meta(found.remove(&query.owner).unwrap_or_default()), position })
            }
            Noun::Products if !query.filter.is_empty() => {
                let slice = query.slice();
                let Read { found, position } = products::search(client, &query.filter, &slice)?;
                Ok(Read { found: View::List(slice.cut(found)), position })
            }
            noun => {
                let Read { mut found, position } = self.lists(client, noun, &[query.slice()])?;
                Ok(Read { found: found.pop().unwrap_or(View::Missing), position })
            }
        });
        Ok(read?.found)
    }

    /// A page for each of `slices`, in their order; of products, for one.
    fn lists(&self, client: &Client, noun: Noun, slices: &[Slice]) -> Result<Read<Vec<View>>, Error> {
        Ok(match noun {
            Noun::Reviews(sort) => {
                let Read { found, position } = reviews::list(client, sort, slices)?;
                let edge = |edge| if sort == Sort::Relevant { edge } else { None };
                let views = found.into_iter().map(|(page, from)| View::Reviews(page, edge(from))).collect();
                Read { found: views, position }
            }
            Noun::Questions => all(questions::list(client, slices)?, View::Questions),
            Noun::Answers => all(questions::list_answers(client, slices)?, View::Answers),
            Noun::Products | Noun::Meta => {
                let Read { found, position } = self.products(client, &slices[0])?;
                Read { found: vec![View::List(found)], position }
            }
        })
    }

    fn products(&self, client: &Client, slice: &Slice) -> Result<Read<Page<Product>>, Error> {
        let wanted = slice.count.saturating_add(1);
        let read = match slice.from {
            Some(Cursor { backwards: true, place: Place::Id(id) }) => {
                products::list_before(client, id, wanted)?
            }
            Some(Cursor { place: Place::Id(id), .. }) => products::list_after(client, id, wanted)?,
            _ => self.ranks.list(client, self.history(), slice.skip as u64, wanted)?,
        };
        Ok(Read { found: slice.cut(read.found), position: read.position })
    }

    /// A piece of a list of products that is too long to be kept.
    pub fn list_piece(&self, start: ListStart, count: i64) -> Result<Page<Product>, Error> {
        let slice = match start {
            ListStart::Offset(skip) => Slice { owner: 0, count, skip, from: None },
            ListStart::After(id) => {
                let from = Some(Cursor { backwards: false, place: Place::Id(id) });
                Slice { owner: 0, count, skip: 0, from }
            }
        };
        Ok(self.read(Lane::Slow, 1, |client| self.products(client, &slice))?.found)
    }

    /// The last of `count` products after `skip`, if there are others behind it; as of the last page that was read.
    pub fn last_of(&self, skip: i64, count: i64) -> Option<i64> {
        self.ranks.last_of(self.history(), skip as u64, count as u64)
    }

    /// The products among `ids` that exist, in that order.
    pub fn some_products(&self, ids: &[i64]) -> Result<Vec<Product>, Error> {
        let mut found = self.read(Lane::Slow, ids.len(), |client| products::some(client, ids))?.found;
        found.sort_by_key(|product| ids.iter().position(|id| *id == product.id));
        Ok(found)
    }

    fn history(&self) -> u32 {
        self.cache.token(Key::new(Kind::List, 0)).epoch
    }
}

/// What a kind of answer is fetched with.
pub fn lane(kind: Kind) -> Lane {
    match kind {
        Kind::Product | Kind::Styles | Kind::Related | Kind::Meta => Lane::Fast,
        Kind::List | Kind::Reviews | Kind::Questions | Kind::Answers => Lane::Slow,
    }
}

fn keyed<T>(
    read: Read<HashMap<i64, T>>,
    key: impl Fn(i64) -> Key,
    view: impl Fn(T) -> View,
) -> Read<HashMap<Key, View>> {
    let found = read.found.into_iter().map(|(id, found)| (key(id), view(found)));
    Read { found: found.collect(), position: read.position }
}

fn all<T>(read: Read<Vec<T>>, view: impl Fn(T) -> View) -> Read<Vec<View>> {
    Read { found: read.found.into_iter().map(view).collect(), position: read.position }
}
