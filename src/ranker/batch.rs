//! The outer loss of a batch of entities and its gradient: what meta training runs.
//!
//! Support and query rows of all entities lie one after another (ragged, no padding); the trunk passes them together, the
//! inner loop goes entity by entity inside of one kernel call each, because an entity's weights after a step are its own.

use super::shape::RankerShape;
use super::trunk::{self, Columns, Passed};
use crate::kernels::heads::{Into, Rows};
use crate::kernels::inner::{Adaptation, LayerInto, Trace, adapt, adapt_backward};
use crate::kernels::math::Real;
use std::ops::Range;

/// Labelled candidates of several entities.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side<T> {
    /// Entity `s` has rows `offsets[s]..offsets[s + 1]`.
    pub offsets: Vec<usize>,
    /// `[n, candidate]`.
    pub candidates: Vec<T>,
    /// `[n, heads]`; NaN is none.
    pub labels: Vec<T>,
}

impl<T> Side<T> {
    /// The rows of an entity.
    pub(crate) fn range(&self, entity: usize) -> Range<usize> {
        self.offsets[entity]..self.offsets[entity + 1]
    }
}

/// Several entities' tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch<T> {
    /// Inputs of the meta block, `[entities, inputs]`.
    pub inputs: Vec<T>,
    /// Vectors of their own, `[entities, embedding]`; zero where there is none.
    pub shifts: Vec<T>,
    /// What they are adapted to.
    pub support: Side<T>,
    /// What the adapted ranker is judged by.
    pub query: Side<T>,
    /// Whether the gradients at the columns of the foundation model are asked for, too.
    pub vectors: bool,
}

/// How a batch is judged.
#[derive(Debug, Clone)]
pub(crate) struct Outer<T> {
    /// Weight of the loss after 0 to K steps, `[K + 1]`.
    pub steps: Vec<T>,
    /// Weight of each head.
    pub heads: Vec<T>,
    /// All losses are multiplied by this.
    pub scale: T,
    /// Exact meta-gradient, or first-order.
    pub exact: bool,
}

/// Gradients of a batch's outer loss.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gradients<T> {
    /// Of the dense weights.
    pub dense: Vec<T>,
    /// Of the item vectors in the query's candidates, `[n, item_width]`.
    pub query_items: Vec<T>,
    /// Of those in the support's; empty unless exact.
    pub support_items: Vec<T>,
    /// Of the columns `[v ; h ; h * v]` in the query's candidates, `[n, 3 state]`; empty unless [`Batch::vectors`].
    pub query_vectors: Vec<T>,
    /// Of those in the support's; empty unless exact, too.
    pub support_vectors: Vec<T>,
    /// Of the entities' own vectors, `[entities, embedding]`.
    pub shifts: Vec<T>,
    /// No gradient: the adapted embeddings, `[entities, embedding]`.
    pub embeddings: Vec<T>,
    /// The loss.
    pub loss: T,
}

/// Buffers of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory<T> {
    support: Vec<T>,
    query: Vec<T>,
    support_passed: Passed<T>,
    query_passed: Passed<T>,
    dsupport: Vec<T>,
    dquery: Vec<T>,
    trace: Trace<T>,
}

