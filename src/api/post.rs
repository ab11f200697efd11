//! Writes as HTTP: the body, the Idempotency-Key, and what became of it.
//! Runs in: worker.

use std::io::Read;

use may_minihttp::{Request, Response};
use may_postgres::Client;
use sha2::{Digest, Sha256};

use crate::api::cart::session;
use crate::api::outcome::{Idempotency, Refusal, Stop, Written};
use crate::api::problem::Problem;
use crate::api::reply::write_cors;
use crate::api::writer::{self, Sent, Write};
use crate::api::{route, seen, Site};
use crate::catalogue::Change;

/// Longest Idempotency-Key.
const KEY_LEN_MAX: usize = 255;

/// Reads the request's body. None: it can't be read, and the server itself says why.
pub fn read_body(req: &mut Request<'_, '_>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    req.body().read_to_end(&mut body).ok().map(|_| body)
}

/// Writes what a shopper sent, together with what others send, and answers; `refuse` says what a refusal is to this route.
pub fn shopper(
    site: &Site,
    req: &mut Request<'_, '_>,
    rsp: &mut Response<'_>,
    kind: Write,
    mut sent: Sent,
    refuse: impl Fn(&Refusal) -> Option<Problem>,
) {
    let Some(body) = read_body(req) else { return };
    let idempotency = match idempotency(req, &body) {
        Ok(idempotency) => idempotency,
        Err(problem) => return problem.write(site, req, rsp),
    };
    sent.body = body;
    let outcome = match idempotency {
        Some(_) => site.writer.run(idempotency, move |client| writer::write_alone(client, kind, &sent)),
        None => site.writer.write(kind, sent),
    };
    write(site, req, rsp, outcome, refuse);
}

/// Does `work` with the body in a transaction of its own, and answers.
pub fn alone(
    site: &Site,
    req: &mut Request<'_, '_>,
    rsp: &mut Response<'_>,
    body: Vec<u8>,
    work: impl Fn(&Client, &[u8]) -> Result<(Written, Vec<Change>), Stop> + Send + 'static,
    refuse: impl Fn(&Refusal) -> Option<Problem>,
) {
    match idempotency(req, &body) {
        Ok(idempotency) => {
            let outcome = site.writer.run(idempotency, move |client| work(client, &body));
            write(site, req, rsp, outcome, refuse);
        }
        Err(problem) => problem.write(site, req, rsp),
    }
}

/// Answers a vote.
pub fn vote(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    kind: Write,
    id: i64,
    missing: impl Fn() -> Problem,
) {
    let outcome = site.writer.write(kind, Sent { id: Some(id), ..Sent::default() });
    write(site, req, rsp, outcome, |refusal| matches!(refusal, Refusal::Missing).then(&missing));
}

fn write(
    site: &Site,
    req: &Request<'_, '_>,
    rsp: &mut Response<'_>,
    outcome: Result<Written, Refusal>,
    refuse: impl Fn(&Refusal) -> Option<Problem>,
) {
    match outcome {
        Ok(written) => write_written(site, req, rsp, written),
        Err(refusal) => refuse(&refusal).unwrap_or_else(|| Problem::from(&refusal)).write(site, req, rsp),
    }
}

fn write_written(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, written: Written) {
    let Written { status, head, body, is_replayed, lsn } = written;
    rsp.status_code(status, reason(status)).header("Cache-Control: no-store");
    write_cors(site, req, rsp);
    if is_replayed {
        rsp.header("Idempotent-Replayed: true");
    }
    if status != 204 && !head.contains("Content-Type:") {
        rsp.header("Content-Type: text/plain; charset=utf-8");
    }
    rsp.head_mut().extend_from_slice(head.as_bytes());
    seen::write(site, req, rsp, lsn);
    rsp.body_vec(body.into_bytes());
}

/// Reason phrases of the statuses that writes are answered with (RFC 9110, 15.3).
fn reason(status: u16) -> &'static str {
    match status {
        201 => "Created",
        204 => "No Content",
        _ => "OK",
    }
}

/// The request's Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), of a POST: what it is for is part of it, and who asks,
/// by session, or by address where there is none.
fn idempotency(req: &Request<'_, '_>, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = req.header("idempotency-key").filter(|_| req.method() == "POST") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        let why = format!("Idempotency-Key must have 1 to {KEY_LEN_MAX} characters");
        return Err(Problem::bad_request("bad-idempotency-key", why));
    }
    let path = req.path();
    let who = session(req).unwrap_or_else(|| req.client().to_string().into_bytes());
    let key = hash(&[route::plain(&path).as_bytes(), &who, key]);
    Ok(Some(Idempotency { key, body: hash(&[body]) }))
}

/// SHA-256 of texts, each with its length in front: no two lists run together.
pub fn hash(texts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}
