//! What is computed?
//!
//! [`layout`] names the weights. The network over them is written once (`network`) over the operations of a `graph`, of which there
//! are two: `tape` (fused kernels with gradients, CPU) and `composed` (candle's differentiable operations: CUDA, and the
//! reference). Serving runs the same kernels without a graph, straight from mapped weights (`infer`). Tests hold the three
//! together.

mod attribute;
pub(crate) mod composed;
pub(crate) mod device;
mod features;
pub(crate) mod feedback;
pub(crate) mod graph;
mod infer;
pub mod layout;
pub(crate) mod network;
pub mod sections;
pub(crate) mod tape;
pub(crate) mod tower;
pub use attribute::{Attributed, Attribution};
pub(crate) use features::Tokens;
pub use features::{Feature, Features, Head, HeadSource, History, Request};
pub use infer::{Expectations, Inference, MoreItems, Scratch, Weights};
pub(crate) use tower::column_value;
pub use tower::{Metadata, Parts, Standing, Tower, Value};

#[cfg(test)]
mod tests;
