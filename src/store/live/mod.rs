//! What changes between two publications: one transactional file beside the generations, `live.db`.
//!
//! SQLite keeps it: any number of processes of a host read and write it at once; after a crash at any point it holds all of a commit or
//! nothing; a damaged file is told and never more. [`LiveStore`] is the file, with the items that were added and removed; [`EntityStore`] the
//! states of entities in it. What versions before kept in `live.redb` is taken over ([`LiveStore::migrated`]).

mod before;
mod durable;
mod entities;
mod failure;
mod file;
mod frame;
mod items;
mod migrate;
mod places;
mod schema;
#[cfg(test)]
mod tests;
mod view;

pub use durable::Durability;
pub use entities::{EntityStore, EntityStoreOptions};
pub use file::LiveStore;
pub use items::{AddedItem, StoredItems};
pub use migrate::Migration;
pub use view::{EmbeddingView, OutcomeView, StateView};
