//! Texts of settings to what they mean.
//! Runs in: both, before anything is forked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::cache::record::{Kind, KINDS};
use crate::config::{AccessSink, LogFormat, RuntimeDir};
use crate::limits::{CACHE_SIZE_MIN_BYTES, CACHE_STALENESS_MIN, NODES_MAX, NODE_PERIOD};

/// Shortest token that counts as a secret.
const TOKEN_LEN_MIN: usize = 16;

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, as in 127.0.0.1:8080".into())
}

/// The same, or nothing.
pub(super) fn parse_no_address(text: &str) -> Result<Option<SocketAddr>, String> {
    (!text.is_empty()).then(|| parse_address(text)).transpose()
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "journal" => Ok(LogFormat::Journal),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected auto, journal, text or json".into()),
    }
}

pub(super) fn parse_access_log(text: &str) -> Result<AccessSink, String> {
    match text {
        "" => Ok(AccessSink::None),
        "log" => Ok(AccessSink::Log),
        path if path.starts_with('/') => Ok(AccessSink::File(path.into())),
        _ => Err("expected an absolute path, log, or nothing".into()),
    }
}

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".into())
}

pub(super) fn parse_networks(text: &str) -> Result<Vec<ipnet::IpNet>, String> {
    let read = |item: String| {
        let network = item.parse().or_else(|_| item.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        network.map_err(|_| format!("{item:?} is neither an address nor a network, as in 10.0.0.0/8"))
    };
    parse_list(text).into_iter().map(read).collect()
}

pub(super) fn parse_number(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (min..=max).contains(n));
    number.ok_or_else(|| format!("expected a number from {min} to {max}"))
}

pub(super) fn parse_size_from(text: &str, min: usize) -> Result<usize, String> {
    let size = parse_size(text)?;
    match size >= min {
        true => Ok(size),
        false => Err(format!("the least is {min} bytes")),
    }
}

/// The change feed looks every few milliseconds: a bound below some of its looks would be missed all the time.
pub(super) fn parse_staleness(text: &str) -> Result<Duration, String> {
    let bound = parse_duration(text)?;
    match bound >= CACHE_STALENESS_MIN {
        true => Ok(bound),
        false => Err(format!("the least is {CACHE_STALENESS_MIN:?}")),
    }
}

/// Addresses of replicas.
pub(super) fn parse_loader_io(text: &str) -> Result<String, String> {
    let is_token = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text.is_empty() || text.strip_prefix("loaderio-").is_some_and(is_token) {
        true => Ok(text.to_string()),
        false => Err("expected loader.io's token, as in loaderio-0123456789abcdef0123456789abcdef".into()),
    }
}

pub(super) fn parse_replicas(text: &str) -> Result<Vec<String>, String> {
    let addresses = parse_list(text);
    if let Some(bad) = addresses.iter().position(|address| !address.contains("://")) {
        return Err(format!("expected postgresql:// addresses; number {} is none", 1 + bad));
    }
    match addresses.len() < NODES_MAX {
        true => Ok(addresses),
        false => Err(format!("at most {} replicas", NODES_MAX - 1)),
    }
}

/// Below some looks at a replica its lag can't be told from none.
pub(super) fn parse_lag(text: &str) -> Result<Duration, String> {
    let bound = parse_duration(text)?;
    match bound >= NODE_PERIOD * 5 {
        true => Ok(bound),
        false => Err(format!("the least is {:?}", NODE_PERIOD * 5)),
    }
}

/// A duration that is not 0: without any timeout one client could hold everything.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    match timeout.is_zero() {
        true => Err("a timeout must be longer than 0".into()),
        false => Ok(timeout),
    }
}

pub(super) fn parse_public_url(text: &str) -> Result<String, String> {
    if !text.is_empty() && !text.starts_with("http://") && !text.starts_with("https://") {
        return Err("expected an http:// or https:// address".into());
    }
    Ok(text.trim_end_matches('/').to_string())
}

pub(super) fn parse_list(text: &str) -> Vec<String> {
    text.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect()
}

pub(super) fn parse_auto<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == "auto" {
        return Ok(None);
    }
    read(text).map(Some)
}

