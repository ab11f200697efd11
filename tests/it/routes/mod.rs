//! The routes, in the shape of the URL tree.

mod admin;
mod cart;
mod everywhere;
mod images;
mod interactions;
mod openapi;
mod products;
mod qa;
pub mod reviews;
mod walk;
mod writes;

use crate::support::{Connection, Reply};

/// Sends a JSON body.
pub fn send(connection: &mut Connection, method: &str, path: &str, body: &str) -> Reply {
    send_with(connection, method, path, "", body)
}

/// Sends a body with more header lines, each ended.
pub fn send_with(connection: &mut Connection, method: &str, path: &str, lines: &str, body: &str) -> Reply {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
    connection.send((head + body).as_bytes());
    connection.receive(false)
}
