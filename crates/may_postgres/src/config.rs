//! Where the server is and who is asking: `postgresql://` addresses and `key=value` strings as libpq reads them.
//! Runs in: worker | offline.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::Error;

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Directory of the Unix socket.
    Unix(PathBuf),
    /// Name or address.
    Tcp(String),
}

/// How much TLS is wanted (libpq, `sslmode`). Ordered by how much; not asked of Unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only where the server refuses without.
    Allow,
    /// Where the server has it.
    Prefer,
    /// Always; against `sslrootcert` if that is given.
    Require,
    /// With a chain that ends in `sslrootcert`.
    VerifyCa,
    /// And with the host's name in the certificate.
    VerifyFull,
}

impl std::fmt::Display for SslMode {
    /// As libpq writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        })
    }
}

/// Whether SCRAM is bound to the TLS connection (libpq, `channel_binding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// How to connect. Parse it from a `postgresql://` address or a `key=value` string.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub host: Host,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub dbname: String,
    pub application_name: String,
    /// Command-line options for the backend, such as `-c search_path=shop`.
    pub options: Option<String>,
    pub sslmode: SslMode,
    /// PEM file with the certificates to verify the server's with; `system` for those of the operating system.
    pub sslrootcert: Option<PathBuf>,
    /// PEM files of a certificate of our own, and its key.
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
    pub channel_binding: ChannelBinding,
    /// For all of it: address, TLS, authentication.
    pub connect_timeout: Duration,
    /// Longest wait for one answer; see [`crate::Client::tick`]. None waits for ever.
    pub request_timeout: Option<Duration>,
}

impl std::fmt::Debug for Config {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({} as {})", self.display(), self.user)
    }
}

impl Default for Config {
    fn default() -> Self {
        let user = std::env::var("USER").unwrap_or_else(|_| "postgres".into());
        Config {
            host: Host::Unix(PathBuf::from("/var/run/postgresql")),
            port: 5432,
            dbname: user.clone(),
            user,
            password: None,
            application_name: "may_postgres".into(),
            options: None,
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            channel_binding: ChannelBinding::Prefer,
            connect_timeout: Duration::from_secs(10),
            request_timeout: None,
        }
    }
}

impl Config {
    /// The path of the Unix socket, where that is the transport.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.host {
            Host::Unix(dir) => Some(dir.join(format!(".s.PGSQL.{}", self.port))),
            Host::Tcp(_) => None,
        }
    }

    /// Address without the password, for messages.
    pub fn display(&self) -> String {
        match &self.host {
            Host::Unix(dir) => format!("{} on {}:{}", self.dbname, dir.display(), self.port),
            Host::Tcp(host) => format!("{} on {host}:{}", self.dbname, self.port),
        }
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), Error> {
        match key {
            "host" | "hostaddr" if value.starts_with('/') => self.host = Host::Unix(value.into()),
            "host" | "hostaddr" => self.host = Host::Tcp(value),
            "port" => self.port = number(key, &value)?,
            "user" => self.user = value,
            "password" => self.password = Some(value),
            "dbname" => self.dbname = value,
            "application_name" => self.application_name = value,
            "options" => self.options = Some(value),
            // 0 waits for ever, as in libpq.
            "connect_timeout" => {
                let seconds: u64 = number(key, &value)?;
                self.connect_timeout =
                    if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) };
            }
            "sslmode" => self.sslmode = ssl_mode(&value)?,
            // Anybody has a certificate of those authorities: without the name it proves nothing.
            "sslrootcert" if value == "system" => {
                self.sslmode = SslMode::VerifyFull;
                self.sslrootcert = Some(value.into());
            }
            "sslrootcert" => self.sslrootcert = Some(value.into()),
            "sslcert" => self.sslcert = Some(value.into()),
            "sslkey" => self.sslkey = Some(value.into()),
            "channel_binding" => self.channel_binding = channel_binding(&value)?,
            "target_session_attrs" | "client_encoding" => {}
            other => return Err(Error::Config(format!("unknown parameter {other:?}"))),
        }
        Ok(())
    }

    fn read_url(rest: &str) -> Result<Config, Error> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let mut config = Config::default();
        if !user.is_empty() {
            config.set("user", decode(user)?)?;
            config.dbname = config.user.clone();
        }
        if !password.is_empty() {
            config.set("password", decode(password)?)?;
        }
        config.read_address(address)?;
        if !dbname.is_empty() {
            config.set("dbname", decode(dbname)?)?;
        }
        let mut dbname_given = !dbname.is_empty();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::Config(format!("parameter {pair:?} has no value")))?;
            config.set(key, decode(value)?)?;
            dbname_given |= key == "dbname";
            if key == "user" && !dbname_given {
                config.dbname = config.user.clone();
            }
        }
        Ok(config)
    }

    /// `host`, `host:port`, `[v6]:port`, or a percent-encoded directory.
    fn read_address(&mut self, address: &str) -> Result<(), Error> {
        if address.is_empty() {
            return Ok(());
        }
        let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((v6, port)) => (v6, port.strip_prefix(':').unwrap_or("")),
            None => address.split_once(':').unwrap_or((address, "")),
        };
        if !host.is_empty() {
            self.set("host", decode(host)?)?;
        }
        if !port.is_empty() {
            self.set("port", port.to_string())?;
        }
        Ok(())
    }

    /// `key=value key='quoted \' value'`.
    fn read_pairs(text: &str) -> Result<Config, Error> {
        let mut config = Config::default();
        let mut dbname_given = false;
        let mut chars = text.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return Ok(config);
            }
            let mut key = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
                key.push(c);
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.next() != Some('=') {
                return Err(Error::Config("expected key=value; a value with blanks needs quotes".into()));
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            let value = read_value(&mut chars)?;
            dbname_given |= key == "dbname";
            config.set(&key, value)?;
            if key == "user" && !dbname_given {
                config.dbname = config.user.clone();
            }
        }
    }
}

