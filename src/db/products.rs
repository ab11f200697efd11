//! Products and what belongs to them, many at a time: one statement, plain rows, shaped here.
//! Runs in: worker | offline.
//!
//! Rows come as one flat set (`union all`), told apart by their first column and put in order here: measured, that
//! costs PostgreSQL two thirds of what building JSON in SQL does (docs/measurements.md).

use std::collections::HashMap;

use may_postgres::{Client, Error, Row};

use crate::catalogue::{Feature, Photo, Product, Sku, Style};
use crate::db::decimal::Decimal;
use crate::db::slice::Slice;
use crate::statements::{
    PRODUCTS_BEFORE, PRODUCTS_CATEGORY, PRODUCTS_FETCH, PRODUCTS_LIST, PRODUCTS_SEARCH, PRODUCTS_SOME,
    RELATED_FETCH, STYLES_FETCH,
};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
pub(super) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A product with its features.
pub type ProductWithFeatures = (Product, Vec<Feature>);

/// What was read, and the position in time of the snapshot that it was read from: later ones are higher.
pub struct Read<T> {
    pub found: T,
    pub position: u64,
}

/// Which products a list is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub category: Option<String>,
    /// As people type them: quotes hold a phrase together, a minus excludes (`websearch_to_tsquery`).
    pub words: Option<String>,
}

impl Filter {
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }
}

/// The products among `ids` that exist, with their features ordered by id.
pub fn fetch(client: &Client, ids: &[i64]) -> Result<Read<HashMap<i64, ProductWithFeatures>>, Error> {
    let statement = client.prepare_cached(PRODUCTS_FETCH)?;
    let rows = client.query(&statement, &[&ids])?;
    let mut products = HashMap::with_capacity(ids.len());
    let mut position = 0;
    let mut features: Vec<(i64, i64, Feature)> = Vec::new();
    for row in &rows {
        let (part, product_id, id): (i16, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match part {
            0 => position = product_id as u64,
            1 => {
                products.insert(id, (read_product(row, 2)?, Vec::new()));
            }
            _ => {
                features.push((product_id, id, Feature { feature: row.try_get(3)?, value: row.try_get(4)? }))
            }
        }
    }
    features.sort_unstable_by_key(|(product_id, id, _)| (*product_id, *id));
    for (product_id, _, feature) in features {
        if let Some((_, list)) = products.get_mut(&product_id) {
            list.push(feature);
        }
    }
    Ok(Read { found: products, position })
}

/// At most `count` products by id, behind the one with `id`.
pub fn list_after(client: &Client, id: i64, count: i64) -> Result<Read<Vec<Product>>, Error> {
    let Some(start) = id.checked_add(1) else { return Ok(Read { found: Vec::new(), position: 0 }) };
    read_list(&client.query(&client.prepare_cached(PRODUCTS_LIST)?, &[&start, &count])?)
}

/// At most `count` products by id, the last ones before the one with `id`.
pub fn list_before(client: &Client, id: i64, count: i64) -> Result<Read<Vec<Product>>, Error> {
    read_list(&client.query(&client.prepare_cached(PRODUCTS_BEFORE)?, &[&id, &count])?)
}

/// Products of a category, or with words in them, or both, by id; one more than the slice wants. The slice's owner counts for nothing.
pub fn search(client: &Client, wanted: &Filter, slice: &Slice) -> Result<Read<Vec<Product>>, Error> {
    let (beside, backwards, count) = (slice.beside_id(), slice.is_backwards(), slice.count.saturating_add(1));
    let rows = match (&wanted.words, &wanted.category) {
        (Some(words), category) => client.query(
            &client.prepare_cached(PRODUCTS_SEARCH)?,
            &[words, &beside, &backwards, &count, &slice.skip, category],
        )?,
        (None, category) => client.query(
            &client.prepare_cached(PRODUCTS_CATEGORY)?,
            &[category, &beside, &backwards, &count, &slice.skip],
        )?,
    };
    read_list(&rows)
}

/// The products among `ids` that exist.
pub fn some(client: &Client, ids: &[i64]) -> Result<Read<Vec<Product>>, Error> {
    read_list(&client.query(&client.prepare_cached(PRODUCTS_SOME)?, &[&ids])?)
}

/// Rows of `PRODUCTS_LIST` and its like; one without a product says only how things stand.
pub(super) fn read_list(rows: &[Row]) -> Result<Read<Vec<Product>>, Error> {
    let position: i64 = rows.first().map_or(Ok(0), |row| row.try_get(1))?;
    let found = rows.iter().filter(|row| row.bytes(2).is_some()).map(|row| read_product(row, 2));
    Ok(Read { found: found.collect::<Result<_, Error>>()?, position: position as u64 })
}

/// Reads a product whose id is column `at`, the others following in the order of the table.
pub fn read_product(row: &Row, at: usize) -> Result<Product, Error> {
    Ok(Product {
        id: row.try_get(at)?,
        name: row.try_get(at + 1)?,
        slogan: row.try_get(at + 2)?,
        description: row.try_get(at + 3)?,
        category: row.try_get(at + 4)?,
        default_price: row.try_get::<Decimal>(at + 5)?.0,
        created_at_us: read_time(row, at + 6)?,
        updated_at_us: read_time(row, at + 7)?,
    })
}

/// A `timestamptz` as microseconds since the Unix epoch.
pub(super) fn read_time(row: &Row, at: usize) -> Result<i64, Error> {
    let bytes = row.bytes(at).and_then(|b| <[u8; 8]>::try_from(b).ok());
    let us =
        bytes.map(i64::from_be_bytes).ok_or_else(|| Error::Convert(format!("column {at} is not a time")))?;
    Ok(us.saturating_add(POSTGRES_EPOCH_US))
}

/// The styles of the products among `ids` that exist, with photos and skus, all ordered by id.
pub fn fetch_styles(client: &Client, ids: &[i64]) -> Result<Read<HashMap<i64, Vec<Style>>>, Error> {
    let statement = client.prepare_cached(STYLES_FETCH)?;
    let rows = client.query(&statement, &[&ids])?;
    let mut order: Vec<(i64, i64, i16, i64, &Row)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let (part, product_id): (i16, i64) = (row.try_get(0)?, row.try_get(1)?);
        order.push((product_id, row.try_get(2)?, part, row.try_get(3)?, row));
    }
    // By product, style, then the style itself before its photos before its skus, each by id.
    order.sort_unstable_by_key(|(product_id, style_id, part, id, _)| (*product_id, *style_id, *part, *id));
    let mut products: HashMap<i64, Vec<Style>> = HashMap::with_capacity(ids.len());
    let mut position = 0;
    for (product_id, _, part, id, row) in order {
        if part == 0 {
            position = product_id as u64;
            continue;
        }
        let styles = products.entry(product_id).or_default();
        match (part, styles.last_mut()) {
            (2, _) => styles.push(read_style(row, id)?),
            (3, Some(style)) => {
                style.photos.push(Photo { thumbnail_url: row.try_get(4)?, url: row.try_get(5)? });
            }
            (4, Some(style)) => {
                style.skus.push(Sku { id, size: row.try_get(4)?, quantity: row.try_get(8)? });
            }
            _ => {}
        }
    }
    Ok(Read { found: products, position })
}

