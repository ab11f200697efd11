//! Opening the socket, TLS, startup and authentication (trust, password, MD5, SCRAM-SHA-256 bound to TLS or not).
//! Runs in: worker | offline. Blocking, and done by the caller: use it away from the request path.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use nix::sys::socket::{setsockopt, sockopt};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, ScramSha256, SCRAM_SHA_256, SCRAM_SHA_256_PLUS,
};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::config::{ChannelBinding, SslMode};
use crate::connection::{self, Client};
use crate::tls::{self, TlsStream};
use crate::{Config, Error, Host, SqlError};

/// A peer that takes nothing for so long is gone: what is sent to it would wait in the kernel for a quarter of an hour.
const TCP_USER_TIMEOUT_MS: u32 = 15_000;
/// An idle connection is asked after this long whether it still stands, and given up after three such questions.
const TCP_KEEPALIVE_S: u32 = 15;

/// Longest attempt to connect.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest message of a server before it has let us in.
const MESSAGE_SIZE_MAX_BYTES: usize = 64 * 1024;

/// Refuses a message that no PostgreSQL sends so early, before room is made for it.
fn check_size(inbox: &[u8]) -> Result<(), Error> {
    let Some(length) = inbox.get(1..5).and_then(|l| <[u8; 4]>::try_from(l).ok()) else { return Ok(()) };
    match u32::from_be_bytes(length) as usize {
        4..=MESSAGE_SIZE_MAX_BYTES => Ok(()),
        _ => Err(Error::Connect("what answers there does not speak PostgreSQL's protocol".into())),
    }
}

/// A connected transport.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
            Socket::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
            Socket::Tls(s) => s.write(buf),
        }
    }

    /// Sends what TLS has encrypted and the socket had no room for.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
            Socket::Tls(s) => s.flush(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(s) => s.as_raw_fd(),
            Socket::Unix(s) => s.as_raw_fd(),
            Socket::Tls(s) => s.socket.as_raw_fd(),
        }
    }
}

impl Socket {
    fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
            Socket::Unix(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
            Socket::Tls(s) => {
                s.socket.set_read_timeout(limit).and_then(|()| s.socket.set_write_timeout(limit))
            }
        }
    }

    /// Whether a read that comes back short has emptied the socket.
    pub(crate) fn reads_whole(&self) -> bool {
        !matches!(self, Socket::Tls(_))
    }
}

/// The end of all waiting during one attempt to connect.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now() + timeout.min(CONNECT_TIMEOUT_MAX))
    }

    fn left(self) -> Result<Duration, Error> {
        let left = self.0.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(Error::Connect("the server took longer than connect_timeout".into())),
            false => Ok(left),
        }
    }

    /// Bounds the next read and write of a socket.
    pub(crate) fn apply(self, socket: &TcpStream) -> Result<(), Error> {
        let left = self.left()?;
        let set = socket.set_read_timeout(Some(left)).and_then(|()| socket.set_write_timeout(Some(left)));
        set.map_err(|e| Error::Connect(e.to_string()))
    }
}

/// What the startup leaves behind for the connection.
pub(crate) struct Session {
    pub(crate) socket: Socket,
    pub(crate) process_id: i32,
    pub(crate) secret_key: i32,
    pub(crate) leftover: BytesMut,
}

