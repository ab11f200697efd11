//! The server's two ends as its users meet them: what clients may send, what they get while the database is away, HTTPS,
//! proxies, limits by configuration.

#[path = "../../crates/may_minihttp/tests/vectors/table.rs"]
mod table;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{eventually, server::directory, Connection, Server};

/// A configuration file, and the directory that it lives in.
fn configured(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = directory();
    let path = dir.path().join("catwalk.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn start(text: &str, args: &[&str]) -> Server {
    let (_dir, path) = configured(text);
    let mut all = vec!["--config", path.to_str().unwrap()];
    all.extend(args);
    Server::start(&all)
}

/// Status codes of the answers until the server closes; those of 404 and 405 count as served.
fn statuses(server: &Server, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let codes = text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok());
    codes.filter(|code| *code != 100).collect()
}

#[test]
fn the_whole_server_reads_every_vector_like_its_front_end() {
    let server = Server::shared();
    let all = table::VECTORS.iter().map(|v| (table::bytes(v.raw), v.verdict)).chain(table::large());
    for (bytes, verdict) in all {
        let expected: Vec<&str> = verdict.split('|').filter(|v| !v.is_empty()).collect();
        let got = statuses(server, &bytes);
        let same = got.len() == expected.len()
            && got.iter().zip(&expected).all(|(code, word)| match word.strip_prefix("200 ") {
                Some(_) => matches!(code, 200 | 204 | 404 | 405),
                None => code.to_string() == *word,
            });
        let front = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert!(same, "{front:?}: {got:?} instead of {expected:?}");
    }
}

#[test]
fn a_long_list_comes_in_pieces_and_is_what_its_pages_are() {
    let server = Server::shared();
    let mut connection = server.connect();
    let whole = connection.get("/products?count=1234&page=1");
    assert_eq!(whole.header("transfer-encoding"), Some("chunked"));
    assert_eq!((whole.header("etag"), whole.header("cache-status")), (None, Some("catwalk; fwd=bypass")));
    let mut pages = Vec::new();
    for page in 1..=13 {
        let reply = connection.get(&format!("/products?count=100&page={page}"));
        pages.extend(reply.json().as_array().unwrap().clone());
    }
    assert_eq!(whole.json().as_array().unwrap()[..], pages[..1234]);
    let zipped = connection.request("GET", "/products?count=1234", &[("Accept-Encoding", "gzip")]);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, whole.body);
    let rest = connection.get("/products?count=10000&page=1").json();
    assert_eq!(rest.as_array().unwrap().len(), 2000);
    assert_eq!(connection.get("/products?count=5000&page=2").text(), "[]");
    let head = connection.request("HEAD", "/products?count=1234", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, None));
}

/// Cuts the server off from its database: no new connection finds the socket, and those that are open end.
fn cut_off(server: &Server) -> impl FnOnce() {
    let data = server.database();
    let directory = data.query_text("select current_setting('unix_socket_directories')", &[]).unwrap();
    let socket = Path::new(directory[0].get::<&str>(0).trim_matches('"')).join(".s.PGSQL.5432");
    let hidden = socket.with_extension("hidden");
    std::fs::rename(&socket, &hidden).unwrap();
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
                  where backend_type = 'client backend' and pid <> pg_backend_pid()";
    data.query_text(others, &[]).unwrap();
    move || std::fs::rename(&hidden, &socket).unwrap()
}

