//! The network's forward pass on plain slices: what serving runs, straight from mapped weights, without allocation
//! after the first call of a [`Scratch`].

use super::features::{Features, History, Request, Tokens};
use super::layout::{Layout, attention_shape};
use crate::error::{Result, err};
use crate::kernels::attention::{Shape, Times, Workspace, attention};
use crate::kernels::gate::{gated_add_plain, swiglu};
use crate::kernels::math::add;
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{layer_norm, scale_rows};
use crate::options::ModelOptions;
use crate::schema::Schema;
use std::ops::Range;

/// The weights of a generation, borrowed from wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Item vectors, `items x width`, row-major.
    pub items: &'a [f32],
    /// Dense weights, flat, in the order of the layout.
    pub dense: &'a [f32],
    /// All feature tables one after another, each `codes x field_width`.
    pub features: &'a [f32],
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    tokens: Tokens,
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    out: Vec<f32>,
    gate: Vec<f32>,
    feed: Vec<f32>,
    hidden: Vec<f32>,
    fields: Vec<f32>,
    attention: Workspace,
}

#[derive(Debug, Clone)]
struct Block {
    norm1: [Range<usize>; 2],
    qkv: Range<usize>,
    qkv_bias: Range<usize>,
    bias: Range<usize>,
    out: Range<usize>,
    gate1: [Range<usize>; 2],
    norm2: [Range<usize>; 2],
    feed_in: Range<usize>,
    feed_out: Range<usize>,
    gate2: [Range<usize>; 2],
}

/// The forward pass of one model shape.
#[derive(Debug, Clone)]
pub struct Inference {
    features: Features,
    /// First row of each feature's table, and the total, in rows.
    tables: Vec<usize>,
    shape: Shape,
    width: usize,
    hidden: usize,
    context: usize,
    field_width: usize,
    dense: usize,
    opening: Range<usize>,
    positions: Option<Range<usize>>,
    project: Option<Range<usize>>,
    blocks: Vec<Block>,
    norm: [Range<usize>; 2],
    normalized: bool,
    temperature: f32,
}

impl Inference {
    /// Prepares the pass for a model shape.
    ///
    /// # Errors
    /// `InvalidConfig` if the options contradict each other.
    pub fn new(schema: &Schema, options: &ModelOptions) -> Result<Self> {
        options.check()?;
        let features = Features::new(schema, options);
        let layout = Layout::new(options, &features);
        let tables = features.first_rows();
        let block = |b: u32| -> Result<Block> {
            let at = |part: &str| layout.range(&format!("block.{b}.{part}"));
            Ok(Block {
                norm1: [at("attention.norm.gain")?, at("attention.norm.bias")?],
                qkv: at("attention.qkv")?,
                qkv_bias: at("attention.qkv.bias")?,
                bias: at("attention.bias")?,
                out: at("attention.out")?,
                gate1: [at("attention.gate")?, at("attention.gate.bias")?],
                norm2: [at("feed.norm.gain")?, at("feed.norm.bias")?],
                feed_in: at("feed.in")?,
                feed_out: at("feed.out")?,
                gate2: [at("feed.gate")?, at("feed.gate.bias")?],
            })
        };
        Ok(Self {
            tables,
            shape: attention_shape(options),
            width: options.width as usize,
            hidden: options.hidden as usize,
            context: options.context as usize,
            field_width: options.field_width as usize,
            dense: layout.size(),
            opening: layout.range("opening")?,
            positions: layout.range("positions").ok(),
            project: layout.range("features").ok(),
            blocks: (0..options.blocks).map(block).collect::<Result<_>>()?,
            norm: [layout.range("norm.gain")?, layout.range("norm.bias")?],
            normalized: options.normalized,
            temperature: options.temperature,
            features,
        })
    }

    /// How many dense weights and feature weights the shape has: the lengths of [`Weights::dense`] and
    /// [`Weights::features`].
    pub fn sizes(&self) -> (usize, usize) {
        (self.dense, self.tables.last().copied().unwrap_or(0) * self.field_width)
    }

    /// Width of item and user vectors.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Most tokens that are read of a history.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The features of a token.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Writes the user vector (`width` numbers) after `history`, asked for under `request`. Longer histories than the
    /// context are read from their newest end. The score (logit) of item `i` is the dot product with row `i` of
    /// [`Weights::items`].
    ///
    /// # Errors
    /// `InvalidArgument` for codes or rows out of range; `Corrupt` where the weights have the wrong length.
    pub fn user_vector(
        &self,
        weights: Weights<'_>,
        history: &History,
        request: &Request,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let d = self.width;
        self.check(weights)?;
        self.features.check(history, weights.items.len() / d)?;
        self.features.check_request(request)?;
        if out.len() != d {
            return Err(err!(InvalidArgument, "the output holds {} numbers, the user vector {d}; pass {d}", out.len()));
        }
        let targets = history.items.len() + 1;
        scratch.tokens.clear();
        let first = targets.saturating_sub(self.context);
        self.features.encode(history, 0, first..targets, request, &mut scratch.tokens);
        let n = targets - first;
        self.forward(weights, n - 1, scratch);
        out.copy_from_slice(&scratch.normed[..d]);
        Ok(())
    }