fn read_style(row: &Row, id: i64) -> Result<Style, Error> {
    Ok(Style {
        id,
        name: row.try_get(4)?,
        original_price: row.try_get::<Decimal>(6)?.0,
        sale_price: row.try_get::<Option<Decimal>>(7)?.map(|d| d.0),
        default_style: row.try_get::<i64>(8)? != 0,
        photos: Vec::new(),
        skus: Vec::new(),
    })
}

/// The related products of those among `ids` that exist, in row order.
pub fn fetch_related(client: &Client, ids: &[i64]) -> Result<Read<HashMap<i64, Vec<i64>>>, Error> {
    let statement = client.prepare_cached(RELATED_FETCH)?;
    let rows = client.query(&statement, &[&ids])?;
    let mut products: HashMap<i64, Vec<i64>> = HashMap::with_capacity(ids.len());
    let mut related: Vec<(i64, i64, i64)> = Vec::new();
    let mut position = 0;
    for row in &rows {
        let (part, product_id): (i16, i64) = (row.try_get(0)?, row.try_get(1)?);
        match part {
            0 => position = product_id as u64,
            1 => {
                products.insert(product_id, Vec::new());
            }
            _ => related.push((product_id, row.try_get(2)?, row.try_get(3)?)),
        }
    }
    related.sort_unstable();
    for (product_id, _, other) in related {
        if let Some(list) = products.get_mut(&product_id) {
            list.push(other);
        }
    }
    Ok(Read { found: products, position })
}
