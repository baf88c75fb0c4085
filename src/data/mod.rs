//! What did people do, with what? Datasets in memory, the files they come from, splits, and the synthetic world.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod assemble;
mod builder;
mod check;
mod column;
mod dataset;
mod hash;
mod split;
mod synthetic;

pub use builder::{BuildOptions, DatasetBuilder, Declaration, Duplicates, EntityRow, EventRow, Filter, ItemRow};
pub use column::{Cell, Kind, Limits};
pub use dataset::{Column, Dataset, Events, Vocabulary};
pub use split::{Case, EVERYTHING_SAMPLE, Protocol, Split};
pub(crate) use synthetic::iso_date;
pub use synthetic::{Impression, SyntheticOptions, World};
