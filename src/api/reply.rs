//! The header fields that answers share: content, caching, CORS, request id, Cache-Status.
//! Runs in: worker.

use std::time::Duration;

use may_minihttp::{BodySource, Request, Response};
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::api::conditional::{coding, none_match_hits, write_etag, Accepted};
use crate::api::Site;
use crate::cache::record::{etag_of, KINDS};
use crate::cache::{Cache, Encoding, Hit, Kind, Record, RecordHeader};
use crate::config::Config;

/// Configured behaviour of answers, made ready once.
pub struct Policy {
    /// Lines that JSON answers of shopper routes carry, by kind, and those of no kind.
    json_lines: [Vec<u8>; KINDS.len()],
    other_lines: Vec<u8>,
    origins: Vec<String>,
    token: String,
    admin_token: String,
    pub public_url: String,
    pub cart_is_shared: bool,
    /// Whether the image service takes writes from everybody.
    pub images_are_open: bool,
}

const EXPOSED: &str =
    "Access-Control-Expose-Headers: ETag, Link, X-Request-Id, Cache-Status, Retry-After, Catwalk-Seen";

/// Content, caching and CORS. `open`: to every origin.
fn json_lines(max_age: Duration, open: bool) -> Vec<u8> {
    let seconds = max_age.as_secs();
    let caching = if seconds == 0 { "no-cache".to_string() } else { format!("max-age={seconds}") };
    let mut lines = format!("Content-Type: application/json; charset=utf-8\r\nCache-Control: {caching}\r\n");
    if open {
        lines += &format!("Vary: Accept-Encoding\r\nAccess-Control-Allow-Origin: *\r\n{EXPOSED}\r\n");
    } else {
        lines += "Vary: Accept-Encoding, Origin\r\n";
    }
    lines.into_bytes()
}

impl Policy {
    pub fn new(config: &Config) -> Policy {
        let open = config.origins.iter().any(|o| o == "*");
        let ages = KINDS.map(|kind| config.http_max_ages.get(kind.name()).unwrap_or(&config.http_max_age));
        Policy {
            json_lines: ages.map(|age| json_lines(*age, open)),
            other_lines: json_lines(config.http_max_age, open),
            origins: if open { Vec::new() } else { config.origins.clone() },
            token: config.token.clone(),
            admin_token: config.admin_token.clone(),
            public_url: config.public_url.clone(),
            cart_is_shared: config.cart_is_shared(),
            images_are_open: config.is_development(),
        }
    }

    /// Whether a request may use the shopper routes.
    pub fn admits(&self, req: &Request<'_, '_>) -> bool {
        self.token.is_empty() || carries(req, &self.token)
    }

    /// Whether there is a token for administration.
    pub fn has_admin(&self) -> bool {
        !self.admin_token.is_empty()
    }

    /// Whether a request carries it.
    pub fn admits_admin(&self, req: &Request<'_, '_>) -> bool {
        self.has_admin() && carries(req, &self.admin_token)
    }

    /// What a cookie needs that may only travel encrypted, where clients come by HTTPS.
    pub fn cookie_security(&self, req: &Request<'_, '_>) -> &'static str {
        if req.is_secure() || self.public_url.starts_with("https:") {
            "; Secure"
        } else {
            ""
        }
    }

    /// The request's origin, if it is on the list.
    fn listed<'b>(&self, req: &Request<'_, 'b>) -> Option<&'b str> {
        let origin = std::str::from_utf8(req.header("origin")?).ok()?;
        self.origins.iter().any(|o| o == origin).then_some(origin)
    }
}

/// Whether a request's Authorization is `token`, as a bearer's or alone.
fn carries(req: &Request<'_, '_>, token: &str) -> bool {
    let sent = req.header("authorization").unwrap_or(b"").trim_ascii();
    let sent = match sent.split_first_chunk::<7>() {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => sent,
    };
    // Takes the same time wherever the difference lies.
    sent.ct_eq(token.as_bytes()).into()
}

