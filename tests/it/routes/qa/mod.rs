//! /qa and below.

mod add;
mod answers;
mod questions;
