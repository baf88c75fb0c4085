//! The names, shapes and places of the dense weights in their one flat array.
//!
//! Training, checkpoints, snapshots and serving share this array: a weight is found by its name here and nowhere else.

use super::features::Features;
use super::tower::{GATE_HIDDEN, GATE_INPUTS};
use crate::error::{Result, err};
use crate::kernels::attention::{Activation, AttentionShape};
use crate::options::{Block, ModelOptions, Positions};
use crate::random::Rng;
use std::collections::HashMap;
use std::ops::Range;

/// How a weight starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with this standard deviation.
    Normal(f32),
    /// All this value.
    Constant(f32),
}

/// One named weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Its name, such as `block.0.attention.qkv`.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// How it starts.
    pub start: Start,
    /// Whether weight decay applies: to matrices only.
    pub decay: bool,
    /// Where it lies in the flat array.
    pub range: Range<usize>,
}

/// All dense weights of a model shape, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// In the order of the flat array.
    pub weights: Vec<Weight>,
    by_name: HashMap<String, usize>,
    size: usize,
}

impl Layout {
    /// A layout without weights, to be filled by [`Layout::push`] and [`Layout::matrix`].
    pub(crate) fn empty() -> Self {
        Self { weights: Vec::new(), by_name: HashMap::new(), size: 0 }
    }

    /// The layout of a model shape.
    pub(crate) fn new(options: &ModelOptions, features: &Features) -> Self {
        let mut layout = Self::empty();
        let d = options.width as usize;
        layout.push("opening", &[d], Start::Normal(0.02), false);
        if options.positions == Positions::Learned {
            layout.push("positions", &[options.max_length as usize, d], Start::Normal(0.02), false);
        }
        if !features.list.is_empty() {
            layout.matrix("features", d, features.list.len() * options.field_width as usize, 1.0);
        }
        for b in 0..options.blocks {
            layout.block(&format!("block.{b}"), options);
        }
        layout.norm("norm", d);
        for (i, head) in features.heads.iter().enumerate() {
            layout.matrix(&format!("head.{i}"), head.classes, d, 1.0);
            layout.push(&format!("head.{i}.bias"), &[head.classes], Start::Zeros, false);
            if head.hierarchical {
                layout.push(&format!("head.{i}.pool"), &[d, head.classes], Start::Zeros, true);
            }
        }
        if options.feedback > 0.0 {
            // p(label = 1 | h, v) = sigmoid(sum_c cross_c h_c v_c + user . h + item . v + bias).
            layout.push("feedback.cross", &[d], Start::Normal(0.02), false);
            layout.push("feedback.user", &[d], Start::Zeros, false);
            layout.push("feedback.item", &[d], Start::Zeros, false);
            layout.push("feedback.bias", &[1], Start::Zeros, false);
        }
        if let Some(tower) = features.tower {
            layout.matrix("tower.project", d, tower.inputs, 1.0);
            layout.push("tower.unknown", &[d], Start::Normal(0.02), false);
            layout.matrix("tower.gate.in", GATE_HIDDEN, GATE_INPUTS, 1.0);
            layout.push("tower.gate.in.bias", &[GATE_HIDDEN], Start::Zeros, false);
            layout.push("tower.gate.out", &[2, GATE_HIDDEN], Start::Zeros, true);
            layout.push("tower.gate.out.bias", &[2], Start::Zeros, false);
        }
        layout
    }

    fn block(&mut self, block: &str, options: &ModelOptions) {
        let (d, hidden) = (options.width as usize, options.hidden as usize);
        let shape = attention_shape(options);
        let name = |part: &str| format!("{block}.{part}");
        // What a block adds to the residual stream starts smaller in deeper networks: a gated block adds twice, others once.
        let additions = match options.block {
            Block::Gated => 2 * options.blocks,
            Block::Hstu => options.blocks,
        };
        let depth = 1.0 / (additions as f32).sqrt();
        self.norm(&name("attention.norm"), d);
        self.matrix(&name("attention.qkv"), 3 * d, d, 1.0);
        self.push(&name("attention.qkv.bias"), &[3 * d], Start::Zeros, false);
        self.push(&name("attention.bias"), &[shape.heads, shape.biases()], Start::Zeros, false);
        self.matrix(&name("attention.out"), d, d, depth);
        self.matrix(&name("attention.gate"), d, d, 1.0);
        self.push(&name("attention.gate.bias"), &[d], Start::Zeros, false);
        match options.block {
            Block::Gated => {
                self.norm(&name("feed.norm"), d);
                self.matrix(&name("feed.in"), 2 * hidden, d, 1.0);
                self.matrix(&name("feed.out"), d, hidden, depth);
                self.matrix(&name("feed.gate"), d, d, 1.0);
                self.push(&name("feed.gate.bias"), &[d], Start::Zeros, false);
            }
            Block::Hstu => {
                self.push(&name("attention.out.bias"), &[d], Start::Zeros, false);
                self.norm(&name("attention.mixed.norm"), d);
            }
        }
    }

    /// Adds a weight at the end.
    pub(crate) fn push(&mut self, name: &str, shape: &[usize], start: Start, decay: bool) {
        let size: usize = shape.iter().product();
        self.by_name.insert(name.to_owned(), self.weights.len());
        let range = self.size..self.size + size;
        self.weights.push(Weight { name: name.to_owned(), shape: shape.to_vec(), start, decay, range });
        self.size += size;
    }

    /// Adds a matrix `[outputs, inputs]` at the end, normal with variance `factor^2 * 2 / (outputs + inputs)` (Glorot).
    pub(crate) fn matrix(&mut self, name: &str, outputs: usize, inputs: usize, factor: f32) {
        let deviation = factor * (2.0 / (outputs + inputs) as f32).sqrt();
        self.push(name, &[outputs, inputs], Start::Normal(deviation), true);
    }

    fn norm(&mut self, name: &str, d: usize) {
        self.push(&format!("{name}.gain"), &[d], Start::Ones, false);
        self.push(&format!("{name}.bias"), &[d], Start::Zeros, false);
    }

    /// Numbers in the flat array.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The place of a weight in [`Layout::weights`].
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Where a weight lies.
    ///
    /// # Errors
    /// `NotFound` if this shape has no such weight.
    pub fn range(&self, name: &str) -> Result<Range<usize>> {
        match self.index(name).and_then(|i| self.weights.get(i)) {
            Some(w) => Ok(w.range.clone()),
            None => Err(err!(NotFound, "weight {name} is not part of this model shape; check the model options")),
        }
    }

    /// The flat array at the start of training, drawn from `rng`.
    pub fn start(&self, rng: &mut Rng) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.size);
        for w in &self.weights {
            let n = w.range.len();
            match w.start {
                Start::Zeros => values.extend(std::iter::repeat_n(0.0, n)),
                Start::Ones => values.extend(std::iter::repeat_n(1.0, n)),
                Start::Constant(c) => values.extend(std::iter::repeat_n(c, n)),
                Start::Normal(s) => values.extend((0..n).map(|_| (rng.normal() as f32) * s)),
            }
        }
        values
    }
}

/// The attention shape that the options describe.
pub(crate) fn attention_shape(options: &ModelOptions) -> AttentionShape {
    AttentionShape {
        heads: options.heads as usize,
        head: (options.width / options.heads.max(1)) as usize,
        activation: match options.block {
            Block::Gated => Activation::Softmax,
            Block::Hstu => Activation::Silu,
        },
        rotary: options.positions == Positions::Rotary,
        distance: options.distance_bias,
        time: options.time_bias,
    }
}