    fn check(&self, weights: Weights<'_>) -> Result<()> {
        let (dense, features) = self.sizes();
        if weights.dense.len() != dense
            || weights.features.len() != features
            || !weights.items.len().is_multiple_of(self.width)
        {
            return Err(err!(
                Corrupt,
                "the model shape needs {dense} dense and {features} feature weights and item rows of {}, the snapshot \
                 holds {}, {} and {} numbers in all; restore the snapshot or roll back",
                self.width,
                weights.dense.len(),
                weights.features.len(),
                weights.items.len()
            ));
        }
        Ok(())
    }

    /// Runs the network over `scratch.tokens`, one sequence; leaves the final vectors of tokens `from..` in
    /// `scratch.normed`.
    fn forward(&self, weights: Weights<'_>, from: usize, s: &mut Scratch) {
        let d = self.width;
        let n = s.tokens.items.len();
        self.embed(weights, s);
        let w = |r: &Range<usize>| &weights.dense[r.clone()];
        let times = match self.shape.time {
            true => Times { query: &s.tokens.query, key: &s.tokens.key },
            false => Times::default(),
        };
        grow(&mut s.normed, n * d);
        grow(&mut s.qkv, n * 3 * d);
        grow(&mut s.mixed, n * d);
        grow(&mut s.out, n * d);
        grow(&mut s.gate, n * d);
        grow(&mut s.feed, n * 2 * self.hidden);
        grow(&mut s.hidden, n * self.hidden);
        let last = self.blocks.len() - 1;
        for (b, block) in self.blocks.iter().enumerate() {
            // Later blocks read every token's keys and values; of the last block only the tokens asked for are wanted.
            let first = if b == last { from } else { 0 };
            let m = n - first;
            layer_norm(&s.x[..n * d], w(&block.norm1[0]), w(&block.norm1[1]), &mut s.normed[..n * d]);
            linear(&s.normed[..n * d], w(&block.qkv), Some(w(&block.qkv_bias)), d, 3 * d, &mut s.qkv[..n * 3 * d]);
            attention(
                &self.shape,
                &s.qkv[..n * 3 * d],
                w(&block.bias),
                times,
                first,
                &mut s.mixed[..n * d],
                &mut s.attention,
            );
            linear(&s.mixed[first * d..n * d], w(&block.out), None, d, d, &mut s.out[..m * d]);
            let x = &mut s.x[first * d..n * d];
            linear(x, w(&block.gate1[0]), Some(w(&block.gate1[1])), d, d, &mut s.gate[..m * d]);
            gated_add_plain(x, &s.gate[..m * d], &s.out[..m * d]);
            layer_norm(x, w(&block.norm2[0]), w(&block.norm2[1]), &mut s.normed[..m * d]);
            let (feed, hidden) = (&mut s.feed[..m * 2 * self.hidden], &mut s.hidden[..m * self.hidden]);
            linear(&s.normed[..m * d], w(&block.feed_in), None, d, 2 * self.hidden, feed);
            swiglu(feed, self.hidden, hidden);
            linear(hidden, w(&block.feed_out), None, self.hidden, d, &mut s.out[..m * d]);
            linear(x, w(&block.gate2[0]), Some(w(&block.gate2[1])), d, d, &mut s.gate[..m * d]);
            gated_add_plain(x, &s.gate[..m * d], &s.out[..m * d]);
        }
        layer_norm(&s.x[from * d..n * d], w(&self.norm[0]), w(&self.norm[1]), &mut s.normed[..(n - from) * d]);
        if self.normalized || self.temperature != 1.0 {
            scale_rows(&mut s.normed[..(n - from) * d], d, self.normalized, 1.0 / self.temperature);
        }
    }

    /// Writes the first layer's input for `scratch.tokens` into `scratch.x`.
    fn embed(&self, weights: Weights<'_>, s: &mut Scratch) {
        let (d, width) = (self.width, self.field_width);
        let n = s.tokens.items.len();
        grow(&mut s.x, n * d);
        for (i, (&item, x)) in s.tokens.items.iter().zip(s.x.chunks_exact_mut(d)).enumerate() {
            let row = match item {
                Tokens::OPENING => &weights.dense[self.opening.clone()],
                row => &weights.items[row as usize * d..(row as usize + 1) * d],
            };
            x.copy_from_slice(row);
            if let Some(positions) = &self.positions {
                let at = positions.start + i * d;
                add(x, &weights.dense[at..at + d]);
            }
        }
        if let Some(project) = &self.project {
            let count = self.features.list.len();
            grow(&mut s.fields, n * count * width);
            let codes = s.tokens.codes.iter().zip(self.tables.iter().take(count).cycle());
            for ((&code, table), to) in codes.zip(s.fields.chunks_exact_mut(width)) {
                let at = (table + code as usize) * width;
                to.copy_from_slice(&weights.features[at..at + width]);
            }
            let fields = View::dense(&s.fields, n, count * width);
            let project = View::dense(&weights.dense[project.clone()], d, count * width);
            matmul(fields, project.t(), &mut s.x, d, true);
        }
    }
}

fn grow(v: &mut Vec<f32>, n: usize) {
    if v.len() < n {
        v.resize(n, 0.0);
    }
}
