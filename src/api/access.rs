//! The access log: which requests were answered how, and how fast. Off unless asked for; then of many requests one may be noted.
//! Runs in: worker.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use jiff::Timestamp;
use may_minihttp::{Request, Response};
use parking_lot::Mutex;
use serde::Serialize;

use crate::api::params::escaped;
use crate::api::traceparent::TraceParent;
use crate::config::{AccessLog, AccessSink};
use crate::limits::ACCESS_BUFFER_SIZE_BYTES;

/// Where requests are noted.
pub struct Access {
    one_in: u64,
    sink: Sink,
}

enum Sink {
    Nowhere,
    Log,
    /// Appended to by all workers, in whole lines; what waits is written at each tick.
    File(File, Mutex<Vec<u8>>),
}

/// A line. It has no header of the request's: tokens and cookies are there.
#[derive(Serialize)]
struct Line<'r> {
    time: String,
    client: String,
    method: &'r str,
    path: &'r str,
    status: u16,
    duration_us: u64,
    cache: &'r str,
    request_id: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    parent_id: &'r str,
}

/// The value of a line of an answer's head; empty where there is none.
pub fn field<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
}

impl Access {
    pub fn open(config: &AccessLog) -> Access {
        let sink = match &config.sink {
            AccessSink::None => Sink::Nowhere,
            AccessSink::Log => Sink::Log,
            AccessSink::File(path) => {
                match OpenOptions::new().append(true).create(true).mode(0o640).open(path) {
                    Ok(file) => Sink::File(file, Mutex::default()),
                    Err(e) => {
                        log::error!(
                            "the access log can't be written to {}: {e}; no request is noted",
                            path.display()
                        );
                        Sink::Nowhere
                    }
                }
            }
        };
        Access { one_in: config.one_in, sink }
    }

    /// Whether the request that so many came before is noted.
    #[inline]
    pub fn notes(&self, before: u64) -> bool {
        !matches!(self.sink, Sink::Nowhere) && before.is_multiple_of(self.one_in)
    }

    /// Notes a request with its answer.
    #[cold]
    pub fn note(&self, req: &Request<'_, '_>, rsp: &mut Response<'_>, took_ns: u64) {
        let (path, status) = (escaped(&req.path()).to_string(), rsp.status());
        let head = std::str::from_utf8(rsp.head_mut()).unwrap_or_default();
        let trace = TraceParent::of(req);
        let line = Line {
            time: format!("{:.6}", Timestamp::now()),
            client: req.client().to_string(),
            method: req.method(),
            path: &path,
            status,
            duration_us: took_ns / 1_000,
            cache: field(head, "Cache-Status: catwalk; "),
            request_id: field(head, "X-Request-Id: "),
            trace_id: trace.map_or("", |trace| trace.trace_id),
            parent_id: trace.map_or("", |trace| trace.parent_id),
        };
        self.write(&line);
    }

    fn write(&self, line: &Line<'_>) {
        let Line { client, method, path, status, duration_us, cache, request_id, trace_id, .. } = line;
        match &self.sink {
            Sink::Nowhere => {}
            Sink::Log => {
                log::info!(client = client.as_str(), status, duration_us, cache, request_id, trace_id; "{method} {path}");
            }
            Sink::File(file, waiting) => {
                let mut waiting = waiting.lock();
                // Strings and numbers always make JSON.
                let _ = serde_json::to_writer(&mut *waiting, line);
                waiting.push(b'\n');
                if waiting.len() >= ACCESS_BUFFER_SIZE_BYTES {
                    flush(file, &mut waiting);
                }
            }
        }
    }

    /// Writes what waits. A few times a second.
    pub fn tick(&self) {
        if let Sink::File(file, waiting) = &self.sink {
            flush(file, &mut waiting.lock());
        }
    }
}

fn flush(mut file: &File, waiting: &mut Vec<u8>) {
    if let Err(e) = if waiting.is_empty() { Ok(()) } else { file.write_all(waiting) } {
        log::error!(
            "writing the access log: {e}; {} lines are lost",
            waiting.iter().filter(|b| **b == b'\n').count()
        );
    }
    waiting.clear();
}
