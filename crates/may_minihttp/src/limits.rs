//! Every bound of a connection, with its unit.
//! Runs in: worker.

/// Header fields of one request; more is answered 431.
pub const HEADERS_MAX: usize = 100;
/// Bytes of one request's head; more is answered 431.
pub const HEAD_SIZE_MAX_BYTES: usize = 64 * 1024;
/// Bytes of a request line; more is answered 414.
pub const REQUEST_LINE_SIZE_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a request body; more is answered 413.
pub const BODY_SIZE_MAX_BYTES: u64 = 1024 * 1024;
/// Bytes of a body that its handler left unread and that are read and dropped to keep the connection.
pub const BODY_SKIP_MAX_BYTES: u64 = 64 * 1024;
/// First size of the input buffer; it grows by doubling to hold the largest head.
pub const INPUT_SIZE_BYTES: usize = 8 * 1024;
/// Answers gathered for pipelined requests before they are written.
pub const OUTPUT_FLUSH_BYTES: usize = 64 * 1024;
/// Capacity beyond which a buffer is freed instead of being kept for the next request.
pub const BUFFER_KEEP_MAX_BYTES: usize = 64 * 1024;
/// Sets of buffers kept for reuse per thread.
pub const BUFFERS_KEPT_MAX: usize = 256;
/// Pipelined requests answered in one go before others get their turn.
pub const PIPELINE_TURN_MAX: usize = 64;
/// Stack of a connection's coroutine, in bytes. Deep work belongs on other stacks.
pub const STACK_SIZE_BYTES: usize = 64 * 1024;
/// listen(2) backlog; the kernel caps it at net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

const _: () = assert!(REQUEST_LINE_SIZE_MAX_BYTES < HEAD_SIZE_MAX_BYTES);
const _: () = assert!(INPUT_SIZE_BYTES <= HEAD_SIZE_MAX_BYTES);
const _: () = assert!(BODY_SKIP_MAX_BYTES <= BODY_SIZE_MAX_BYTES);
