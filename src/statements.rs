//! Every statement, by the name of its file in `sql/queries/`, which is also the comment that it is sent with: so it is found again in
//! pg_stat_activity, pg_stat_statements, the log and the metrics. Imports nothing.
//! Runs in: worker | offline.

macro_rules! statements {
    ($($constant:ident $name:literal;)*) => {
        $(pub const $constant: &str = include_str!(concat!("../sql/queries/", $name, ".sql"));)*

        /// Their names, in the order of the alphabet, and their texts.
        pub const STATEMENTS: &[(&str, &str)] = &[$(($name, $constant)),*];
    };
}

statements! {
    ANSWERS_ADD "answers_add";
    ANSWERS_HIDE "answers_hide";
    ANSWERS_LIST "answers_list";
    ANSWERS_MARK_HELPFUL "answers_mark_helpful";
    ANSWERS_REPORT "answers_report";
    CART_ADD "cart_add";
    CART_SHOW "cart_show";
    DATABASE_IDENTITY "database_identity";
    FEATURES_ADD "features_add";
    FEATURES_REMOVE "features_remove";
    FEED_BIRTH "feed_birth";
    FEED_PARENTS "feed_parents";
    FEED_POLL "feed_poll";
    FEED_PROBLEMS "feed_problems";
    FEED_ROTATE "feed_rotate";
    FEED_SURROUNDINGS "feed_surroundings";
    IDEMPOTENCY_FIND "idempotency_find";
    IDEMPOTENCY_KEEP "idempotency_keep";
    IMAGES_ADD "images_add";
    IMAGES_CHANGE "images_change";
    IMAGES_RECOMMEND "images_recommend";
    IMAGES_REMOVE "images_remove";
    IMAGES_SHOW "images_show";
    INDEXES_MISSING "indexes_missing";
    INTERACTIONS_ADD "interactions_add";
    LOAD_BELONGINGS "load_belongings";
    LOAD_INDEXES "load_indexes";
    LOAD_OBSTACLES "load_obstacles";
    LOAD_REFERENCES "load_references";
    LOAD_SHAPE "load_shape";
    NODE_BEAT "node_beat";
    NODE_OPEN "node_open";
    NODE_PROBE "node_probe";
    NODE_REPLAYED "node_replayed";
    NODE_ROOM "node_room";
    NODE_WRITTEN "node_written";
    PHOTOS_ADD "photos_add";
    PHOTOS_REMOVE "photos_remove";
    PRODUCTS_ADD "products_add";
    PRODUCTS_BEFORE "products_before";
    PRODUCTS_CATEGORY "products_category";
    PRODUCTS_FETCH "products_fetch";
    PRODUCTS_INSPECT "products_inspect";
    PRODUCTS_LIST "products_list";
    PRODUCTS_LOCK "products_lock";
    PRODUCTS_RANKS "products_ranks";
    PRODUCTS_REMOVE "products_remove";
    PRODUCTS_SEARCH "products_search";
    PRODUCTS_SOME "products_some";
    PRODUCTS_UPDATE "products_update";
    QUESTIONS_ADD "questions_add";
    QUESTIONS_HIDE "questions_hide";
    QUESTIONS_LIST "questions_list";
    QUESTIONS_MARK_HELPFUL "questions_mark_helpful";
    QUESTIONS_OF "questions_of";
    QUESTIONS_REPORT "questions_report";
    RELATED_ADD "related_add";
    RELATED_FETCH "related_fetch";
    RELATED_REMOVE "related_remove";
    REVIEWS_ADD "reviews_add";
    REVIEWS_HELPFUL "reviews_helpful";
    REVIEWS_HIDE "reviews_hide";
    REVIEWS_MARK_HELPFUL "reviews_mark_helpful";
    REVIEWS_META "reviews_meta";
    REVIEWS_NEWEST "reviews_newest";
    REVIEWS_RELEVANT "reviews_relevant";
    REVIEWS_REPORT "reviews_report";
    SHOPPERS_TRIM "shoppers_trim";
    SKUS_ADD "skus_add";
    SKUS_LOCK "skus_lock";
    SKUS_SHOW "skus_show";
    SKUS_UPDATE "skus_update";
    STYLES_ADD "styles_add";
    STYLES_FETCH "styles_fetch";
    STYLES_LOCK "styles_lock";
    STYLES_UPDATE "styles_update";
}

/// The place of a statement in [`STATEMENTS`], by its name.
pub fn find(name: &str) -> Option<usize> {
    STATEMENTS.binary_search_by_key(&name, |(name, _)| name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for (n, (name, text)) in STATEMENTS.iter().enumerate() {
            assert_eq!(find(name), Some(n));
            assert!(text.starts_with(&format!("/* {name} */")));
        }
        assert_eq!(find("none"), None);
    }
}
