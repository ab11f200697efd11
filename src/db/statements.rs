//! Every statement, by the name of its file in `sql/queries/`.
//! Runs in: worker | offline.

pub const ANSWERS_LIST: &str = include_str!("../../sql/queries/answers_list.sql");
pub const DATABASE_IDENTITY: &str = include_str!("../../sql/queries/database_identity.sql");
pub const FEED_BIRTH: &str = include_str!("../../sql/queries/feed_birth.sql");
pub const FEED_PARENTS: &str = include_str!("../../sql/queries/feed_parents.sql");
pub const FEED_POLL: &str = include_str!("../../sql/queries/feed_poll.sql");
pub const FEED_PROBLEMS: &str = include_str!("../../sql/queries/feed_problems.sql");
pub const FEED_ROTATE: &str = include_str!("../../sql/queries/feed_rotate.sql");
pub const FEED_SURROUNDINGS: &str = include_str!("../../sql/queries/feed_surroundings.sql");
pub const PRODUCTS_BEFORE: &str = include_str!("../../sql/queries/products_before.sql");
pub const PRODUCTS_FETCH: &str = include_str!("../../sql/queries/products_fetch.sql");
pub const PRODUCTS_LIST: &str = include_str!("../../sql/queries/products_list.sql");
pub const PRODUCTS_RANKS: &str = include_str!("../../sql/queries/products_ranks.sql");
pub const PRODUCTS_UPDATE: &str = include_str!("../../sql/queries/products_update.sql");
pub const QUESTIONS_LIST: &str = include_str!("../../sql/queries/questions_list.sql");
pub const RELATED_FETCH: &str = include_str!("../../sql/queries/related_fetch.sql");
pub const REVIEWS_HELPFUL: &str = include_str!("../../sql/queries/reviews_helpful.sql");
pub const REVIEWS_META: &str = include_str!("../../sql/queries/reviews_meta.sql");
pub const REVIEWS_NEWEST: &str = include_str!("../../sql/queries/reviews_newest.sql");
pub const REVIEWS_RELEVANT: &str = include_str!("../../sql/queries/reviews_relevant.sql");
pub const STYLES_FETCH: &str = include_str!("../../sql/queries/styles_fetch.sql");
