//! Who the client is when a proxy stands in between: the PROXY protocol before the first request, `Forwarded` (RFC 7239)
//! or `X-Forwarded-For` in each. Believed from configured networks only.
//! Runs in: worker. No I/O, no panic. Source: the PROXY protocol, versions 1 and 2 (HAProxy documentation).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use httparse::Header;
use ipnet::IpNet;

/// Longest line of version 1, CRLF included.
const LINE_SIZE_MAX_BYTES: usize = 107;
/// Longest header of version 2 taken, extensions included.
pub(crate) const HEADER_SIZE_MAX_BYTES: usize = 2048;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Which peers are believed, and what they say first.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Networks whose word about the client counts.
    pub trusted: Vec<IpNet>,
    /// Their connections begin with a PROXY protocol header.
    pub speak_first: bool,
}

impl Proxies {
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// The client of a request that came from `peer`: the last address in the chain that is no trusted proxy.
    pub(crate) fn client(&self, peer: IpAddr, headers: &[Header<'_>]) -> IpAddr {
        if self.trusted.is_empty() || !self.trusts(peer) {
            return peer;
        }
        let named =
            |name: &'static str| headers.iter().rev().filter(move |h| h.name.eq_ignore_ascii_case(name));
        let forwarded = named("forwarded").flat_map(|h| h.value.rsplit(|b| *b == b',')).map(read_forwarded);
        let listed = named("x-forwarded-for").flat_map(|h| h.value.rsplit(|b| *b == b',')).map(read_node);
        let is_there = |name: &'static str| named(name).next().is_some();
        let by_forwarded = self.last_untrusted(peer, forwarded).to_canonical();
        let by_list = self.last_untrusted(peer, listed).to_canonical();
        match (is_there("forwarded"), is_there("x-forwarded-for")) {
            (true, false) => by_forwarded,
            (false, true) => by_list,
            (true, true) if by_forwarded == by_list => by_list,
            // A proxy that writes one of them hands the other on as the client sent it: nobody knows which is which.
            _ => peer,
        }
    }

    /// Walks the chain from its near end. What can't be read ends it: beyond that nobody is known.
    fn last_untrusted(&self, peer: IpAddr, chain: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for node in chain {
            let Some(address) = node else { return client };
            client = address;
            if !self.trusts(client) {
                return client;
            }
        }
        client
    }
}

/// The `for` of one element of `Forwarded`.
fn read_forwarded(element: &[u8]) -> Option<IpAddr> {
    element.split(|b| *b == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value).and_then(read_node)
    })
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, quoted or not.
fn read_node(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?.trim().trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((v4, port)) if !port.contains(':') => v4,
            _ => text,
        },
    };
    bare.parse().ok()
}

/// A PROXY protocol header at the front of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// More bytes are needed.
    Partial,
    /// A header of `len` bytes; no client where the proxy speaks for itself.
    Whole { len: usize, client: Option<IpAddr> },
    /// Something else.
    Bad,
}

/// Reads the header at the front of `bytes`.
pub fn read_preface(bytes: &[u8]) -> Preface {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return if bytes.len() < 16 { Preface::Partial } else { read_binary(bytes) };
    }
    read_line(bytes)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 51000 80`
fn read_line(bytes: &[u8]) -> Preface {
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Preface::Bad;
    }
    let within = &bytes[..bytes.len().min(LINE_SIZE_MAX_BYTES)];
    let Some(end) = within.windows(2).position(|w| w == b"\r\n") else {
        return if bytes.len() < LINE_SIZE_MAX_BYTES { Preface::Partial } else { Preface::Bad };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return Preface::Bad };
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words[1..] {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, target, from, to] => {
            let good = target.parse::<Ipv4Addr>().is_ok() && is_port(from) && is_port(to);
            match source.parse::<Ipv4Addr>() {
                Ok(source) if good => Some(IpAddr::V4(source)),
                _ => return Preface::Bad,
            }
        }
        ["TCP6", source, target, from, to] => {
            let good = target.parse::<Ipv6Addr>().is_ok() && is_port(from) && is_port(to);
            match source.parse::<Ipv6Addr>() {
                Ok(source) if good => Some(IpAddr::V6(source)),
                _ => return Preface::Bad,
            }
        }
        _ => return Preface::Bad,
    };
    Preface::Whole { len: end + 2, client }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// ```text
