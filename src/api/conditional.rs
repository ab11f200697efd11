//! Validators and encodings: ETag, If-None-Match, Accept-Encoding (RFC 9110, 8.8, 13.1, 12.5.3).
//! Runs in: worker.

use crate::api::hex;
use crate::cache::Encoding;

/// The ETag of a representation, quoted: a hash of the JSON, marked where it is the gzip of it.
pub fn write_etag(out: &mut Vec<u8>, etag: u64, encoding: Encoding) {
    out.push(b'"');
    out.extend_from_slice(&hex(etag));
    if encoding == Encoding::Gzip {
        out.extend_from_slice(b"-gz");
    }
    out.push(b'"');
}

/// Whether `If-None-Match` names this content, in either encoding. Comparison is weak: proxies weaken tags.
pub fn none_match_hits(value: &[u8], etag: u64) -> bool {
    let digits = hex(etag);
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).any(|tag| {
        if tag == b"*" {
            return true;
        }
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let Some(tag) = tag.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")) else { return false };
        tag == digits || tag.strip_suffix(b"-gz") == Some(&digits)
    })
}

/// Whether the client takes gzip: named with a quality above 0, or `*` with gzip not named.
pub fn accepts_gzip(value: Option<&[u8]>) -> Encoding {
    let mut any = false;
    for item in value.unwrap_or(b"").split(|&b| b == b',') {
        let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or(b"");
        let refused = parts.any(|p| {
            let q = p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q="));
            q.is_some_and(|q| q.iter().all(|b| matches!(b, b'0' | b'.')))
        });
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            return if refused { Encoding::Identity } else { Encoding::Gzip };
        }
        any |= coding == b"*" && !refused;
    }
    if any {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_encoding_validates() {
        let etag = 0x0123_4567_89AB_CDEF;
        for value in [
            "\"0123456789abcdef\"",
            "W/\"0123456789abcdef\"",
            "\"0123456789abcdef-gz\"",
            "\"x\", \"0123456789abcdef\"",
            "*",
        ] {
            assert!(none_match_hits(value.as_bytes(), etag), "{value}");
        }
        for value in ["", "0123456789abcdef", "\"0123456789abcde\"", "\"-gz\"", "\"0123456789abcdef-br\""] {
            assert!(!none_match_hits(value.as_bytes(), etag), "{value}");
        }
        let mut out = Vec::new();
        write_etag(&mut out, etag, Encoding::Gzip);
        assert_eq!(out, b"\"0123456789abcdef-gz\"");
    }

    #[test]
    fn qualities_are_respected() {
        let takes = |v: &str| accepts_gzip(Some(v.as_bytes())) == Encoding::Gzip;
        assert!(takes("gzip") && takes("gzip, deflate, br") && takes("br;q=1.0, gzip;q=0.8") && takes("*"));
        assert!(
            !takes("")
                && !takes("identity")
                && !takes("gzip;q=0")
                && !takes("*, gzip;q=0.000")
                && !takes("*;q=0")
        );
        assert_eq!(accepts_gzip(None), Encoding::Identity);
    }
}
