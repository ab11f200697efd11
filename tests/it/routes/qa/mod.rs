//! /qa and below.

mod answers;
mod questions;