/// The outer loss of a batch and its gradient.
pub(crate) fn gradients<T: Real>(
    shape: &RankerShape,
    dense: &[T],
    batch: &Batch<T>,
    outer: &Outer<T>,
    memory: &mut Memory<T>,
) -> Gradients<T> {
    let (widths, inputs) = (shape.widths(), shape.inputs);
    let (row, heads, e) = (widths.row(), widths.heads, widths.embedding);
    trunk::forward(shape, dense, &batch.support.candidates, &mut memory.support, &mut memory.support_passed);
    trunk::forward(shape, dense, &batch.query.candidates, &mut memory.query, &mut memory.query_passed);
    for (d, rows) in [(&mut memory.dsupport, &memory.support), (&mut memory.dquery, &memory.query)] {
        d.clear();
        d.resize(rows.len(), T::ZERO);
    }
    let layers = shape.layers(dense);
    let adaptation = Adaptation {
        layers: &layers,
        heads: shape.heads_of(dense, &outer.heads),
        steps: outer.steps.len() - 1,
        prior_count: T::of(f64::from(shape.options.prior_count)),
        rate_decay: T::of(f64::from(shape.options.rate_decay)),
    };
    let entities = batch.inputs.len() / inputs;
    let mut found =
        Gradients { dense: vec![T::ZERO; dense.len()], shifts: vec![T::ZERO; entities * e], ..Gradients::default() };
    let mut into = Pieces::new(shape);
    for s in 0..entities {
        let (a, q) = (batch.support.range(s), batch.query.range(s));
        let rows = |from: &Range<usize>, width: usize| from.start * width..from.end * width;
        let support = Rows { rows: &memory.support[rows(&a, row)], labels: &batch.support.labels[rows(&a, heads)] };
        let query = Rows { rows: &memory.query[rows(&q, row)], labels: &batch.query.labels[rows(&q, heads)] };
        let x = &batch.inputs[s * inputs..(s + 1) * inputs];
        let shift = s * e..(s + 1) * e;
        adapt(&adaptation, x, &batch.shifts[shift.clone()], support, &mut memory.trace);
        found.embeddings.extend_from_slice(memory.trace.embedding(adaptation.steps));
        let Pieces { layers, mix, out } = &mut into;
        let mut layers: Vec<LayerInto<'_, T>> =
            layers.iter_mut().map(|(weight, bias, rates)| LayerInto { weight, bias, rates }).collect();
        found.loss += adapt_backward(
            &adaptation,
            x,
            support,
            query,
            &outer.steps,
            outer.scale,
            outer.exact,
            &mut memory.trace,
            &mut layers,
            &mut Into { rows: &mut memory.dquery[rows(&q, row)], mix, out },
            &mut memory.dsupport[rows(&a, row)],
            &mut found.shifts[shift],
        );
    }
    into.place(shape, &adaptation, &mut found.dense);
    let m = memory;
    let mut to = Columns {
        dense: &mut found.dense,
        items: &mut found.query_items,
        vectors: batch.vectors.then_some(&mut found.query_vectors),
    };
    trunk::backward(shape, dense, &batch.query.candidates, &m.query_passed, &mut m.dquery, &mut to);
    if outer.exact {
        let mut to = Columns {
            dense: &mut found.dense,
            items: &mut found.support_items,
            vectors: batch.vectors.then_some(&mut found.support_vectors),
        };
        trunk::backward(shape, dense, &batch.support.candidates, &m.support_passed, &mut m.dsupport, &mut to);
    }
    found
}

/// Gradients of the meta block and the heads, each in an array of its own.
struct Pieces<T> {
    layers: Vec<(Vec<T>, Vec<T>, [T; 2])>,
    mix: Vec<T>,
    out: Vec<T>,
}

impl<T: Real> Pieces<T> {
    fn new(shape: &RankerShape) -> Self {
        let zeros = |r: &Range<usize>| vec![T::ZERO; r.len()];
        let [mix, out] = shape.head_ranges();
        Self {
            layers: shape.layer_ranges().iter().map(|[w, b, _]| (zeros(w), zeros(b), [T::ZERO; 2])).collect(),
            mix: zeros(&mix),
            out: zeros(&out),
        }
    }

    fn place(self, shape: &RankerShape, adaptation: &Adaptation<'_, T>, dense: &mut [T]) {
        let own = shape.layer_ranges().iter().zip(self.layers).zip(adaptation.layers);
        for (([w, b, r], (weight, bias, rates)), layer) in own {
            dense[w.clone()].copy_from_slice(&weight);
            dense[b.clone()].copy_from_slice(&bias);
            // The weights are the logarithms of the rates.
            dense[r.start] = rates[0] * layer.rate;
            dense[r.start + 1] = rates[1] * layer.bias_rate;
        }
        let [mix, out] = shape.head_ranges();
        dense[mix].copy_from_slice(&self.mix);
        dense[out].copy_from_slice(&self.out);
    }
}
