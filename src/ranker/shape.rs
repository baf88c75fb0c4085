//! The widths and the named weights of a ranker.

use super::inputs::Inputs;
use crate::error::{Result, err};
use crate::kernels::heads::{Heads, Widths};
use crate::kernels::inner::Layer;
use crate::kernels::math::Real;
use crate::model::layout::{Layout, Start};
use crate::options::RankerOptions;
use std::ops::Range;

/// The widths of a ranker and the layout of its dense weights, seen from one of its meta blocks.
///
/// Weights: `meta.<l>` `[out, in]`, `meta.<l>.bias`, `meta.<l>.rates` (logarithms of the inner rates of matrix and bias);
/// `trunk.in`, `trunk.in.bias`, `trunk.out`, `trunk.wide`, `trunk.bias`; `heads.mix` `[2 gate, embedding]`, `heads.out`
/// `[heads, gate]`; then the blocks of other kinds of entity, `items.<l>` and `surface.<l>` and so on, as `meta.<l>`.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerShape {
    /// The options it comes from.
    pub options: RankerOptions,
    /// Width of the meta block's input.
    pub inputs: usize,
    /// Width d of the foundation model's vectors.
    pub state: usize,
    /// How many numbers stand beside a candidate: its popularity and the impression features.
    pub numbers: usize,
    /// Task heads.
    pub heads: usize,
    /// The dense weights.
    pub layout: Layout,
    /// Of the meta block: matrix, bias and rates of each layer.
    layers: Vec<[Range<usize>; 3]>,
    pub(super) trunk: [Range<usize>; 5],
    mix: Range<usize>,
    out: Range<usize>,
}

impl RankerShape {
    /// The shape for inputs `inputs` wide, vectors `state` wide, `numbers` numbers with each candidate and `heads` heads;
    /// inner rates start at `rate`.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range; `InvalidArgument` without inputs, state or heads.
    pub fn new(
        options: &RankerOptions,
        inputs: usize,
        state: usize,
        numbers: usize,
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
        // What the trunk reads.
        let candidate = options.item_width as usize + 3 * state + numbers;
        let mut layout = Layout::empty();
        let outs: Vec<usize> = options.hidden.iter().map(|h| *h as usize).chain([embedding]).collect();
        let block = |layout: &mut Layout, name: &str, inputs: usize| {
            let mut from = inputs;
            for (l, to) in outs.iter().enumerate() {
                match name != "meta" && l + 1 == outs.len() {
                    // The sum starts as the person's part alone.
                    true => layout.push(&format!("{name}.{l}"), &[*to, from], Start::Zeros, true),
                    false => layout.matrix(&format!("{name}.{l}"), *to, from, 1.0),
                }
                layout.push(&format!("{name}.{l}.bias"), &[*to], Start::Zeros, false);
                layout.push(&format!("{name}.{l}.rates"), &[2], Start::Constant(rate.ln()), false);
                from = *to;
            }
        };
        block(&mut layout, "meta", inputs);
        let hidden = options.trunk as usize;
        layout.matrix("trunk.in", hidden, candidate, 1.0);
        layout.push("trunk.in.bias", &[hidden], Start::Zeros, false);
        layout.matrix("trunk.out", widths.row(), hidden, 1.0);
        layout.matrix("trunk.wide", widths.row(), candidate, 0.5);
        layout.push("trunk.bias", &[widths.row()], Start::Zeros, false);
        layout.matrix("heads.mix", 2 * gate, embedding, 1.0);
        layout.matrix("heads.out", heads, gate, 1.0);
        if options.items.is_on() {
            block(&mut layout, "items", Inputs::plain(state, heads));
        }
        if options.has_surface() {
            block(&mut layout, "surface", Inputs::on_surface(heads));
        }
        let at = |name: &str| layout.range(name);
        Ok(Self {
            options: options.clone(),
            inputs,
            state,
            numbers,
            heads,
            layers: layers(&layout, "meta", outs.len())?,
            trunk: [at("trunk.in")?, at("trunk.in.bias")?, at("trunk.out")?, at("trunk.wide")?, at("trunk.bias")?],
            mix: at("heads.mix")?,
            out: at("heads.out")?,
            layout,
        })
    }

    /// Width of a candidate: what the trunk reads, `[q ; v ; h ; h * v ; numbers]`, and, with several kinds of
    /// entities, the embedding that shifts its row.
    pub fn candidate(&self) -> usize {
        self.read() + self.shift()
    }

    /// Width of what the trunk reads.
    pub(crate) fn read(&self) -> usize {
        self.options.item_width as usize + 3 * self.state + self.numbers
    }

    /// Width of the embedding of other kinds that each candidate brings along; 0 where there is the person's alone.
    pub(crate) fn shift(&self) -> usize {
        if self.options.has_several() { self.options.embedding as usize } else { 0 }
    }

    /// The same weights seen from the meta block of items: its layers are adapted, trunk and heads are shared. `None` without one.
    pub fn of_items(&self) -> Option<Self> {
        self.options.items.is_on().then(|| self.of_block("items", Inputs::plain(self.state, self.heads))).flatten()
    }

    /// The same weights seen from the meta block of persons on surfaces, as [`RankerShape::of_items`]. `None` without one.
    pub fn of_surface(&self) -> Option<Self> {
        self.options.has_surface().then(|| self.of_block("surface", Inputs::on_surface(self.heads))).flatten()
    }

    fn of_block(&self, name: &str, inputs: usize) -> Option<Self> {
        let layers = layers(&self.layout, name, self.layers.len()).ok()?;
        // What is adapted is this block; its entities have no vectors of their own.
        let options = RankerOptions { person: true, identity: false, ..self.options.clone() };
        Some(Self { options, inputs, layers, ..self.clone() })
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

/// Where matrix, bias and rates of each layer of a meta block lie.
fn layers(layout: &Layout, block: &str, count: usize) -> Result<Vec<[Range<usize>; 3]>> {
    let at = |l: usize, part: &str| layout.range(&format!("{block}.{l}{part}"));
    (0..count).map(|l| Ok([at(l, "")?, at(l, ".bias")?, at(l, ".rates")?])).collect()
}
