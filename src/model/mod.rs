//! What is computed?
//!
//! The network is defined once over candle tensors ([`network`], used for training and on CUDA) and once over plain
//! slices ([`infer`], which reads mapped weights in place); tests hold the two together.

mod features;
mod infer;
pub mod sections;
pub use features::{Feature, Features, History, Request};
pub use infer::{Inference, Scratch, Weights};
