//! The network's forward pass on plain slices: what serving runs, straight from mapped weights. A warm [`Scratch`]
//! allocates only what matrix products pack.

use super::features::{Features, History, Request, Tokens};
use super::feedback::Feedback;
use super::layout::{Layout, attention_shape};
use super::tower::Tower;
use super::weights::Weights;
use crate::error::{Result, err};
use crate::kernels::attention::{AttentionShape, Times, Workspace, attention};
use crate::kernels::gate::{gated_add_plain, silu, silu_gate, swiglu};
use crate::kernels::math::{add, sigmoid};
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{layer_norm, scale_rows};
use crate::kernels::softmax::softmax_rows;
use crate::options::{self, ModelOptions};
use crate::schema::Schema;
use std::ops::Range;

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
    state: Vec<f32>,
    attention: Workspace,
    classes: Vec<f32>,
}

/// Where the weights of a block lie.
#[derive(Debug, Clone)]
struct Block {
    norm: [Range<usize>; 2],
    qkv: [Range<usize>; 2],
    bias: Range<usize>,
    out: Range<usize>,
    gate: [Range<usize>; 2],
    rest: Rest,
}

/// What only blocks of one form have.
#[derive(Debug, Clone)]
enum Rest {
    Gated { norm: [Range<usize>; 2], feed_in: Range<usize>, feed_out: Range<usize>, gate: [Range<usize>; 2] },
    Hstu { norm: [Range<usize>; 2], out_bias: Range<usize> },
}

impl Block {
    fn new(layout: &Layout, form: options::Block, b: u32) -> Result<Self> {
        let at = |part: &str| layout.range(&format!("block.{b}.{part}"));
        let two = |a: &str, b: &str| -> Result<_> { Ok([at(a)?, at(b)?]) };
        let rest = match form {
            options::Block::Gated => Rest::Gated {
                norm: two("feed.norm.gain", "feed.norm.bias")?,
                feed_in: at("feed.in")?,
                feed_out: at("feed.out")?,
                gate: two("feed.gate", "feed.gate.bias")?,
            },
            options::Block::Hstu => Rest::Hstu {
                norm: two("attention.mixed.norm.gain", "attention.mixed.norm.bias")?,
                out_bias: at("attention.out.bias")?,
            },
        };
        Ok(Self {
            norm: two("attention.norm.gain", "attention.norm.bias")?,
            qkv: two("attention.qkv", "attention.qkv.bias")?,
            bias: at("attention.bias")?,
            out: at("attention.out")?,
            gate: two("attention.gate", "attention.gate.bias")?,
            rest,
        })
    }
}

/// The forward pass of one model shape.
#[derive(Debug, Clone)]
pub struct Inference {
    features: Features,
    /// First row of each feature's table, and the total, in rows.
    tables: Vec<usize>,
    shape: AttentionShape,
    width: usize,
    hidden: usize,
    max_length: usize,
    field_width: usize,
    dense: usize,
    opening: Range<usize>,
    positions: Option<Range<usize>>,
    project: Option<Range<usize>>,
    blocks: Vec<Block>,
    norm: [Range<usize>; 2],
    heads: Vec<HeadWeights>,
    feedback: Option<[Range<usize>; 4]>,
    tower: Option<Tower>,
    normalized: bool,
    temperature: f32,
}

/// Where the weights of an auxiliary head lie.
#[derive(Debug, Clone)]
struct HeadWeights {
    out: [Range<usize>; 2],
    /// Of a hierarchical head.
    pool: Option<Range<usize>>,
}

/// What the model expects of the next event besides its item.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Expectations {
    /// The probabilities of each auxiliary head's classes, in the order of [`Features::heads`].
    pub heads: Vec<Vec<f32>>,
    /// What the feedback head makes of an item: see [`Inference::feedback`]. Empty where there is no such head.
    state: Vec<f32>,
}

