//! What a client has written, told to other boxes: a signed token with the position in the WAL behind its last write.
//! Runs in: worker.
//!
//! ```text
//! box A   write, COMMIT at L ──► Catwalk-Seen: L.life.A.signature, and the same as a cookie for a moment
//! box B   a read with it: has the feed come to L?  yes: as ever  no: the key is void here, and read where L has been replayed
//! ```
//! Signed with a secret that boxes have from the database, and good for one life of it: in another one positions begin anew. After
//! `TOKEN_MAX_AGE` every box has come further, or asks the database anyway; so the cookie goes then.

use may_minihttp::{Request, Response};
use ring::hmac;

use crate::api::{hex, Site};
use crate::cache::{floor, Key};
use crate::limits::{LIFE_WAIT_MAX, LIFE_WAIT_STEP, TOKEN_MAX_AGE};
use crate::metrics::Counter;
use crate::os::clock;

pub const FIELD: &str = "Catwalk-Seen";
const COOKIE: &[u8] = b"catwalk_seen=";
/// Three numbers and a signature, in sixteen and thirty-two hexadecimal digits.
const NUMBERS: usize = 3;
const SIGNATURE_SIZE_BYTES: usize = 16;
const LEN: usize = NUMBERS * 16 + SIGNATURE_SIZE_BYTES * 2;

/// Which position, in which life of the database, was written by which box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    lsn: u64,
    life: u64,
    writer: u64,
}

impl Seen {
    fn sign(&self, secret: &[u8; 32]) -> String {
        let mut text = [self.lsn, self.life, self.writer].map(hex).concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, &text);
        for half in tag.as_ref()[..SIGNATURE_SIZE_BYTES].chunks_exact(8) {
            text.extend_from_slice(&hex(u64::from_be_bytes(std::array::from_fn(|n| half[n]))));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// None: it is none of ours.
    fn read(token: &[u8], secret: &[u8; 32]) -> Option<Seen> {
        let text = std::str::from_utf8(token).ok().filter(|text| text.len() == LEN && text.is_ascii())?;
        let number = |n: usize| u64::from_str_radix(text.get(n * 16..n * 16 + 16)?, 16).ok();
        let seen = Seen { lsn: number(0)?, life: number(1)?, writer: number(2)? };
        // Signed anew, and compared in a time that says nothing: so there is one way to write a token.
        let expected = seen.sign(secret);
        bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), token)).then_some(seen)
    }
}

/// Tells the client what it has written. Nothing while nobody knows the database's life.
pub fn write(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, lsn: u64) {
    let topology = site.nodes.topology();
    let life = topology.life();
    if lsn == 0 || life == 0 {
        return;
    }
    let token = Seen { lsn, life, writer: site.box_id }.sign(&topology.secret());
    let (max_age_s, secure) = (TOKEN_MAX_AGE.as_secs(), site.policy.cookie_security(req));
    rsp.header(&format!("{FIELD}: {token}")).header(&format!(
        "Set-Cookie: catwalk_seen={token}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"
    ));
}

/// A request's token, as it was sent.
#[inline]
fn sent<'b>(req: &Request<'_, 'b>) -> Option<&'b [u8]> {
    for header in req.headers() {
        if header.name.len() == FIELD.len() && header.name.eq_ignore_ascii_case(FIELD) {
            return Some(header.value.trim_ascii());
        }
        if header.name.len() == "cookie".len() && header.name.eq_ignore_ascii_case("cookie") {
            let mut pairs = header.value.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            if let Some(token) = pairs.find_map(|pair| pair.strip_prefix(COOKIE)) {
                return Some(token);
            }
        }
    }
    None
}

/// Sees to it that a client reads what it has written elsewhere, be it `key` or what is not kept.
#[inline]
pub fn honour(site: &Site, req: &Request<'_, '_>, key: Option<Key>) {
    if let Some(token) = sent(req) {
        honour_token(site, token, key);
    }
}

#[cold]
fn honour_token(site: &Site, token: &[u8], key: Option<Key>) {
    let (topology, arena) = (site.nodes.topology(), site.cache.arena());
    let Some(Seen { lsn, life, writer }) = Seen::read(token, &topology.secret()) else { return };
    if writer == site.box_id {
        return;
    }
    if life != topology.life() && !hears_of(site, life) {
        // Of a life that is over, or that this box has not heard of yet: what it has is not what the client has seen.
        return key.into_iter().for_each(|key| site.cache.forget(key));
    }
    // In this order: who takes the new token asks for the floor afterwards.
    if topology.has_replicas() {
        floor::raise(arena, lsn);
    }
    if floor::applied(arena) < lsn {
        site.metrics.count(Counter::TokensUnseen);
        topology.want_written(lsn);
        key.into_iter().for_each(|key| site.cache.forget(key));
    }
}

/// Without a primary, a token of another life is of one that has begun elsewhere: who has written in it waits until this box has heard of it
/// too, since the replicas that it reads from meanwhile are those of the last one. False: it does not hear of it soon.
fn hears_of(site: &Site, life: u64) -> bool {
    let topology = site.nodes.topology();
    let start_ns = clock::boottime_ns();
    let is_over = || clock::boottime_ns() - start_ns > LIFE_WAIT_MAX.as_nanos() as u64;
    while site.nodes.is_headless() && topology.life() != life && !is_over() {
        may::coroutine::sleep(LIFE_WAIT_STEP);
    }
    topology.life() == life
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    #[test]
    fn a_token_says_what_was_signed_and_nothing_else_counts() {
        let seen = Seen { lsn: 0x1_0300_0028, life: u64::MAX, writer: 3 };
        let token = seen.sign(&SECRET).into_bytes();
        assert_eq!(Seen::read(&token, &SECRET), Some(seen));
        assert_eq!(Seen::read(&token, &[8; 32]), None, "another secret");
        for at in 0..token.len() {
            let mut forged = token.clone();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(Seen::read(&forged, &SECRET), None, "digit {at}");
            assert_eq!(Seen::read(&token[..at], &SECRET), None, "cut at {at}");
        }
        assert_eq!(Seen::read(&token.to_ascii_uppercase(), &SECRET), None, "another spelling");
        assert_eq!(Seen::read(&[0xff; LEN], &SECRET), None);
        assert_eq!(Seen::read(&[b'+'; LEN], &SECRET), None);
    }
}
