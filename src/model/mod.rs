//! What is computed?
//!
//! [`layout`] names the weights. The network over them is written once as candle operations (`network`: training, CUDA,
//! and the reference) and once over plain slices (`infer`: serving, straight from mapped weights); on the CPU both run the same
//! kernels, and tests hold them together.

pub(crate) mod device;
mod features;
mod infer;
pub mod layout;
pub(crate) mod network;
pub(crate) mod operations;
pub mod sections;
pub use features::{Feature, Features, History, Request};
pub use infer::{Inference, Scratch, Weights};

#[cfg(test)]
mod tests;
