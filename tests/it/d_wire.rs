//! may_postgres against servers that are good, bad, far away and gone: TLS, authentication, deadlines, loss.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use may::go;
use may_postgres::{connect, Client, Config, Error};
use nix::sys::signal::Signal;

use crate::support::{eventually, Cluster};

const ROLES: &str = "
    set password_encryption = 'scram-sha-256';
    create role ann login password 's3cret';
    create role tim login password 's3cret' connection limit 1;
    set password_encryption = 'md5';
    create role bob login password 'old';
    create role open login;
    create role clear login password 'plain'";

const HBA: &str = "
    hostssl   all ann   127.0.0.1/32 scram-sha-256
    hostssl   all ann   ::1/128      scram-sha-256
    hostnossl all ann   ::1/128      scram-sha-256
    host      all tim   127.0.0.1/32 scram-sha-256
    host      all bob   127.0.0.1/32 md5
    hostnossl all open  127.0.0.1/32 trust
    hostssl   all clear 127.0.0.1/32 password";

/// A cluster with certificates: an authority in `root.pem`, the server's for the name `localhost`.
fn secured() -> Cluster {
    let cluster = Cluster::start(ROLES, HBA, &[]);
    let authority = authority();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_string()]).unwrap();
    let issuer = rcgen::Issuer::from_params(&authority.0, &authority.1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        use std::os::unix::fs::PermissionsExt;
        let path = cluster.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(cluster.path()).unwrap());
        nix::unistd::chown(&path, Some(owner.into()), None).unwrap();
        path
    };
    let (pem, key) = (write("server.pem", certificate.pem()), write("server.key", key.serialize_pem()));
    write("root.pem", authority.2);
    write("other.pem", self::authority().2);
    let set = format!(
        "alter system set ssl_cert_file = '{}'; alter system set ssl_key_file = '{}'; alter system set ssl = on",
        pem.display(),
        key.display()
    );
    let admin = cluster.admin();
    set.split(';').for_each(|s| admin.batch_execute(s).unwrap());
    admin.batch_execute("select pg_reload_conf()").unwrap();
    eventually("TLS is on", || {
        !is_plain(&cluster, "ann:s3cret", "127.0.0.1", "sslmode=require").unwrap_or(true)
    });
    cluster
}

fn authority() -> (rcgen::CertificateParams, rcgen::KeyPair, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (params, key, pem)
}

fn try_connect(cluster: &Cluster, user: &str, host: &str, query: &str) -> Result<Client, Error> {
    connect(&cluster.url(user, host, query).parse()?)
}

