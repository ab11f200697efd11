//! What a hit does not do: no system call, and once warm no store to the arena. The kernel is the judge: a child that may make no
//! call but to end, over a mapping that it may only read.

use std::sync::Arc;

use catwalk::cache::arena::{Purpose, UncheckedArena};
use catwalk::cache::record::Bodies;
use catwalk::cache::{Ages, Arena, Cache, Encoding, Key, Kind, Lookup, Reading, Record};
use catwalk::catalogue::View;
use catwalk::metrics::MetricsPage;
use catwalk::os::mmap::SharedMemory;
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::ForkResult;

const KEYS: i64 = 100;
const HITS: i64 = 100_000;

/// How often each key was found before the counting.
fn cache_of(finds: usize) -> Cache {
    let purpose = Purpose { cache_size_bytes: 4 << 20, workers: 1, settings: 0, nodes: 0 };
    let memory = Arc::new(SharedMemory::create("test", purpose.layout().size_bytes).unwrap());
    let arena = Arc::new(Arena::format(memory.clone(), &purpose, 7));
    let cache = cache_over(arena);
    for id in 0..KEYS {
        let key = Key::new(Kind::Product, id);
        let bodies = Bodies { json: vec![b'x'; 700], ..Bodies::default() };
        let made = Record::make(key, cache.token(key), Reading::default(), View::Related(vec![]), &bodies);
        cache.fill(&made.unwrap());
        (0..finds).for_each(|_| assert!(matches!(cache.get(key, 0), Lookup::Hit(_))));
    }
    // The same memory, mapped to be read only.
    let memory = SharedMemory::open_to_read(memory.reopen().unwrap().into()).unwrap();
    cache_over(Arc::new(UncheckedArena::new(Arc::new(memory)).open().unwrap()))
}

fn cache_over(arena: Arc<Arena>) -> Cache {
    let metrics = MetricsPage::create(1).unwrap().slot(0);
    let ages = Ages { found_ns: u64::MAX, missing_ns: u64::MAX, watermark_ns: u64::MAX, stale_ns: 0 };
    Cache::new(arena, 0, 0, ages, metrics)
}

fn hits(cache: &Cache, out: &mut Vec<u8>) {
    for n in 0..HITS {
        out.clear();
        match cache.get(Key::new(Kind::Product, n % KEYS), 0) {
            Lookup::Hit(hit) if cache.copy_body(&hit, Encoding::Identity, out) => {}
            _ => std::process::abort(),
        }
    }
}

/// How a child ends that runs `work` and may read, write and end, as the kernel's strict mode has it (seccomp(2)).
fn ending_of(work: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child allocates nothing, takes no lock and calls nothing but `work`.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        // SAFETY: as above; a handler of the standard library's for SIGSEGV would make calls. SYS_exit is what strict mode lets through.
        ForkResult::Child => unsafe {
            let _ = signal(Signal::SIGSEGV, SigHandler::SigDfl);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT);
            work();
            libc::syscall(libc::SYS_exit, 0);
            unreachable!("it has ended");
        },
    }
}

#[test]
fn a_hit_makes_no_system_call_and_once_warm_no_store() {
    let (warm, mut out) = (cache_of(3), Vec::with_capacity(4096));
    assert!(matches!(ending_of(|| hits(&warm, &mut out)), WaitStatus::Exited(_, 0)));
    // The judge judges: a key that was not found often is noted as used, and a call is a call.
    let fresh = cache_of(0);
    assert!(matches!(ending_of(|| hits(&fresh, &mut out)), WaitStatus::Signaled(_, Signal::SIGSEGV, _)));
    let calls = || {
        nix::unistd::getppid();
    };
    assert!(matches!(ending_of(calls), WaitStatus::Signaled(_, Signal::SIGKILL, _)));
}