#[test]
fn while_no_database_can_be_reached_what_is_cached_is_served_and_all_else_is_503_at_once() {
    let server = start("[cache]\nmax_age = \"100ms\"\nstale_if_error = \"60s\"\n", &["--workers", "1"]);
    let mut connection = server.connect();
    let fresh = connection.get("/products/1");
    assert_eq!(connection.get("/products/999").status, 404);
    std::thread::sleep(std::time::Duration::from_millis(150));
    let mend = cut_off(&server);
    eventually("it is known", || connection.get("/products/2").status == 503);
    let stale = connection.get("/products/1");
    assert_eq!((stale.status, &stale.body), (200, &fresh.body));
    assert_eq!(stale.header("cache-status"), Some("catwalk; hit; detail=stale-if-error"));
    assert!(stale.header("age").is_some_and(|age| age.parse::<u32>().is_ok()));
    assert_eq!(connection.get("/products/999").status, 404);
    let waits = server.metric("catwalk_db_waits_total");
    for path in ["/products/3", "/products/3/styles", "/products?count=2000", "/products?page=2"] {
        let reply = connection.get(path);
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{path}");
    }
    assert_eq!(server.metric("catwalk_db_waits_total"), waits, "nobody waits for what is not there");
    assert_eq!(server.get("/readyz").status, 503);
    let problems = || {
        let overview = Connection::open(server.admin_address.as_deref().unwrap()).get("/status.json").json();
        overview["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    eventually("the status page says so", || {
        problems().first().is_some_and(|p| p == "no connection to the database")
    });
    eventually("and what follows from it", || {
        problems().iter().any(|p| p.contains("cut off from the database"))
    });
    mend();
    eventually("it is back", || connection.get("/products/3").status == 200);
    eventually("and all is well", || problems().is_empty());
    let again = connection.get("/products/1");
    assert!(again.header("cache-status").unwrap().contains("fwd=miss"), "{again:?}");
}

#[test]
fn nothing_is_served_past_what_stale_if_error_grants() {
    let server = start("[cache]\nmax_age = \"100ms\"\nstale_if_error = \"0s\"\n", &["--workers", "1"]);
    let mut connection = server.connect();
    assert_eq!(connection.get("/products/1").status, 200);
    std::thread::sleep(std::time::Duration::from_millis(150));
    let mend = cut_off(&server);
    eventually("it is known", || connection.get("/products/2").status == 503);
    assert_eq!(connection.get("/products/1").status, 503);
    mend();
}

/// Makes `cert.pem` and `key.pem` in `dir`, anew each time.
fn make_certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// The status of `path` over HTTPS, if the server shows the certificate of `dir`.
fn get_secured(server: &Server, dir: &Path, path: &str) -> Option<u16> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(server.tls_address.as_ref().unwrap()).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).unwrap().get(9..12)?.parse().ok()
}

#[test]
fn https_serves_and_takes_a_new_certificate_on_sighup() {
    let dir = directory();
    make_certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        file("cert.pem"),
        file("key.pem")
    );
    // Read again with each reload.
    let config = dir.path().join("catwalk.toml");
    std::fs::write(&config, text).unwrap();
    let server = Server::start(&["--config", config.to_str().unwrap(), "--workers", "2"]);
    for path in ["/products/1", "/products?count=50", "/healthz"] {
        assert_eq!(get_secured(&server, dir.path(), path), Some(200), "{path}");
    }
    // What can't be used changes nothing.
    let broken = directory();
    std::fs::copy(file("cert.pem"), broken.path().join("cert.pem")).unwrap();
    std::fs::write(file("key.pem"), "nonsense").unwrap();
    server.signal(Signal::SIGHUP);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(get_secured(&server, broken.path(), "/healthz"), Some(200));
    make_certificate(dir.path());
    server.signal(Signal::SIGHUP);
    eventually("every worker has the new one", || {
        (0..20).all(|_| get_secured(&server, dir.path(), "/healthz") == Some(200))
    });
    // A successor has it too.
    for worker in server.workers() {
        nix::sys::signal::kill(worker, Signal::SIGKILL).unwrap();
    }
    eventually("the successors serve", || {
        (0..20).all(|_| get_secured(&server, dir.path(), "/healthz") == Some(200))
    });
}