/// Whether a connection that could be made is without TLS, by the server's own account.
fn is_plain(cluster: &Cluster, user: &str, host: &str, query: &str) -> Result<bool, Error> {
    let client = try_connect(cluster, user, host, query)?;
    let rows = client.query_text("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[])?;
    Ok(!rows[0].get::<bool>(0))
}

#[test]
fn sslmode_means_what_it_means_to_libpq() {
    let cluster = secured();
    let file = |name: &str| cluster.path().join(name).display().to_string();
    let (root, other) = (file("root.pem"), file("other.pem"));
    let plain = |user: &str, host: &str, query: &str| is_plain(&cluster, user, host, query);
    // The server lets ann in with TLS only, on 127.0.0.1.
    assert!(plain("ann:s3cret", "127.0.0.1", "sslmode=disable").is_err());
    for query in ["sslmode=allow", "sslmode=prefer", "sslmode=require", ""] {
        assert!(!plain("ann:s3cret", "127.0.0.1", query).unwrap(), "{query}");
    }
    // On ::1 both ways: who prefers gets TLS, who merely allows does not.
    assert!(!plain("ann:s3cret", "[::1]", "sslmode=prefer").unwrap());
    assert!(plain("ann:s3cret", "[::1]", "sslmode=allow").unwrap());
    // And somebody without.
    assert!(plain("open", "127.0.0.1", "sslmode=prefer").unwrap());
    assert!(plain("open", "127.0.0.1", "sslmode=require").is_err());
    // The chain, and then the name.
    for (host, mode, root, passes) in [
        ("127.0.0.1", "verify-ca", &root, true),
        ("127.0.0.1", "verify-full", &root, false),
        ("localhost", "verify-full", &root, true),
        ("localhost", "verify-full", &other, false),
        ("127.0.0.1", "verify-ca", &other, false),
        ("127.0.0.1", "require", &other, false),
        ("127.0.0.1", "require", &root, true),
        ("localhost", "verify-full", &"system".to_string(), false),
        ("localhost", "verify-full", &file("server.pem"), true),
        ("127.0.0.1", "verify-full", &file("server.pem"), false),
    ] {
        let outcome = plain("ann:s3cret", host, &format!("sslmode={mode}&sslrootcert={root}"));
        assert_eq!(outcome.is_ok(), passes, "{host} {mode} {root}: {:?}", outcome.err());
    }
    let missing = plain("ann:s3cret", "127.0.0.1", "sslmode=verify-ca&sslrootcert=/no/such.pem");
    assert!(matches!(missing, Err(Error::Config(why)) if why.contains("/no/such.pem")));
}

#[test]
fn scram_is_bound_to_the_connection() {
    let cluster = secured();
    let with = |user: &str, host: &str, query: &str| try_connect(&cluster, user, host, query).map(|_| ());
    with("ann:s3cret", "127.0.0.1", "sslmode=require&channel_binding=require").unwrap();
    with("ann:s3cret", "127.0.0.1", "sslmode=require&channel_binding=disable").unwrap();
    assert!(with("ann:s3cret", "[::1]", "sslmode=disable&channel_binding=require").is_err());
    // A server that asks for the password in the clear, hashed by MD5, or for none, can't be trusted with it.
    assert!(with("bob:old", "127.0.0.1", "sslmode=require&channel_binding=require").is_err());
    assert!(with("clear:plain", "127.0.0.1", "sslmode=require&channel_binding=require").is_err());
    with("clear:plain", "127.0.0.1", "sslmode=require").unwrap();
    assert_eq!(with("ann:wrong", "127.0.0.1", "sslmode=require").unwrap_err().code(), Some("28P01"));
}

#[test]
fn passwords_by_scram_and_md5() {
    let cluster = Cluster::start(ROLES, HBA, &[]);
    let user = |user: &str, host: &str| {
        let rows = try_connect(&cluster, user, host, "")?.query_text("select current_user::text", &[])?;
        Ok::<_, Error>(rows[0].get::<String>(0))
    };
    assert_eq!(user("ann:s3cret", "[::1]").unwrap(), "ann");
    assert_eq!(user("bob:old", "127.0.0.1").unwrap(), "bob");
    assert_eq!(user("ann:wrong", "[::1]").unwrap_err().code(), Some("28P01"));
    assert!(matches!(user("ann", "[::1]"), Err(Error::Connect(why)) if why.contains("needs a password")));
}

#[test]
fn tls_carries_many_askers_and_megabytes() {
    let cluster = secured();
    let client = try_connect(&cluster, "ann:s3cret", "127.0.0.1", "sslmode=require").unwrap();
    let waiting: Vec<_> = (0..200i32)
        .map(|n| {
            let client = client.clone();
            go!(move || {
                let text = "select $1::int, repeat('x', $1::int * 500)";
                let rows = client.query_text(text, &[&n]).unwrap();
                assert_eq!((rows[0].get::<i32>(0), rows[0].get::<&str>(1).len()), (n, n as usize * 500));
            })
        })
        .collect();
    waiting.into_iter().for_each(|handle| handle.join().unwrap());
    let mut out =
        client.copy_out("copy (select repeat('y', 1000) from generate_series(1, 20000)) to stdout").unwrap();
    let mut len = 0;
    while let Some(chunk) = out.next_chunk().unwrap() {
        len += chunk.len();
    }
    assert_eq!(len, 20_000 * 1001);
}

#[test]
fn too_many_connections_is_said_and_worth_another_try() {
    let cluster = Cluster::start(ROLES, HBA, &[]);
    let first = try_connect(&cluster, "tim:s3cret", "127.0.0.1", "").unwrap();
    let error = try_connect(&cluster, "tim:s3cret", "127.0.0.1", "").err().unwrap();
    assert!(error.code() == Some("53300") && error.is_connection(), "{error}");
    drop(first);
    eventually("the place is free", || try_connect(&cluster, "tim:s3cret", "127.0.0.1", "").is_ok());
}

#[test]
fn a_server_that_comes_back_is_found_within_a_second() {
    let mut cluster = Cluster::start(ROLES, HBA, &[]);
    let lost = Arc::new(may_postgres::Reconnect::new(cluster.admin_config()));
    let (kept, stop) = (lost.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let keeper = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            kept.maintain();
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    eventually("it is connected", || lost.client().is_ok());
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let client = lost.client().unwrap();
        let asking = client.clone();
        let asker = go!(move || asking.batch_execute("select pg_sleep(60)"));
        cluster.stop(signal);
        assert!(asker.join().unwrap().unwrap_err().is_connection());
        eventually("the loss is known", || lost.client().is_err());
        cluster.launch();
        eventually("the server takes connections", || connect(&cluster.admin_config()).is_ok());
        let back = Instant::now();
        eventually("it is connected again", || {
            lost.client().is_ok_and(|c| c.batch_execute("select 1").is_ok())
        });
        // The longest pause between two attempts is half a second.
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    keeper.join().unwrap();
}

/// `count` coroutines that run a statement over one connection.
fn ask_at_once(client: &Client, count: usize) -> Vec<may::coroutine::JoinHandle<Result<(), Error>>> {
    let ask = |_| {
        let client = client.clone();
        go!(move || client.query_text("select 1", &[]).map(|_| ()))
    };
    (0..count).map(ask).collect()
}

/// Hands bytes on between clients and a server until it is cut.
struct Cable {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Cable {
    fn to(server: u16) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    let is_cut = is_cut.clone();
                    std::thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(len @ 1..) = from.read(&mut bytes) {
                            while is_cut.load(Ordering::Relaxed) {
                                std::thread::sleep(Duration::from_millis(5));
                            }
                            let _ = to.write_all(&bytes[..len]);
                        }
                    });
                }
            }
        });
        Cable { port, cut }
    }
}

