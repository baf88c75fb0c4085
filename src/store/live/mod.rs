//! What changes between two publications: one transactional file beside the generations, `live.redb`.
//!
//! redb keeps it: every commit is durable when it returns (one `fsync`), and after a crash at any point the file holds all
//! of a commit or nothing. [`LiveStore`] is the file, with the items that were added and removed; [`EntityStore`] the states of
//! entities in it. A file of an earlier version is migrated when it is opened ([`LiveStore::migrated`]).

mod compact;
mod entities;
mod failure;
mod file;
mod frame;
mod items;
mod migrate;
mod queue;
#[cfg(test)]
mod tests;
mod view;

pub use entities::{EntityStore, EntityStoreOptions};
pub use file::LiveStore;
pub use items::StoredItems;
pub use migrate::Migration;
pub use queue::Durability;
pub use view::{EmbeddingView, OutcomeView, StateView};
