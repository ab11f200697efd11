//! The routes, in the shape of the URL tree.

mod everywhere;
mod products;
mod qa;
pub mod reviews;
mod walk;
