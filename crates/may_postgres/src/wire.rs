//! The protocol without the socket: requests to bytes, bytes to whole messages. No input panics.
//! Runs in: worker | offline.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use postgres_types::{IsNull, ToSql};

use crate::{Error, Statement};

/// Largest message accepted from a server; PostgreSQL itself stops at 1 GiB.
pub const MESSAGE_SIZE_MAX_BYTES: usize = 1 << 30;

/// A request's bytes, and the tag with which its answer begins, where that is known: an answer that begins otherwise is
/// another request's.
pub struct Outgoing {
    pub bytes: BytesMut,
    pub expected: Option<u8>,
}

pub fn simple_query(sql: &str) -> Result<Outgoing, Error> {
    let mut bytes = BytesMut::new();
    frontend::query(sql, &mut bytes)?;
    Ok(Outgoing { bytes, expected: None })
}

/// Parse + Describe + Sync: the answer describes parameters and columns.
pub fn prepare(name: &str, sql: &str) -> Result<Outgoing, Error> {
    let mut buf = BytesMut::new();
    frontend::parse(name, sql, std::iter::empty(), &mut buf)?;
    frontend::describe(b'S', name, &mut buf)?;
    frontend::sync(&mut buf);
    // ParseComplete
    Ok(Outgoing { bytes: buf, expected: Some(b'1') })
}

/// Bind + Execute + Sync with binary parameters and results.
pub fn execute(statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Outgoing, Error> {
    if params.len() != statement.params().len() {
        return Err(Error::Convert(format!(
            "the statement takes {} parameters, {} were given",
            statement.params().len(),
            params.len()
        )));
    }
    let mut buf = BytesMut::with_capacity(128);
    let bound = frontend::bind(
        "",
        statement.name(),
        Some(1),
        params.iter().zip(statement.params()),
        |(param, ty), out| match param.to_sql_checked(ty, out) {
            Ok(IsNull::Yes) => Ok(postgres_protocol::IsNull::Yes),
            Ok(IsNull::No) => Ok(postgres_protocol::IsNull::No),
            Err(e) => Err(e),
        },
        Some(1),
        &mut buf,
    );
    match bound {
        Ok(()) => {}
        Err(frontend::BindError::Conversion(e)) => return Err(Error::Convert(e.to_string())),
        Err(frontend::BindError::Serialization(e)) => return Err(Error::Convert(e.to_string())),
    }
    frontend::execute("", 0, &mut buf)?;
    frontend::sync(&mut buf);
    // BindComplete
    Ok(Outgoing { bytes: buf, expected: Some(b'2') })
}

/// Kinds of whole messages at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// `len` bytes of whole messages that belong to the oldest outstanding request, its last one included.
    Finished { len: usize },
    /// `len` bytes of whole messages that belong to the oldest outstanding request; more will come.
    More { len: usize },
    /// One message of `len` bytes that belongs to nobody (notice, notification, parameter).
    Stray { len: usize, tag: u8 },
}

/// Finds the longest run of whole messages for the oldest request, without parsing their bodies.
///
/// A request's answer ends with ReadyForQuery (`Z`), or pauses at CopyInResponse (`G`), which is part of it.
///
/// # Errors
/// A length that no message can have: the stream can't be followed any further.
pub fn scan(buf: &[u8]) -> Result<Scan, Error> {
    let mut at = 0;
    while let Some((tag, len)) = head(&buf[at..])? {
        if buf.len() - at < len {
            break;
        }
        let stray = matches!(tag, b'N' | b'A' | b'S');
        if stray && at > 0 {
            break;
        }
        if stray {
            return Ok(Scan::Stray { len, tag });
        }
        at += len;
        if tag == b'Z' {
            return Ok(Scan::Finished { len: at });
        }
    }
    Ok(Scan::More { len: at })
}

/// Tag and total length (tag included) of the message at the front, if its head is there.
fn head(buf: &[u8]) -> Result<Option<(u8, usize)>, Error> {
    if buf.len() < 5 {
        return Ok(None);
    }
    let tag = buf[0];
    let len = (&buf[1..5]).get_i32();
    if len < 4 || len as usize > MESSAGE_SIZE_MAX_BYTES {
        return Err(Error::Protocol(format!("message {:?} claims {len} bytes", tag as char)));
    }
    Ok(Some((tag, len as usize + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut m = vec![tag];
        m.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        m.extend_from_slice(body);
        m
    }

    #[test]
    fn run_ends_at_ready_for_query() {
        let mut b = message(b'D', b"row");
        b.extend(message(b'C', b"SELECT 1\0"));
        b.extend(message(b'Z', b"I"));
        let len = b.len();
        b.extend(message(b'D', b"next"));
        assert_eq!(scan(&b).unwrap(), Scan::Finished { len });
    }

    #[test]
    fn partial_message_is_left_for_later() {
        let mut b = message(b'D', b"row");
        let len = b.len();
        b.extend(&message(b'Z', b"I")[..4]);
        assert_eq!(scan(&b).unwrap(), Scan::More { len });
    }

    #[test]
    fn notices_are_told_apart_wherever_they_stand() {
        let mut b = message(b'D', b"row");
        let len = b.len();
        b.extend(message(b'N', b"\0"));
        assert_eq!(scan(&b).unwrap(), Scan::More { len });
        assert_eq!(scan(&b[len..]).unwrap(), Scan::Stray { len: 6, tag: b'N' });
    }

    #[test]
    fn impossible_length_is_an_error() {
        for len in [-1i32, 0, 3, i32::MAX] {
            let mut b = vec![b'D'];
            b.extend_from_slice(&len.to_be_bytes());
            assert!(scan(&b).is_err(), "{len}");
        }
    }
}