/// The request id: the client's own if it is plain, else a fresh one.
pub fn write_request_id(req: &Request<'_, '_>, rsp: &mut Response<'_>, fresh: impl FnOnce() -> [u8; 16]) {
    let plain = |id: &&[u8]| {
        (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    let head = rsp.head_mut();
    head.extend_from_slice(b"X-Request-Id: ");
    match req.header("x-request-id").filter(plain) {
        Some(id) => head.extend_from_slice(id),
        None => head.extend_from_slice(&fresh()),
    }
    head.extend_from_slice(b"\r\n");
}

/// What nearly all hits have, but for the digits.
const TIMING: [u8; 59] = *b"Server-Timing: cache;dur=0.000, db;dur=0, total;dur=0.000\r\n";
/// Where the digits are.
const TIMING_DIGITS_AT: [usize; 2] = [27, 54];

/// How long it took (Server Timing, W3C): all of it, what was waited for the database, and the rest.
#[inline]
pub fn write_timing(rsp: &mut Response<'_>, took_ns: u64, waited_ns: u64) {
    let took_us = took_ns / 1_000;
    let head = rsp.head_mut();
    if waited_ns > 0 || took_us >= 1_000 {
        return write_long_timing(head, took_us, waited_ns / 1_000);
    }
    let (mut line, digits) = (TIMING, decimals(took_us));
    TIMING_DIGITS_AT.iter().for_each(|at| line[*at..*at + 3].copy_from_slice(&digits));
    head.extend_from_slice(&line);
}

fn write_long_timing(head: &mut Vec<u8>, took_us: u64, waited_us: u64) {
    let waited_us = waited_us.min(took_us);
    let parts = [("Server-Timing: cache", took_us - waited_us), (", db", waited_us), (", total", took_us)];
    for (name, us) in parts {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b";dur=");
        head.extend_from_slice(itoa::Buffer::new().format(us / 1_000).as_bytes());
        head.push(b'.');
        head.extend_from_slice(&decimals(us % 1_000));
    }
    head.extend_from_slice(b"\r\n");
}

/// Of a number below a thousand.
fn decimals(n: u64) -> [u8; 3] {
    [n / 100, n / 10 % 10, n % 10].map(|digit| b'0' + digit as u8)
}

/// CORS lines of an answer that doesn't carry the JSON lines.
pub fn write_cors(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    if site.policy.origins.is_empty() {
        rsp.header("Access-Control-Allow-Origin: *").header(EXPOSED);
        return;
    }
    rsp.header("Vary: Origin");
    write_listed_origin(site, req, rsp);
}

fn write_listed_origin(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    if let Some(origin) = site.policy.listed(req) {
        rsp.header(&format!("Access-Control-Allow-Origin: {origin}"))
            .header("Access-Control-Allow-Credentials: true")
            .header(EXPOSED);
    }
}

/// OPTIONS, as a preflight or not (Fetch standard, CORS-preflight).
pub fn write_options(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, allow: &str) {
    rsp.status_code(204, "No Content").header(&format!("Allow: {allow}"));
    write_cors(site, req, rsp);
    rsp.header("Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        .header("Access-Control-Allow-Headers: Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id, Catwalk-Seen")
        .header("Access-Control-Max-Age: 86400");
}

/// Where an answer's body comes from.
pub enum Source<'a> {
    Shared(&'a Cache, &'a Hit),
    Private(&'a Record),
}

impl Source<'_> {
    fn header(&self) -> RecordHeader {
        match self {
            Source::Shared(_, hit) => hit.header(),
            Source::Private(record) => *record.header(),
        }
    }

    fn copy_head(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Source::Shared(cache, hit) => cache.copy_head(hit, out),
            Source::Private(record) => {
                record.copy_head(out);
                true
            }
        }
    }

    fn copy_body(&self, encoding: Encoding, out: &mut Vec<u8>) -> bool {
        match self {
            Source::Shared(cache, hit) => cache.copy_body(hit, encoding, out),
            Source::Private(record) => {
                record.copy_body(encoding, out);
                true
            }
        }
    }
}

