//! Every bound and size of the server, with its unit, related to its neighbours at compile time.
//! Runs in: both. The HTTP connection's own bounds are in `may_minihttp::limits`.

use std::time::Duration;

/// Change feeds: one a box.
pub const FEEDS: usize = 1;
/// Workers at most; beyond it more cores no longer help one PostgreSQL.
pub const WORKERS_MAX: usize = 128;
/// Workers that an arena has room for whose server begins with `workers`: more may be asked for while it runs.
pub const fn workers_room(workers: usize) -> usize {
    let room = if workers < 2 { 4 } else { workers * 2 };
    if room > WORKERS_MAX {
        WORKERS_MAX
    } else {
        room
    }
}

/// Slots for `workers` and the feed: each may have a draining predecessor, and two are spare for an upgrade.
pub const fn slots_for(workers: usize) -> usize {
    2 * (workers + FEEDS) + 2
}
/// Slots at most.
pub const SLOTS_MAX: usize = slots_for(WORKERS_MAX);

/// One slot's words and its panic text, in the arena.
pub const SLOT_SIZE_BYTES: usize = 1024;
/// Panic text kept of a dead worker.
pub const PANIC_TEXT_MAX_BYTES: usize = SLOT_SIZE_BYTES - 128;

/// Header page of the arena.
pub const ARENA_HEADER_SIZE_BYTES: usize = 4096;
/// Leases of fills under way over all workers, a word each: so many that two keys rarely share one.
pub const LEASES: usize = 16 * 1024;
/// A fill that takes longer is somebody else's to do as well.
pub const LEASE_MAX: Duration = Duration::from_secs(1);
/// Pauses between two looks at a fill that another worker does, first and longest.
pub const LEASE_PAUSE_MIN: Duration = Duration::from_millis(1);
pub const LEASE_PAUSE_MAX: Duration = Duration::from_millis(10);
/// Index bucket: one cache line.
pub const BUCKET_SIZE_BYTES: usize = 64;
/// Items of a bucket beside its fence word.
pub const BUCKET_ITEMS: usize = BUCKET_SIZE_BYTES / 8 - 1;
/// Objects per bucket that the index is sized for.
pub const BUCKET_LOAD: usize = 4;
/// Size of an object (record) assumed when the index is sized.
pub const RECORD_SIZE_TYPICAL_BYTES: usize = 1024;
/// Segment of the arena below and from [`ARENA_LARGE_BYTES`].
pub const SEGMENT_SIZE_SMALL_BYTES: usize = 256 * 1024;
pub const SEGMENT_SIZE_LARGE_BYTES: usize = 1024 * 1024;
pub const ARENA_LARGE_BYTES: usize = 1024 * 1024 * 1024;
/// Words kept of each segment beside its data: state, generation, bytes written.
pub const SEGMENT_WORDS_SIZE_BYTES: usize = 24;
/// Of the segments, one in so many is for records that nobody has asked for twice (S3-FIFO's small queue).
pub const SMALL_QUEUE_ONE_IN: usize = 10;
/// Largest value (JSON body); larger answers go out uncached.
pub const VALUE_SIZE_MAX_BYTES: usize = 64 * 1024;
/// Largest compressed body that is kept beside it.
pub const CODED_SIZE_MAX_BYTES: usize = 32 * 1024 - 1;
/// Largest record: a value, its compressed bodies and its typed fields.
pub const RECORD_SIZE_MAX_BYTES: usize = 240 * 1024;
/// Fixed header in front of each record's archive.
pub const RECORD_HEADER_SIZE_BYTES: usize = 48;
/// Smallest arena that holds a cache at all.
pub const CACHE_SIZE_MIN_BYTES: usize = 4 * 1024 * 1024;
/// Least bound of staleness that can be asked for.
pub const CACHE_STALENESS_MIN: Duration = Duration::from_millis(50);
/// Cache of `dev` unless asked otherwise, and of tests.
pub const DEV_CACHE_SIZE_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Bodies below this size are not compressed: the saving is smaller than a packet.
pub const GZIP_SIZE_MIN_BYTES: usize = 512;
/// Bodies below this size have no br and zstd: gzip saves nearly as much of them.
pub const CODED_SIZE_MIN_BYTES: usize = 1024;
/// Bodies above this size are not compressed in one go: that would hold up everybody on this core.
pub const GZIP_SIZE_MAX_BYTES: usize = 512 * 1024;

