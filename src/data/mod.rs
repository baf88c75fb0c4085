//! Who did what, with what? Datasets in memory, the files they come from, splits, and the synthetic world.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod assemble;
mod builder;
mod check;
mod column;
mod dataset;
#[cfg(feature = "files")]
mod describe;
#[cfg(feature = "files")]
mod file;
mod hash;
#[cfg(feature = "files")]
mod moment;
#[cfg(feature = "files")]
mod read;
#[cfg(feature = "files")]
mod rows;
mod runs;
mod seen;
#[cfg(feature = "files")]
mod source;
mod split;
mod synthetic;
#[cfg(feature = "files")]
mod table;

pub use builder::{BuildOptions, DatasetBuilder, Declaration, Duplicates, EventFilter, EventRow, ItemRow};
pub(crate) use column::bounds;
pub use column::{Kind, Limits};
pub use dataset::{Column, Dataset, Events, Vocabulary};
#[cfg(feature = "files")]
pub use file::DatasetFile;
#[cfg(feature = "files")]
pub(crate) use moment::iso_date;
pub use runs::Questions;
pub(crate) use runs::{Place, RunRule, newest_runs};
pub use seen::COMES_BACK;
pub(crate) use seen::Marks;
pub(crate) use split::target_hash;
pub use split::{Case, Protocol, Split};
pub use synthetic::{Impression, SyntheticOptions, Turn, World};
