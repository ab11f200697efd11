//! The Date line, formatted once a second.
//! Runs in: worker.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

/// `Date: ` + IMF-fixdate (29 bytes) + CRLF.
const LINE_SIZE_BYTES: usize = 6 + 29 + 2;

struct Cached {
    second: i64,
    line: [u8; LINE_SIZE_BYTES],
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { second: -1, line: [0; LINE_SIZE_BYTES] }) };
}

/// Appends the Date line. Never inlined: a thread-local's address must not live across a yield.
#[inline(never)]
pub(crate) fn write(out: &mut Vec<u8>) {
    let second = clock_second();
    CACHED.with_borrow_mut(|cached| {
        if cached.second != second {
            cached.second = second;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.max(0) as u64);
            let text = format!("Date: {}\r\n", httpdate::HttpDate::from(time));
            cached.line.copy_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&cached.line);
    });
}

fn clock_second() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec that lives on this stack.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
    time.tv_sec
}

#[cfg(test)]
mod tests {
    #[test]
    fn line_is_an_imf_fixdate() {
        let mut out = Vec::new();
        super::write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let date = text.strip_prefix("Date: ").and_then(|t| t.strip_suffix(" GMT\r\n")).unwrap();
        assert!(httpdate::parse_http_date(&format!("{date} GMT")).is_ok());
    }
}