fn read_value(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, Error> {
    let quoted = chars.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match chars.peek().copied() {
            Some('\\') => {
                chars.next();
                value.extend(chars.next());
            }
            Some('\'') if quoted => {
                chars.next();
                return Ok(value);
            }
            Some(c) if quoted || !c.is_whitespace() => {
                chars.next();
                value.push(c);
            }
            None if quoted => return Err(Error::Config("a quoted value is not closed".into())),
            _ => return Ok(value),
        }
    }
}

fn decode(text: &str) -> Result<String, Error> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    String::from_utf8(bytes).map_err(|_| Error::Config(format!("{text:?} is not UTF-8 once decoded")))
}

fn ssl_mode(value: &str) -> Result<SslMode, Error> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return Err(Error::Config(format!("sslmode={value} is none that there is"))),
    })
}

fn channel_binding(value: &str) -> Result<ChannelBinding, Error> {
    Ok(match value {
        "disable" => ChannelBinding::Disable,
        "prefer" => ChannelBinding::Prefer,
        "require" => ChannelBinding::Require,
        _ => return Err(Error::Config(format!("channel_binding={value} is none that there is"))),
    })
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, Error> {
    // The value is not shown: where a password has an unescaped character, part of it may land here.
    value.parse().map_err(|_| Error::Config(format!("{key} is not a number in range")))
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Config, Error> {
        let config = match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            Some(rest) => Config::read_url(rest),
            None => Config::read_pairs(text),
        }?;
        let is_system = config.sslrootcert.as_ref().is_some_and(|path| path.as_os_str() == "system");
        if is_system && config.sslmode != SslMode::VerifyFull {
            return Err(Error::Config("sslrootcert=system takes sslmode=verify-full".into()));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_with_unix_socket_directory() {
        let c: Config = "postgresql:///shop?host=%2Frun%2Fmy%20pg&user=ann".parse().unwrap();
        assert_eq!(c.host, Host::Unix("/run/my pg".into()));
        assert_eq!((c.user.as_str(), c.dbname.as_str()), ("ann", "shop"));
    }

    #[test]
    fn url_with_everything() {
        let c: Config = "postgres://ann:p%40ss@[::1]:6000/shop?application_name=x".parse().unwrap();
        assert_eq!(c.host, Host::Tcp("::1".into()));
        assert_eq!((c.port, c.password.as_deref()), (6000, Some("p@ss")));
    }

    #[test]
    fn user_names_the_database_unless_given() {
        let c: Config = "host=db user=ann".parse().unwrap();
        assert_eq!(c.dbname, "ann");
        let c: Config = "dbname=shop user=ann password='a \\' b'".parse().unwrap();
        assert_eq!((c.dbname.as_str(), c.password.as_deref()), ("shop", Some("a ' b")));
    }

    #[test]
    fn tls_is_asked_for_in_libpqs_words() {
        let url =
            "postgresql://ann@db/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem&channel_binding=require";
        let c: Config = url.parse().unwrap();
        assert_eq!((c.sslmode, c.channel_binding), (SslMode::VerifyFull, ChannelBinding::Require));
        assert_eq!(c.sslrootcert, Some("/etc/ca.pem".into()));
        assert!(SslMode::Disable < SslMode::Prefer && SslMode::Require < SslMode::VerifyCa);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in [
            "host",
            "port=abc",
            "colour=red",
            "password='open",
            "sslmode=verify",
            "sslrootcert=system sslmode=require",
        ] {
            assert!(matches!(bad.parse::<Config>(), Err(Error::Config(_))), "{bad}");
        }
    }
}