/// Rows of one list answer at most.
pub const LIST_COUNT_MAX: i64 = 10_000;
/// Rows of a list page that is worth caching; longer ones are made and sent in pieces of so many rows.
pub const LIST_CACHED_COUNT_MAX: i64 = 100;
/// Longest category or words that products are looked for by.
pub const SEARCH_SIZE_MAX_BYTES: usize = 1_000;
/// Products asked for by their ids at once.
pub const IDS_MAX: usize = 100;
/// Keys fetched by one statement at most.
pub const BATCH_KEYS_MAX: usize = 64;
/// Coroutines of a worker that fetch what the cache misses: by ids, and all else.
pub const LANES_FAST: usize = 3;
pub const LANES_SLOW: usize = 2;
/// Stack of a lane: JSON, gzip and rkyv run there, never on a connection's stack.
pub const LANE_STACK_SIZE_BYTES: usize = 256 * 1024;
/// Stack of every other coroutine.
pub const COROUTINE_STACK_SIZE_BYTES: usize = 64 * 1024;
/// Longest wait for a database connection before 503.
pub const DATABASE_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often each worker looks whether the database is what this server needs.
pub const DATABASE_CHECK_PERIOD: Duration = Duration::from_secs(10);
/// Database nodes at most: the primary and its replicas.
pub const NODES_MAX: usize = 16;
/// Connections of a node that the workers leave to others: the feed, its watchers, whoever looks after the database.
pub const ROOM_RESERVED: usize = 10;
/// Longest wait for a replica to replay what somebody may have seen already; then another node is asked, at last the primary.
pub const REPLICA_WAIT_MAX: Duration = Duration::from_millis(20);
/// Longest wait for what is open on the primary, before it is read from beside replicas.
pub const OPEN_WAIT_MAX: Duration = Duration::from_millis(50);
/// Longest wait for one answer to a read by ids where another node may be asked.
pub const REPLICA_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// For so long a node is left alone of which a read has failed.
pub const NODE_OUT: Duration = Duration::from_secs(1);
/// A node of which nothing is heard for so long can't be reached.
pub const NODE_SILENCE_MAX: Duration = Duration::from_millis(500);
/// Longest search of a read for a node that answers it: a hung one may have to be given up first, the loss of the primary to be seen, and a
/// replica that was left alone to be tried again.
pub const NODE_SEARCH_MAX: Duration = Duration::from_secs(3);
/// Longest wait, while there is no primary, for a replica to replay what somebody may have seen.
pub const HEADLESS_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a node is looked at: with replicas, and alone.
pub const NODE_PERIOD: Duration = Duration::from_millis(10);
pub const NODE_PERIOD_ALONE: Duration = Duration::from_millis(250);
/// How often it is asked for what seldom changes.
pub const NODE_ROOM_PERIOD: Duration = Duration::from_secs(5);
/// Least pause between two records written to the primary's WAL only to have it flushed.
pub const NODE_BEAT_PERIOD: Duration = Duration::from_millis(50);

