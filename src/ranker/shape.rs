//! The widths and the named weights of a ranker.

use super::inputs::Inputs;
use crate::error::{Result, err};
use crate::kernels::heads::{Heads, Widths};
use crate::kernels::inner::Layer;
use crate::kernels::math::Real;
use crate::model::layout::{Layout, Start};
use crate::options::RankerOptions;
use std::ops::Range;

/// The widths of a ranker and the layout of its dense weights.
///
/// Weights: `meta.<l>` `[out, in]`, `meta.<l>.bias`, `meta.<l>.rates` (logarithms of the inner rates of matrix and bias);
/// `tower.in`, `tower.in.bias`, `tower.out`, `tower.wide`, `tower.bias`; `heads.mix` `[2 gate, embedding]`, `heads.out`
/// `[heads, gate]`; with a second meta block `items.<l>` and so on, as `meta.<l>`, and with surfaces `surface.<l>`.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerShape {
    /// The options it comes from.
    pub options: RankerOptions,
    /// Width of the meta block's input.
    pub inputs: usize,
    /// Width d of the foundation model's vectors.
    pub state: usize,
    /// impression features with each candidate.
    pub impression: usize,
    /// Task heads.
    pub heads: usize,
    /// The dense weights.
    pub layout: Layout,
    layers: Vec<[Range<usize>; 3]>,
    /// Those of the second meta block; none without.
    item_layers: Vec<[Range<usize>; 3]>,
    /// Those of the block of people on surfaces; none without.
    surface_layers: Vec<[Range<usize>; 3]>,
    pub(super) tower: [Range<usize>; 5],
    mix: Range<usize>,
    out: Range<usize>,
}

impl RankerShape {
    /// The shape for inputs `inputs` wide, vectors `state` wide, `impression` numbers with each candidate and `heads` heads;
    /// inner rates start at `rate`.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range; `InvalidArgument` without inputs, state or heads.
    pub fn new(
        options: &RankerOptions,
        inputs: usize,
        state: usize,
        impression: usize,
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
        // What the tower reads.
        let candidate = options.item_width as usize + 3 * state + impression;
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
        layout.matrix("tower.in", hidden, candidate, 1.0);
        layout.push("tower.in.bias", &[hidden], Start::Zeros, false);
        layout.matrix("tower.out", widths.row(), hidden, 1.0);
        layout.matrix("tower.wide", widths.row(), candidate, 0.5);
        layout.push("tower.bias", &[widths.row()], Start::Zeros, false);
        layout.matrix("heads.mix", 2 * gate, embedding, 1.0);
        layout.matrix("heads.out", heads, gate, 1.0);
        if options.items.is_on() {
            block(&mut layout, "items", Inputs::plain(state, heads));
        }
        if options.has_surface() {
            block(&mut layout, "surface", Inputs::on_surface(heads));
        }
        let at = |name: &str| layout.range(name);
        let layer = |name: &str, l: usize| -> Result<_> {
            Ok([at(&format!("{name}.{l}"))?, at(&format!("{name}.{l}.bias"))?, at(&format!("{name}.{l}.rates"))?])
        };
        let second = if options.items.is_on() { outs.len() } else { 0 };
        let third = if options.has_surface() { outs.len() } else { 0 };
        Ok(Self {
            options: options.clone(),
            inputs,
            state,
            impression,
            heads,
            layers: (0..outs.len()).map(|l| layer("meta", l)).collect::<Result<_>>()?,
            item_layers: (0..second).map(|l| layer("items", l)).collect::<Result<_>>()?,
            surface_layers: (0..third).map(|l| layer("surface", l)).collect::<Result<_>>()?,
            tower: [at("tower.in")?, at("tower.in.bias")?, at("tower.out")?, at("tower.wide")?, at("tower.bias")?],
            mix: at("heads.mix")?,
            out: at("heads.out")?,
            layout,
        })
    }

    /// Width of a candidate: what the tower reads, `[q ; v ; h ; h * v ; impression]`, and, with several kinds of
    /// entities, the embedding that shifts its row.
    pub fn candidate(&self) -> usize {
        self.read() + self.shift()
    }

    /// Width of what the tower reads.
    pub(crate) fn read(&self) -> usize {
        self.options.item_width as usize + 3 * self.state + self.impression
    }

    /// Width of the embedding of other kinds that each candidate brings along; 0 where there is the person's alone.
    pub(crate) fn shift(&self) -> usize {
        if self.options.has_several() { self.options.embedding as usize } else { 0 }
    }

    /// The same weights seen from the second meta block: its layers are adapted, tower and heads are shared. `None` without one.
    pub fn of_items(&self) -> Option<Self> {
        let mut options = self.options.clone();
        (options.person, options.identity) = (true, false);
        let inputs = Inputs::plain(self.state, self.heads);
        let layers = self.item_layers.clone();
        self.options.items.is_on().then(|| Self { options, inputs, layers, ..self.clone() })
    }

    /// The same weights seen from the block of people on surfaces, as [`RankerShape::of_items`]. `None` without one.
    pub fn of_surface(&self) -> Option<Self> {
        let mut options = self.options.clone();
        (options.person, options.identity) = (true, false);
        let inputs = Inputs::on_surface(self.heads);
        let layers = self.surface_layers.clone();
        self.options.has_surface().then(|| Self { options, inputs, layers, ..self.clone() })
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
