//! An HTTP client for tests: keeps its connection, shows status, fields and body as they came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A keep-alive connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: &str) -> Connection {
        Connection::try_open(address).expect("the server takes connections")
    }

    pub fn try_open(address: &str) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Whether the server has ended it.
    pub fn is_closed(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("an open connection");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("an open connection");
        !seen.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// This side's port.
    pub fn port(&self) -> u16 {
        self.stream.get_ref().local_addr().expect("an open connection").port()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[])
    }

    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.try_request(method, path, fields).expect("the server answers")
    }

    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> std::io::Result<Reply> {
        let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        self.try_send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes())?;
        self.try_receive(method == "HEAD")
    }

    /// The next response; one to HEAD has no body.
    pub fn receive(&mut self, head_only: bool) -> Reply {
        self.try_receive(head_only).expect("the server answers")
    }

    pub fn try_receive(&mut self, head_only: bool) -> std::io::Result<Reply> {
        let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let line = self.line()?;
        let status: u16 = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(eof)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_string(), value.to_string())),
                None => break,
            }
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if !head_only && reply.header("transfer-encoding") == Some("chunked") {
            reply.body = self.chunks()?;
            return Ok(reply);
        }
        let len = reply.header("content-length").map_or(0, |v| v.parse().expect("a number"));
        if !head_only {
            reply.body = vec![0; len];
            self.stream.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// A chunked body, its trailer section empty.
    fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).expect("a chunk size");
            let mut chunk = vec![0; size];
            self.stream.read_exact(&mut chunk)?;
            body.append(&mut chunk);
            assert_eq!(self.line()?, "");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_string()),
        }
    }

    /// Sends `bytes` and the end of this side in one segment.
    pub fn send_last(&mut self, bytes: &[u8]) {
        use std::os::fd::AsRawFd;
        let fd = self.stream.get_ref().as_raw_fd();
        // SAFETY: a live descriptor and a live slice; MSG_MORE keeps the data back until the FIN goes with it.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_MORE) };
        assert_eq!(sent, bytes.len() as isize);
        self.finish();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(self.stream.get_ref(), nix::sys::socket::sockopt::Linger, &linger)
            .expect("an option");
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the server closes");
        rest
    }

    /// Ends this side; the server may still answer.
    pub fn finish(&mut self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).expect("an open connection");
    }
}
