//! Settings: defaults < TOML file < environment < flags. Every value knows where it is from.
//! Runs in: both, before anything is forked.

pub mod document;
pub mod parse;
pub mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use may_minihttp::{Limits, Proxies};
use toml_span::value::{Table, Value, ValueInner};

use crate::limits::{
    CACHE_SIZE_MIN_BYTES, CONNECTIONS_PER_WORKER, CONNECTIONS_PER_WORKER_MIN, DESCRIPTORS_RESERVED,
    HTTP_CONNECTION_SIZE_BYTES, WORKERS_MAX,
};
use crate::machine::Machine;
use parse::*;
pub use settings::{Setting, SETTINGS};

/// Where packages put the file of settings.
pub const INSTALLED_FILE: &str = "/etc/catwalk/catwalk.toml";

/// Which runtime directory is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeDir {
    /// The system's place for it, if there is one.
    Auto,
    None,
    At(PathBuf),
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Journal,
    Text,
    Json,
}

/// Which requests are noted, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub sink: AccessSink,
    pub one_in: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessSink {
    None,
    Log,
    File(PathBuf),
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(String),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File(place) => write!(f, "{place}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What is wrong with a setting, and where it was set.
#[derive(Debug)]
pub enum ConfigError {
    Read(String, std::io::Error),
    Syntax(String),
    UnknownKey { place: String, key: String, hint: String },
    Value { key: &'static str, value: String, origin: Origin, why: String },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read(file, why) => write!(f, "reading {file}: {why}"),
            ConfigError::Syntax(why) => f.write_str(why),
            ConfigError::UnknownKey { place, key, hint } => write!(f, "{place}: unknown key {key:?}{hint}"),
            ConfigError::Value { key, value, origin, why } => {
                write!(f, "{key} = {value:?} ({origin}): {why}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Raw values by key; later sources replace earlier ones.
#[derive(Debug, Clone)]
pub struct Sources(BTreeMap<&'static str, (String, Origin)>);

impl Default for Sources {
    fn default() -> Self {
        Sources(SETTINGS.iter().map(|s| (s.key, (s.default.to_string(), Origin::Default))).collect())
    }
}

impl Sources {
    /// The same; without `file` what the package has installed, if it has.
    pub fn read_with_default(file: Option<&Path>) -> Result<Sources, ConfigError> {
        let installed = Path::new(INSTALLED_FILE);
        Sources::read(file.or_else(|| installed.exists().then_some(installed)))
    }

    /// Defaults, then `file` if there is one, then the environment.
    pub fn read(file: Option<&Path>) -> Result<Sources, ConfigError> {
        let mut sources = Sources::default();
        if let Some(path) = file {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(name.clone(), e))?;
            sources.read_file(&name, &text)?;
        }
        sources.read_environment(std::env::vars())?;
        Ok(sources)
    }

    /// Sets a key from a flag that was given.
    pub fn flag(&mut self, flag: &'static str, key: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.insert(key, (value.to_string(), Origin::Flag(flag)));
        }
    }

    /// Takes what a reload can't change from the sources in force; returns the keys that would have changed.
    fn keep_fixed(&mut self, in_force: &Sources) -> Vec<&'static str> {
        let fixed = SETTINGS.iter().filter(|setting| !setting.is_reloaded).map(|setting| setting.key);
        let changed: Vec<_> = fixed.filter(|key| self.0[key].0 != in_force.0[key].0).collect();
        changed.iter().for_each(|key| drop(self.0.insert(key, in_force.0[key].clone())));
        changed
    }

    /// Sets a key to which nobody else has given a value.
    pub fn default_to(&mut self, flag: &'static str, key: &'static str, value: impl ToString) {
        if self.0.get(key).is_some_and(|(_, origin)| *origin == Origin::Default) {
            self.flag(flag, key, Some(value));
        }
    }

    fn read_file(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let document = toml_span::parse(text).map_err(|e| {
            let line = line_of(text, e.span.start);
            ConfigError::Syntax(format!("{name}:{line}: {}", e.kind))
        })?;
        match document.as_table() {
            Some(table) => self.read_table(name, text, "", table),
            None => Ok(()),
        }
    }

    fn read_table(
        &mut self,
        name: &str,
        text: &str,
        prefix: &str,
        table: &Table<'_>,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let place = format!("{name}:{}", line_of(text, key.span.start));
            let full = format!("{prefix}{}", key.name);
            if let Some(inner) = value.as_table() {
                if SETTINGS.iter().any(|s| s.key.starts_with(&format!("{full}."))) {
                    self.read_table(name, text, &format!("{full}."), inner)?;
                    continue;
                }
            }
            let Some(known) = find(&full) else {
                return Err(ConfigError::UnknownKey { place, hint: hint(&full), key: full });
            };
            let value = scalar(value).ok_or_else(|| {
                ConfigError::Syntax(format!("{place}: {full} takes one value, not a table"))
            })?;
            self.0.insert(known, (value, Origin::File(place)));
        }
        Ok(())
    }

    fn read_environment(&mut self, vars: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
        let mut vars: Vec<_> = vars.collect();
        // CATWALK_DATABASE_URL is more specific than DATABASE_URL and comes after it.
        vars.sort_by_key(|(name, _)| name.starts_with("CATWALK_"));
        for (name, value) in vars {
            let key = match name.as_str() {
                "DATABASE_URL" => find("database.url"),
                "CATWALK_SEED" | "CATWALK_LOG_STYLE" => None,
                _ => match name.strip_prefix("CATWALK_") {
                    Some(rest) => {
                        let found = SETTINGS.iter().find(|s| variable(s.key) == rest).map(|s| s.key);
                        let place = "environment".to_string();
                        let unknown =
                            || ConfigError::UnknownKey { place, hint: String::new(), key: name.clone() };
                        Some(found.ok_or_else(unknown)?)
                    }
                    None => None,
                },
            };
            if let Some(key) = key {
                self.0.insert(key, (value, Origin::Environment(name)));
            }
        }
        Ok(())
    }

    fn parse<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (value, origin) = &self.0[key];
        read(value).map_err(|why| ConfigError::Value {
            key,
            value: if key.ends_with("token") { "(hidden)".to_string() } else { hide_passwords(value) },
            origin: origin.clone(),
            why,
        })
    }
}

/// `http.max_age` → `HTTP_MAX_AGE`.
fn variable(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

fn find(key: &str) -> Option<&'static str> {
    SETTINGS.iter().map(|s| s.key).find(|k| *k == key)
}

/// The known key that shares the most with an unknown one.
fn hint(unknown: &str) -> String {
    let last = unknown.rsplit('.').next().unwrap_or(unknown);
    let near = SETTINGS.iter().find(|s| s.key.ends_with(last) || s.key.starts_with(unknown));
    near.map_or_else(
        || "; `catwalk config` lists all".to_string(),
        |s| format!("; did you mean {:?}?", s.key),
    )
}

fn scalar(value: &Value<'_>) -> Option<String> {
    match value.as_ref() {
        ValueInner::String(s) => Some(s.to_string()),
        ValueInner::Integer(i) => Some(i.to_string()),
        ValueInner::Float(f) => Some(f.to_string()),
        ValueInner::Boolean(b) => Some(b.to_string()),
        ValueInner::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(scalar).collect();
            texts.map(|t| t.join(","))
        }
        _ => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// Where HTTPS is served, and the PEM files of its certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub listen: SocketAddr,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The effective settings, typed and checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub admin_listen: Option<SocketAddr>,
    pub public_url: String,
    /// Of a front end of one's own.
    pub static_directory: Option<PathBuf>,
    /// Empty: none.
    pub loader_io: String,
    pub campus: String,
    pub runtime_dir: RuntimeDir,
    pub log: log::LevelFilter,
    pub log_format: LogFormat,
    pub access_log: AccessLog,
    /// From when on requests are told of; zero: none is.
    pub slow_log: Duration,
    pub database_url: String,
    /// Addresses of the nodes beside `database_url`.
    pub replicas: Vec<String>,
    pub replica_lag_max: Duration,
    pub database_timeout: Duration,
    pub cache_staleness_max: Duration,
    pub cache_max_age: Duration,
    pub cache_missing_max_age: Duration,
    pub cache_stale_if_error: Duration,
    pub cache_audit_one_in: u64,
    pub http_max_age: Duration,
    /// By the names of kinds of answers.
    pub http_max_ages: BTreeMap<String, Duration>,
    pub origins: Vec<String>,
    pub token: String,
    /// Empty: nobody may.
    pub admin_token: String,
    pub write_rate: u64,
    pub write_burst: u64,
    cart_is_shared: Option<bool>,
    is_development: bool,
    /// Limits of a connection; `connections_max` is what [`Config::http_connections_per_worker`] says.
    pub limits: Limits,
    pub proxies: Proxies,
    pub tls: Option<TlsFiles>,
    pub placeholders: bool,
    pub shutdown_timeout: Duration,
    http_connections: Option<usize>,
    workers: Option<usize>,
    connections: Option<usize>,
    cache_size: Option<usize>,
    machine: Machine,
    sources: Sources,
}

impl Config {
    /// Checks every value of `sources`.
    ///
    /// # Errors
    /// The first value that doesn't fit, with where it was set.
    pub fn new(sources: Sources) -> Result<Config, ConfigError> {
        let s = &sources;
        let text = |key| s.parse(key, |v| Ok(v.to_string()));
        Ok(Config {
            listen: s.parse("listen", parse_address)?,
            admin_listen: s.parse("admin.listen", parse_no_address)?,
            public_url: s.parse("public_url", parse_public_url)?,
            static_directory: s.parse("static", |v| Ok(Some(PathBuf::from(v)).filter(|_| !v.is_empty())))?,
            loader_io: s.parse("loader_io", parse_loader_io)?,
            campus: text("campus")?,
            runtime_dir: s.parse("runtime_dir", parse_runtime_dir)?,
            log: s.parse("log", |v| {
                v.parse().map_err(|_| "expected error, warn, info, debug or trace".into())
            })?,
            log_format: s.parse("log_format", parse_log_format)?,
            access_log: AccessLog {
                sink: s.parse("access_log", parse_access_log)?,
                one_in: s.parse("access_log_one_in", |v| {
                    parse_number(v, 1, u32::MAX as usize).map(|n| n as u64)
                })?,
            },
            slow_log: s.parse("slow_log", parse_duration)?,
            database_url: text("database.url")?,
            replicas: s.parse("database.replicas", parse_replicas)?,
            replica_lag_max: s.parse("database.replica_lag_max", parse_lag)?,
            database_timeout: s.parse("database.timeout", parse_duration)?,
            cache_staleness_max: s.parse("cache.staleness_max", parse_staleness)?,
            cache_max_age: s.parse("cache.max_age", parse_duration)?,
            cache_missing_max_age: s.parse("cache.missing_max_age", parse_duration)?,
            cache_stale_if_error: s.parse("cache.stale_if_error", parse_duration)?,
            cache_audit_one_in: s
                .parse("cache.audit_one_in", |v| parse_number(v, 1, usize::MAX).map(|n| n as u64))?,
            http_max_age: s.parse("http.max_age", parse_duration)?,
            http_max_ages: s.parse("http.max_ages", parse_max_ages)?,
            origins: s.parse("http.origins", |v| Ok(parse_list(v)))?,
            token: text("http.token")?,
            admin_token: s.parse("http.admin_token_file", read_admin_token)?,
            write_rate: s.parse("http.write_rate", |v| parse_number(v, 0, 1_000).map(|n| n as u64))?,
            write_burst: s.parse("http.write_burst", |v| parse_number(v, 1, 1_000_000).map(|n| n as u64))?,
            cart_is_shared: s.parse("cart.anonymous", parse_anonymous)?,
            is_development: false,
            limits: read_limits(s)?,
            proxies: read_proxies(s)?,
            tls: read_tls(s)?,
            placeholders: s.parse("styles.placeholders", parse_bool)?,
            http_connections: s
                .parse("http.connections", |v| parse_auto(v, |v| parse_count(v, 10_000_000)))?,
            shutdown_timeout: s.parse("shutdown.timeout", parse_duration)?,
            workers: s.parse("workers", |v| parse_auto(v, |v| parse_count(v, WORKERS_MAX)))?,
            connections: s.parse("database.connections", |v| parse_auto(v, |v| parse_count(v, 10_000)))?,
            cache_size: s.parse("cache.size", |v| parse_auto(v, parse_cache_size))?,
            machine: Machine::detect(),
            sources: sources.clone(),
        })
    }

    /// The settings of `sources`, but for those that a reload can't change: they stay, and are named if they would have changed.
    ///
    /// # Errors
    /// As `new`.
    pub fn renewed(&self, mut sources: Sources) -> Result<(Config, Vec<&'static str>), ConfigError> {
        let kept = sources.keep_fixed(&self.sources);
        let config = Config {
            listen: self.listen,
            public_url: self.public_url.clone(),
            cache_size: self.cache_size,
            is_development: self.is_development,
            ..Config::new(sources)?
        };
        Ok((config, kept))
    }

    /// Whether a value was given to `key`.
    pub fn is_given(&self, key: &str) -> bool {
        self.sources.0.get(key).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Worker processes to run.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or(self.machine.cores).clamp(1, WORKERS_MAX)
    }

    /// Connections to each database node for each worker, of the box's one budget.
    pub fn connections_per_worker(&self) -> usize {
        let each = self.connections.map_or(CONNECTIONS_PER_WORKER, |total| total / self.workers());
        each.max(CONNECTIONS_PER_WORKER_MIN)
    }

    /// Whether it was left to the server how many.
    pub fn connections_are_auto(&self) -> bool {
        self.connections.is_none()
    }

    /// Addresses of all database nodes.
    pub fn nodes(&self) -> Vec<String> {
        std::iter::once(&self.database_url).chain(&self.replicas).cloned().collect()
    }

    /// The settings of `catwalk dev`, where nobody else is served.
    pub fn for_development(&mut self) {
        self.is_development = true;
    }

    pub fn is_development(&self) -> bool {
        self.is_development
    }

    /// Whether what is put into a cart without a session is shown to all who have none.
    pub fn cart_is_shared(&self) -> bool {
        self.cart_is_shared.unwrap_or(self.is_development)
    }

    /// Open HTTP connections for each worker, whose process may have `descriptors` open.
    pub fn http_connections_per_worker(&self, descriptors: u64) -> usize {
        let free = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_RESERVED);
        let memory = usize::try_from(self.machine.memory_bytes / 8).unwrap_or(usize::MAX);
        let total = self.http_connections.unwrap_or(memory / HTTP_CONNECTION_SIZE_BYTES);
        (total / self.workers()).clamp(1, free.max(1))
    }

    /// Bytes of shared memory for the cache; 0: none.
    pub fn cache_size_bytes(&self) -> usize {
        let quarter = usize::try_from(self.machine.memory_bytes / 4).unwrap_or(usize::MAX);
        self.cache_size.unwrap_or(quarter.max(CACHE_SIZE_MIN_BYTES))
    }

    /// An automatic cache takes at most `limit_bytes`.
    pub fn limit_cache(&mut self, limit_bytes: usize) {
        if self.cache_size.is_none() {
            self.cache_size = Some(self.cache_size_bytes().min(limit_bytes));
        }
    }

    /// The address in use, once it is known (port 0 was asked for, or no public address given).
    pub fn set_address(&mut self, address: SocketAddr) {
        self.listen = address;
        if self.public_url.is_empty() {
            self.public_url = format!("http://{address}");
        }
    }

    /// Addresses of the database nodes, as one number.
    pub fn nodes_hash(&self) -> u64 {
        rapidhash::v3::rapidhash_v3(self.nodes().join("\n").as_bytes())
    }

    /// The settings that answers are made with, as one number: cached answers of other settings are of no use.
    pub fn settings_hash(&self) -> u64 {
        let settings = format!("{:?} {:?} {}", self.campus, self.public_url, self.placeholders);
        rapidhash::v3::rapidhash_v3(settings.as_bytes())
    }

    /// Every setting with its effective value and origin.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for setting in SETTINGS {
            let (value, origin) = &self.sources.0[setting.key];
            let secret = setting.key.ends_with("token") && !value.is_empty();
            let value = match setting.key {
                "workers" if value == "auto" => format!("auto ({})", self.workers()),
                "database.connections" if value == "auto" => {
                    format!("auto ({})", self.connections_per_worker() * self.workers())
                }
                "cache.size" if value == "auto" => format!("auto ({}MiB)", self.cache_size_bytes() >> 20),
                "database.url" => hide_password(value),
                "database.replicas" => {
                    self.replicas.iter().map(|url| hide_password(url)).collect::<Vec<_>>().join(" ")
                }
                _ if secret => "(hidden)".to_string(),
                _ => value.clone(),
            };
            out +=
                &format!("{:<22} {:<34} # {origin}; {}\n", setting.key, format!("{value:?}"), setting.help);
        }
        out
    }
}

