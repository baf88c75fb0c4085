//! Tests that call the exported functions from within the crate: what a host in C cannot bring about.

pub(crate) mod injection;

mod answers;
mod fixture;
mod misuse;
mod panics;
#[path = "../../../tests/serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;
