//! Validators and encodings: ETag, If-None-Match, Accept-Encoding (RFC 9110, 8.8, 13.1, 12.5.3).
//! Runs in: worker.

use crate::api::hex;
use crate::cache::Encoding;

/// What marks the ETag of a representation that is not the JSON itself.
fn suffix(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Identity => b"",
        Encoding::Gzip => b"-gz",
        Encoding::Br => b"-br",
        Encoding::Zstd => b"-zs",
    }
}

/// The name of a content coding, where there is one.
pub fn coding(encoding: Encoding) -> Option<&'static [u8]> {
    match encoding {
        Encoding::Identity => None,
        Encoding::Gzip => Some(b"gzip"),
        Encoding::Br => Some(b"br"),
        Encoding::Zstd => Some(b"zstd"),
    }
}

/// The ETag of a representation, quoted: a hash of the JSON, marked where it is compressed.
pub fn write_etag(out: &mut Vec<u8>, etag: u64, encoding: Encoding) {
    out.push(b'"');
    out.extend_from_slice(&hex(etag));
    out.extend_from_slice(suffix(encoding));
    out.push(b'"');
}

/// Whether `If-None-Match` names this content, in any encoding. Comparison is weak: proxies weaken tags.
pub fn none_match_hits(value: &[u8], etag: u64) -> bool {
    let digits = hex(etag);
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).any(|tag| {
        if tag == b"*" {
            return true;
        }
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let Some(tag) = tag.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")) else { return false };
        let rest = tag.strip_prefix(&digits);
        rest.is_some_and(|rest| CODINGS.iter().any(|encoding| suffix(*encoding) == rest))
    })
}

/// Encodings, the one that makes bodies smallest first.
const CODINGS: [Encoding; 4] = [Encoding::Br, Encoding::Zstd, Encoding::Gzip, Encoding::Identity];

/// Weights that a client gives to encodings, in thousandths, in the order of `CODINGS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted([u16; 4]);

impl Accepted {
    /// Reads Accept-Encoding (RFC 9110, 12.5.3). Without it, and in it without being named, only the identity will do.
    pub fn read(value: Option<&[u8]>) -> Accepted {
        let Some(value) = value else { return Accepted([0, 0, 0, 1]) };
        // What nearly everybody sends.
        match value {
            b"gzip, deflate, br, zstd" => return Accepted([1000, 1000, 1000, 1]),
            b"gzip, deflate, br" => return Accepted([1000, 0, 1000, 1]),
            b"gzip, deflate" | b"gzip" => return Accepted([0, 0, 1000, 1]),
            _ => {}
        }
        let mut weights: [Option<u16>; 4] = [None; 4];
        let mut any = None;
        for item in value.split(|&b| b == b',') {
            let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or(b"");
            let weight = parts.find_map(read_weight).unwrap_or(1000);
            let place = match name.len() {
                2 if name.eq_ignore_ascii_case(b"br") => 0,
                4 if name.eq_ignore_ascii_case(b"zstd") => 1,
                4 if name.eq_ignore_ascii_case(b"gzip") => 2,
                6 if name.eq_ignore_ascii_case(b"x-gzip") => 2,
                8 if name.eq_ignore_ascii_case(b"identity") => 3,
                1 if name == b"*" => {
                    any = Some(weight);
                    continue;
                }
                _ => continue,
            };
            weights[place] = Some(weight);
        }
        // Whoever names no weight for the identity takes it after everything that is named.
        let identity = weights[3].unwrap_or(if any == Some(0) { 0 } else { 1 });
        let coded = |place: usize| weights[place].or(any).unwrap_or(0);
        Accepted([coded(0), coded(1), coded(2), identity])
    }

    /// The encoding that the client likes best of those that there are, and of equals the smallest. What it takes none of is
    /// sent as it is (RFC 9110, 12.5.3).
    pub fn choose(self, has: impl Fn(Encoding) -> bool) -> Encoding {
        let mut best = (Encoding::Identity, self.0[3]);
        for (encoding, weight) in CODINGS.into_iter().zip(self.0).rev() {
            if weight > 0 && weight >= best.1 && has(encoding) {
                best = (encoding, weight);
            }
        }
        best.0
    }
}

/// `q=0.5` as thousandths.
fn read_weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let mut weight = 0;
    let mut scale = 1000;
    for byte in value {
        match byte {
            b'0'..=b'9' if scale > 0 => {
                weight += u16::from(byte - b'0') * scale;
                scale /= 10;
            }
            b'.' => {}
            _ => return Some(1000),
        }
    }
    Some(weight.min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_encoding_validates() {
        let etag = 0x0123_4567_89AB_CDEF;
        for value in [
            "\"0123456789abcdef\"",
            "W/\"0123456789abcdef\"",
            "\"0123456789abcdef-gz\"",
            "\"0123456789abcdef-br\"",
            "\"x\", \"0123456789abcdef-zs\"",
            "*",
        ] {
            assert!(none_match_hits(value.as_bytes(), etag), "{value}");
        }
        for value in ["", "0123456789abcdef", "\"0123456789abcde\"", "\"-gz\"", "\"0123456789abcdef-xx\""] {
            assert!(!none_match_hits(value.as_bytes(), etag), "{value}");
        }
        let mut out = Vec::new();
        write_etag(&mut out, etag, Encoding::Gzip);
        assert_eq!(out, b"\"0123456789abcdef-gz\"");
    }

    #[test]
    fn weights_choose() {
        use Encoding::{Br, Gzip, Identity, Zstd};
        let choose = |value: &str, there: &[Encoding]| {
            Accepted::read(Some(value.as_bytes())).choose(|encoding| there.contains(&encoding))
        };
        let all = [Br, Zstd, Gzip];
        for (value, best, with_gzip_only) in [
            ("", Identity, Identity),
            ("identity", Identity, Identity),
            ("gzip", Gzip, Gzip),
            ("gzip, deflate", Gzip, Gzip),
            ("gzip, deflate, br", Br, Gzip),
            ("x-gzip", Gzip, Gzip),
            ("gzip, deflate, br, zstd", Br, Gzip),
            ("gzip, deflate, zstd", Zstd, Gzip),
            ("br;q=0.5, gzip;q=0.8", Gzip, Gzip),
            ("br;q=0.8, gzip;q=0.5", Br, Gzip),
            ("BR ; Q=1.000 , gzip;q=0", Br, Identity),
            ("*", Br, Gzip),
            ("*;q=0.1, br;q=0", Zstd, Gzip),
            ("gzip;q=0", Identity, Identity),
            ("*, gzip;q=0.000", Br, Identity),
            ("*;q=0", Identity, Identity),
            ("identity;q=0.9, gzip;q=0.8", Identity, Identity),
            ("deflate, compress", Identity, Identity),
        ] {
            assert_eq!(choose(value, &all), best, "{value}");
            assert_eq!(choose(value, &[Gzip]), with_gzip_only, "{value}");
        }
        assert_eq!(Accepted::read(None).choose(|_| true), Identity);
    }
}