pub(crate) fn connect(config: &Config) -> Result<Client, Error> {
    let deadline = Deadline::after(config.connect_timeout);
    let (first, second) = match config.sslmode {
        _ if matches!(config.host, Host::Unix(_)) => (false, None),
        SslMode::Disable => (false, None),
        SslMode::Allow => (false, Some(true)),
        SslMode::Prefer if config.channel_binding == ChannelBinding::Require => (true, None),
        SslMode::Prefer => (true, Some(false)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (true, None),
    };
    let session = match (greet(config, first, deadline), second) {
        // As libpq does: what TLS or its lack may have failed at is tried once the other way.
        (Err(error), Some(other)) if is_about_tls(&error) => {
            greet(config, other, deadline).map_err(|_| error)?
        }
        (outcome, _) => outcome?,
    };
    connection::start(session, config)
}

/// A handshake that failed, or a server whose pg_hba.conf has no entry for this kind of connection.
fn is_about_tls(error: &Error) -> bool {
    match error {
        Error::Sql(e) => e.code == "28000",
        Error::Connect(why) => why.starts_with("TLS"),
        _ => false,
    }
}

/// One attempt, with or without TLS.
fn greet(config: &Config, tls: bool, deadline: Deadline) -> Result<Session, Error> {
    let socket = open(config, tls, deadline)?;
    let mut greeter = Greeter { socket, inbox: BytesMut::with_capacity(4096), config, deadline };
    let (process_id, secret_key) = greeter.greet()?;
    greeter.socket.set_timeout(None).map_err(|e| Error::Connect(e.to_string()))?;
    Ok(Session { socket: greeter.socket, process_id, secret_key, leftover: greeter.inbox })
}

/// Opens a transport for a request of one message, such as a cancel: without TLS, as libpq does.
pub(crate) fn open_plain(config: &Config) -> Result<Socket, Error> {
    let deadline = Deadline::after(config.connect_timeout);
    let socket = open(config, false, deadline)?;
    socket.set_timeout(Some(deadline.left()?)).map_err(|e| Error::Connect(e.to_string()))?;
    Ok(socket)
}

fn open(config: &Config, tls: bool, deadline: Deadline) -> Result<Socket, Error> {
    match &config.host {
        Host::Unix(dir) => {
            let path = dir.join(format!(".s.PGSQL.{}", config.port));
            let stream = UnixStream::connect(&path);
            stream.map(Socket::Unix).map_err(|e| Error::Connect(format!("{}: {e}", path.display())))
        }
        Host::Tcp(host) => {
            let socket = open_tcp(host, config, deadline)?;
            if !tls {
                return Ok(Socket::Tcp(socket));
            }
            Ok(match tls::negotiate(socket, host, config, deadline)? {
                Ok(secured) => Socket::Tls(Box::new(secured)),
                Err(plain) => Socket::Tcp(plain),
            })
        }
    }
}

fn open_tcp(host: &str, config: &Config, deadline: Deadline) -> Result<TcpStream, Error> {
    let addresses =
        (host, config.port).to_socket_addrs().map_err(|e| Error::Connect(format!("{host}: {e}")))?;
    let mut last = Error::Connect(format!("{host} has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(&address, deadline.left()?) {
            Ok(stream) => {
                set_options(&stream).map_err(|e| Error::Connect(e.to_string()))?;
                return Ok(stream);
            }
            Err(e) => last = Error::Connect(format!("{address}: {e}")),
        }
    }
    Err(last)
}

/// No delay for small requests, and a peer that is gone is noticed.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &TCP_KEEPALIVE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(TCP_KEEPALIVE_S / 3))?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &TCP_USER_TIMEOUT_MS)?)
}

struct Greeter<'a> {
    socket: Socket,
    inbox: BytesMut,
    config: &'a Config,
    deadline: Deadline,
}

