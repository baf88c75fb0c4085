//! In which order: the ranker's prediction for the items that were retrieved, under the meta embedding of whoever asks.
//!
//! The meta embedding is, in this order: the one that was adapted while serving, the generation's own (batch adaptation), or that
//! of the meta block as it was learned, which knows the entity's history and profile but no outcome of it. A ranker with a block of
//! items adds the item's, from a table of the generation; one that tells surfaces apart that of the entity on the request's
//! (`docs/ranker.md`).

mod adapt;
mod candidates;
mod score;

pub use adapt::MetaEmbedding;
pub(crate) use adapt::{EntityAdapter, Place};
pub(super) use candidates::{read_impression, scaled};
pub(super) use score::{Given, Predict, RankWork};
