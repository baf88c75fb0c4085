//! What did people do, with what? Datasets in memory, the files they come from, splits, and the synthetic world.

mod check;
mod dataset;
pub use dataset::{Column, Dataset, Events, Vocabulary};
