//! The cart of a session, and what shoppers click.
//! Runs in: worker.
//!
//! A session is named by the Authorization value, else by a cookie that the first POST hands out; the database has its hash alone.

use may_minihttp::{Request, Response};
use serde::Serialize;

use crate::api::fetch::FetchError;
use crate::api::outcome::Refusal;
use crate::api::post;
use crate::api::problem::Problem;
use crate::api::reply::write_cors;
use crate::api::writer::{Sent, Write};
use crate::api::{hex, Site};
use crate::db::writes;
use crate::limits::{CART_SHARED_SKUS_MAX, CART_SKUS_MAX};

const COOKIE: &str = "catwalk_session";
/// 128 bits in hexadecimal digits.
const COOKIE_LEN: usize = 32;
/// A month.
const COOKIE_MAX_AGE_S: u32 = 30 * 86_400;

/// The hash of what names a request's session, if anything does.
pub fn session(req: &Request<'_, '_>) -> Option<Vec<u8>> {
    if let Some(value) = req.header("authorization").filter(|value| !value.is_empty()) {
        return Some(post::hash(&[b"authorization", value]).to_vec());
    }
    let cookies = req.headers().iter().filter(|h| h.name.eq_ignore_ascii_case("cookie"));
    let mut pairs = cookies.flat_map(|h| h.value.split(|&b| b == b';')).map(<[u8]>::trim_ascii);
    let is_ours = |value: &&[u8]| value.len() == COOKIE_LEN && value.iter().all(u8::is_ascii_hexdigit);
    let value =
        pairs.find_map(|pair| pair.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=").filter(is_ours))?;
    Some(post::hash(&[b"cookie", value]).to_vec())
}

#[derive(Serialize)]
struct ItemJson {
    sku_id: i64,
    /// Text, as the old service had it.
    count: String,
}

/// `GET /cart`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    let (session, count) = match session(req) {
        Some(session) => (session, CART_SKUS_MAX),
        None if site.policy.cart_is_shared => (Vec::new(), CART_SHARED_SKUS_MAX),
        None => return write_items(site, req, rsp, Vec::new()),
    };
    // Nobody's cart lacks what was just put into it, on whichever box.
    match site.fetcher.ask(1, true, move |client| writes::cart(client, &session, count)) {
        Ok(items) => write_items(site, req, rsp, items),
        Err(error) => Problem::from(&error).write(site, req, rsp),
    }
}

fn write_items(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, items: Vec<(i64, i64)>) {
    let items: Vec<ItemJson> =
        items.into_iter().map(|(sku_id, count)| ItemJson { sku_id, count: count.to_string() }).collect();
    rsp.header("Content-Type: application/json; charset=utf-8").header("Cache-Control: no-store");
    write_cors(site, req, rsp);
    rsp.body_vec(serde_json::to_vec(&items).expect("text and numbers serialise"));
}

/// `POST /cart`
pub fn add(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    let sent = match session(req) {
        Some(session) => Sent { session, ..Sent::default() },
        None => match fresh_session(site, req) {
            Ok((session, head)) => {
                Sent { session, head, is_shared: site.policy.cart_is_shared, ..Sent::default() }
            }
            Err(problem) => return problem.write(site, req, rsp),
        },
    };
    post::shopper(site, req, rsp, Write::CartItem, sent, |refusal| match refusal {
        Refusal::Missing => Some(Problem::unprocessable("there is no such sku")),
        _ => None,
    });
}

/// A session of 128 random bits: its hash, and the line that hands it out.
fn fresh_session(site: &Site, req: &Request<'_, '_>) -> Result<(Vec<u8>, String), Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| {
        Problem::from(&FetchError::Failed(format!("the system has no random bytes for a session: {e}")))
    })?;
    let halves = u128::from_le_bytes(bytes);
    let name = [hex(halves as u64), hex((halves >> 64) as u64)].concat();
    let secure = site.policy.cookie_security(req);
    let text = String::from_utf8_lossy(&name);
    let line = format!(
        "Set-Cookie: {COOKIE}={text}; Path=/; Max-Age={COOKIE_MAX_AGE_S}; HttpOnly; SameSite=Lax{secure}\r\n"
    );
    Ok((post::hash(&[b"cookie", &name]).to_vec(), line))
}

/// `POST /interactions`
pub fn add_interaction(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    post::shopper(site, req, rsp, Write::Interaction, Sent::default(), |_| None);
}
