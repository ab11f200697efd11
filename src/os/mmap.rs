//! Shared memory: a sealed, fully allocated memfd, mapped once and inherited across fork.
//! Runs in: master (create), worker (use).

use std::os::fd::OwnedFd;
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
        let size = i64::try_from(size_bytes).map_err(|_| Errno::EOVERFLOW)?;
        ftruncate(&fd, size)?;
        fallocate(&fd, FallocateFlags::empty(), 0, size)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        let map = MmapOptions::new().len(size_bytes).map_raw(&fd).map_err(errno)?;
        // Both are advice: a kernel without huge pages for shmem, or without dump control, works as well.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::DontDump);
        Ok(SharedMemory { map, fd })
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
        let size = nix::sys::stat::fstat(&fd)?.st_size;
        let size_bytes = usize::try_from(size).map_err(|_| Errno::EOVERFLOW)?;
        if size_bytes == 0 || !size_bytes.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let map = MmapOptions::new().len(size_bytes).map_raw(&fd).map_err(errno)?;
        Ok(SharedMemory { map, fd })
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

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(Errno::EINVAL as i32))
}
