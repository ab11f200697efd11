//! PostgreSQL's programs on this machine, and the user that they run as.
//! Runs in: master | offline.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};

use crate::os::fork;

/// The newest PostgreSQL server's programs: Debian's and Ubuntu's place, PGDG's, then the path (Amazon Linux).
pub fn find_bin() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (root, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix(prefix).and_then(|v| v.parse().ok());
            let bin = entry.path().join("bin");
            if let (Some(version), true) = (version, has_server(&bin)) {
                found.push((version, bin));
            }
        }
    }
    if let Some((_, bin)) = found.into_iter().max() {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|dir| has_server(dir)).context(
        "no PostgreSQL server is installed here; `make run` installs one, or: apt-get install postgresql, \
         dnf install postgresql15-server",
    )
}

fn has_server(bin: &Path) -> bool {
    bin.join("initdb").exists() && bin.join("postgres").exists()
}

/// Who PostgreSQL runs as: this process's user, or for root the one that the package made.
///
/// # Errors
/// There is none, and what to do.
pub fn user() -> Result<(Uid, Gid)> {
    if !fork::is_root() {
        return Ok(fork::own_user());
    }
    let hint =
        "PostgreSQL does not run as root and there is no user named postgres; install the server package, \
                or run this as an ordinary user";
    fork::user("postgres").context(hint)
}
