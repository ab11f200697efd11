//! The request target: its form, and a path about which no two readers can differ (RFC 9112, 3.2; RFC 3986).
//! Runs in: worker. No I/O, no panic.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::parse::Refusal;

/// A target in origin form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'b> {
    /// The path as sent: `/…`, or `*` for OPTIONS.
    path: &'b str,
    /// What follows the `?`; empty when there is none.
    query: &'b str,
    /// No escapes in the path: it reads as it was sent.
    plain: bool,
}

impl<'b> Target<'b> {
    /// Takes a target apart.
    ///
    /// # Errors
    /// A form that the method can't have, and a path that could be read in two ways: a bad escape, an escaped slash,
    /// backslash or control character, a dot segment, bytes that are not UTF-8 once decoded.
    pub fn read(method: &str, target: &'b str) -> Result<Target<'b>, Refusal> {
        let Seen { bad, fragment, special, query_at } = Seen::in_target(target);
        if bad {
            return Err(Refusal::Malformed("a bad byte in the target"));
        }
        if fragment {
            return Err(Refusal::Malformed("a fragment in the target"));
        }
        if target.starts_with('/') && !special {
            let (path, query) = match query_at {
                Some(at) => (&target[..at], &target[at + 1..]),
                None => (target, ""),
            };
            return match method {
                "CONNECT" => Err(Refusal::NotATunnel),
                _ => Ok(Target { path, query, plain: true }),
            };
        }
        if target == "*" && method == "OPTIONS" {
            return Ok(Target { path: target, query: "", plain: true });
        }
        if method == "CONNECT" {
            return Err(Refusal::NotATunnel);
        }
        let origin = if target.starts_with('/') { target } else { origin_form(target)? };
        let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
        let path = if path.is_empty() { "/" } else { path };
        let plain = check_path(path)?;
        Ok(Target { path, query, plain })
    }

    /// The path, decoded once.
    pub fn path(&self) -> Cow<'b, str> {
        match self.plain {
            true => Cow::Borrowed(self.path),
            false => percent_decode_str(self.path).decode_utf8_lossy(),
        }
    }

    pub fn query(&self) -> &'b str {
        self.query
    }
}

/// What one pass over a target finds.
struct Seen {
    /// A byte that no target may hold.
    bad: bool,
    fragment: bool,
    /// An escape, a dot or a backslash before the query: the path needs a closer look.
    special: bool,
    query_at: Option<usize>,
}

impl Seen {
    fn in_target(target: &str) -> Seen {
        let mut seen = Seen { bad: false, fragment: false, special: false, query_at: None };
        for (at, byte) in target.bytes().enumerate() {
            match CLASSES[usize::from(byte)] {
                Class::Plain => {}
                Class::Special => seen.special |= seen.query_at.is_none(),
                Class::Query => seen.query_at = seen.query_at.or(Some(at)),
                Class::Fragment => seen.fragment = true,
                Class::Bad => seen.bad = true,
            }
        }
        seen
    }
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Special,
    Query,
    Fragment,
    Bad,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Bad; 256];
    let mut byte = 0x21;
    while byte <= 0x7e {
        classes[byte] = match byte as u8 {
            b'%' | b'.' | b'\\' => Class::Special,
            b'?' => Class::Query,
            b'#' => Class::Fragment,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// `http://host/path?query` → `/path?query` or, without a path, `?query`.
fn origin_form(target: &str) -> Result<&str, Refusal> {
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::Malformed("the target is no path"))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::Malformed("the target has a scheme that is not served"));
    }
    let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Refusal::Malformed("the target has a bad authority"));
    }
    Ok(origin)
}

/// Whether a Host field or authority has only bytes that one may have; user information is none of them.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|b| IN_AUTHORITY[usize::from(*b)])
}

const IN_AUTHORITY: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let others = b"-._~!$&'()*+;=:[]%";
        let mut n = 0;
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        while n < others.len() {
            allowed[byte] |= byte as u8 == others[n];
            n += 1;
        }
        byte += 1;
    }
    allowed
};

/// True for a path that reads as it was sent, false for one with escapes.
fn check_path(path: &str) -> Result<bool, Refusal> {
    let mut plain = true;
    let mut dotted = false;
    for byte in path.bytes() {
        match byte {
            b'%' => plain = false,
            b'.' => dotted = true,
            b'\\' => return Err(Refusal::Malformed("a backslash in the path")),
            _ => {}
        }
    }
    if !plain {
        check_escapes(path)?;
    }
    if dotted || !plain {
        let decoded = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Refusal::Malformed("the path is not UTF-8"))?;
        if decoded.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(Refusal::Malformed("a dot segment in the path"));
        }
    }
    Ok(plain)
}

fn check_escapes(path: &str) -> Result<(), Refusal> {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let digit = |n: usize| rest.get(at + n).and_then(|b| (*b as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(1), digit(2)) else {
            return Err(Refusal::Malformed("a bad escape in the path"));
        };
        let byte = (high * 16 + low) as u8;
        if byte.is_ascii_control() || byte == b'/' || byte == b'\\' {
            return Err(Refusal::Malformed("an escaped control character, slash or backslash in the path"));
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Result<(String, String), Refusal> {
        Target::read("GET", target).map(|t| (t.path().into_owned(), t.query().to_string()))
    }

    fn path(target: &str) -> String {
        read(target).expect(target).0
    }

    #[test]
    fn absolute_form_loses_its_authority() {
        assert_eq!(
            read("http://shop.example/products/1?x=%zz").unwrap(),
            ("/products/1".into(), "x=%zz".into())
        );
        assert_eq!(read("HTTPS://shop.example:443").unwrap(), ("/".into(), String::new()));
        assert_eq!(read("http://shop.example?a").unwrap(), ("/".into(), "a".into()));
        for bad in ["ftp://a/b", "http://", "http:///x", "http://u@a/b", "//", "a/b", "", "*", "a:80"] {
            assert_eq!(read(bad).is_err(), bad != "//", "{bad}");
        }
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(path("/products/%31"), "/products/1");
        assert_eq!(path("/%E2%82%AC%2531"), "/€%31");
        assert_eq!(path("/a.b/..c/d"), "/a.b/..c/d");
    }

    #[test]
    fn a_path_that_two_readers_could_take_differently_is_refused() {
        for bad in [
            "/%",
            "/%4",
            "/%zz",
            "/%00",
            "/%0a",
            "/%7f",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/.%2E/b",
            "/a/%2e",
            "/%ff",
            "/%c3(",
            "/a#b",
            "/é",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_options_asks_about_the_server() {
        assert_eq!(Target::read("OPTIONS", "*").unwrap().path(), "*");
        assert_eq!(Target::read("CONNECT", "a:80"), Err(Refusal::NotATunnel));
    }
}
