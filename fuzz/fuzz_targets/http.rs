//! Everything that reads bytes of an HTTP client before a handler does: head, target, chunk lines, PROXY header.
//! Runs in: offline.
#![no_main]

use std::mem::MaybeUninit;

use libfuzzer_sys::fuzz_target;
use may_minihttp::parse::{parse_chunk_size, parse_head, parse_trailer_line, Framing};
use may_minihttp::proxy::{read_preface, Preface};
use may_minihttp::{Header, Limits};

fuzz_target!(|bytes: &[u8]| {
    read_head(bytes);
    if let Ok(Some((len, _))) = parse_chunk_size(bytes) {
        assert!(len <= bytes.len() && bytes[..len].ends_with(b"\r\n"));
        assert_eq!(bytes[..len].iter().filter(|b| **b == b'\n').count(), 1);
    }
    if let Ok(Some(len)) = parse_trailer_line(bytes) {
        assert!(len <= bytes.len() && bytes[..len].ends_with(b"\r\n"));
    }
    if let Preface::Whole { len, .. } = read_preface(bytes) {
        assert!(len <= bytes.len());
        assert_eq!(read_preface(&bytes[..len - 1]), Preface::Partial);
    }
});

/// A head that is taken is one about which no two readers differ.
fn read_head(bytes: &[u8]) {
    let limits = Limits::default();
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; 100];
    let Ok(Some(head)) = parse_head(bytes, &mut space, &limits) else { return };
    let whole = &bytes[..head.len];
    assert!(whole.ends_with(b"\r\n\r\n"));
    assert!(whole.iter().zip(&whole[1..]).all(|(a, b)| *b != b'\n' || *a == b'\r'), "a bare LF");
    assert!(whole.windows(2).all(|w| w[0] != b'\r' || w[1] == b'\n'), "a bare CR");
    assert!(!whole.contains(&0));
    let path = head.target.path();
    assert!(path == "*" || path.starts_with('/'));
    assert!(!path.chars().any(|c| c.is_ascii_control() || c == '\\'));
    assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
    let count = |name: &str| head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
    assert!(count("host") <= 1);
    let coded = count("transfer-encoding") > 0;
    assert_eq!(coded, head.framing == Framing::Chunked);
    assert!(!(coded && count("content-length") > 0));
    if let Framing::Length(len) = head.framing {
        assert!(len <= limits.body_size_max_bytes && count("content-length") > 0);
    }
    // Not a byte less is a head, and what follows changes nothing.
    let (len, framing) = (head.len, head.framing);
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; 100];
    assert!(matches!(parse_head(&bytes[..len - 1], &mut space, &limits), Ok(None)));
    let mut longer = bytes[..len].to_vec();
    longer.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let mut space = [const { MaybeUninit::<Header<'_>>::uninit() }; 100];
    let again = parse_head(&longer, &mut space, &limits).expect("the same").expect("the same");
    assert_eq!((again.len, again.framing), (len, framing));
}
