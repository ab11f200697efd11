//! Out of descriptors, whoever comes is told so, nothing spins, and service goes on when there are some again. A process
//! of its own: the limit is the process's.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use may_minihttp::{Count, HttpServer, HttpService, HttpServiceFactory, Request, Response};

#[derive(Clone)]
struct Hello;

impl HttpService for Hello {
    fn call(&mut self, _req: Request<'_, '_>, rsp: &mut Response<'_>) -> io::Result<()> {
        rsp.body("hello");
        Ok(())
    }
}

fn ask(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 1024];
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let len = stream.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn set_limit(descriptors: u64) {
    let limit = libc::rlimit { rlim_cur: descriptors, rlim_max: 4096 };
    // SAFETY: a plain structure that lives on this stack.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

fn processor_time() -> Duration {
    // SAFETY: zeroed is a valid rusage, and the kernel writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let spent = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    spent(usage.ru_utime) + spent(usage.ru_stime)
}

#[test]
fn without_descriptors_clients_are_told_and_nothing_spins() {
    set_limit(4096);
    may::config().set_workers(1);
    let server = HttpServer(Hello).start("127.0.0.1:0").expect("a free port");
    let address = server.addresses()[0];
    let connect = || {
        let stream = TcpStream::connect(address).expect("the kernel takes it");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        stream
    };
    // Clients' ends are made before the limit falls; each waits in the listener or is served.
    let mut clients: Vec<TcpStream> = (0..60).map(|_| connect()).collect();
    clients.iter_mut().for_each(|c| assert!(ask(c).contains(" 200 ")));
    let mut late: Vec<TcpStream> = Vec::new();
    let open = std::fs::read_dir("/proc/self/fd").expect("procfs").count() as u64;
    // Room for thirty ends more: fifteen clients and what the server makes of them.
    set_limit(open + 30);
    while let Ok(stream) = TcpStream::connect(address) {
        late.push(stream);
    }
    assert!(late.len() > 10);
    let mut told = 0;
    for stream in &mut late {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        told += usize::from(ask(stream).contains(" 503 "));
    }
    assert!(told > 0, "nobody of {} was told", late.len());
    assert!(server.count(Count::TurnedAway) >= told as u64);
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(500));
    let spent = processor_time() - before;
    assert!(
        spent < Duration::from_millis(100),
        "{spent:?} of processor time in half a second of nothing to do"
    );
    drop(late);
    // Those that are open are served all the time, and new ones again.
    clients.iter_mut().for_each(|c| assert!(ask(c).contains(" 200 ")));
    assert!(ask(&mut connect()).contains(" 200 "));
}