pub(super) fn parse_count(text: &str, max: usize) -> Result<usize, String> {
    let bad = || format!("expected auto or a number from 1 to {max}");
    let n: usize = text.parse().map_err(|_| bad())?;
    if (1..=max).contains(&n) {
        Ok(n)
    } else {
        Err(bad())
    }
}

pub(super) fn parse_cache_size(text: &str) -> Result<usize, String> {
    let size = parse_size(text)?;
    if size != 0 && size < CACHE_SIZE_MIN_BYTES {
        return Err(format!("the smallest cache is {}MiB; 0 turns it off", CACHE_SIZE_MIN_BYTES >> 20));
    }
    Ok(size)
}

/// `250ms`, `5s`, `2min`, `1h`. A bare number has no unit and is refused, but for 0.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let bad = || "expected a duration with its unit, as in 250ms, 5s, 2min or 1h".to_string();
    let n: u64 = number.parse().map_err(|_| bad())?;
    let ms = match unit {
        "ms" => n,
        "s" => n.saturating_mul(1000),
        "min" => n.saturating_mul(60_000),
        "h" => n.saturating_mul(3_600_000),
        "" if n == 0 => 0,
        _ => return Err(bad()),
    };
    Ok(Duration::from_millis(ms))
}

/// `512MiB`, `2GiB`, `64KiB`; MB and GB are powers of ten. A bare number is refused, but for 0.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let bad = || "expected a size with its unit, as in 512MiB or 2GiB".to_string();
    let n: usize = number.parse().map_err(|_| bad())?;
    let factor = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" if n == 0 => 0,
        _ => return Err(bad()),
    };
    n.checked_mul(factor).ok_or_else(bad)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

/// A token: the file's text, without white space around it. Only its owner may read it. Where no file is named, the systemd credential.
pub(super) fn read_admin_token(path: &str) -> Result<String, String> {
    // Systemd lets the service alone read its credentials; where it does so by an access control list, the mode shows a group.
    let others = if path.is_empty() { 0o007 } else { 0o077 };
    let credential = || {
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        Some(Path::new(&directory).join("admin-token")).filter(|path| path.exists())
    };
    let path = match path {
        "" => credential(),
        path => Some(path.into()),
    };
    let Some(path) = path else { return Ok(String::new()) };
    let readable_by = || std::fs::metadata(&path).map(|metadata| metadata.permissions().mode());
    let mode = readable_by().map_err(|e| format!("{}: {e}", path.display()))?;
    if mode & others != 0 {
        return Err(format!("{0} can be read by others than its owner; chmod 600 {0}", path.display()));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    match text.trim() {
        token if token.len() >= TOKEN_LEN_MIN => Ok(token.to_string()),
        _ => Err(format!(
            "the token in {0} is shorter than {TOKEN_LEN_MIN} characters; openssl rand -hex 32 > {0} makes one",
            path.display()
        )),
    }
}

pub(super) fn parse_anonymous(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        "shared" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        _ => Err("expected auto, shared or off".into()),
    }
}

/// `reviews=10s, styles=1min`
pub(super) fn parse_max_ages(text: &str) -> Result<BTreeMap<String, Duration>, String> {
    let kinds = KINDS.map(Kind::name);
    let read = |item: String| {
        let (kind, age) = item.split_once('=').ok_or("expected a list, as in reviews=10s, styles=1min")?;
        let kind = kind.trim();
        match kinds.contains(&kind) {
            true => Ok((kind.to_string(), parse_duration(age.trim())?)),
            false => Err(format!("{kind:?} is none of {}", kinds.join(", "))),
        }
    };
    parse_list(text).into_iter().map(read).collect()
}

/// A directory; `auto` is where the system has a place for it, if it has.
pub(super) fn parse_runtime_dir(text: &str) -> Result<RuntimeDir, String> {
    match text {
        "" => Ok(RuntimeDir::None),
        "auto" => Ok(RuntimeDir::Auto),
        path if path.starts_with('/') => Ok(RuntimeDir::At(path.into())),
        _ => Err("expected an absolute path, auto, or nothing".into()),
    }
}
