//! Pages: the description of the API, one to try it, and the front end.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::conditional::{coding, none_match_hits, write_etag, Accepted};
use crate::api::params::escaped;
use crate::api::range::Asked;
use crate::api::reply::{write_cors, write_validated};
use crate::api::Site;
use crate::cache::Encoding;
use crate::front::{File, Found, Front};

/// A page of `web/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Description,
    Docs,
}

impl Page {
    fn content(self) -> (&'static str, &'static [u8]) {
        match self {
            Page::Description => {
                ("application/json; charset=utf-8", include_bytes!("../../web/openapi.json"))
            }
            Page::Docs => ("text/html; charset=utf-8", include_bytes!("../../web/docs.html")),
        }
    }
}

/// `GET /openapi.json`, `GET /docs`
pub fn show(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>, page: Page) {
    let (content_type, body) = page.content();
    rsp.header(&format!("Content-Type: {content_type}")).header("Cache-Control: no-cache");
    if page == Page::Docs {
        // Its own script and style, and calls to the server that it is from.
        rsp.header(
            "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        );
    }
    write_cors(site, req, rsp);
    write_validated(req, rsp, body.to_vec());
}

/// Whatever of a front end is at a path that is none of the API's. False: nothing.
pub fn show_front(front: &Front, req: &Request<'_, '_>, rsp: &mut Response<'_>, path: &str) -> bool {
    let accepted = req.header("accept").unwrap_or_default();
    let is_browser = accepted.windows(9).any(|word| word == b"text/html");
    match front.find(path, is_browser) {
        Some(Found::File(file)) => write_file(req, rsp, file),
        Some(Found::Shop) => write_redirect(rsp, "/shop/"),
        Some(Found::Directory) => {
            let query = Some(req.query()).filter(|query| !query.is_empty());
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            write_redirect(rsp, &format!("{}/{query}", escaped(path)));
        }
        None => return false,
    }
    true
}

fn write_redirect(rsp: &mut Response<'_>, location: &str) {
    rsp.status_code(302, "Found").header(&format!("Location: {location}")).header("Vary: Accept");
}

fn write_file(req: &Request<'_, '_>, rsp: &mut Response<'_>, file: &File) {
    let asked = asked_of(req, file);
    let encoding = match asked {
        Asked::Whole => Accepted::read(req.header("accept-encoding")).choose(|encoding| file.has(encoding)),
        _ => Encoding::Identity,
    };
    rsp.header(&format!("Content-Type: {}", file.content_type)).header("X-Content-Type-Options: nosniff");
    rsp.header("Cache-Control: no-cache")
        .header("Vary: Accept, Accept-Encoding")
        .header("Accept-Ranges: bytes");
    if let Some(policy) = file.policy {
        rsp.header(&format!("Content-Security-Policy: {policy}")).header("Referrer-Policy: same-origin");
    }
    let head = rsp.head_mut();
    head.extend_from_slice(b"ETag: ");
    write_etag(head, file.etag, encoding);
    head.extend_from_slice(b"\r\n");
    if req.header("if-none-match").is_some_and(|value| none_match_hits(value, file.etag)) {
        rsp.status_code(304, "Not Modified");
        return;
    }
    if let Some(coding) = coding(encoding) {
        rsp.head_mut().extend_from_slice(b"Content-Encoding: ");
        rsp.head_mut().extend_from_slice(coding);
        rsp.head_mut().extend_from_slice(b"\r\n");
    }
    let body = file.body(encoding);
    match asked {
        Asked::Whole => rsp.body_mut().extend_from_slice(body),
        Asked::Part(part) => {
            rsp.status_code(206, "Partial Content");
            rsp.header(&format!("Content-Range: bytes {}-{}/{}", part.start, part.end - 1, body.len()));
            rsp.body_mut().extend_from_slice(&body[part]);
        }
        Asked::Nothing => {
            rsp.status_code(416, "Range Not Satisfiable");
            rsp.header(&format!("Content-Range: bytes */{}", body.len()));
        }
    }
}

/// What a request wants of a file: a part only if it is the file that `If-Range` names, where it does.
fn asked_of(req: &Request<'_, '_>, file: &File) -> Asked {
    let mut etag = Vec::new();
    write_etag(&mut etag, file.etag, Encoding::Identity);
    let is_same = req.header("if-range").is_none_or(|value| value.trim_ascii() == etag);
    let value = req.header("range").filter(|_| req.method() == "GET" && is_same);
    value.map_or(Asked::Whole, |value| Asked::read(value, file.body(Encoding::Identity).len()))
}
