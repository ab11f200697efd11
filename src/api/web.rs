//! Pages that are part of the binary: the description of the API, and a page to try it.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::reply::{write_cors, write_validated};
use crate::api::Site;

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