impl Inference {
    /// Prepares the pass for a model shape.
    ///
    /// # Errors
    /// `InvalidConfig` if the options contradict each other.
    pub fn new(schema: &Schema, options: &ModelOptions) -> Result<Self> {
        options.check()?;
        let features = Features::new(schema, options)?;
        let layout = Layout::new(options, &features);
        let tables = features.first_rows();
        Ok(Self {
            tables,
            shape: attention_shape(options),
            width: options.width as usize,
            hidden: options.hidden as usize,
            max_length: options.max_length as usize,
            field_width: options.field_width as usize,
            dense: layout.size(),
            opening: layout.range("opening")?,
            positions: layout.range("positions").ok(),
            project: layout.range("features").ok(),
            blocks: (0..options.blocks).map(|b| Block::new(&layout, options.block, b)).collect::<Result<_>>()?,
            norm: [layout.range("norm.gain")?, layout.range("norm.bias")?],
            heads: (0..features.heads.len())
                .map(|i| {
                    let out = [layout.range(&format!("head.{i}"))?, layout.range(&format!("head.{i}.bias"))?];
                    Ok(HeadWeights { out, pool: layout.range(&format!("head.{i}.pool")).ok() })
                })
                .collect::<Result<_>>()?,
            feedback: match options.feedback > 0.0 {
                true => Some([
                    layout.range("feedback.cross")?,
                    layout.range("feedback.user")?,
                    layout.range("feedback.item")?,
                    layout.range("feedback.bias")?,
                ]),
                false => None,
            },
            tower: Tower::new(schema, options, &features, &layout)?,
            normalized: options.normalized,
            temperature: options.temperature,
            features,
        })
    }

    /// How many dense weights and feature weights the shape has: the lengths of [`Weights::dense`] and
    /// [`Weights::features`].
    pub fn sizes(&self) -> (usize, usize) {
        (self.dense, self.features.rows() * self.field_width)
    }

    /// The item tower; `None` where items are known by their ID alone.
    pub fn tower(&self) -> Option<&Tower> {
        self.tower.as_ref()
    }

    /// Whether there is a feedback head.
    pub(crate) fn has_feedback(&self) -> bool {
        self.feedback.is_some()
    }

    /// Width of item and user vectors.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Most tokens that are read of a history.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Whether [`Inference::user_vectors`] reads the prefixes that the model reads whole in one pass: what a token reads does not
    /// depend on whether it is the last.
    pub(crate) fn reads_together(&self) -> bool {
        !self.shape.time && !self.features.reads_request()
    }