#[test]
fn limits_are_what_the_configuration_says() {
    let text = "[http]\nheaders_max = 5\nhead_size_max = \"2KiB\"\nrequest_line_size_max = \"1KiB\"\n\
                body_size_max = \"1KiB\"\nheader_timeout = \"300ms\"\nconnections = 4\n";
    let server = start(text, &["--workers", "1"]);
    let fields = |n: usize| (0..n).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    let get =
        |line: &str, fields: &str| format!("GET {line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    assert_eq!(statuses(&server, &get("/healthz", &fields(4))), [200]);
    assert_eq!(statuses(&server, &get("/healthz", &fields(5))), [431]);
    assert_eq!(statuses(&server, &get("/healthz", &format!("X: {}\r\n", "x".repeat(2100)))), [431]);
    assert_eq!(statuses(&server, &get(&format!("/healthz?{}", "q".repeat(1100)), "")), [414]);
    let post = b"POST /products HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    assert_eq!(statuses(&server, post), [413]);
    let mut slow = TcpStream::connect(&server.address).unwrap();
    slow.write_all(b"GET /he").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut open = Vec::new();
    // Connections that were refused linger for a moment.
    eventually("there is room for four", || {
        open = (0..4).map(|_| server.connect()).collect();
        open.iter_mut().all(|c| c.try_request("GET", "/healthz", &[]).is_ok_and(|r| r.status == 200))
    });
    let told = statuses(&server, &get("/healthz", ""));
    assert_eq!(told, [503]);
    eventually("all of it is counted", || {
        let text = server.metrics();
        let value = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        value("catwalk_http_connections_turned_away_total") >= 1
            && value("catwalk_http_connections_timed_out_total") == 1
            && value("catwalk_http_requests_refused_total") == 4
            && value("catwalk_http_connections_total") >= 10
    });
}

#[test]
fn settings_that_can_not_be_are_refused_with_their_place() {
    let refused = |text: &str| {
        let (_dir, path) = configured(text);
        let mut check = std::process::Command::new(crate::support::server::BIN);
        check.args(["check", "--database-url", "postgresql:///x", "--config", path.to_str().unwrap()]);
        let out = check.output().unwrap();
        assert_eq!(out.status.code(), Some(78), "{text}");
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(refused("[tls]\nlisten = \"127.0.0.1:1\"\n").contains("tls.certificate"));
    assert!(refused("[http]\ntrusted_proxies = \"10.0.0.0/33\"\n").contains("catwalk.toml:2"));
    assert!(refused("[http]\nidle_timeout = \"0s\"\n").contains("longer than 0"));
    assert!(refused("[http]\nhead_size_max = \"8KiB\"\n").contains("request line"));
}

#[test]
fn a_database_that_falls_silent_is_like_one_that_is_away() {
    let text = "[cache]\nmax_age = \"100ms\"\n[database]\ntimeout = \"500ms\"\n";
    let server = start(text, &["--workers", "1"]);
    let mut connection = server.connect();
    assert_eq!(connection.get("/products/1").status, 200);
    std::thread::sleep(std::time::Duration::from_millis(150));
    let family: Vec<_> = crate::support::server::children_of(server.postgres());
    family.iter().for_each(|pid| nix::sys::signal::kill(*pid, Signal::SIGSTOP).unwrap());
    nix::sys::signal::kill(server.postgres(), Signal::SIGSTOP).unwrap();
    // The first to ask find out; from then on nobody waits.
    eventually("it is known", || connection.get("/products/2").status == 503);
    eventually("what is cached is served", || connection.get("/products/1").status == 200);
    let stale = connection.get("/products/1");
    assert_eq!(stale.header("cache-status"), Some("catwalk; hit; detail=stale-if-error"));
    family.iter().for_each(|pid| nix::sys::signal::kill(*pid, Signal::SIGCONT).unwrap());
    nix::sys::signal::kill(server.postgres(), Signal::SIGCONT).unwrap();
    eventually("it is back", || connection.get("/products/2").status == 200);
}
