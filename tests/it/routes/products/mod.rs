//! /products and below.

mod list;
mod search;
mod show;
