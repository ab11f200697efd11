//! Every metric: name, unit, help, and what to do when it looks wrong. The order is the layout of a slot's block; docs/metrics.md is made
//! from these tables.
//! Runs in: both.

/// A metric's record.
pub struct Metric {
    /// Prometheus name.
    pub name: &'static str,
    /// Its labels, if it has any.
    pub labels: &'static str,
    /// What it counts, and what to do about it.
    pub help: &'static str,
}

macro_rules! table {
    ($(#[$doc:meta])* $enum:ident, $all:ident: $($variant:ident, $name:literal, $labels:literal, $help:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $enum { $($variant),* }

        impl $enum {
            /// All, in the order of their records.
            pub const ALL: &[$enum] = &[$($enum::$variant),*];
        }

        /// Their records.
        pub const $all: &[Metric] = &[$(Metric { name: $name, labels: $labels, help: $help }),*];
    };
}

table! {
    /// What only grows.
    Counter, COUNTERS:
    Requests, "catwalk_http_requests_total", "", "Requests received.";
    Responses2xx, "catwalk_http_responses_total", "class=\"2xx\"", "Responses by status class; 5xx means a database that can't be reached or a bug.";
    Responses3xx, "catwalk_http_responses_total", "class=\"3xx\"", "";
    Responses4xx, "catwalk_http_responses_total", "class=\"4xx\"", "";
    Responses5xx, "catwalk_http_responses_total", "class=\"5xx\"", "";
    ConnectionsAccepted, "catwalk_http_connections_total", "", "Connections accepted.";
    ConnectionsTurnedAway, "catwalk_http_connections_turned_away_total", "", "Connections answered 503 or closed because there were too many; raise http.connections or the descriptor limit.";
    ConnectionsTimedOut, "catwalk_http_connections_timed_out_total", "", "Connections ended because a request came, or an answer was taken, too slowly.";
    RequestsRefused, "catwalk_http_requests_refused_total", "", "Requests refused as malformed or too large before they reached a route.";
    CacheHits, "catwalk_cache_hits_total", "", "Answers served from the shared cache.";
    CacheMisses, "catwalk_cache_misses_total", "", "Lookups that found nothing fit to serve; a high share wants a larger cache.size.";
    CacheJoined, "catwalk_cache_joined_total", "", "Misses that waited for a fetch already under way.";
    CacheBypassed, "catwalk_cache_bypassed_total", "", "Answers that the cache was not asked for: long lists, and all while it is off.";
    CacheStale, "catwalk_cache_stale_total", "", "Answers past their age, served because no database could be reached.";
    CacheElsewhere, "catwalk_cache_elsewhere_total", "", "Misses that waited for a fetch of another worker.";
    CacheFills, "catwalk_cache_fills_total", "", "Records published.";
    CacheFillsVoided, "catwalk_cache_fills_voided_total", "", "Records not published because their key was voided while they were fetched.";
    CacheFillsTooLarge, "catwalk_cache_fills_too_large_total", "", "Answers over the record size, sent uncached.";
    CacheFillsRefused, "catwalk_cache_fills_refused_total", "", "Records for which no segment could be had.";
    CacheDisplaced, "catwalk_cache_displaced_total", "", "Records pushed out of a full bucket; many of them want a larger cache.size.";
    CacheMoved, "catwalk_cache_moved_total", "", "Records copied on because they were used, when their segment was emptied.";
    CacheEvicted, "catwalk_cache_evicted_total", "", "Records evicted to make room; a high rate wants a larger cache.size.";
    CacheDamaged, "catwalk_cache_damaged_total", "", "Records taken over from before a restart whose checksum did not hold. Must stay 0: check the memory.";
    CacheRecycled, "catwalk_cache_segments_recycled_total", "", "Segments emptied to make room.";
    CacheRetries, "catwalk_cache_retries_total", "", "Lookups repeated because a segment was recycled under them.";
    CacheUntrusted, "catwalk_cache_untrusted_total", "", "Lookups that went to the database because the change feed was behind by more than cache.staleness_max; /readyz says why.";
    CacheVoided, "catwalk_cache_voided_total", "", "Fences raised: (kind, product) pairs whose records a change made void.";
    CacheVoidedCollateral, "catwalk_cache_voided_collateral_total", "", "Records voided because they share a fence's word; more than 3 a fence want a larger cache.size.";
    CacheVoidedAll, "catwalk_cache_voided_all_total", "", "Times that everything was voided; the log has the reason.";
    CacheAudited, "catwalk_cache_audited_total", "", "Hits read again from the database and compared.";
    CacheInconsistent, "catwalk_cache_inconsistent_total", "", "Audited hits that differed without a change that the feed knew of. Must stay 0: report it, with the log.";
    FeedPolls, "catwalk_feed_polls_total", "", "Times that the change feed asked the database.";
    FeedChanges, "catwalk_feed_changes_total", "", "Changes that it brought.";
    FeedLost, "catwalk_feed_lost_total", "", "Times that it lost the database, or could not follow it.";
    DatabaseStatements, "catwalk_db_statements_total", "", "Statements sent to PostgreSQL.";
    DatabaseKeys, "catwalk_db_keys_total", "", "Keys fetched by those statements; keys per statement shows how well misses batch.";
    DatabaseErrors, "catwalk_db_errors_total", "", "Statements that failed; see the log.";
    DatabaseWaits, "catwalk_db_waits_total", "", "Fetches that found no connection and waited.";
    LaneWaitsFast, "catwalk_db_lane_waits_total", "lane=\"fast\"", "Reads and writes that found their lane busy and waited, by lane; many of them want a higher database.connections.";
    LaneWaitsSlow, "catwalk_db_lane_waits_total", "lane=\"slow\"", "";
    LaneWaitsWrite, "catwalk_db_lane_waits_total", "lane=\"write\"", "";
    LaneLeftFast, "catwalk_db_lane_waits_ended_total", "lane=\"fast\"", "Those that wait no longer.";
    LaneLeftSlow, "catwalk_db_lane_waits_ended_total", "lane=\"slow\"", "";
    LaneLeftWrite, "catwalk_db_lane_waits_ended_total", "lane=\"write\"", "";
    LaneRefused, "catwalk_db_lane_refused_total", "", "Reads and writes that waited too long for a lane, and were answered 503.";
    ReplicaReads, "catwalk_db_replica_reads_total", "", "Statements sent to replicas.";
    PrimaryReads, "catwalk_db_primary_reads_total", "", "Reads sent to the primary although there are replicas: none had replayed what somebody had seen already, or none was fit.";
    ReplicaWaits, "catwalk_db_replica_waits_total", "", "Reads for which no replica was known to have come far enough; many of them want replicas that lag less.";
    ReplicaOuts, "catwalk_db_replica_outs_total", "", "Times that a replica was left alone because a read of it had failed; the log has the reason.";
    TokensUnseen, "catwalk_tokens_unseen_total", "", "Requests of clients that had written on another box what this one had not seen yet.";
    WorkerStarts, "catwalk_worker_starts_total", "", "Workers started in this slot.";
    WorkerDeaths, "catwalk_worker_deaths_total", "", "Workers that ended without being asked to; the log has the reason.";
    WorkerStuck, "catwalk_worker_stuck_total", "", "Workers killed because their beat had stopped.";
}

table! {
    /// What goes up and down, as each worker last said; nothing once its life is over.
    Level, LEVELS:
    HttpConnections, "catwalk_http_connections_open", "", "HTTP connections open now; near http.connections others are turned away.";
    DatabaseConnections, "catwalk_db_connections_open", "", "Connections to database nodes open now; fewer than database.connections for each node: the log says why the others can't be had.";
    DatabaseConnectionsWanted, "catwalk_db_connections_wanted", "", "Connections to database nodes that there should be.";
}

table! {
    /// What is looked up when it is asked for.
    Gauge, GAUGES:
    LaneWaiting, "catwalk_db_lane_waiting", "", "Reads and writes that wait for a lane now; when it stays above 0 the database is the bottleneck, or database.connections is too low.";
    WatermarkAge, "catwalk_feed_watermark_age_seconds", "", "Age of the time up to which every change is applied; over cache.staleness_max answers come from the database. /readyz says why.";
    CacheSize, "catwalk_cache_size_bytes", "", "Room for records.";
    WorkersServing, "catwalk_workers_serving", "", "Workers that serve and beat; fewer than catwalk_workers_wanted for longer than a reload: see the log.";
    WorkersWanted, "catwalk_workers_wanted", "", "Workers that there should be.";
    WorkersCrashLooping, "catwalk_workers_crash_looping", "", "Workers that keep dying; the log has the reason. Must stay 0.";
}

table! {
    /// Whose answers are timed together.
    RouteGroup, ROUTES:
    Products, "products", "", "lists of products";
    Product, "product", "", "one product";
    Styles, "styles", "", "a product's styles";
    Related, "related", "", "a product's related ones";
    Reviews, "reviews", "", "lists of reviews";
    Meta, "meta", "", "what a product's reviews come to";
    Questions, "questions", "", "lists of questions";
    Answers, "answers", "", "lists of answers";
    Votes, "votes", "", "helpful and report";
    Posts, "posts", "", "new reviews, questions and answers";
    Cart, "cart", "", "carts, shown and added to";
    Interactions, "interactions", "", "clicks";
    Images, "images", "", "the image service";
    Pictures, "pictures", "", "pictures that are drawn";
    Admin, "admin", "", "administration";
    Other, "other", "", "documents, health checks, and paths that lead nowhere";
}

/// How often statements were run, and for how long.
pub const STATEMENT_SECONDS: Metric = Metric {
    name: "catwalk_db_statement_seconds",
    labels: "",
    help: "Statements run, and the time from being queued to their last row, by name. The one whose rate of seconds grows is what the \
           database is busy with: `catwalk explain NAME` shows its plan.",
};

/// The histogram of times.
pub const DURATION: Metric = Metric {
    name: "catwalk_http_request_duration_seconds",
    labels: "route",
    help: "From a request's head to its answer, by route. A p99 over some milliseconds: compare with catwalk_db_lane_waits_total (the \
           database is the bottleneck) and the CPUs' idle time (this machine is).",
};
