//! Errors as clients see them: RFC 9457 with stable codes. The one mapping from what went wrong to HTTP.
//! Runs in: worker.

use may_minihttp::{Request, Response};
use serde::Serialize;

use crate::api::fetch::FetchError;
use crate::api::outcome::Refusal;
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

    /// A 422 that the old service's clients know by its text.
    pub fn bad_entries(what: &'static str, detail: impl Into<String>) -> Problem {
        let (code, text) = match what {
            "Review" => ("bad-review", "Error: Review body contains invalid entries"),
            "Question" => ("bad-question", "Error: Question body contains invalid entries"),
            _ => ("bad-answer", "Error: Answer body contains invalid entries"),
        };
        Problem::known(code, text, detail)
    }

    /// A 404: `what` is a word of the path.
    pub fn none(what: &'static str, id: &str) -> Problem {
        let code = match what {
            "product" => "no-such-product",
            "style" => "no-such-style",
            "sku" => "no-such-sku",
            "photo" => "no-such-photo",
            "feature" => "no-such-feature",
            "review" => "no-such-review",
            "question" => "no-such-question",
            _ => "no-such-answer",
        };
        Problem::new(404, "Not Found", code, format!("there is no {what} {id}"))
    }

    pub fn bad_id(what: &'static str) -> Problem {
        Problem::bad_request("bad-id", format!("the id of a {what} is a number"))
    }

    pub fn no_shoe() -> Problem {
        let text = Some("This shoe does not exist!");
        Problem { text, ..Problem::new(404, "Not Found", "no-such-shoe", "there are no images of this shoe") }
    }

    pub fn forbidden() -> Problem {
        let detail = "this server has no token for this; set http.admin_token_file to a file with one, which only its owner can read";
        Problem::new(403, "Forbidden", "no-token-configured", detail)
    }

    pub fn too_many_writes(after_s: u32) -> Problem {
        let detail = "too many writes from this address";
        let problem = Problem::new(429, "Too Many Requests", "too-many-writes", detail);
        Problem { retry_after_s: Some(after_s), ..problem }
    }

    pub fn unauthorized() -> Problem {
        Problem::new(
            401,
            "Unauthorized",
            "unauthorized",
            "this server asks for the token of its configuration",
        )
    }

    pub fn is_unauthorized(&self) -> bool {
        self.status == 401
    }

    pub fn no_route() -> Problem {
        Problem::new(404, "Not Found", "no-such-route", "no route has this path")
    }

    pub fn no_product(id: &str) -> Problem {
        Problem::none("product", id)
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

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Problem {
        match refusal {
            Refusal::Body(why) => Problem::bad_request("bad-body", why.clone()),
            Refusal::Invalid(why) => Problem::unprocessable(why.clone()),
            Refusal::Missing => Problem::unprocessable("what this belongs to does not exist"),
            Refusal::Changed => Problem::new(
                412,
                "Precondition Failed",
                "changed",
                "it is not what If-Match names; read it again",
            ),
            Refusal::KeyReused => Problem::new(
                422,
                "Unprocessable Content",
                "idempotency-key-reused",
                "another body came with this Idempotency-Key",
            ),
            Refusal::KeyInFlight => Problem {
                retry_after_s: Some(1),
                ..Problem::new(
                    409,
                    "Conflict",
                    "idempotency-key-in-flight",
                    "a request with this Idempotency-Key is being answered",
                )
            },
            Refusal::Database(error) => Problem::from(error),
        }
    }
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