/// For so long a client tells other boxes what it has written: by then each has seen it, or does not trust its cache.
pub const TOKEN_MAX_AGE: Duration = Duration::from_secs(10);
/// A client that has written to a new primary waits for so long until a box that has none has heard of that one, and how often it looks.
pub const LIFE_WAIT_MAX: Duration = Duration::from_secs(2);
pub const LIFE_WAIT_STEP: Duration = Duration::from_millis(5);
/// Connections of a worker to each database node, unless asked otherwise.
pub const CONNECTIONS_PER_WORKER: usize = 5;
/// And at least: one a lane.
pub const CONNECTIONS_PER_WORKER_MIN: usize = 3;
/// Coroutines of a worker that write, each with a connection of its own.
pub const WRITE_LANES: usize = 2;
/// Writes of one statement at most.
pub const BATCH_WRITES_MAX: usize = 256;
/// Bodies of one statement's writes, before the one that goes beyond.
pub const BATCH_WRITES_SIZE_MAX_BYTES: usize = 256 * 1024;
/// Times that a vote whose row is held by somebody else is tried again at once; then a few times a second.
pub const BUSY_RETRIES_MAX: u32 = 16;
/// Longest wait for a lock of a write that is no vote: others wait behind it.
pub const WRITE_LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
/// Largest text of a review, question or answer, and most photos and characteristics of one.
pub const TEXT_SIZE_MAX_BYTES: usize = 10_000;
/// Largest category: a btree index holds a third of a page of 8 KiB, with the id beside it.
pub const CATEGORY_SIZE_MAX_BYTES: usize = 2_600;
/// Largest name, slogan and description each: a tsvector holds a MiB, and words of three letters take twice their room there.
pub const SEARCHED_SIZE_MAX_BYTES: usize = 128 << 10;
pub const PHOTOS_MAX: usize = 100;
pub const CHARACTERISTICS_MAX: usize = 100;
/// Most of a sku that one request puts into a cart, and most skus that a cart shows; those of the shared list.
pub const CART_COUNT_MAX: i64 = 1_000_000;
pub const CART_SKUS_MAX: i64 = 1_000;
pub const CART_SHARED_SKUS_MAX: i64 = 50;

/// Rows of a table that are removed at once for their age.
pub const TRIM_ROWS_MAX: i64 = 1_000;
/// Shoes whose images one request asks for.
pub const RECOMMENDED_MAX: usize = 100;
/// Features, styles, photos, skus and related products that a new product brings along.
pub const PARTS_MAX: usize = 1_000;
/// Sets of four client addresses whose writes are counted: half a MiB.
pub const THROTTLE_SETS: usize = 16_384;

/// Pauses of the change feed between two looks: while changes come in, while requests do, and else. The longest, one look and
/// some scheduling must fit into the 25 ms after which nearly every change is to be seen.
pub const FEED_PAUSE_CHANGES: Duration = Duration::from_millis(5);
pub const FEED_PAUSE_REQUESTS: Duration = Duration::from_millis(10);
pub const FEED_PAUSE_IDLE: Duration = Duration::from_millis(16);
/// Changes count as coming in for so long after the last one.
pub const FEED_CHANGES_LINGER: Duration = Duration::from_secs(1);
/// Pause before a database that was lost is tried again, or one that can't be followed is looked at again.
pub const FEED_PAUSE_LOST: Duration = Duration::from_millis(50);
/// Longest wait for one look; then the connection counts as lost.
pub const FEED_TIMEOUT: Duration = Duration::from_secs(1);
/// Changes of one look that are followed one by one; with more, everything is voided.
pub const FEED_CHANGES_MAX: usize = 131_072;
/// How often the change table's partitions are looked after.
pub const FEED_ROTATE_PERIOD: Duration = Duration::from_secs(600);

/// Pause after that could not be done.
pub const FEED_ROTATE_PAUSE: Duration = Duration::from_secs(5);

/// Hits that wait for their audit at most; more are passed over.
pub const AUDIT_WAITING_MAX: usize = 64;
/// Longest wait for the watermark to pass an audit that found a difference.
pub const AUDIT_PATIENCE: Duration = Duration::from_secs(30);

/// Descriptors of a worker kept for everything that is no HTTP connection: listeners, database, shared memory.
pub const DESCRIPTORS_RESERVED: usize = 256;
/// Memory that an idle HTTP connection is counted with: twelve KiB measured, and what the kernel takes.
pub const HTTP_CONNECTION_SIZE_BYTES: usize = 16 * 1024;

/// Bytes of an answer that the kernel holds without having sent them.
pub const SOCKET_UNSENT_MAX_BYTES: usize = 128 * 1024;

/// Lines of the access log that a worker gathers before it writes them.
pub const ACCESS_BUFFER_SIZE_BYTES: usize = 64 * 1024;

