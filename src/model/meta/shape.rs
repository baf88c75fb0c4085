//! The widths and the named weights of a ranker.

use crate::error::{Result, err};
use crate::kernels::heads::{Heads, Widths};
use crate::kernels::inner::Layer;
use crate::kernels::math::Real;
use crate::model::layout::{Layout, Start};
use crate::options::MetaOptions;
use std::ops::Range;

/// The widths of a ranker and the layout of its dense weights.
///
/// Weights: `meta.<l>` `[out, in]`, `meta.<l>.bias`, `meta.<l>.rates` (logarithms of the inner rates of matrix and bias);
/// `tower.in`, `tower.in.bias`, `tower.out`, `tower.wide`, `tower.bias`; `heads.mix` `[2 gate, embedding]`, `heads.out`
/// `[heads, gate]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The options it comes from.
    pub options: MetaOptions,
    /// Width of the meta block's input.
    pub inputs: usize,
    /// Width d of the foundation model's vectors.
    pub state: usize,
    /// Numbers of context with each candidate.
    pub context: usize,
    /// Task heads.
    pub heads: usize,
    /// The dense weights.
    pub layout: Layout,
    layers: Vec<[Range<usize>; 3]>,
    pub(super) tower: [Range<usize>; 5],
    mix: Range<usize>,
    out: Range<usize>,
}

impl Shape {
    /// The shape for inputs `inputs` wide, vectors `state` wide, `context` numbers with each candidate and `heads` heads;
    /// inner rates start at `rate`.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range; `InvalidArgument` without inputs, state or heads.
    pub fn new(
        options: &MetaOptions,
        inputs: usize,
        state: usize,
        context: usize,
        heads: usize,
        rate: f32,
    ) -> Result<Self> {
        options.check()?;
        if inputs == 0 || state == 0 || heads == 0 {
            return Err(err!(
                InvalidArgument,
                "a ranker needs inputs, user vectors and heads, got {inputs}, {state} and {heads}; check the dataset"
            ));
        }
        let (embedding, gate) = (options.embedding as usize, options.gate as usize);
        let widths = Widths { embedding, gate, heads };
        let candidate = options.item_width as usize + 3 * state + context;
        let mut layout = Layout::empty();
        let mut from = inputs;
        let outs: Vec<usize> = options.hidden.iter().map(|h| *h as usize).chain([embedding]).collect();
        for (l, to) in outs.iter().enumerate() {
            layout.matrix(&format!("meta.{l}"), *to, from, 1.0);
            layout.push(&format!("meta.{l}.bias"), &[*to], Start::Zeros, false);
            layout.push(&format!("meta.{l}.rates"), &[2], Start::Constant(rate.ln()), false);
            from = *to;
        }
        let hidden = options.tower as usize;
        layout.matrix("tower.in", hidden, candidate, 1.0);
        layout.push("tower.in.bias", &[hidden], Start::Zeros, false);
        layout.matrix("tower.out", widths.row(), hidden, 1.0);
        layout.matrix("tower.wide", widths.row(), candidate, 0.5);
        layout.push("tower.bias", &[widths.row()], Start::Zeros, false);
        layout.matrix("heads.mix", 2 * gate, embedding, 1.0);
        layout.matrix("heads.out", heads, gate, 1.0);
        let at = |name: &str| layout.range(name);
        let layer = |l: usize| -> Result<_> {
            Ok([at(&format!("meta.{l}"))?, at(&format!("meta.{l}.bias"))?, at(&format!("meta.{l}.rates"))?])
        };
        Ok(Self {
            options: options.clone(),
            inputs,
            state,
            context,
            heads,
            layers: (0..outs.len()).map(layer).collect::<Result<_>>()?,
            tower: [at("tower.in")?, at("tower.in.bias")?, at("tower.out")?, at("tower.wide")?, at("tower.bias")?],
            mix: at("heads.mix")?,
            out: at("heads.out")?,
            layout,
        })
    }

    /// Width of what the tower reads: `[q ; v ; h ; h * v ; context]`.
    pub fn candidate(&self) -> usize {
        self.options.item_width as usize + 3 * self.state + self.context
    }

    /// Weights of the meta block alone, which an adaptation moves.
    pub fn meta_weights(&self) -> usize {
        self.layers.iter().map(|[w, b, _]| w.len() + b.len()).sum()
    }

    pub(crate) fn widths(&self) -> Widths {
        let (embedding, gate) = (self.options.embedding as usize, self.options.gate as usize);
        Widths { embedding, gate, heads: self.heads }
    }

    /// The layers of the meta block. A matrix moves by its rate over the width of its input, so that rates of layers of
    /// different widths compare.
    pub(crate) fn layers<'a, T: Real>(&self, dense: &'a [T]) -> Vec<Layer<'a, T>> {
        let layer = |[w, b, r]: &[Range<usize>; 3]| {
            let inputs = T::of((w.len() / b.len()) as f64);
            Layer {
                weight: &dense[w.clone()],
                bias: &dense[b.clone()],
                rate: dense[r.start].exp() / inputs,
                bias_rate: dense[r.start + 1].exp(),
            }
        };
        self.layers.iter().map(layer).collect()
    }

    /// Where the weights, the bias and the rates of each layer lie.
    pub(crate) fn layer_ranges(&self) -> &[[Range<usize>; 3]] {
        &self.layers
    }

    /// Where `heads.mix` and `heads.out` lie.
    pub(crate) fn head_ranges(&self) -> [Range<usize>; 2] {
        [self.mix.clone(), self.out.clone()]
    }

    pub(crate) fn heads_of<'a, T: Real>(&self, dense: &'a [T], weight: &'a [T]) -> Heads<'a, T> {
        Heads { widths: self.widths(), mix: &dense[self.mix.clone()], out: &dense[self.out.clone()], weight }
    }
}