#[test]
fn a_cut_network_fails_every_waiter_in_time_and_the_connection_is_not_used_again() {
    let cluster = Cluster::start(ROLES, HBA, &[]);
    let cable = Cable::to(cluster.port);
    let mut config: Config = format!("postgresql://open@127.0.0.1:{}/postgres", cable.port).parse().unwrap();
    config.request_timeout = Some(Duration::from_millis(300));
    let client = connect(&config).unwrap();
    client.batch_execute("select 1").unwrap();
    cable.cut.store(true, Ordering::Relaxed);
    let waiting = ask_at_once(&client, 50);
    eventually("it is given up", || {
        client.tick();
        client.is_closed()
    });
    for handle in waiting {
        assert!(matches!(handle.join().unwrap(), Err(Error::Timeout | Error::Closed(_))));
    }
    cable.cut.store(false, Ordering::Relaxed);
    assert!(matches!(client.batch_execute("select 1"), Err(Error::Closed(_))));
}

/// A message of a server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A client of a server that lets everybody in and then says one of `words` to what it receives, whatever that is, and
/// nothing when it has said them all.
fn talk_to(words: Vec<Vec<u8>>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes);
        let mut hello = message(b'R', &[0, 0, 0, 0]);
        hello.extend(message(b'K', &[0; 8]));
        hello.extend(message(b'Z', b"I"));
        stream.write_all(&hello).unwrap();
        for words in words {
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(&words);
        }
        while matches!(stream.read(&mut bytes), Ok(1..)) {}
    });
    let url = format!("postgresql://a@127.0.0.1:{port}/a?sslmode=disable");
    let mut config: Config = url.parse().unwrap();
    config.request_timeout = Some(Duration::from_millis(300));
    connect(&config).unwrap()
}

