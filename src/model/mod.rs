//! What is computed?
//!
//! [`layout`] names the weights. The network over them is written once (`network`) over the operations of a `graph`, of which there
//! are two: `tape` (fused kernels with gradients, CPU) and `composed` (candle's differentiable operations: CUDA, and the
//! reference; feature `candle`). Serving runs the same kernels without a graph, straight from mapped weights (`infer`). Tests hold
//! the three together. Equations, shapes and symbols: docs/model.md.

mod attribute;
#[cfg(feature = "candle")]
pub(crate) mod composed;
mod features;
pub(crate) mod feedback;
pub(crate) mod graph;
mod infer;
pub mod layout;
pub(crate) mod network;
pub mod sections;
pub(crate) mod tape;
pub(crate) mod tower;
mod weights;
#[cfg(test)]
pub(crate) use attribute::Attributed;
pub(crate) use attribute::Attribution;
pub(crate) use features::Tokens;
pub use features::{Feature, Features, Head, HeadSource, History, Request};
pub use infer::{Expectations, Inference, Scratch};
pub(crate) use tower::column_value;
pub use tower::{Metadata, Parts, Standing, Tower, Value};
pub use weights::{MoreItems, Weights};

#[cfg(test)]
mod tests;
