//! Opening the socket, startup and authentication (trust, password, MD5, SCRAM-SHA-256).
//! Runs in: worker | offline. Blocking, and done by the caller: use it away from the request path.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256, SCRAM_SHA_256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::connection::{self, Client};
use crate::{Config, Error, Host, SqlError};

/// A connected transport.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(s) => s.as_raw_fd(),
            Socket::Unix(s) => s.as_raw_fd(),
        }
    }
}

impl Socket {
    fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
            Socket::Unix(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
        }
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
    let socket = open(config)?;
    let mut greeter = Greeter { socket, inbox: BytesMut::with_capacity(4096), config };
    let (process_id, secret_key) = greeter.greet()?;
    greeter.socket.set_timeout(None).map_err(|e| Error::Connect(e.to_string()))?;
    let session = Session { socket: greeter.socket, process_id, secret_key, leftover: greeter.inbox };
    connection::start(session, config)
}

/// Opens the transport with the configured timeout in force for reads and writes.
pub(crate) fn open(config: &Config) -> Result<Socket, Error> {
    let socket = match &config.host {
        Host::Unix(dir) => {
            let path = dir.join(format!(".s.PGSQL.{}", config.port));
            let stream =
                UnixStream::connect(&path).map_err(|e| Error::Connect(format!("{}: {e}", path.display())))?;
            Socket::Unix(stream)
        }
        Host::Tcp(host) => Socket::Tcp(open_tcp(host, config)?),
    };
    socket.set_timeout(Some(config.connect_timeout)).map_err(|e| Error::Connect(e.to_string()))?;
    Ok(socket)
}

fn open_tcp(host: &str, config: &Config) -> Result<TcpStream, Error> {
    let addresses =
        (host, config.port).to_socket_addrs().map_err(|e| Error::Connect(format!("{host}: {e}")))?;
    let mut last = Error::Connect(format!("{host} has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(&address, config.connect_timeout) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| Error::Connect(e.to_string()))?;
                return Ok(stream);
            }
            Err(e) => last = Error::Connect(format!("{address}: {e}")),
        }
    }
    Err(last)
}

struct Greeter<'a> {
    socket: Socket,
    inbox: BytesMut,
    config: &'a Config,
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
            match self.receive()? {
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
                    if !offered.iter().any(|m| m == SCRAM_SHA_256) {
                        return Err(Error::Connect(format!("no common SASL mechanism in {offered:?}")));
                    }
                    self.authenticate_scram()?;
                }
                _ => return Err(Error::Connect("the server asks for an unsupported authentication".into())),
            }
        }
    }

    fn authenticate_scram(&mut self) -> Result<(), Error> {
        let mut scram = ScramSha256::new(self.password()?, ChannelBinding::unsupported());
        let mut buf = BytesMut::new();
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut buf)?;
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
        scram.finish(body.data()).map_err(|e| Error::Connect(format!("the server's proof is wrong: {e}")))
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
        self.socket.write_all(bytes).map_err(|e| Error::Connect(e.to_string()))
    }

    fn receive(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = Message::parse(&mut self.inbox)? {
                return match message {
                    Message::ErrorResponse(body) => Err(Error::Sql(Box::new(SqlError::read(body.fields())))),
                    other => Ok(other),
                };
            }
            let mut buf = [0u8; 2048];
            match self.socket.read(&mut buf) {
                Ok(0) => return Err(Error::Connect("the server hung up during startup".into())),
                Ok(n) => self.inbox.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Connect(format!("during startup: {e}"))),
            }
        }
    }
}
