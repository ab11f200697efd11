//! Every bound of a connection, with its unit: named defaults, and [`Limits`] to set others.
//! Runs in: worker.

use std::time::Duration;

/// Header fields of one request; more is answered 431.
pub const HEADERS_MAX: usize = 100;
/// Bytes of one request's head; more is answered 431.
pub const HEAD_SIZE_MAX_BYTES: usize = 64 * 1024;
/// Bytes of a request line; more is answered 414.
pub const REQUEST_LINE_SIZE_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a request body; more is answered 413.
pub const BODY_SIZE_MAX_BYTES: u64 = 1024 * 1024;
/// Bytes of empty lines in front of a request that are overlooked (RFC 9112, 2.2).
pub const EMPTY_LINES_MAX_BYTES: usize = 8;
/// Longest chunk-size line, extensions included, longest trailer line, and longest trailer section.
pub const CHUNK_LINE_SIZE_MAX_BYTES: usize = 4096;
/// Framing of a chunked body beside eight bytes for each of its own: a chunk a byte passes, extensions without end don't.
pub const FRAMING_SIZE_MAX_BYTES: u64 = 16 * 1024;
/// Bytes received from one client without a wait before the others get their turn.
pub const RECEIVE_TURN_MAX_BYTES: usize = 128 * 1024;
/// Bytes of a body that its handler left unread and that are read and dropped to keep the connection.
pub const BODY_SKIP_MAX_BYTES: u64 = 64 * 1024;

/// From a request's first byte, or from the connection's start, to the end of its head; then 408.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For a body, beside what [`BODY_RATE_MIN_BYTES`] grants for the bytes received; then 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a body that earn it one second more.
pub const BODY_RATE_MIN_BYTES: u64 = 8 * 1024;
/// Between two requests; then the connection closes.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Without a byte of the answer taken by the client; then the connection closes.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a TLS handshake; then the connection closes.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that ends early goes on taking in what its client still sends (RFC 9112, 9.6).
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes taken in meanwhile.
pub const LINGER_SIZE_MAX_BYTES: usize = 2 * 1024 * 1024;
/// How often [`crate::Server::tick`] wants to be called: the resolution of every timeout.
pub const TICK_PERIOD: Duration = Duration::from_millis(250);

/// Open connections; over it 503.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// Connections being refused at the same time; over it they are closed without a farewell.
pub const REFUSALS_MAX: usize = 256;
/// First size of the input buffer; it grows by doubling to hold the largest head.
pub const INPUT_SIZE_BYTES: usize = 8 * 1024;
/// Answers gathered for pipelined requests before they are written.
pub const OUTPUT_FLUSH_BYTES: usize = 64 * 1024;
/// Size of the pieces in which a large body goes out.
pub const PIECE_SIZE_BYTES: usize = 32 * 1024;
/// What one client can make its connection hold: input, answers gathered, and one body under way.
pub const CONNECTION_SIZE_MAX_BYTES: usize = 256 * 1024;
/// Capacity beyond which a buffer is freed instead of being kept for the next request.
pub const BUFFER_KEEP_MAX_BYTES: usize = 64 * 1024;
/// Sets of buffers kept for reuse per thread.
pub const BUFFERS_KEPT_MAX: usize = 256;
/// Pipelined requests answered in one go before others get their turn.
pub const PIPELINE_TURN_MAX: usize = 32;
/// Stack of a connection's coroutine, in bytes. Deep work belongs on other stacks.
pub const STACK_SIZE_BYTES: usize = 64 * 1024;
/// Stack, one a thread, on which deep work that never waits runs, TLS above all.
pub const DEEP_STACK_SIZE_BYTES: usize = 512 * 1024;
/// listen(2) backlog; the kernel caps it at net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

const _: () = assert!(REQUEST_LINE_SIZE_MAX_BYTES < HEAD_SIZE_MAX_BYTES);
const _: () = assert!(INPUT_SIZE_BYTES <= HEAD_SIZE_MAX_BYTES);
const _: () = assert!(BODY_SKIP_MAX_BYTES <= BODY_SIZE_MAX_BYTES);
const _: () =
    assert!(HEAD_SIZE_MAX_BYTES + 2 * OUTPUT_FLUSH_BYTES + 2 * PIECE_SIZE_BYTES <= CONNECTION_SIZE_MAX_BYTES);

/// What a server allows its clients; [`Limits::default`] are the constants of this module.
#[derive(Debug, Clone)]
pub struct Limits {
    pub headers_max: usize,
    /// At least 1 KiB and more than `request_line_size_max_bytes`.
    pub head_size_max_bytes: usize,
    pub request_line_size_max_bytes: usize,
    pub body_size_max_bytes: u64,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub body_rate_min_bytes: u64,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            headers_max: HEADERS_MAX,
            head_size_max_bytes: HEAD_SIZE_MAX_BYTES,
            request_line_size_max_bytes: REQUEST_LINE_SIZE_MAX_BYTES,
            body_size_max_bytes: BODY_SIZE_MAX_BYTES,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            body_rate_min_bytes: BODY_RATE_MIN_BYTES,
            idle_timeout: IDLE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            connections_max: CONNECTIONS_MAX,
        }
    }
}