/// Connections of a worker for whoever runs the server.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How often a worker beats.
pub const BEAT_PERIOD: Duration = Duration::from_millis(250);
/// A worker whose beat is older is killed.
pub const BEAT_STUCK_AFTER: Duration = Duration::from_secs(10);
/// Pauses before the replacement of a worker that keeps dying: none for the first, then these.
pub const RESPAWN_PAUSES_MS: [u64; 7] = [0, 100, 200, 500, 1000, 2000, 5000];
/// A worker that lived this long is healthy: its next death starts the pauses anew.
pub const RESPAWN_HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// Deaths in a row from which a slot counts as crash-looping.
pub const CRASH_LOOP_DEATHS: u32 = 5;
/// Drain without a successor: idle connections are kept this long, so that requests on their way are answered, and those on which no
/// request has come yet so long. With one both are kept until the drain is over.
/// Lines a second of requests that took long.
pub const SLOW_LINES_PER_S: u64 = 10;
/// A front end of somebody's own: files are served from memory.
/// They are read and compressed by the master, whom nobody may wait for too long.
pub const FRONT_SIZE_MAX_BYTES: u64 = 64 << 20;
pub const FRONT_CODED_SIZE_MAX_BYTES: usize = 4 << 20;
pub const FRONT_FILES_MAX: usize = 20_000;
pub const FRONT_DEPTH_MAX: usize = 16;
pub const DRAIN_IDLE_GRACE: Duration = Duration::from_millis(500);
pub const DRAIN_FRESH_GRACE: Duration = Duration::from_millis(2_500);

/// Longest wait of a new worker for the answer to its own request, before it counts as serving.
pub const SELF_CHECK_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a worker's successor to serve; then the old one stays.
pub const SUCCESSOR_MAX: Duration = Duration::from_secs(15);
/// The same for a new master and all its workers.
pub const SUCCESSION_MAX: Duration = Duration::from_secs(30);

/// The same once the master is gone: a server that comes after it waits for the memory that this one uses, so long at most.
pub const ORPHAN_DRAIN_MAX: Duration = Duration::from_secs(1);
pub const ORPHANS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Largest physical line of a CSV file.
pub const CSV_LINE_SIZE_MAX_BYTES: usize = 1024 * 1024;
/// Physical lines that a quoted newline may join.
pub const CSV_JOIN_LINES_MAX: usize = 64;

const _: () = assert!(BUCKET_ITEMS == 7);
const _: () = assert!(RECORD_SIZE_MAX_BYTES <= SEGMENT_SIZE_SMALL_BYTES);
const _: () = assert!(VALUE_SIZE_MAX_BYTES + 3 * CODED_SIZE_MAX_BYTES < RECORD_SIZE_MAX_BYTES);
const _: () = assert!(SELF_CHECK_MAX.as_millis() < SUCCESSOR_MAX.as_millis());
const _: () = assert!(SUCCESSOR_MAX.as_millis() < SUCCESSION_MAX.as_millis());
const _: () = assert!(DRAIN_IDLE_GRACE.as_millis() < DRAIN_FRESH_GRACE.as_millis());
const _: () = assert!(ORPHAN_DRAIN_MAX.as_millis() < ORPHANS_WAIT_MAX.as_millis());
const _: () = assert!(LEASE_MAX.as_millis() * 2 <= DATABASE_WAIT_MAX.as_millis());
const _: () =
    assert!(RECORD_HEADER_SIZE_BYTES.is_multiple_of(8) && SEGMENT_SIZE_SMALL_BYTES.is_multiple_of(4096));
const _: () = assert!(SEGMENT_SIZE_LARGE_BYTES / 8 < u32::MAX as usize);
const _: () = assert!(LIST_CACHED_COUNT_MAX <= LIST_COUNT_MAX);
const _: () =
    assert!(FEED_PAUSE_IDLE.as_millis() < 20 && FEED_TIMEOUT.as_millis() < BEAT_STUCK_AFTER.as_millis());
const _: () = assert!(REPLICA_TIMEOUT_MAX.as_millis() + NODE_OUT.as_millis() < NODE_SEARCH_MAX.as_millis());
const _: () = assert!(NODE_PERIOD.as_millis() * 10 < NODE_SILENCE_MAX.as_millis());
const _: () =
    assert!(REPLICA_WAIT_MAX.as_millis() + OPEN_WAIT_MAX.as_millis() < NODE_SILENCE_MAX.as_millis());
const _: () = assert!(BEAT_PERIOD.as_millis() * 10 < BEAT_STUCK_AFTER.as_millis());
