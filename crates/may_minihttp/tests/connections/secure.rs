//! HTTPS: versions, ALPN, a certificate that is replaced, clients that don't speak it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use may_minihttp::{Settings, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::support::{connect, eventually, get, read_answer, reads_until_closed, settings, Site};

struct Made {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

fn make() -> Made {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    Made { certificate: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Made {
    fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::read(self.pem.as_bytes(), self.key.as_bytes()).unwrap())
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    fn connect(&self, site: &Site) -> StreamOwned<ClientConnection, TcpStream> {
        open(site, self.client(rustls::ALL_VERSIONS))
    }
}

fn open(site: &Site, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(site))
}

#[test]
fn both_versions_are_served_large_and_small() {
    let made = make();
    let site = Site::start_with(Settings::default(), Some(made.tls()));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = made.client(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = open(&site, config);
        for _ in 0..5 {
            get(&mut stream, "/");
            get(&mut stream, "/large");
        }
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let head = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; 200_000]).unwrap();
        assert!(read_answer(&mut stream).ends_with("200000"));
        stream.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        // A clean end: the server says close_notify.
        stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() > 300_000 && bytes.ends_with(b"\r\n0\r\n\r\n"));
    }
}

#[test]
fn an_idle_connection_ends_with_close_notify() {
    let made = make();
    let site = Site::start_with(settings(|l| l.idle_timeout = Duration::from_millis(300)), Some(made.tls()));
    let mut stream = made.connect(&site);
    get(&mut stream, "/");
    // Without it this is an error.
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn pipelined_requests_in_one_record_are_all_answered() {
    let made = make();
    let site = Site::start_with(Settings::default(), Some(made.tls()));
    let mut stream = made.connect(&site);
    stream.write_all("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300).as_bytes()).unwrap();
    for _ in 0..300 {
        assert!(read_answer(&mut stream).len() > 20 * 1024);
    }
}

#[test]
fn many_records_in_one_segment_are_all_read() {
    let made = make();
    let site = Site::start_with(Settings::default(), Some(made.tls()));
    let mut stream = made.connect(&site);
    get(&mut stream, "/");
    for _ in 0..150 {
        // A record each; they leave together.
        stream
            .conn
            .writer()
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: padding padding padding\r\n\r\n")
            .unwrap();
    }
    stream.flush().unwrap();
    for _ in 0..150 {
        assert!(read_answer(&mut stream).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_client_that_wants_another_protocol_is_refused() {
    let made = make();
    let site = Site::start_with(Settings::default(), Some(made.tls()));
    let mut config = made.client(rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = open(&site, config);
    assert!(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stream.read(&mut [0; 1])).is_err());
}

#[test]
fn a_client_without_tls_ends_and_holds_nobody_up() {
    let made = make();
    let site = Site::start_with(Settings::default(), Some(made.tls()));
    let mut plain = connect(&site);
    let silent = connect(&site);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"));
    get(&mut made.connect(&site), "/");
    drop((plain, silent));
    eventually("only an ended handshake is left", || site.server.connections() <= 1);
}

#[test]
fn a_replaced_certificate_is_for_new_connections_and_breaks_no_old_one() {
    let (first, second) = (make(), make());
    let tls = first.tls();
    let site = Site::start_with(Settings::default(), Some(tls.clone()));
    let mut old = first.connect(&site);
    get(&mut old, "/");
    tls.replace(&second.tls());
    get(&mut old, "/");
    get(&mut second.connect(&site), "/");
    let mut stranger = first.connect(&site);
    assert!(stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| stranger.read(&mut [0; 1])).is_err());
}

#[test]
fn certificates_that_are_none_are_refused_with_a_reason() {
    let (first, second) = (make(), make());
    let refused = |pem: &str, key: &str| Tls::read(pem.as_bytes(), key.as_bytes()).err().expect("a reason");
    assert!(refused("", &first.key).contains("no certificate"));
    assert!(refused(&first.pem, "nonsense").contains("key file"));
    assert!(refused(&first.pem, &second.key).contains("certificate and key"));
}

#[test]
fn deadlines_hold_over_tls_too() {
    let made = make();
    let limits = settings(|l| {
        l.header_timeout = Duration::from_millis(300);
        l.write_timeout = Duration::from_millis(500);
    });
    let site = Site::start_with(limits, Some(made.tls()));
    let mut stream = made.connect(&site);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 408 "));
    let mut deaf = made.connect(&site);
    for _ in 0..100 {
        deaf.write_all("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20).as_bytes()).unwrap();
    }
    drop(stream);
    eventually("who takes no answers is closed", || site.server.connections() == 0);
    drop(deaf);
}

#[test]
fn half_a_record_and_no_more_ends_in_time() {
    let made = make();
    let site =
        Site::start_with(settings(|l| l.header_timeout = Duration::from_millis(300)), Some(made.tls()));
    let mut stream = connect(&site);
    stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    drop(stream.shutdown(std::net::Shutdown::Write));
    assert_eq!(reads_until_closed(stream), "");
}
