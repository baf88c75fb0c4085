//! Docent is an embedded, in-process recommendation engine: a library that trains a foundation model over interaction
//! histories, publishes it as a memory-mapped snapshot, and answers requests from it.
//!
//! Features: `candle` (the default: training on devices, and the reference of the tests), `cuda`, `files` (readers of delimited text,
//! descriptions and configurations), `cli` (the `docent` command line). Without any: serving, adaptation and training on the CPU.
#![deny(unsafe_code, missing_docs)]

pub mod adapt;
mod bootstrap;
pub mod data;
mod error;
pub mod evaluate;
mod event;
mod generation;
mod kernels;
pub mod model;
pub mod options;
pub mod pipeline;
pub mod progress;
pub mod random;
pub mod ranker;
pub mod schema;
pub mod serve;
pub mod store;
mod threads;
pub mod tokenizer;
pub mod train;

pub use error::{Error, ErrorKind, Result};
pub use event::{Cell, Event, FieldValue};
#[doc(hidden)]
pub use kernels::force_scalar;
