//! /products and below.

mod list;
mod show;
