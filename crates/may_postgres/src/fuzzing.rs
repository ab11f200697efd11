//! The way of a server's bytes through this crate without a socket, for the fuzz target `wire`.
//! Runs in: offline, built by cargo-fuzz only.

use std::sync::Arc;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;
use postgres_types::Type;

use crate::wire::{self, Scan};
use crate::{Column, Row, SqlError};

/// Reads `bytes` as a connection does: framed, message by message, rows converted; stops at the first error.
pub fn read_server(bytes: &[u8]) {
    let mut inbox = BytesMut::from(bytes);
    loop {
        let len = match wire::scan(&inbox) {
            Ok(Scan::More { len: 0 }) | Err(_) => return,
            Ok(Scan::More { len } | Scan::Finished { len } | Scan::Stray { len, .. }) => len,
        };
        assert!(len > 0 && len <= inbox.len());
        let mut run = inbox.split_to(len);
        while !run.is_empty() {
            match Message::parse(&mut run) {
                Ok(Some(message)) => read_message(message),
                // Framing and parser agree on where messages end.
                Ok(None) => panic!("a message was cut"),
                Err(_) => return,
            }
        }
    }
}

fn read_message(message: Message) {
    match message {
        Message::ErrorResponse(body) => drop(SqlError::read(body.fields())),
        Message::NoticeResponse(body) => drop(SqlError::read(body.fields())),
        Message::CommandComplete(body) => drop(body.tag().map(str::to_string)),
        Message::ParameterDescription(body) => drop(body.parameters().count()),
        Message::RowDescription(body) => drop(body.fields().map(|f| Ok(f.name().to_string())).count()),
        Message::AuthenticationSasl(body) => drop(body.mechanisms().count()),
        Message::DataRow(body) => {
            for count in 1..4 {
                let types = [Type::INT8, Type::TEXT, Type::TIMESTAMPTZ, Type::NUMERIC];
                let columns = types.into_iter().take(count).map(|ty| Column { name: "c".into(), ty });
                let columns: Arc<[Column]> = columns.collect();
                if let Ok(row) = Row::new(columns, body.clone()) {
                    (0..=count).for_each(|n| drop(row.bytes(n).map(<[u8]>::len)));
                    let _ = row.try_get::<Option<i64>>(0);
                    let _ = row.try_get::<Option<String>>(1);
                }
            }
        }
        _ => {}
    }
}