/// The same for a list of addresses.
fn hide_passwords(text: &str) -> String {
    text.split(',').map(|part| hide_password(part.trim())).collect::<Vec<_>>().join(", ")
}

/// The address without its password, in whichever of its three places that stands.
fn hide_password(url: &str) -> String {
    let url = &match url.find("password=") {
        Some(at) => {
            let start = at + "password=".len();
            let quoted = url[start..].starts_with('\'');
            let end = match quoted {
                true => url[start + 1..].find('\'').map(|n| start + n + 2),
                false => url[start..].find(['&', ' ']).map(|n| start + n),
            };
            format!("{}…{}", &url[..start], end.map_or("", |end| &url[end..]))
        }
        None => url.to_string(),
    };
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => match url[scheme + 3..at].find(':') {
            Some(colon) => format!("{}:…{}", &url[..scheme + 3 + colon], &url[at..]),
            None => url.to_string(),
        },
        _ => url.to_string(),
    }
}

fn read_limits(s: &Sources) -> Result<Limits, ConfigError> {
    let limits = Limits {
        headers_max: s.parse("http.headers_max", |v| parse_number(v, 1, 1000))?,
        request_line_size_max_bytes: s.parse("http.request_line_size_max", |v| parse_size_from(v, 256))?,
        head_size_max_bytes: s.parse("http.head_size_max", |v| parse_size_from(v, 1024))?,
        body_size_max_bytes: s.parse("http.body_size_max", |v| parse_size(v).map(|n| n as u64))?,
        header_timeout: s.parse("http.header_timeout", parse_timeout)?,
        body_timeout: s.parse("http.body_timeout", parse_timeout)?,
        idle_timeout: s.parse("http.idle_timeout", parse_timeout)?,
        write_timeout: s.parse("http.write_timeout", parse_timeout)?,
        ..Limits::default()
    };
    let line = limits.request_line_size_max_bytes;
    s.parse("http.head_size_max", |_| match line < limits.head_size_max_bytes {
        true => Ok(()),
        false => {
            Err(format!("a head must have room for more than a request line, which may take {line} bytes"))
        }
    })?;
    Ok(limits)
}

