//! TLS to the server, as libpq's `sslmode` describes it, and the binding of SCRAM to it (RFC 5929, 4).
//! Runs in: worker | offline. The handshake blocks; afterwards nothing here does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use postgres_protocol::message::frontend;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::config::{Config, SslMode};
use crate::startup::Deadline;
use crate::Error;

/// Where distributions keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A socket that speaks TLS. Reads and writes don't wait where the socket doesn't.
pub(crate) struct TlsStream {
    connection: ClientConnection,
    pub(crate) socket: TcpStream,
}

/// Asks for TLS; None, with the connection as it was, when the server has none and the mode allows that.
///
/// # Errors
/// [`Error::Connect`] when the server has none, or its certificate doesn't pass.
pub(crate) fn negotiate(
    mut socket: TcpStream,
    host: &str,
    config: &Config,
    deadline: Deadline,
) -> Result<Result<TlsStream, TcpStream>, Error> {
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::Connect("the server did not say in time whether it has TLS".into())
        }
        _ => Error::Connect(format!("asking for TLS: {e}")),
    };
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    deadline.apply(&socket)?;
    socket.write_all(&request).map_err(failed)?;
    // One byte and not one more: what comes after it in the clear must not be taken for the server's word.
    let mut answer = [0];
    socket.read_exact(&mut answer).map_err(failed)?;
    match answer[0] {
        b'S' => shake(socket, host, config, deadline).map(Ok),
        b'N' if config.sslmode == SslMode::Prefer => Ok(Err(socket)),
        b'N' => Err(Error::Connect("the server does not support TLS, but sslmode requires it".into())),
        _ => Err(Error::Connect("the server did not understand the request for TLS".into())),
    }
}

fn shake(socket: TcpStream, host: &str, config: &Config, deadline: Deadline) -> Result<TlsStream, Error> {
    let name = ServerName::try_from(host.to_string())
        .map_err(|_| Error::Config(format!("{host:?} is no name that a certificate can hold")))?;
    let connection = ClientConnection::new(Arc::new(client_config(config)?), name)
        .map_err(|e| Error::Connect(format!("TLS: {e}")))?;
    let mut stream = TlsStream { connection, socket };
    while stream.connection.is_handshaking() {
        deadline.apply(&stream.socket)?;
        stream.step().map_err(|e| Error::Connect(format!("TLS with {host}: {e}")))?;
    }
    stream.flush().map_err(|e| Error::Connect(format!("TLS with {host}: {e}")))?;
    Ok(stream)
}

fn client_config(config: &Config) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        trusted: trusted(config)?,
        checks_name: config.sslmode == SslMode::VerifyFull,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Config(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let (Some(certificate), Some(key)) = (&config.sslcert, &config.sslkey) else {
        return Ok(builder.with_no_client_auth());
    };
    let unread = |path: &Path, e: &dyn std::fmt::Display| Error::Config(format!("{}: {e}", path.display()));
    let chain = read_certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unread(key, &e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| unread(certificate, &e))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unread = |e: rustls::pki_types::pem::Error| Error::Config(format!("{}: {e}", path.display()));
    CertificateDer::pem_file_iter(path).map_err(unread)?.collect::<Result<_, _>>().map_err(unread)
}

/// The certificates that the mode verifies against; None where it verifies nothing. `require` verifies too when a
/// file is given, as in libpq.
fn trusted(config: &Config) -> Result<Option<Trusted>, Error> {
    let verifies = config.sslmode >= SslMode::VerifyCa;
    let path = match &config.sslrootcert {
        None if !verifies => return Ok(None),
        Some(path) if path.as_os_str() != "system" => path.clone(),
        Some(_) => {
            let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
            found.ok_or_else(|| Error::Config("sslrootcert=system: there is no bundle".into()))?.to_path_buf()
        }
        None => {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".postgresql/root.crt")
        }
    };
    let mut roots = RootCertStore::empty();
    let certificates = read_certificates(&path)?;
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    match added {
        0 => {
            Err(Error::Config(format!("{} holds no certificate to verify the server's with", path.display())))
        }
        _ => Ok(Some(Trusted { roots, certificates })),
    }
}

/// What `sslrootcert` holds.
#[derive(Debug)]
struct Trusted {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// Checks what the mode asks for: a proof of possession always, the chain with roots, the name for verify-full.
#[derive(Debug)]
struct Verifier {
    trusted: Option<Trusted>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(trusted) = &self.trusted {
            let parsed = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            // A certificate that is itself in the file is trusted as it stands: the self-signed one of the manual.
            if !trusted.certificates.contains(certificate) {
                let roots = &trusted.roots;
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
            }
            if self.checks_name {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl TlsStream {
    /// One exchange of the handshake.
    fn step(&mut self) -> io::Result<()> {
        self.flush()?;
        if !self.connection.is_handshaking() {
            return Ok(());
        }
        if self.connection.read_tls(&mut &self.socket)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.process()
    }

    fn process(&mut self) -> io::Result<()> {
        self.connection.process_new_packets().map(drop).map_err(|e| {
            // The server is told why.
            let _ = self.connection.write_tls(&mut &self.socket);
            io::Error::new(ErrorKind::InvalidData, e)
        })
    }

    /// What SCRAM binds to: the hash of the server's certificate. None where its signature names no hash.
    pub(crate) fn server_end_point(&self) -> Option<Vec<u8>> {
        let certificate = self.connection.peer_certificates()?.first()?;
        hash_certificate(certificate)
    }
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // An end without close_notify: what is missing shows in the protocol above.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            self.connection.read_tls(&mut &self.socket)?;
            self.process()?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.connection.writer().write(buf)?;
        match self.flush() {
            // What is taken goes out with the next flush.
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut &self.socket)?;
        }
        Ok(())
    }
}

/// `tls-server-end-point`: the hash that the certificate is signed with, but at least SHA-256.
fn hash_certificate(certificate: &[u8]) -> Option<Vec<u8>> {
    match signature_algorithm(certificate)? {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => {
            Some(Sha384::digest(certificate).to_vec())
        }
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => {
            Some(Sha512::digest(certificate).to_vec())
        }
        // md5, sha1 and sha256 with RSA; ecdsa with SHA1 and SHA256
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => Some(Sha256::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The OID in `Certificate.signatureAlgorithm` (RFC 5280, 4.1).
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (whole, _) = der_value(certificate, 0x30)?;
    let (_, after_tbs) = der_value(whole, 0x30)?;
    let (algorithm, _) = der_value(after_tbs, 0x30)?;
    der_value(algorithm, 0x06).map(|(oid, _)| oid)
}

/// The value of the DER element with `tag` at the front, and what follows it (X.690, 8.1).
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(len)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_is_walked_and_nonsense_is_none() {
        let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let mut algorithm = vec![0x30, 10, 6, 8];
        algorithm.extend(oid);
        let mut certificate = vec![0x30, 0x81, 16, 0x30, 2, 5, 0];
        certificate.extend(&algorithm);
        assert_eq!(signature_algorithm(&certificate), Some(&oid[..]));
        assert_eq!(hash_certificate(&certificate).map(|h| h.len()), Some(32));
        for len in 0..certificate.len() {
            assert_eq!(signature_algorithm(&certificate[..len]), None, "{len}");
        }
        assert_eq!(der_value(&[0x30, 0x85, 1, 1, 1, 1, 1], 0x30), None);
    }
}
