//! How do weights come to be?
//!
//! [`Trainer`] turns a dataset and its split into weights, with the options that [`defaults()`] chooses unless others are
//! given and [`Tuner`] searches for; [`publish`] turns the weights into a generation of a store.
//! [`TrainConfig`] is all options together.

mod backend;
mod config;
pub(crate) mod foundation;
mod optimiser;
mod publish;
pub mod ranker;
mod tune;
#[cfg(feature = "files")]
pub use config::TrainFile;
pub use config::{RankerConfig, TrainConfig};
pub use foundation::corpus::{encode, tokenizer};
pub use foundation::defaults::{Choice, Defaults, Size, defaults};
pub use foundation::trainer::{Stopped, Trained, Trainer, forget_checkpoint, has_checkpoint};
pub use publish::{publish, publish_ranked};
pub use tune::{Candidate, Rung, Score, TuneOptions, Tuned, Tuner};