/// 0          12        13       14      16
/// ┌───────────┬─────────┬────────┬───────┬──────────────────────────────────┐
/// │ signature │ ver cmd │ family │ len   │ source, target, ports, extensions │
/// └───────────┴─────────┴────────┴───────┴──────────────────────────────────┘
/// ```
fn read_binary(bytes: &[u8]) -> Preface {
    let len = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    if version != 2 || command > 1 || len > HEADER_SIZE_MAX_BYTES {
        return Preface::Bad;
    }
    if bytes.len() < len {
        return Preface::Partial;
    }
    let addresses = &bytes[16..len];
    let client = match (command, bytes[13] >> 4) {
        (0, _) | (_, 0 | 3) => None,
        (_, 1) => match addresses.first_chunk::<4>() {
            Some(source) if addresses.len() >= 12 => Some(IpAddr::from(*source)),
            _ => return Preface::Bad,
        },
        (_, 2) => match addresses.first_chunk::<16>() {
            Some(source) if addresses.len() >= 36 => Some(IpAddr::from(*source)),
            _ => return Preface::Bad,
        },
        _ => return Preface::Bad,
    };
    Preface::Whole { len, client }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Proxies {
        Proxies {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            speak_first: true,
        }
    }

    fn client(peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let headers: Vec<Header<'_>> =
            fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        proxies().client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(client("192.0.2.9", &[("X-Forwarded-For", "198.51.100.1")]), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &[("Forwarded", "for=198.51.100.1")]), "192.0.2.9");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let chain = "203.0.113.7, 198.51.100.1, 10.1.1.1";
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", chain)]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", "10.9.9.9")]), "10.9.9.9");
        assert_eq!(client("::ffff:10.0.0.1", &[("X-Forwarded-For", "198.51.100.1:4711")]), "198.51.100.1");
        let fields = [("X-Forwarded-For", "203.0.113.7"), ("x-forwarded-for", "198.51.100.2")];
        assert_eq!(client("10.0.0.1", &fields), "198.51.100.2");
        let forwarded = r#"for=203.0.113.7;proto=https, by=x; For="[2001:db8::7]:4711";host=a"#;
        assert_eq!(client("10.0.0.1", &[("Forwarded", forwarded)]), "2001:db8::7");
        // Which of the two the proxy wrote is not known.
        assert_eq!(
            client("10.0.0.1", &[("Forwarded", forwarded), ("X-Forwarded-For", "1.1.1.1")]),
            "10.0.0.1"
        );
        let both = [("Forwarded", "for=198.51.100.2"), ("X-Forwarded-For", "198.51.100.2")];
        assert_eq!(client("10.0.0.1", &both), "198.51.100.2");
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", "::ffff:198.51.100.2")]), "198.51.100.2");
        assert_eq!(client("10.0.0.1", &[("X-Forwarded-For", "198.51.100.1, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[("Forwarded", "for=_hidden")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn lines_of_version_1() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 51000 80\r\nGET";
        let whole = Preface::Whole { len: line.len() - 3, client: Some("192.0.2.1".parse().unwrap()) };
        assert_eq!(read_preface(line), whole);
        for n in 0..line.len() - 3 {
            assert_eq!(read_preface(&line[..n]), Preface::Partial, "{n}");
        }
        assert_eq!(read_preface(b"PROXY UNKNOWN\r\n"), Preface::Whole { len: 15, client: None });
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(
            read_preface(six),
            Preface::Whole { len: six.len(), client: Some("2001:db8::1".parse().unwrap()) }
        );
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 51000\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY\tTCP4",
        ] {
            assert_eq!(read_preface(bad.as_bytes()), Preface::Bad, "{bad:?}");
        }
        assert_eq!(read_preface(format!("PROXY {}", "x".repeat(200)).as_bytes()), Preface::Bad);
    }

    #[test]
    fn headers_of_version_2() {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x21, 0x11, 0, 15]);
        header.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0, 0, 80, 9, 9, 9]);
        let whole = Preface::Whole { len: header.len(), client: Some("192.0.2.1".parse().unwrap()) };
        assert_eq!(read_preface(&header), whole);
        for n in 0..header.len() {
            assert_eq!(read_preface(&header[..n]), Preface::Partial, "{n}");
        }
        header[12] = 0x20;
        assert_eq!(read_preface(&header), Preface::Whole { len: header.len(), client: None });
        header[12] = 0x31;
        assert_eq!(read_preface(&header), Preface::Bad);
        header[12] = 0x21;
        header[15] = 11;
        assert_eq!(read_preface(&header), Preface::Bad);
        header[14] = 0xff;
        assert_eq!(read_preface(&header), Preface::Bad);
    }
}
