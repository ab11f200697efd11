//! Pages that are part of the binary: the description of the API, and a page to try it.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::conditional::{none_match_hits, write_etag};
use crate::api::reply::write_cors;
use crate::api::Site;
use crate::cache::record::etag_of;
use crate::cache::Encoding;

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
    let etag = etag_of(body);
    rsp.header(&format!("Content-Type: {content_type}")).header("Cache-Control: no-cache");
    if page == Page::Docs {
        // Its own script and style, and calls to the server that it is from.
        rsp.header(
            "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        );
    }
    write_cors(site, req, rsp);
    let head = rsp.head_mut();
    head.extend_from_slice(b"ETag: ");
    write_etag(head, etag, Encoding::Identity);
    head.extend_from_slice(b"\r\n");
    if req.header("if-none-match").is_some_and(|value| none_match_hits(value, etag)) {
        rsp.status_code(304, "Not Modified");
    } else {
        rsp.body_vec(body.to_vec());
    }
}
