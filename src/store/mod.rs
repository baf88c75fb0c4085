//! How do bytes live safely on disk and in memory?
//!
//! A [`Store`] is a directory of immutable generations. A [`Publisher`] writes one section after another and then makes
//! them the current generation in one atomic step; a [`Snapshot`] maps a generation and hands out its sections as typed
//! slices, without a copy. Nothing in here knows of models: a section is a named array. `docs/format.md` documents every
//! byte.
//!
//! ```no_run
//! use docent::store::{OpenOptions, Store};
//! let snapshot = Store::open("shop.store")?.snapshot(&OpenOptions::default())?;
//! println!("generation {} of {} items", snapshot.generation(), snapshot.manifest().items);
//! let vectors: &[f32] = snapshot.f32s("item.vectors")?;
//! # Ok::<(), docent::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod directory;
mod dtype;
mod format;
mod fsio;
mod generation;
mod keep;
mod live;
mod maintain;
mod manifest;
mod publish;
mod records;
mod region;
mod segment;
mod sha256;
mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use directory::Store;
pub use dtype::Dtype;
pub use format::{FORMAT_VERSION, MANIFEST_CAP};
pub use generation::{GenerationId, GenerationInfo, VerifyReport};
pub use live::{
    AddedItem, Durability, EmbeddingView, EntityStore, EntityStoreOptions, LiveStore, Migration, OutcomeView,
    StateView, StoredItems,
};
pub use publish::Publisher;
pub(crate) use records::OUTCOME_IDS;
pub use records::{
    EntityState, ManifestContent, RankerRecord, RunRecord, SectionInfo, StoredEmbedding, StoredItem, StoredOutcome,
    StoredValue, TrainingRecord,
};
pub use region::Element;
pub use snapshot::{LoadMode, OpenOptions, Snapshot, Verify};
