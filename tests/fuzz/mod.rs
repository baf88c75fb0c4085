//! What is fuzzed: a function for each target, which takes any bytes and must come back, whatever they are. `fuzz/` calls them with bytes that
//! cover more and more of the code; `tests/fuzz_corpus.rs` with those that are kept.

mod checks;
mod entity_import;
mod forge;
mod golden;
mod json;
mod live_db;
mod open_store;
mod script;
mod tables;
mod train_toml;

pub use entity_import::entity_import;
pub use json::json;
pub use live_db::live_db;
pub use open_store::open_store;
pub use tables::{csv, dataset_toml};
pub use train_toml::train_toml;