/// Answers with a record: 304 when the client has it, else its body in the encoding it takes. False, with nothing
/// written, when the record was recycled meanwhile.
pub fn write_record(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    source: &Source<'_>,
    cache_status: &str,
) -> bool {
    let header = source.header();
    let encoding = Accepted::read(req.header("accept-encoding")).choose(|encoding| header.has(encoding));
    let unchanged = req.header("if-none-match").is_some_and(|v| none_match_hits(v, header.etag));
    if unchanged {
        rsp.status_code(304, "Not Modified");
    } else if !source.copy_body(encoding, rsp.body_mut()) {
        return false;
    }
    if header.head_len > 0 && !source.copy_head(rsp.head_mut()) {
        rsp.status_code(200, "OK").body_mut().clear();
        return false;
    }
    let head = rsp.head_mut();
    head.extend_from_slice(&site.policy.json_lines[header.key.kind.index()]);
    head.extend_from_slice(b"ETag: ");
    write_etag(head, header.etag, encoding);
    if let Some(coding) = coding(encoding).filter(|_| !unchanged) {
        head.extend_from_slice(b"\r\nContent-Encoding: ");
        head.extend_from_slice(coding);
    }
    head.extend_from_slice(b"\r\nCache-Status: catwalk; ");
    head.extend_from_slice(cache_status.as_bytes());
    head.extend_from_slice(b"\r\n");
    if !site.policy.origins.is_empty() {
        write_listed_origin(site, req, rsp);
    }
    true
}

/// Answers with JSON that no record holds.
pub fn write_json(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, value: &impl Serialize) {
    let json = serde_json::to_vec(value).expect("text and numbers serialise");
    rsp.head_mut().extend_from_slice(&site.policy.other_lines);
    write_validated(req, rsp, json);
    if !site.policy.origins.is_empty() {
        write_listed_origin(site, req, rsp);
    }
}

/// The ETag of a body, and the body unless the client has it.
pub fn write_validated(req: &Request<'_, '_>, rsp: &mut Response<'_>, body: Vec<u8>) {
    let etag = etag_of(&body);
    let head = rsp.head_mut();
    head.extend_from_slice(b"ETag: ");
    write_etag(head, etag, Encoding::Identity);
    head.extend_from_slice(b"\r\n");
    if req.header("if-none-match").is_some_and(|value| none_match_hits(value, etag)) {
        rsp.status_code(304, "Not Modified");
    } else {
        rsp.body_vec(body);
    }
}

/// Answers with a text that clients of the old service know.
pub fn write_text(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, text: &str) {
    rsp.header("Content-Type: text/plain; charset=utf-8").header("Cache-Control: no-cache");
    write_cors(site, req, rsp);
    rsp.body(text);
}

/// Answers with a body that is made while it is sent; nothing names its state, so it has no ETag.
pub fn write_stream(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    source: Box<dyn BodySource>,
    gzip: bool,
) {
    rsp.header_block(&site.policy.json_lines[Kind::List.index()]);
    if gzip {
        rsp.header("Content-Encoding: gzip");
    }
    rsp.header("Cache-Status: catwalk; fwd=bypass").stream(source);
    if !site.policy.origins.is_empty() {
        write_listed_origin(site, req, rsp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds() {
        let long = |took_us, waited_us| {
            let mut out = Vec::new();
            write_long_timing(&mut out, took_us, waited_us);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            long(65_432, 65_012),
            "Server-Timing: cache;dur=0.420, db;dur=65.012, total;dur=65.432\r\n"
        );
        assert_eq!(long(7, 9), "Server-Timing: cache;dur=0.000, db;dur=0.007, total;dur=0.007\r\n");
        TIMING_DIGITS_AT.iter().for_each(|at| assert_eq!(&TIMING[at - 2..at + 3], b"0.000"));
        assert_eq!(decimals(42), *b"042");
    }
}
