//! The indexes that statements need, and whether they are there: imports and hand-made schemas lose them, and nothing says so but time.
//! Runs in: worker | offline.

use anyhow::{bail, Result};
use may_postgres::{Client, Error};

use crate::statements::INDEXES_MISSING;

/// An index as PostgreSQL describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    pub table: &'static str,
    pub name: &'static str,
    is_unique: bool,
    /// Method and columns.
    using: &'static str,
}

const fn index(table: &'static str, name: &'static str, using: &'static str) -> Index {
    Index { table, name, is_unique: false, using }
}

const fn unique(table: &'static str, name: &'static str, using: &'static str) -> Index {
    Index { table, name, is_unique: true, using }
}

/// All of them. One of another name does as well.
pub const NEEDED: &[Index] = &[
    unique("answers", "answers_pkey", "btree (id)"),
    index("answers", "answers_helpful", "btree (question_id, reported, ((- helpful)), id)"),
    unique("answers_photos", "answers_photos_pkey", "btree (id)"),
    index("answers_photos", "answers_photos_answer_id", "btree (answer_id, id)"),
    unique("cart_items", "cart_items_pkey", "btree (session, sku_id)"),
    index("cart_items", "cart_items_recent", "btree (session, updated_at)"),
    index("cart_items", "cart_items_updated_at", "btree (updated_at)"),
    index("catwalk_changes", "catwalk_changes_xid", "btree (xid)"),
    unique("catwalk_feed", "catwalk_feed_pkey", "btree (only_row)"),
    unique("catwalk_life", "catwalk_life_pkey", "btree (only_row)"),
    unique("characteristic_reviews", "characteristic_reviews_pkey", "btree (id)"),
    index("characteristic_reviews", "characteristic_reviews_characteristic_id", "btree (characteristic_id)"),
    index("characteristic_reviews", "characteristic_reviews_review_id", "btree (review_id)"),
    unique("characteristics", "characteristics_pkey", "btree (id)"),
    index("characteristics", "characteristics_product_id", "btree (product_id)"),
    unique("features", "features_pkey", "btree (id)"),
    index("features", "features_product_id", "btree (product_id)"),
    unique("idempotency_keys", "idempotency_keys_pkey", "btree (key)"),
    index("idempotency_keys", "idempotency_keys_at", "btree (at)"),
    unique("interactions", "interactions_pkey", "btree (id)"),
    index("interactions", "interactions_at", "btree (at)"),
    unique("photos", "photos_pkey", "btree (id)"),
    index("photos", "photos_style_id", "btree (style_id)"),
    unique("product_rank_version", "product_rank_version_pkey", "btree (only_row)"),
    unique("product_ranks", "product_ranks_pkey", "btree (block)"),
    index("product_ranks", "product_ranks_version", "btree (version)"),
    unique("products", "products_pkey", "btree (id)"),
    index("products", "products_category", "btree (category, id)"),
    index("products", "products_words", "gin (to_tsvector('english'::regconfig, ((((((name || ' '::text) || slogan) || ' '::text) || description) || ' '::text) || category)))"),
    unique("questions", "questions_pkey", "btree (id)"),
    index("questions", "questions_helpful", "btree (product_id, reported, ((- helpful)), id)"),
    unique("related", "related_pkey", "btree (id)"),
    index("related", "related_current_product_id", "btree (current_product_id)"),
    index("related", "related_related_product_id", "btree (related_product_id)"),
    unique("reviews", "reviews_pkey", "btree (id)"),
    index("reviews", "reviews_helpful", "btree (product_id, reported, helpfulness, date, id)"),
    index("reviews", "reviews_newest", "btree (product_id, reported, date, id)"),
    unique("reviews_photos", "reviews_photos_pkey", "btree (id)"),
    index("reviews_photos", "reviews_photos_review_id", "btree (review_id, id)"),
    unique("shoe_images", "shoe_images_pkey", "btree (id)"),
    index("shoe_images", "shoe_images_shoe_id", "btree (shoe_id, id)"),
    unique("skus", "skus_pkey", "btree (id)"),
    index("skus", "skus_style_id", "btree (style_id)"),
    unique("styles", "styles_pkey", "btree (id)"),
    index("styles", "styles_product_id", "btree (product_id)"),
];

impl Index {
    /// The statement that makes it, by the name of `name`.
    pub fn statement(&self, name: &str) -> String {
        let unique = if self.is_unique { "UNIQUE " } else { "" };
        format!("CREATE {unique}INDEX {name} ON {} USING {}", self.table, self.using)
    }
}

/// Those that are not there, or not valid.
pub fn missing(client: &Client) -> Result<Vec<Index>, Error> {
    let column = |of: fn(&Index) -> &'static str| NEEDED.iter().map(of).collect::<Vec<_>>();
    let is_unique: Vec<bool> = NEEDED.iter().map(|index| index.is_unique).collect();
    let rows = client.query_text(
        INDEXES_MISSING,
        &[&column(|index| index.table), &column(|index| index.using), &is_unique],
    )?;
    let number = |row: &may_postgres::Row| row.try_get::<i64>(0).map(|n| NEEDED[n as usize - 1]);
    rows.iter().map(number).collect()
}

/// Checks that all are there.
///
/// # Errors
/// The statements that make those that are missing.
pub fn check(client: &Client) -> Result<()> {
    let missing = missing(client)?;
    if missing.is_empty() {
        return Ok(());
    }
    let statements: Vec<String> = missing.iter().map(|index| index.statement(index.name)).collect();
    bail!("indexes that statements need are missing; make them: {}", statements.join("; "))
}
