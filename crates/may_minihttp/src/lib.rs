//! HTTP/1.1 server on `may` coroutines: one coroutine a connection, framed by RFC 9112, bounded and drainable.
//!
//! Implement [`HttpService`] for what answers, [`HttpServiceFactory`] for what makes one per connection, and
//! start it on an address or on a listener that somebody else owns.
//!
//! ```no_run
//! use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
//! struct Hello;
//! impl HttpService for Hello {
//!     fn call(&mut self, _req: Request<'_, '_>, rsp: &mut Response<'_>) -> std::io::Result<()> {
//!         rsp.body("Hello, world!");
//!         Ok(())
//!     }
//! }
//! struct Factory;
//! impl HttpServiceFactory for Factory {
//!     type Service = Hello;
//!     fn new_service(&self, _id: usize) -> Hello { Hello }
//! }
//! Factory.start("127.0.0.1:0")?.wait();
//! # Ok::<(), std::io::Error>(())
//! ```

mod body;
mod buffers;
mod connection;
mod date;
mod deep;
pub mod limits;
pub mod parse;
pub mod proxy;
mod request;
mod response;
mod server;
mod target;
mod tls;
mod transport;
mod turnstile;
mod watch;

pub use body::BodyReader;
pub use httparse::Header;
pub use limits::Limits;
pub use proxy::Proxies;
pub use request::{clock_boottime_ns, Request};
pub use response::{BodySource, Response};
pub use server::{Count, HttpServer, HttpService, HttpServiceFactory, Server, Settings};
pub use target::Target;
pub use tls::Tls;
