//! The cache in one process: publish, void, recycle, off, and a model.
use super::*;
