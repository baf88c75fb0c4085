//! How do weights come to be?
//!
//! [`Trainer`] turns a dataset and its split into weights, with the options that [`defaults()`] chooses unless others are
//! given and [`Tuner`] searches for; [`publish`] turns the weights into a generation of a store.

mod checkpoint;
#[cfg(feature = "files")]
mod config;
pub(crate) mod corpus;
mod defaults;
mod embedding;
pub mod meta;
mod negatives;
mod optimiser;
mod passes;
mod popularity;
mod publish;
mod step;
pub(crate) mod targets;
#[cfg(test)]
mod tests;
mod timeline;
mod trainer;
mod tune;
mod validate;
mod vectors;
#[cfg(feature = "files")]
pub use config::{RankerConfig, TrainConfig, TrainFile};
pub use corpus::{encode, tokenizer};
pub use defaults::{Choice, Defaults, Size, defaults};
pub use publish::{publish, publish_ranked};
pub use trainer::{Stopped, Trained, Trainer, forget_checkpoint, has_checkpoint};
pub use tune::{Candidate, Rung, Score, TuneOptions, Tuned, Tuner};
