//! TLS 1.2 and 1.3 by rustls, without I/O of its own: what is received is decrypted and what is sent encrypted on the
//! deep stack.
//! Runs in: worker; `Tls::read` in the master too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::deep;

/// Bytes encrypted and not sent yet beyond which no more are taken.
const UNSENT_MAX_BYTES: usize = 32 * 1024;

/// A certificate with its key, replaceable while connections are served.
pub struct Tls(Mutex<Arc<ServerConfig>>);

impl Tls {
    /// From a PEM chain, the server's certificate first, and its PEM key.
    ///
    /// # Errors
    /// What can't be read, and when key and certificate don't belong together.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Tls, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|e| format!("the certificate file: {e}"))?;
        if chain.is_empty() {
            return Err("the certificate file holds no certificate in PEM".into());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("the key file: {e}"))?;
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|e| e.to_string())?.with_no_client_auth();
        let mut config =
            builder.with_single_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(|e| e.to_string())?;
        Ok(Tls(Mutex::new(Arc::new(config))))
    }

    /// Handshakes from now on use what `other` holds; connections that are open go on as they are.
    pub fn replace(&self, other: &Tls) {
        let config = other.0.lock().clone();
        *self.0.lock() = config;
    }

    pub(crate) fn session(&self) -> io::Result<Box<Session>> {
        let config = self.0.lock().clone();
        deep::call(|| {
            let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
            connection.set_buffer_limit(Some(UNSENT_MAX_BYTES));
            Ok(Box::new(Session { connection, taken_bytes: 0 }))
        })
    }
}

/// One connection's state.
pub(crate) struct Session {
    connection: ServerConnection,
    /// Bytes of ciphertext that the socket has taken.
    taken_bytes: u64,
}

impl Session {
    /// One step of the handshake; true when it is done.
    pub(crate) fn shake(&mut self, socket: &TcpStream) -> io::Result<bool> {
        deep::call(|| {
            self.flush(socket)?;
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            match self.connection.read_tls(&mut &*socket)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                _ => self.process(socket).map(|()| false),
            }
        })
    }

    /// Decrypts what was received; at a breach of the protocol the peer is told before the error is returned.
    fn process(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.connection.process_new_packets().map(drop).map_err(|e| {
            let _ = self.connection.write_tls(&mut &*socket);
            io::Error::new(ErrorKind::InvalidData, e)
        })
    }

    /// Plaintext into `buf`; 0 at the end of the stream, WouldBlock when the socket has no more.
    pub(crate) fn receive(&mut self, socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        deep::call(|| loop {
            match self.connection.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // An end without close_notify: HTTP's framing tells whether something is missing.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            self.connection.read_tls(&mut &*socket)?;
            self.process(socket)?;
        })
    }

    /// Takes some of `bytes` and sends what is encrypted; 0 only when all that was left over is sent.
    pub(crate) fn send(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        deep::call(|| {
            self.flush(socket)?;
            self.connection.writer().write(bytes)
        })
    }

    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            self.taken_bytes += self.connection.write_tls(&mut &*socket)? as u64;
        }
        Ok(())
    }

    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.connection.wants_write()
    }

    pub(crate) fn say_goodbye(&mut self) {
        deep::call(|| self.connection.send_close_notify());
    }
}
