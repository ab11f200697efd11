//! Shared memory: a sealed memfd, or a file of a directory that lies in memory, fully allocated, mapped once and inherited across fork.
//! Runs in: master (create), worker (use), offline (look).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{fallocate, fcntl, FallocateFlags, FcntlArg, SealFlag};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::unistd::ftruncate;

/// A shared mapping, seen as 64-bit words and never as bytes: every access is atomic.
pub struct SharedMemory {
    map: MmapRaw,
    fd: OwnedFd,
}

// SAFETY: the mapping is only ever accessed through atomics (`word`), which any thread may use; it stays
// mapped until the owner drops it, and owners hold it for the life of the process.
unsafe impl Sync for SharedMemory {}
// SAFETY: as above; nothing in it is bound to a thread.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Creates `size_bytes` of zeroed shared memory, all of it allocated now: a hole filled later could find
    /// memory gone and kill the process that touches it (SIGBUS).
    ///
    /// # Errors
    /// ENOMEM or ENOSPC when there is not that much.
    pub fn create(name: &str, size_bytes: usize) -> nix::Result<SharedMemory> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(name, flags)?;
        allocate(&fd, size_bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        SharedMemory::map(fd, size_bytes)
    }

    /// The same as a file that outlives its processes, and that no other user can open. It takes the place of one of that name; who
    /// has mapped that goes on with it.
    ///
    /// # Errors
    /// As `create`, and what keeps a file from being made there.
    pub fn create_file(path: &Path, size_bytes: usize) -> nix::Result<SharedMemory> {
        let unfinished = path.with_extension("new");
        let _ = std::fs::remove_file(&unfinished);
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).mode(0o600).open(&unfinished).map_err(errno)?;
        let fd = OwnedFd::from(file);
        let made = allocate(&fd, size_bytes).and_then(|()| std::fs::rename(&unfinished, path).map_err(errno));
        if let Err(e) = made {
            let _ = std::fs::remove_file(&unfinished);
            return Err(e);
        }
        SharedMemory::map(fd, size_bytes)
    }

    /// Maps existing shared memory, as large as it is.
    ///
    /// # Errors
    /// EINVAL for an empty or oddly sized one, EPERM for one that can shrink, and what mmap(2) says.
    pub fn open(fd: OwnedFd) -> nix::Result<SharedMemory> {
        // Memory that its maker could shrink under us would kill whoever touches it (SIGBUS).
        let seals = SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(Errno::EPERM);
        }
        let size_bytes = size_of_file(&fd)?;
        SharedMemory::map(fd, size_bytes)
    }

    /// Maps what another process of this server has made, and handed on.
    ///
    /// # Errors
    /// EINVAL for an empty or oddly sized one, and what mmap(2) says.
    pub fn open_trusted(fd: OwnedFd) -> nix::Result<SharedMemory> {
        let size_bytes = size_of_file(&fd)?;
        SharedMemory::map(fd, size_bytes)
    }

    /// Maps a file made by `create_file`.
    ///
    /// # Errors
    /// As `open`; EPERM for a file that is not this user's alone: whoever else can shorten it could kill us.
    pub fn open_file(path: &Path) -> nix::Result<SharedMemory> {
        let mut options = OpenOptions::new();
        let flags = nix::libc::O_NOFOLLOW;
        let fd = OwnedFd::from(options.read(true).write(true).custom_flags(flags).open(path).map_err(errno)?);
        let stat = nix::sys::stat::fstat(&fd)?;
        if stat.st_uid != nix::unistd::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(Errno::EPERM);
        }
        let size_bytes = size_of_file(&fd)?;
        SharedMemory::map(fd, size_bytes)
    }

    /// Maps what somebody else uses, to look at only: a store to it is a fault.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_to_read(fd: OwnedFd) -> nix::Result<SharedMemory> {
        let size_bytes = size_of_file(&fd)?;
        let map = MmapOptions::new().len(size_bytes).map_raw_read_only(&fd).map_err(errno)?;
        Ok(SharedMemory { map, fd })
    }

    fn map(fd: OwnedFd, size_bytes: usize) -> nix::Result<SharedMemory> {
        let map = MmapOptions::new().len(size_bytes).map_raw(&fd).map_err(errno)?;
        // Both are advice: a kernel without huge pages for shmem, or without dump control, works as well.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::DontDump);
        Ok(SharedMemory { map, fd })
    }

    /// Opens the same memory anew, with an open file description of its own: to look at, or to lock.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn reopen(&self) -> std::io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Says that somebody uses this memory: this process, and every child of it, until the last of them is gone. None: others use it
    /// already. The lock is on another open file description than the memory's, which may lie in a store and keep it for ever.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn hold(&self) -> std::io::Result<Option<Hold>> {
        let file = self.reopen()?;
        // SAFETY: a live descriptor.
        match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
            Ok(_) => Ok(Some(Hold(file.into()))),
            Err(Errno::EWOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.map.len()
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The word at `offset_bytes`.
    ///
    /// # Panics
    /// When the offset is not a multiple of 8 or the word lies outside: offsets read from shared memory are
    /// checked by the caller before they come here, so this is a bug of ours.
    #[inline]
    pub fn word(&self, offset_bytes: usize) -> &AtomicU64 {
        assert!(
            offset_bytes.is_multiple_of(8) && offset_bytes < self.map.len(),
            "a word outside the shared memory"
        );
        // SAFETY: in bounds (sizes are multiples of 8) and aligned (mappings start on a page). The only
        // references ever formed into the mapping are to atomics, which peers may change at any time.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset_bytes).cast()) }
    }

    /// `count` words from `offset_bytes` on.
    ///
    /// # Panics
    /// When they are not all in the mapping, or not aligned: both are bugs of the caller's.
    #[inline]
    pub fn words(&self, offset_bytes: usize, count: usize) -> &[AtomicU64] {
        assert!(
            offset_bytes.is_multiple_of(8)
                && count <= self.map.len() / 8
                && offset_bytes <= self.map.len() - count * 8,
            "words outside the shared memory"
        );
        // SAFETY: as for `word`.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().add(offset_bytes).cast(), count) }
    }
}

/// While it, or a copy of it in a child, is open, nobody else may take the memory over. It goes with the last process that has it: whoever
/// unlocked it would do so for all.
pub struct Hold(OwnedFd);

impl Hold {
    /// A hold that another process has handed on: the lock is the open file's, whoever took it.
    pub fn handed_on(fd: OwnedFd) -> Hold {
        Hold(fd)
    }

    /// To be handed on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn allocate(fd: &OwnedFd, size_bytes: usize) -> nix::Result<()> {
    let size = i64::try_from(size_bytes).map_err(|_| Errno::EOVERFLOW)?;
    ftruncate(fd, size)?;
    fallocate(fd, FallocateFlags::empty(), 0, size)
}

/// Size of what is mapped word by word: not 0, and whole words.
fn size_of_file(fd: &OwnedFd) -> nix::Result<usize> {
    let size = nix::sys::stat::fstat(fd)?.st_size;
    let size_bytes = usize::try_from(size).map_err(|_| Errno::EOVERFLOW)?;
    match size_bytes == 0 || !size_bytes.is_multiple_of(8) {
        true => Err(Errno::EINVAL),
        false => Ok(size_bytes),
    }
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(Errno::EINVAL as i32))
}
