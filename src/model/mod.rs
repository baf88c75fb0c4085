//! What is computed?
//!
//! [`layout`] names the weights. The network over them is written once (`network`) over the operations of a `graph`, of which there
//! are two: `tape` (fused kernels with gradients, CPU) and `composed` (candle's differentiable operations: CUDA, and the
//! reference). Serving runs the same kernels without a graph, straight from mapped weights (`infer`). Tests hold the three
//! together.

pub(crate) mod composed;
pub(crate) mod device;
mod features;
pub(crate) mod graph;
mod infer;
pub mod layout;
pub mod meta;
pub(crate) mod network;
pub mod sections;
pub(crate) mod tape;
pub(crate) use features::Tokens;
pub use features::{Feature, Features, History, Request};
pub use infer::{Inference, Scratch, Weights};

#[cfg(test)]
mod tests;
