//! The C interface of docent: what a host that is not written in Rust links and includes (`include/docent.h`).
//!
//! Every function runs inside [`error::run`], every object behind a handle is a [`handle::Handle`], every output goes
//! through [`output::Output`]; `docs/c-abi.md` states the rules.
#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unreachable)
)]
#![allow(non_camel_case_types, reason = "the names are those of the C interface")]
#![allow(clippy::missing_safety_doc, reason = "the contract of every function is that of docs/c-abi.md")]

#[cfg(panic = "abort")]
compile_error!("build docent-ffi with panic = \"unwind\": a panic must become a status, never the end of the host");

#[cfg(test)]
extern crate docent_api as docent;

mod boundary;
pub mod embedding;
pub mod engine;
pub mod error;
pub mod filter;
pub mod generation;
mod handle;
pub mod input;
mod list;
pub mod options;
mod output;
pub mod query;
pub mod recommend;
pub mod session;
pub mod status;
#[cfg(test)]
mod tests;
mod texts;
pub mod version;
