//! What did people do, with what? Datasets in memory, the files they come from, splits, and the synthetic world.

mod check;
mod dataset;
mod split;
pub use dataset::{Column, Dataset, Events, Vocabulary};
pub use split::{Case, Protocol, Split};
