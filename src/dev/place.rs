//! Where the private cluster lives: where its user can reach it, with a socket path that the kernel can hold.
//! Runs in: master.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::unistd::{Gid, Uid};
use percent_encoding::{utf8_percent_encode, NON_ALPHANUMERIC};

use crate::os::fork;
use crate::programs;

/// Bytes of a Unix socket's path (sun_path less its terminator).
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Name of the database and of its owner.
pub const DATABASE: &str = "catwalk";

/// The cluster's directories and user.
#[derive(Debug, Clone)]
pub struct Place {
    /// Data directory.
    pub data: PathBuf,
    /// Directory of the socket.
    pub socket: PathBuf,
    /// The server's output.
    pub log: PathBuf,
    /// Who PostgreSQL runs as: it refuses to run as root.
    pub uid: Uid,
    pub gid: Gid,
}

impl Place {
    /// Chooses below `dir`, or elsewhere, and says so, when the cluster's user can't reach that.
    ///
    /// # Errors
    /// No user to run as, or a directory that somebody else has put in the way.
    pub fn choose(dir: &Path) -> Result<Place> {
        let (uid, gid) = programs::user()?;
        let home = if can_reach(dir, uid, gid) {
            dir.join("postgres")
        } else {
            let elsewhere = stand_in("/var/tmp", dir);
            println!(
                "The user {} can't reach {}: the database lives in {} instead.",
                owner_name(uid),
                dir.display(),
                elsewhere.display()
            );
            elsewhere
        };
        make_own(&home, uid, gid)?;
        let socket = if socket_fits(&home) { home.clone() } else { stand_in("/tmp", dir) };
        if socket != home {
            make_own(&socket, uid, gid)?;
        }
        Ok(Place { data: home.join("data"), log: home.join("postgres.log"), socket, uid, gid })
    }

    /// Address for clients of this machine: over the socket, no password.
    pub fn database_url(&self) -> String {
        let host = utf8_percent_encode(&self.socket.to_string_lossy(), NON_ALPHANUMERIC).to_string();
        format!("postgresql:///{DATABASE}?host={host}&user={DATABASE}")
    }
}

fn owner_name(uid: Uid) -> String {
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |u| u.name)
}

/// Whether every directory on the way lets the user through.
fn can_reach(dir: &Path, uid: Uid, gid: Gid) -> bool {
    dir.ancestors().all(|step| {
        let Ok(meta) = fs::metadata(step) else { return false };
        let bit = if meta.uid() == uid.as_raw() {
            0o100
        } else if meta.gid() == gid.as_raw() {
            0o010
        } else {
            0o001
        };
        uid.is_root() || meta.mode() & bit != 0
    })
}

/// A directory of a fixed name for `dir`, below `parent`.
fn stand_in(parent: &str, dir: &Path) -> PathBuf {
    let hash = rapidhash::v3::rapidhash_v3(dir.to_string_lossy().as_bytes());
    Path::new(parent).join(format!("catwalk-{}-{hash:016x}", fork::own_user().0))
}

fn socket_fits(dir: &Path) -> bool {
    dir.join(".s.PGSQL.5432").as_os_str().len() <= SOCKET_PATH_MAX_BYTES
}

/// Makes `dir` for its user alone. One that exists must be that user's own: the parent may be open to everybody.
fn make_own(dir: &Path, uid: Uid, gid: Gid) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if fork::is_root() {
                fork::give(dir, uid, gid).with_context(|| format!("giving {} to its user", dir.display()))?;
            }
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(dir).with_context(|| format!("looking at {}", dir.display()))?;
            if !meta.is_dir() || meta.uid() != uid.as_raw() {
                bail!(
                    "{} is in the way and is not a directory of {}; move it",
                    dir.display(),
                    owner_name(uid)
                );
            }
            Ok(())
        }
        Err(e) => Err(e).with_context(|| format!("making {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_escape_their_paths() {
        let place = Place {
            data: "/a/data".into(),
            socket: "/a b/ä".into(),
            log: "/a/log".into(),
            uid: Uid::from_raw(1),
            gid: Gid::from_raw(1),
        };
        let config: may_postgres::Config = place.database_url().parse().unwrap();
        assert_eq!(config.host, may_postgres::Host::Unix("/a b/ä".into()));
        assert_eq!(config.user, DATABASE);
    }

    #[test]
    fn long_paths_do_not_hold_a_socket() {
        assert!(socket_fits(Path::new("/tmp/x")));
        assert!(!socket_fits(Path::new(&format!("/tmp/{}", "x".repeat(100)))));
    }

    #[test]
    fn strangers_do_not_pass_private_directories() {
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let stranger = (Uid::from_raw(54_321), Gid::from_raw(54_321));
        assert!(!can_reach(dir.path(), stranger.0, stranger.1));
    }
}
