//! How do weights come to be?
//!
//! [`Trainer`] turns a dataset and its split into weights; [`publish`] turns those into a generation of a store.

mod checkpoint;
mod corpus;
mod optimiser;
mod step;
mod trainer;
mod validate;
pub use trainer::{Stopped, Trained, Trainer, forget_checkpoint};