fn read_proxies(s: &Sources) -> Result<Proxies, ConfigError> {
    let trusted = s.parse("http.trusted_proxies", parse_networks)?;
    let speak_first = s.parse("http.proxy_protocol", parse_bool)?;
    s.parse("http.proxy_protocol", |_| match speak_first && trusted.is_empty() {
        true => Err("from whom? http.trusted_proxies names nobody".to_string()),
        false => Ok(()),
    })?;
    Ok(Proxies { trusted, speak_first })
}

fn read_tls(s: &Sources) -> Result<Option<TlsFiles>, ConfigError> {
    let listen = s.parse("tls.listen", parse_no_address)?;
    let Some(listen) = listen else {
        let unused = |v: &str| match v.is_empty() {
            true => Ok(()),
            false => Err("no HTTPS is served without tls.listen".to_string()),
        };
        s.parse("tls.certificate", unused)?;
        s.parse("tls.key", unused)?;
        return Ok(None);
    };
    let needed = |v: &str| match v.is_empty() {
        true => Err("tls.listen is set, so a PEM file is needed here".to_string()),
        false => Ok(PathBuf::from(v)),
    };
    let (certificate, key) = (s.parse("tls.certificate", needed)?, s.parse("tls.key", needed)?);
    Ok(Some(TlsFiles { listen, certificate, key }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        let mut sources = Sources::default();
        sources.read_file("catwalk.toml", text)?;
        Config::new(sources)
    }

    #[test]
    fn defaults_are_valid() {
        let config = Config::new(Sources::default()).unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert!(config.workers() >= 1 && config.cache_size_bytes() >= CACHE_SIZE_MIN_BYTES);
    }

    #[test]
    fn later_sources_win_and_say_so() {
        let mut sources = Sources::default();
        sources
            .read_file("catwalk.toml", "campus = \"sea\"\n[cache]\nsize = \"64MiB\"\nmax_age = \"2s\"")
            .unwrap();
        let vars = [
            ("CATWALK_CACHE_SIZE", "32MiB"),
            ("DATABASE_URL", "postgresql:///a"),
            ("CATWALK_DATABASE_URL", "postgresql:///b"),
            ("HOME", "/"),
        ];
        sources.read_environment(vars.iter().map(|(k, v)| (k.to_string(), v.to_string()))).unwrap();
        sources.flag("--cache-size", "cache.size", Some("16MiB"));
        let config = Config::new(sources).unwrap();
        assert_eq!((config.cache_size_bytes(), config.cache_max_age), (16 << 20, Duration::from_secs(2)));
        assert_eq!(config.database_url, "postgresql:///b");
        let text = config.describe();
        assert!(text.contains("flag --cache-size") && text.contains("catwalk.toml:4"), "{text}");
    }

    #[test]
    fn unknown_keys_name_file_and_line() {
        let error = from_file("campus = \"x\"\n\n[cache]\nsizes = 3\n").unwrap_err().to_string();
        assert!(error.starts_with("catwalk.toml:4: unknown key \"cache.sizes\""), "{error}");
        let error = from_file("[database]\nurl = 1\n[cash]\nsize = \"1MiB\"").unwrap_err().to_string();
        assert!(error.starts_with("catwalk.toml:3: unknown key \"cash\""), "{error}");
        let error = from_file("a = \n").unwrap_err().to_string();
        assert!(error.starts_with("catwalk.toml:1: "), "{error}");
    }

    #[test]
    fn values_without_units_are_refused_with_their_place() {
        let error = from_file("[cache]\nsize = 512").unwrap_err().to_string();
        assert!(error.contains("catwalk.toml:2") && error.contains("512MiB"), "{error}");
        for bad in ["5", "5 parsecs", "", "-1s", "1.5s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        assert!(parse_size("99999999999999999999GiB").is_err());
        assert!(from_file("[cache]\nsize = \"1KiB\"").is_err());
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(hide_password("postgres://a:secret@h/d"), "postgres://a:…@h/d");
        assert_eq!(hide_password("postgresql:///d?host=/x"), "postgresql:///d?host=/x");
        assert_eq!(
            hide_password("postgresql:///d?password=s3cret&host=/x"),
            "postgresql:///d?password=…&host=/x"
        );
        assert_eq!(hide_password("host=a password='s3 cret' user=b"), "host=a password=… user=b");
        assert_eq!(hide_password("host=a password=s3cret"), "host=a password=…");
    }
}
