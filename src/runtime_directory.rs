//! The runtime directory: where this server is found by its owner, and where its memory may outlive it.
//! Runs in: master, offline.
//!
//! ```text
//! lock      held by the master (fcntl, gone with it whatever ends it): one server a directory
//! control   socket that `catwalk cache` asks at
//! arena     the cache's memory, where no service manager keeps it
//! ```

use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::sys::statfs::{fstatfs, TMPFS_MAGIC};

use crate::config::RuntimeDir;
use crate::os::fd::lock_for_process;

/// A directory that this process has to itself.
pub struct RuntimeDirectory {
    path: PathBuf,
    /// Names in it are reached by way of this: a socket's own path holds 107 bytes.
    dir: File,
    /// The lock goes when any descriptor of the file is closed, so this one stays open. None: it is not taken yet, or no longer.
    lock: Option<File>,
}

/// The directory that is asked for, if any.
pub fn path(asked: &RuntimeDir) -> Option<PathBuf> {
    match asked {
        RuntimeDir::None => None,
        RuntimeDir::At(path) => Some(path.clone()),
        RuntimeDir::Auto => default_path(),
    }
}

/// Where it is unless it is configured: what systemd says, /run for root, and the user's own for others.
fn default_path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(paths) = variable("RUNTIME_DIRECTORY") {
        return std::env::split_paths(&paths).next();
    }
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/run/catwalk"));
    }
    variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("catwalk"))
}

impl RuntimeDirectory {
    /// Makes the directory where it is missing, and takes it. None: another server has it.
    ///
    /// # Errors
    /// What keeps it from being made, or a directory that others may write to.
    pub fn take(path: &Path) -> Result<Option<RuntimeDirectory>> {
        let mut directory = RuntimeDirectory::open(path)?;
        Ok(directory.claim()?.then_some(directory))
    }

    /// The same without taking it: another server has it, which this one is to succeed.
    ///
    /// # Errors
    /// As `take`.
    pub fn open(path: &Path) -> Result<RuntimeDirectory> {
        let tell = || format!("taking {} as the runtime directory", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(tell)?;
        let dir = File::open(path).with_context(tell)?;
        let found = dir.metadata().with_context(tell)?;
        if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o022 != 0 {
            bail!(
                "{} is not this user's alone: chmod 700 it, or set runtime_dir to another one",
                path.display()
            );
        }
        Ok(RuntimeDirectory { path: path.to_path_buf(), dir, lock: None })
    }

    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// What keeps its lock from being made.
    pub fn claim(&mut self) -> Result<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        let tell = || format!("taking {} as the runtime directory", self.path.display());
        let lock = File::create(inside(&self.dir, "lock")).with_context(tell)?;
        let is_free = lock_for_process(&lock).with_context(tell)?;
        self.lock = is_free.then_some(lock);
        Ok(is_free)
    }

    /// Gives it up to a successor.
    pub fn leave(&mut self) {
        self.lock = None;
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name in the directory, short whatever the directory's own path is; good as long as this is there.
    pub fn file(&self, name: &str) -> PathBuf {
        inside(&self.dir, name)
    }

    /// Whether what lies there lies in memory: files on a disk would be written back to it again and again.
    pub fn is_in_memory(&self) -> bool {
        fstatfs(&self.dir).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
    }
}

/// A name in an open directory.
pub fn inside(dir: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}
