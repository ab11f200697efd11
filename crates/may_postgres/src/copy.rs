//! COPY in and out, streamed with bounded buffers.
//! Runs in: worker | offline.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::connection::Responses;
use crate::query::read_count;
use crate::{wire, Client, Error};

/// Data gathered before it is handed to the connection as one CopyData message.
const CHUNK_SIZE_BYTES: usize = 64 * 1024;

/// A COPY … FROM STDIN under way. The connection serves nobody else until it ends; dropping it without
/// [`CopyIn::finish`] makes the server discard everything.
pub struct CopyIn {
    client: Client,
    responses: Responses,
    chunk: Vec<u8>,
    open: bool,
}

/// The rows of a COPY … TO STDOUT, chunk by chunk as the server sends them.
pub struct CopyOut {
    responses: Responses,
}

impl Client {
    /// Starts `copy … from stdin`. The caller must be the connection's only user.
    pub fn copy_in(&self, sql: &str) -> Result<CopyIn, Error> {
        let mut responses = self.shared.send(wire::simple_query(sql)?, true)?;
        match responses.next()? {
            Some(Message::CopyInResponse(_)) => {}
            _ => return Err(Error::Protocol(format!("not a COPY FROM STDIN: {sql}"))),
        }
        self.shared.copying.store(true, Ordering::Relaxed);
        Ok(CopyIn {
            client: self.clone(),
            responses,
            chunk: Vec::with_capacity(CHUNK_SIZE_BYTES),
            open: true,
        })
    }

    /// Starts `copy … to stdout`.
    pub fn copy_out(&self, sql: &str) -> Result<CopyOut, Error> {
        let mut responses = self.shared.send(wire::simple_query(sql)?, true)?;
        match responses.next()? {
            Some(Message::CopyOutResponse(_)) => Ok(CopyOut { responses }),
            _ => Err(Error::Protocol(format!("not a COPY TO STDOUT: {sql}"))),
        }
    }
}

impl CopyIn {
    /// Appends data in the format that the COPY names; row boundaries need not be chunk boundaries.
    pub fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.chunk.extend_from_slice(data);
        if self.chunk.len() >= CHUNK_SIZE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut message = BytesMut::with_capacity(self.chunk.len() + 5);
        frontend::CopyData::new(&self.chunk[..])?.write(&mut message);
        self.chunk.clear();
        self.client.shared.send_data(message)
    }

    /// Ends the COPY and returns how many rows the server took.
    ///
    /// # Errors
    /// [`Error::Sql`] when the server refused a row; nothing was stored then.
    pub fn finish(mut self) -> Result<u64, Error> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.end(message)?;
        read_count(&mut self.responses)
    }

    fn end(&mut self, message: BytesMut) -> Result<(), Error> {
        self.open = false;
        let sent = self.client.shared.send_data(message);
        self.client.shared.copying.store(false, Ordering::Relaxed);
        sent
    }
}

impl Drop for CopyIn {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut message = BytesMut::new();
        if frontend::copy_fail("abandoned by the client", &mut message).is_ok() && self.end(message).is_ok() {
            while let Ok(Some(_)) = self.responses.next() {}
        }
    }
}

impl CopyOut {
    /// The next piece of data; None at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(message) = self.responses.next()? {
            if let Message::CopyData(body) = message {
                return Ok(Some(body.into_bytes()));
            }
        }
        Ok(None)
    }
}
