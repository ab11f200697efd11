//! A cable between two programs of this machine that can be cut, each way by itself: what is sent then is not lost, and not heard either.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(20);

/// Which directions carry nothing.
#[derive(Default)]
struct Cuts {
    forth: AtomicBool,
    back: AtomicBool,
    over: AtomicBool,
}

/// The cable; it ends when this is dropped.
pub struct Link {
    pub port: u16,
    cuts: Arc<Cuts>,
}

impl Link {
    /// From a port of its own to `port`, both on 127.0.0.1.
    pub fn to(port: u16) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let link = Link { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let cuts = link.cuts.clone();
        thread::spawn(move || {
            while !cuts.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => carry(near, port, cuts.clone()),
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        link
    }

    /// What is sent to the far end does not arrive.
    pub fn cut_forth(&self) {
        self.cuts.forth.store(true, Ordering::Relaxed);
    }

    /// What the far end sends does not arrive.
    pub fn cut_back(&self) {
        self.cuts.back.store(true, Ordering::Relaxed);
    }

    pub fn mend(&self) {
        self.cuts.forth.store(false, Ordering::Relaxed);
        self.cuts.back.store(false, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cuts.over.store(true, Ordering::Relaxed);
    }
}

fn carry(near: TcpStream, port: u16, cuts: Arc<Cuts>) {
    near.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        // Who is cut off gets no connection, and is not refused one either.
        while cuts.forth.load(Ordering::Relaxed) && !cuts.over.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = cuts.clone();
        thread::spawn(move || copy(far_back, near_back, |cuts| &cuts.back, &back));
        copy(near, far, |cuts| &cuts.forth, &cuts);
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream, cut: impl Fn(&Cuts) -> &AtomicBool, cuts: &Cuts) {
    let mut buffer = [0; 16 * 1024];
    from.set_read_timeout(Some(LOOK)).unwrap();
    let _ = to.set_nodelay(true);
    while !cuts.over.load(Ordering::Relaxed) {
        if cut(cuts).load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            continue;
        }
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        while cut(cuts).load(Ordering::Relaxed) && !cuts.over.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