impl Greeter<'_> {
    fn greet(&mut self) -> Result<(i32, i32), Error> {
        self.send_startup()?;
        self.authenticate()?;
        let mut key = (0, 0);
        loop {
            match self.receive()? {
                Message::BackendKeyData(body) => key = (body.process_id(), body.secret_key()),
                Message::ReadyForQuery(_) => return Ok(key),
                _ => {}
            }
        }
    }

    fn send_startup(&mut self) -> Result<(), Error> {
        let c = self.config;
        let mut params = vec![
            ("user", c.user.as_str()),
            ("database", c.dbname.as_str()),
            ("application_name", c.application_name.as_str()),
            ("client_encoding", "UTF8"),
            ("TimeZone", "UTC"),
        ];
        if let Some(options) = &c.options {
            params.push(("options", options));
        }
        let mut buf = BytesMut::new();
        frontend::startup_message(params, &mut buf)?;
        self.send(&buf)
    }

    fn authenticate(&mut self) -> Result<(), Error> {
        loop {
            let message = self.receive()?;
            // Who insists on binding shows no password, hashed or not, to a server that asks for it otherwise.
            let binds = self.config.channel_binding == ChannelBinding::Require;
            if binds && !matches!(message, Message::AuthenticationSasl(_) | Message::NoticeResponse(_)) {
                let why = "channel_binding=require, but the server does not ask for SCRAM";
                return Err(Error::Connect(why.into()));
            }
            match message {
                Message::NoticeResponse(_) => {}
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    let password = self.password()?.to_vec();
                    self.send_password(&password)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(self.config.user.as_bytes(), self.password()?, body.salt());
                    self.send_password(hash.as_bytes())?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered: Vec<String> = body.mechanisms().map(|m| Ok(m.to_string())).collect()?;
                    return self.authenticate_scram(&offered);
                }
                _ => return Err(Error::Connect("the server asks for an unsupported authentication".into())),
            }
        }
    }

    /// The mechanism to take of those `offered`, and what binds it to the connection (RFC 5802, 6).
    fn choose_mechanism(&self, offered: &[String]) -> Result<(&'static str, Binding), Error> {
        let has = |name: &str| offered.iter().any(|m| m == name);
        let wanted = self.config.channel_binding;
        let end_point = match &self.socket {
            Socket::Tls(stream) if wanted != ChannelBinding::Disable => stream.server_end_point(),
            _ => None,
        };
        match end_point {
            Some(hash) if has(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)))
            }
            _ if wanted == ChannelBinding::Require => {
                Err(Error::Connect("channel_binding=require, but this connection can't be bound".into()))
            }
            Some(_) if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, Binding::unrequested())),
            None if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, Binding::unsupported())),
            _ => Err(Error::Connect(format!("no common SASL mechanism in {offered:?}"))),
        }
    }

    fn authenticate_scram(&mut self, offered: &[String]) -> Result<(), Error> {
        let (mechanism, binding) = self.choose_mechanism(offered)?;
        let mut scram = ScramSha256::new(self.password()?, binding);
        let mut buf = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut buf)?;
        self.send(&buf)?;
        let Message::AuthenticationSaslContinue(body) = self.receive()? else {
            return Err(Error::Protocol("expected a SASL challenge".into()));
        };
        scram.update(body.data())?;
        buf.clear();
        frontend::sasl_response(scram.message(), &mut buf)?;
        self.send(&buf)?;
        let Message::AuthenticationSaslFinal(body) = self.receive()? else {
            return Err(Error::Protocol("expected the SASL outcome".into()));
        };
        scram.finish(body.data()).map_err(|e| Error::Connect(format!("the server's proof is wrong: {e}")))?;
        match self.receive()? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(Error::Protocol("expected the end of the authentication".into())),
        }
    }

    fn password(&self) -> Result<&[u8], Error> {
        let missing = || Error::Connect(format!("user {:?} needs a password", self.config.user));
        self.config.password.as_deref().map(str::as_bytes).ok_or_else(missing)
    }

    fn send_password(&mut self, password: &[u8]) -> Result<(), Error> {
        let mut buf = BytesMut::new();
        frontend::password_message(password, &mut buf)?;
        self.send(&buf)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bound()?;
        self.socket.write_all(bytes).map_err(|e| Error::Connect(e.to_string()))
    }

    /// Bounds the next read or write.
    fn bound(&self) -> Result<(), Error> {
        self.socket.set_timeout(Some(self.deadline.left()?)).map_err(|e| Error::Connect(e.to_string()))
    }

    fn receive(&mut self) -> Result<Message, Error> {
        loop {
            check_size(&self.inbox)?;
            if let Some(message) = Message::parse(&mut self.inbox)? {
                return match message {
                    Message::ErrorResponse(body) => Err(Error::Sql(Box::new(SqlError::read(body.fields())))),
                    other => Ok(other),
                };
            }
            let mut buf = [0u8; 2048];
            self.bound()?;
            match self.socket.read(&mut buf) {
                Ok(0) => return Err(Error::Connect("the server hung up during startup".into())),
                Ok(n) => self.inbox.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.deadline.left()?;
                }
                Err(e) => return Err(Error::Connect(format!("during startup: {e}"))),
            }
        }
    }
}
