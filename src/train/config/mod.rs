//! How is a training described? [`TrainConfig`] in memory, [`TrainFile`] in a `train.toml`.

#[cfg(feature = "files")]
mod file;
#[cfg(feature = "files")]
mod keys;
mod options;
#[cfg(all(test, feature = "files"))]
mod tests;
#[cfg(feature = "files")]
pub use file::TrainFile;
pub use options::{RankerConfig, TrainConfig};
