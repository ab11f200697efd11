//! CPUs: which ones this process may use, and pinning to one.
//! Runs in: both.

use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// CPUs of this process's affinity mask, in order; never empty.
pub fn affinity() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
    if cpus.is_empty() {
        vec![0]
    } else {
        cpus
    }
}

/// Pins the calling thread, and every thread it starts later, to `cpu`.
///
/// # Errors
/// The kernel's, where a sandbox forbids it; the caller goes on unpinned.
pub fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Slice asked for by a process that does little and often, in ns.
const SHORT_SLICE_NS: u64 = 100_000;
/// sched_setattr(2), first version.
const ATTR_SIZE_BYTES: u32 = 48;
const _: () = assert!(size_of::<libc::sched_attr>() >= ATTR_SIZE_BYTES as usize);

/// Has this thread, and those it will start, run soon after they wake, for a short while each time: a shorter slice has an earlier
/// deadline (EEVDF, Linux 6.12), and where it is permitted a better nice value helps on any kernel. Advice: both may be refused.
pub fn run_soon() {
    // SAFETY: all zeros is a valid sched_attr.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    attr.size = ATTR_SIZE_BYTES;
    attr.sched_runtime = SHORT_SLICE_NS;
    for nice in [-10, 0] {
        attr.sched_nice = nice;
        // SAFETY: the kernel reads `size` bytes of one attr that lives on this stack; 0 is the calling thread.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) } == 0 {
            return;
        }
    }
}
