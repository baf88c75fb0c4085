//! How do weights come to be?
//!
//! [`Trainer`] turns a dataset and its split into weights; [`publish`] turns those into a generation of a store.

mod checkpoint;
#[cfg(feature = "files")]
mod config;
pub(crate) mod corpus;
mod negatives;
mod optimiser;
mod publish;
mod step;
mod trainer;
mod validate;
#[cfg(feature = "files")]
pub use config::TrainConfig;
pub use publish::publish;
pub use trainer::{Stopped, Trained, Trainer, forget_checkpoint, has_checkpoint};