/// Ten statements on one connection; all of them, and a later one, have an error.
fn fails_for_all(words: Option<Vec<u8>>) -> Vec<Error> {
    let client = talk_to(words.into_iter().collect());
    let waiting = ask_at_once(&client, 10);
    eventually("it is closed", || {
        client.tick();
        client.is_closed()
    });
    let errors = waiting.into_iter().map(|handle| handle.join().unwrap().unwrap_err()).collect();
    assert!(matches!(client.batch_execute("select 1"), Err(Error::Closed(_) | Error::Protocol(_))));
    errors
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_every_waiter_told() {
    let ready = message(b'Z', b"I");
    let described = [message(b't', &[0, 0]), message(b'n', b"")].concat();
    let cases = [
        ("a length that no message has", b"D\0\0\0\x01".to_vec()),
        ("no messages at all", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        (
            "another request's answer",
            [message(b'2', b""), message(b'C', b"SELECT 0\0"), ready.clone()].concat(),
        ),
        ("an answer too many", [message(b'1', b""), described.clone(), ready.repeat(12)].concat()),
        ("a cut field", [message(b'1', b""), message(b't', &[0, 9, 1]), ready.clone()].concat()),
        ("an unknown message", [message(b'1', b""), message(b'?', b"what"), ready].concat()),
    ];
    for (what, words) in cases {
        let errors = fails_for_all(Some(words));
        assert!(errors.iter().any(|e| e.to_string().contains("protocol")), "{what}: {errors:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_left_at_the_deadline() {
    let errors = fails_for_all(None);
    assert!(errors.iter().all(|e| matches!(e, Error::Timeout | Error::Closed(_))), "{errors:?}");
}

#[test]
fn a_server_out_of_memory_refuses_one_statement_and_serves_the_next() {
    let fields = b"SERROR\0VERROR\0C53200\0Mout of memory\0\0";
    let refusal = [message(b'E', fields), message(b'Z', b"I")].concat();
    let good = [message(b'1', b""), message(b't', &[0, 0]), message(b'n', b""), message(b'Z', b"I")].concat();
    let client = talk_to(vec![refusal, good]);
    let (first, second) = (client.clone(), client.clone());
    let first = go!(move || first.prepare("select 1").map(|_| ()));
    assert_eq!(first.join().unwrap().unwrap_err().code(), Some("53200"));
    let second = go!(move || second.prepare("select 1").map(|_| ()));
    second.join().unwrap().unwrap();
    assert!(!client.is_closed());
}

#[test]
fn a_server_that_accepts_and_never_answers_fails_the_attempt_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // A byte now and then is no progress.
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"R").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let url = format!("postgresql://a@127.0.0.1:{port}/a?sslmode=disable&connect_timeout=1");
    let start = Instant::now();
    assert!(matches!(connect(&url.parse().unwrap()), Err(Error::Connect(_) | Error::Protocol(_))));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn who_insists_on_binding_shows_its_password_to_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut said = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes);
        // "Your password, please."
        let _ = stream.write_all(&message(b'R', &[0, 0, 0, 3]));
        let _ = stream.read_to_end(&mut said);
        said
    });
    let url = format!("postgresql://a:s3cret@127.0.0.1:{port}/a?sslmode=disable&channel_binding=require");
    assert!(connect(&url.parse().unwrap()).is_err());
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn what_does_not_speak_the_protocol_is_told_so_before_room_is_made_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = connect(&format!("postgresql://a@127.0.0.1:{port}/a?sslmode=disable").parse().unwrap());
    assert!(error.err().unwrap().to_string().contains("does not speak PostgreSQL"));
}
