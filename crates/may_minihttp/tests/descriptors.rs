//! Out of descriptors, whoever comes is told so, nothing spins, and service goes on when there are some again. A process
//! of its own: the limit is the process's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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

/// Takes every free number below the highest one in use: what the limit leaves is then free numbers above.
fn fill_gaps() -> (Vec<File>, u64) {
    let entries = std::fs::read_dir("/proc/self/fd").expect("procfs");
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let highest: i32 = names.filter_map(|name| name.parse().ok()).max().expect("a few are open");
    let mut fillers = Vec::new();
    loop {
        let file = File::open("/dev/null").expect("a descriptor");
        let number = file.as_raw_fd();
        fillers.push(file);
        if number > highest {
            return (fillers, number as u64);
        }
    }
}

fn socket() -> OwnedFd {
    // SAFETY: a fresh descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn connect_from(end: OwnedFd, address: SocketAddr) -> TcpStream {
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: a live descriptor and an address of the length that is given.
    let connected = unsafe {
        libc::connect(end.as_raw_fd(), (&raw const name).cast(), size_of::<libc::sockaddr_in>() as u32)
    };
    assert_eq!(connected, 0);
    let stream = TcpStream::from(end);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    stream
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
    let mut clients: Vec<TcpStream> = (0..10).map(|_| connect()).collect();
    clients.iter_mut().for_each(|c| assert!(ask(c).contains(" 200 ")));
    // The clients' ends are there before the limit falls: what is left is the server's, ten descriptors for forty.
    let ends: Vec<OwnedFd> = (0..40).map(|_| socket()).collect();
    let (_fillers, highest) = fill_gaps();
    set_limit(highest + 11);
    let mut late: Vec<TcpStream> = ends.into_iter().map(|end| connect_from(end, address)).collect();
    let answers: Vec<String> = late.iter_mut().map(ask).collect();
    let served = answers.iter().filter(|a| a.contains(" 200 ")).count();
    let told = answers.iter().filter(|a| a.contains(" 503 ")).count();
    assert!((1..=10).contains(&served) && served + told == 40, "{served} served, {told} told");
    assert_eq!(server.count(Count::TurnedAway), told as u64);
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(500));
    let spent = processor_time() - before;
    assert!(
        spent < Duration::from_millis(100),
        "{spent:?} of processor time in half a second of nothing to do"
    );
    set_limit(4096);
    drop(late);
    // Those that are open are served all the time, and new ones again.
    clients.iter_mut().for_each(|c| assert!(ask(c).contains(" 200 ")));
    assert!(ask(&mut connect()).contains(" 200 "));
}