    /// The features of a token.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Writes the user vector (`width` numbers) after `history`, asked for under `request`. Histories longer than
    /// [`Inference::max_length`] are read from their newest end. The score (logit) of item `i` is the dot product with row `i` of
    /// [`Weights::items`] and, behind them, of [`Weights::more`].
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
        if out.len() != d {
            return Err(err!(InvalidArgument, "the output holds {} numbers, the user vector {d}; pass {d}", out.len()));
        }
        self.last_state(weights, history, request, scratch)?;
        self.answer(weights, scratch, out);
        Ok(())
    }

    /// Writes the user vector of the state in `scratch.state`: with what hierarchical heads expect, and scaled as scores are.
    fn answer(&self, weights: Weights<'_>, scratch: &mut Scratch, user: &mut [f32]) {
        let d = self.width;
        user.copy_from_slice(&scratch.state);
        for head in &self.heads {
            if let Some(pool) = &head.pool {
                predict(head, weights.dense, &scratch.state, &mut scratch.classes);
                let classes = scratch.classes.len();
                let pool = View::dense(&weights.dense[pool.clone()], d, classes);
                matmul(View::dense(&scratch.classes, 1, classes), pool.t(), user, d, true);
            }
        }
        if self.normalized || self.temperature != 1.0 {
            scale_rows(user, d, self.normalized, 1.0 / self.temperature);
        }
    }

    /// What the auxiliary and feedback heads expect after `history`.
    ///
    /// # Errors
    /// As [`Inference::user_vector`].
    pub(crate) fn expect(
        &self,
        weights: Weights<'_>,
        history: &History,
        request: &Request,
        scratch: &mut Scratch,
    ) -> Result<Expectations> {
        self.last_state(weights, history, request, scratch)?;
        let mut heads = Vec::with_capacity(self.heads.len());
        for head in &self.heads {
            let mut classes = Vec::new();
            predict(head, weights.dense, &scratch.state, &mut classes);
            heads.push(classes);
        }
        let state = if self.feedback.is_some() { scratch.state.clone() } else { Vec::new() };
        Ok(Expectations { heads, state })
    }

    /// The probability that the outcome of an item with vector `item` is positive; `None` where there is no feedback head.
    pub(crate) fn feedback(&self, weights: Weights<'_>, expected: &Expectations, item: &[f32]) -> Option<f32> {
        let head = Feedback { weights: self.feedback.clone()?.map(|r| weights.dense.get(r).unwrap_or(&[])) };
        Some(sigmoid(head.logit(&expected.state, item)))
    }

    /// Runs the network; leaves the state of the last token in `scratch.state` and in `scratch.normed`.
    fn last_state(
        &self,
        weights: Weights<'_>,
        history: &History,
        request: &Request,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.check(weights)?;
        self.features.check(history, weights.rows(self.width))?;
        self.features.check_request(request)?;
        let targets = history.items.len() + 1;
        scratch.tokens.clear();
        let first = targets.saturating_sub(self.max_length);
        self.features.encode(history, 0, first..targets, request, &mut scratch.tokens);
        let n = targets - first;
        self.forward(weights, n - 1, scratch);
        let Scratch { state, normed, .. } = scratch;
        state.clear();
        state.extend_from_slice(&normed[..self.width]);
        Ok(())
    }

    /// Writes the user vectors after the first `prefixes[i]` events of `history` (ascending), asked for under no request, one
    /// after another: what [`Inference::user_vector`] gives for each, but all prefixes that are read whole are read
    /// in one pass.
    ///
    /// # Errors
    /// As [`Inference::user_vector`]; `InvalidArgument` for prefixes out of order or longer than the history.
    pub fn user_vectors(
        &self,
        weights: Weights<'_>,
        history: &History,
        prefixes: &[usize],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let d = self.width;
        self.check(weights)?;
        self.features.check(history, weights.rows(d))?;
        let longest = prefixes.last().copied().unwrap_or(0);
        if out.len() != prefixes.len() * d || !prefixes.is_sorted() || longest > history.items.len() {
            return Err(err!(
                InvalidArgument,
                "{} prefixes of a history of {} events need ascending lengths and {} numbers of output; pass those",
                prefixes.len(),
                history.items.len(),
                prefixes.len() * d
            ));
        }
        let request = Request::default();
        let short = if self.reads_together() { prefixes.partition_point(|p| *p < self.max_length) } else { 0 };
        let (early, late) = out.split_at_mut(short * d);
        if let Some(last) = prefixes[..short].last() {
            scratch.tokens.clear();
            self.features.encode(history, 0, 0..last + 1, &request, &mut scratch.tokens);
            self.forward(weights, 0, scratch);
            for (p, to) in prefixes.iter().zip(early.chunks_exact_mut(d)) {
                let Scratch { state, normed, .. } = &mut *scratch;
                state.clear();
                state.extend_from_slice(&normed[p * d..(p + 1) * d]);
                self.answer(weights, scratch, to);
            }
        }
        for (p, to) in prefixes[short..].iter().zip(late.chunks_exact_mut(d)) {
            let first = (p + 1).saturating_sub(self.max_length);
            scratch.tokens.clear();
            self.features.encode(&up_to(history, *p), 0, first..p + 1, &request, &mut scratch.tokens);
            self.forward(weights, p - first, scratch);
            let Scratch { state, normed, .. } = &mut *scratch;
            state.clear();
            state.extend_from_slice(&normed[..d]);
            self.answer(weights, scratch, to);
        }
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

    /// Runs the network over `scratch.tokens`, one sequence; leaves the states of tokens `from..` in `scratch.normed`.
    fn forward(&self, weights: Weights<'_>, from: usize, s: &mut Scratch) {
        let d = self.width;
        let n = s.tokens.items.len();
        self.embed(weights, s);
        grow(&mut s.normed, n * d);
        grow(&mut s.qkv, n * 3 * d);
        grow(&mut s.mixed, n * d);
        grow(&mut s.out, n * d);
        grow(&mut s.gate, n * d);
        let last = self.blocks.len() - 1;
        for (b, block) in self.blocks.iter().enumerate() {
            // Later blocks read every token's keys and values; of the last block only the tokens asked for are wanted.
            self.block(block, weights.dense, if b == last { from } else { 0 }, n, s);
        }
        let [gain, bias] = self.norm.clone().map(|r| &weights.dense[r]);
        let user = &mut s.normed[..(n - from) * d];
        layer_norm(&s.x[from * d..n * d], gain, bias, user);
    }

    /// Adds to tokens `first..n` of `s.x` what one block gives; it reads all of them.
    fn block(&self, block: &Block, dense: &[f32], first: usize, n: usize, s: &mut Scratch) {
        let (d, h, m) = (self.width, self.hidden, n - first);
        let w = |r: &Range<usize>| &dense[r.clone()];
        let Scratch { normed, qkv, mixed, out, gate, .. } = s;
        let (normed, qkv, mixed) = (&mut normed[..n * d], &mut qkv[..n * 3 * d], &mut mixed[..n * d]);
        let (out, gate) = (&mut out[..m * d], &mut gate[..m * d]);
        layer_norm(&s.x[..n * d], w(&block.norm[0]), w(&block.norm[1]), normed);
        linear(normed, w(&block.qkv[0]), Some(w(&block.qkv[1])), d, 3 * d, qkv);
        if matches!(block.rest, Rest::Hstu { .. }) {
            silu(qkv);
        }
        let times = match self.shape.time {
            true => Times { query: &s.tokens.query, key: &s.tokens.key },
            false => Times::default(),
        };
        attention(&self.shape, qkv, w(&block.bias), times, first, mixed, &mut s.attention);
        let (x, mixed) = (&mut s.x[first * d..n * d], &mixed[first * d..]);
        match &block.rest {
            Rest::Gated { norm, feed_in, feed_out, gate: gate2 } => {
                linear(mixed, w(&block.out), None, d, d, out);
                linear(x, w(&block.gate[0]), Some(w(&block.gate[1])), d, d, gate);
                gated_add_plain(x, gate, out);
                let normed = &mut normed[..m * d];
                layer_norm(x, w(&norm[0]), w(&norm[1]), normed);
                grow(&mut s.feed, m * 2 * h);
                grow(&mut s.hidden, m * h);
                let (feed, hidden) = (&mut s.feed[..m * 2 * h], &mut s.hidden[..m * h]);
                linear(normed, w(feed_in), None, d, 2 * h, feed);
                swiglu(feed, h, hidden);
                linear(hidden, w(feed_out), None, h, d, out);
                linear(x, w(&gate2[0]), Some(w(&gate2[1])), d, d, gate);
                gated_add_plain(x, gate, out);
            }
            Rest::Hstu { norm, out_bias } => {
                linear(&normed[first * d..], w(&block.gate[0]), Some(w(&block.gate[1])), d, d, gate);
                let mixed_normed = &mut normed[first * d..];
                layer_norm(mixed, w(&norm[0]), w(&norm[1]), mixed_normed);
                silu_gate(gate, mixed_normed);
                linear(mixed_normed, w(&block.out), Some(w(out_bias)), d, d, out);
                add(x, out);
            }
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
                // Rows were checked against their number.
                row => weights.item(row, d).unwrap_or(&weights.dense[self.opening.clone()]),
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

/// Writes the probabilities of a head's classes.
fn predict(head: &HeadWeights, dense: &[f32], state: &[f32], classes: &mut Vec<f32>) {
    let [out, bias] = &head.out;
    classes.clear();
    classes.resize(bias.len(), 0.0);
    linear(state, &dense[out.clone()], Some(&dense[bias.clone()]), state.len(), bias.len(), classes);
    let n = classes.len();
    softmax_rows(classes, n);
}

/// The first `events` events of a history.
fn up_to(history: &History, events: usize) -> History {
    fn first<T: Clone>(column: &[T], events: usize) -> Vec<T> {
        column.get(..events).unwrap_or(column).to_vec()
    }
    History {
        items: first(&history.items, events),
        time: first(&history.time, events),
        action: first(&history.action, events),
        value: first(&history.value, events),
        first: first(&history.first, events),
        fields: history.fields.iter().map(|column| first(column, events)).collect(),
    }
}

fn grow(v: &mut Vec<f32>, n: usize) {
    if v.len() < n {
        v.resize(n, 0.0);
    }
}
