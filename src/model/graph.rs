//! What the network is made of: the operations that its two forms provide.
//!
//! `tape` runs them as fused kernels on the CPU, `composed` (feature `candle`) as candle's own differentiable operations on any
//! device and in f64. [`super::network::Network::forward`] is written once, for both.

use crate::kernels::attention::{AttentionShape, Times};
use crate::kernels::gate::Dropout;
use std::ops::Range;
use std::sync::Arc;

/// Where each packed sequence lies and what its attention needs besides the tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    /// Sequence `s` is tokens `offsets[s]..offsets[s + 1]`.
    pub offsets: Vec<usize>,
    /// Seconds at which each token asks; empty without time bias.
    pub query: Vec<i64>,
    /// Seconds at which what each token holds happened; empty without time bias.
    pub key: Vec<i64>,
}

impl Packed {
    /// The tokens of each sequence.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|w| w[0]..w[1])
    }

    /// The times of one sequence.
    pub(crate) fn times(&self, range: &Range<usize>) -> Times<'_> {
        if self.query.is_empty() {
            return Times::default();
        }
        Times { query: &self.query[range.clone()], key: &self.key[range.clone()] }
    }
}

/// The operations of the network. Weights are named as in [`super::layout::Layout`]; a bias `b` belongs to a weight
/// `w` as `w.bias`.
pub(crate) trait Graph {
    /// An array of numbers, `[n, columns]`.
    type Value;
    /// How an operation fails.
    type Error;

    /// `x w^T (+ bias)`: x `[n, inputs]`, w `[outputs, inputs]`.
    fn affine(&mut self, x: &Self::Value, weight: &str, bias: bool) -> Result<Self::Value, Self::Error>;

    /// Layer normalisation of the rows of `x` with `{name}.gain` and `{name}.bias`.
    fn norm(&mut self, x: &Self::Value, name: &str) -> Result<Self::Value, Self::Error>;

    /// Causal attention of packed sequences: qkv `[n, 3 d]`, bias `[heads, shape.biases()]`; gives `[n, d]`.
    fn attend(
        &mut self,
        qkv: &Self::Value,
        bias: &str,
        shape: AttentionShape,
        packed: &Arc<Packed>,
    ) -> Result<Self::Value, Self::Error>;

    /// `x + sigmoid(gate) * dropout(y)`, all `[n, d]`.
    fn gated(
        &mut self,
        x: &Self::Value,
        gate: &Self::Value,
        y: &Self::Value,
        drop: Option<Dropout>,
    ) -> Result<Self::Value, Self::Error>;

    /// `silu(a) * b` of `[n, 2 hidden]` rows `[a, b]`; gives `[n, hidden]`.
    fn glu(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// `x * sigmoid(x)`, element by element.
    fn silu(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// `silu(gate) * y`, both `[n, d]`.
    fn silu_gated(&mut self, gate: &Self::Value, y: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// Dropout with factors drawn from a counter: the same on every path, device and split of the batch.
    fn dropped(&mut self, x: &Self::Value, drop: Option<Dropout>) -> Result<Self::Value, Self::Error>;

    /// `x + y`.
    fn sum(&mut self, x: &Self::Value, y: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// The softmax of each row.
    fn softmax(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error>;

    /// The rows of `x` times `factor`, brought to length 1 before that if `unit`.
    fn scaled(&mut self, x: &Self::Value, unit: bool, factor: f32) -> Result<Self::Value, Self::Error>;
}
