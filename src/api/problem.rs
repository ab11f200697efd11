//! Errors as clients see them: RFC 9457 with stable codes. The one mapping from what went wrong to HTTP.
//! Runs in: worker.

use may_minihttp::{Request, Response};
use serde::Serialize;

use crate::api::fetch::FetchError;
use crate::api::{reply, Site};

/// A problem to be answered. Codes are part of the interface: docs/errors.md lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: u16,
    title: &'static str,
    code: &'static str,
    detail: String,
    /// What clients of the old service know this problem by.
    text: Option<&'static str>,
    retry_after_s: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    fn new(status: u16, title: &'static str, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, title, code, detail: detail.into(), text: None, retry_after_s: None }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(400, "Bad Request", code, detail)
    }

    pub fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::new(422, "Unprocessable Content", "bad-value", detail)
    }

    pub fn unauthorized() -> Problem {
        Problem::new(
            401,
            "Unauthorized",
            "unauthorized",
            "this server asks for the token of its configuration",
        )
    }

    pub fn no_route() -> Problem {
        Problem::new(404, "Not Found", "no-such-route", "no route has this path")
    }

    pub fn no_product(id: &str) -> Problem {
        Problem::new(404, "Not Found", "no-such-product", format!("there is no product {id}"))
    }

    /// A 422 that the old service's clients know by its text.
    fn known(code: &'static str, text: &'static str, detail: impl Into<String>) -> Problem {
        Problem { text: Some(text), ..Problem::new(422, "Unprocessable Content", code, detail) }
    }

    pub fn bad_product_id() -> Problem {
        let text = "Error: invalid product_id provided";
        Problem::known("bad-product-id", text, "product_id must be a whole number")
    }

    pub fn bad_question_id() -> Problem {
        let text = Some("Error: invalid question id provided");
        let detail = "a question's id is a number";
        Problem { text, ..Problem::new(404, "Not Found", "bad-question-id", detail) }
    }

    pub fn no_picture() -> Problem {
        Problem::new(404, "Not Found", "no-such-picture", "pictures are named ID-NUMBER.svg")
    }

    pub fn method_not_allowed(allow: &str) -> Problem {
        Problem::new(405, "Method Not Allowed", "method-not-allowed", format!("this route takes {allow}"))
    }

    /// Sends the problem: as clients of the old service know it, unless they ask for problem details by name.
    pub fn write(&self, site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
        rsp.status_code(self.status, self.title).header("Cache-Control: no-store");
        if let Some(seconds) = self.retry_after_s {
            rsp.header(&format!("Retry-After: {seconds}"));
        }
        reply::write_cors(site, req, rsp);
        match self.text.filter(|_| !asks_for_problems(req)) {
            Some(text) => {
                rsp.header("Content-Type: text/plain; charset=utf-8").header("Vary: Accept");
                rsp.body_vec(text.as_bytes().to_vec());
            }
            None => self.write_json(rsp),
        }
    }

    fn write_json(&self, rsp: &mut Response<'_>) {
        let body = Body {
            r#type: "about:blank",
            title: self.title,
            status: self.status,
            code: self.code,
            detail: &self.detail,
        };
        rsp.header("Content-Type: application/problem+json");
        let json = serde_json::to_vec(&body).expect("five plain fields serialise");
        rsp.body_vec(json);
    }
}

/// Whether `Accept` lists `application/problem+json` itself: many clients send `*/*`.
fn asks_for_problems(req: &Request<'_, '_>) -> bool {
    let accepted = req.header("accept").unwrap_or(b"").split(|&b| b == b',');
    accepted
        .map(|item| item.split(|&b| b == b';').next().unwrap_or(b"").trim_ascii())
        .any(|media_type| media_type.eq_ignore_ascii_case(b"application/problem+json"))
}

impl From<&FetchError> for Problem {
    fn from(error: &FetchError) -> Problem {
        match error {
            FetchError::Unavailable(why) => Problem {
                retry_after_s: Some(1),
                ..Problem::new(503, "Service Unavailable", "database-unavailable", why.clone())
            },
            FetchError::Unknown(why) => Problem {
                retry_after_s: Some(1),
                ..Problem::new(503, "Service Unavailable", "outcome-unknown", why.clone())
            },
            FetchError::Failed(why) => Problem::new(500, "Internal Server Error", "internal", why.clone()),
        }
    }
}
