//! One training step: a batch of windows cut into chunks of like size, gradients summed in a fixed order.
//!
//! Chunks run on as many threads as were granted; their gradients are added up in the order of the chunks, so that the sum does not
//! depend on how many threads there were or which was faster.

use super::corpus::{Corpus, Window};
use super::embedding::Embedding;
use super::negatives::NegativeSampler;
use super::passes::{composed, fused};
use super::targets::{Objectives, Totals};
use super::vectors::{ItemVectors, TowerTraining};
use crate::error::{Error, Result};
use crate::kernels::math::add;
use crate::kernels::softmax::{Candidates, Objective, Targets};
use crate::model::graph::Packed;
use crate::model::network::{Dropouts, Network};
use crate::model::tape::Memory;
use crate::model::tower::Tables;
use crate::model::{Request, Tokens};
use crate::options::{Gbce, Loss};
use crate::random::hash64;
use candle_core::Device;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens of one chunk on the CPU, at most where windows allow: its activations stay near a core.
const CHUNK: usize = 1536;

/// What a step reads.
pub(crate) struct Context<'a> {
    pub network: &'a Network,
    pub corpus: &'a Corpus,
    pub device: &'a Device,
    /// Whether the operations are candle's own; always so on other devices than the CPU.
    pub composed: bool,
    pub threads: usize,
    pub loss: Loss,
    pub sampler: Option<NegativeSampler>,
    pub objectives: Objectives<'a>,
    pub tower: Option<TowerTraining<'a>>,
    pub dropout: f32,
    pub items: usize,
    pub seed: u64,
    /// Buffers of the threads, from step to step.
    pub memory: Mutex<Vec<Memory>>,
    /// Buffers of the chunks' gradients: whichever thread made one, the next step's threads take it from here.
    pub spare: Mutex<Memory>,
}

/// The numbers that a step reads and whose gradients it makes.
pub(crate) struct Values<'a> {
    pub dense: &'a [f32],
    pub items: &'a [f32],
    pub features: &'a [f32],
}

/// The gradients of a step, of the mean loss per target.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    /// Of the dense array.
    pub dense: Vec<f32>,
    /// Item rows that the step touched, ascending.
    pub item_rows: Vec<u32>,
    /// Of those rows.
    pub items: Vec<f32>,
    /// Rows of the feature tables that the step touched, ascending.
    pub feature_rows: Vec<u32>,
    /// Of those rows.
    pub features: Vec<f32>,
    /// The weighted sum of all losses.
    pub loss: f64,
    /// Mean loss of each objective, unweighted, in the order of [`Context::names`].
    pub losses: Vec<f64>,
    /// Tokens read.
    pub tokens: usize,
}

/// Which rows of a table a step touches, and their places in the step's own array.
pub(crate) struct Touched {
    pub(crate) rows: Vec<u32>,
    pub(crate) slot: Vec<u32>,
}

impl Touched {
    fn all(rows: usize) -> Self {
        Self { rows: (0..rows as u32).collect(), slot: (0..rows as u32).collect() }
    }

    pub(crate) fn some(total: usize, used: impl Iterator<Item = u32>) -> Self {
        let mut slot = vec![u32::MAX; total];
        used.for_each(|r| slot[r as usize] = 0);
        let rows: Vec<u32> = (0..total as u32).filter(|r| slot[*r as usize] == 0).collect();
        rows.iter().enumerate().for_each(|(i, r)| slot[*r as usize] = i as u32);
        Self { rows, slot }
    }

    pub(crate) fn places(&self, rows: &[u32]) -> Vec<u32> {
        rows.iter().map(|r| self.slot[*r as usize]).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) windows: Vec<Window>,
    pub(crate) first: usize,
    pub(crate) tokens: usize,
}

/// Deals windows to an even number of chunks of about `limit` tokens, longest first to the emptiest: as many tokens to each
/// as windows allow.
fn chunks(mut windows: Vec<Window>, limit: usize) -> Vec<Chunk> {
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let wanted = if total <= limit / 4 { 1 } else { total.div_ceil(limit).next_multiple_of(2) };
    let mut chunks: Vec<Chunk> = (0..wanted.min(windows.len())).map(|_| Chunk::default()).collect();
    windows.sort_by_key(|w| std::cmp::Reverse(w.targets.len()));
    for w in windows {
        if let Some(chunk) = chunks.iter_mut().min_by_key(|c| c.tokens) {
            chunk.tokens += w.targets.len();
            chunk.windows.push(w);
        }
    }
    let mut first = 0;
    for chunk in &mut chunks {
        chunk.first = first;
        first += chunk.tokens;
    }
    chunks
}

pub(crate) struct Shared<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) values: &'a Values<'a>,
    /// The touched item vectors as the network sees them, by slot.
    pub(crate) items: &'a [f32],
    pub(crate) touched: &'a Touched,
    pub(crate) negatives: DrawnNegatives,
    pub(crate) totals: Totals,
    pub(crate) key: u64,
}

/// The shared negatives of a step: empty under the full softmax.
#[derive(Debug, Default)]
pub(crate) struct DrawnNegatives {
    pub(crate) rows: Vec<u32>,
    pub(crate) vectors: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// Gradients of one batch. `step` names the random choices.
///
/// # Errors
/// `Internal` if an operation fails.
pub(crate) fn gradients(
    context: &Context<'_>,
    values: &Values<'_>,
    windows: Vec<Window>,
    step: u64,
) -> Result<Gradients> {
    let options = &context.network.options;
    let d = options.width as usize;
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let mut rows = context.sampler.as_ref().map(|s| s.draw(context.corpus, &windows, step)).unwrap_or_default();
    if let Some(tower) = &context.tower {
        // As under the full softmax; a step whose draws nobody has touched keeps them, so that it has a loss.
        let seen = |row: &u32| tower.timeline.seen(*row);
        if rows.iter().any(seen) {
            rows.retain(seen);
        }
    }
    let touched = match (&context.sampler, &context.tower) {
        (None, None) => Touched::all(context.items),
        // Items that nobody has touched are left to their metadata: the softmax does not push them away.
        (None, Some(tower)) => {
            Touched::some(context.items, (0..context.items as u32).filter(|i| tower.timeline.seen(*i)))
        }
        (Some(_), _) => {
            let mut used = Vec::new();
            for w in &windows {
                let from = w.targets.start.saturating_sub(1).max(w.begin);
                used.extend_from_slice(&context.corpus.history.items[from..w.targets.end]);
                context.objectives.each_item(w, |item| used.push(item));
            }
            Touched::some(context.items, used.into_iter().chain(rows.iter().copied()))
        }
    };
    let tables = Tables { dense: values.dense, features: values.features };
    let ids = gather(values.items, &touched.rows, d);
    let (names, unit) = ([context.seed, step], options.normalized);
    let (tower, corpus) = (context.tower.as_ref(), context.corpus);
    let items = ItemVectors::new(tower, ids, &touched.rows, tables, corpus, &windows, names, (unit, d));
    let vectors = gather(&items.vectors, &touched.places(&rows), d);
    let shift = context.sampler.as_ref().map(|s| s.shifts(&rows)).unwrap_or_default();
    let shared = Shared {
        context,
        values,
        items: &items.vectors,
        touched: &touched,
        negatives: DrawnNegatives { rows, vectors, shift },
        totals: context.objectives.totals(&windows),
        key: hash64(context.seed, hash64(4, step)),
    };
    let limit = if context.device.is_cpu() { CHUNK } else { usize::MAX };
    let mut sum = Gradients { tokens: total, ..Gradients::default() };
    for part in run(&shared, &chunks(windows, limit))? {
        if sum.dense.is_empty() {
            (sum.dense, sum.items, sum.features) = (part.dense, part.items, part.features);
        } else {
            add(&mut sum.dense, &part.dense);
            add(&mut sum.items, &part.items);
            add(&mut sum.features, &part.features);
            let mut spare = context.spare.lock();
            [part.dense, part.items, part.features].into_iter().for_each(|b| spare.give(b));
        }
        sum.losses.resize(part.losses.len(), 0.0);
        sum.losses.iter_mut().zip(&part.losses).for_each(|(s, l)| *s += l);
    }
    sum.loss = sum.losses.iter().sum();
    // A loss is reported as it is, whatever it weighs in the sum.
    sum.losses.iter_mut().zip(context.weights()).for_each(|(l, w)| *l /= f64::from(w).max(f64::MIN_POSITIVE));
    sum.features.resize(values.features.len(), 0.0);
    sum.items = items.backward(std::mem::take(&mut sum.items), tables, &mut sum.dense, &mut sum.features);
    sum.item_rows = touched.rows;
    sum.feature_rows = (0..context.network.features.rows() as u32).collect();
    Ok(sum)
}

pub(crate) fn gather(table: &[f32], rows: &[u32], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|&r| &table[r as usize * width..(r as usize + 1) * width]).copied().collect()
}

/// Runs the chunks on the granted threads; gives their gradients in order.
fn run(shared: &Shared<'_>, chunks: &[Chunk]) -> Result<Vec<Gradients>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut memory = shared.context.memory.lock().pop().unwrap_or_default();
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(i) else { break };
            done.push((i, one(shared, chunk, &mut memory)));
        }
        shared.context.memory.lock().push(memory);
        done
    };
    let threads = shared.context.threads.clamp(1, chunks.len().max(1));
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = work();
        for other in others {
            match other.join() {
                Ok(more) => parts.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    });
    parts.sort_by_key(|(i, _)| *i);
    parts.into_iter().map(|(_, part)| part.map_err(|e| Error::tensor("training step", e))).collect()
}

/// A chunk as the network reads it.
pub(crate) struct Input {
    pub(crate) tokens: Tokens,
    pub(crate) packed: Arc<Packed>,
    /// Item rows that each token predicts.
    pub(crate) targets: Targets,
    /// Classes that each token predicts, by auxiliary head.
    pub(crate) classes: Vec<Targets>,
    /// Labels of the tokens' next events; empty without a feedback head.
    pub(crate) labels: Vec<Option<f32>>,
    /// Items of the tokens' next events.
    pub(crate) next: Vec<u32>,
    /// Items and positions, `[n, d]`.
    pub(crate) x: Vec<f32>,
    /// Embedded features, `[n, features * field_width]`; none where there are no features.
    pub(crate) fields: Option<Vec<f32>>,
}

impl Shared<'_> {
    pub(crate) fn range(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let layout = &self.context.network.layout;
        layout.index(name).and_then(|i| layout.weights.get(i)).map(|w| w.range.clone())
    }

    pub(crate) fn embed(&self, chunk: &Chunk, memory: &mut Memory) -> Input {
        let Context { network, corpus, .. } = self.context;
        let d = network.options.width as usize;
        let mut tokens = Tokens::default();
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        let (mut targets, mut labels, mut next) = (Targets::default(), Vec::new(), Vec::with_capacity(chunk.tokens));
        let mut classes = vec![Targets::default(); network.features.heads.len()];
        let objectives = &self.context.objectives;
        let request = Request::default();
        for w in &chunk.windows {
            network.features.encode(&corpus.history, w.begin, w.targets.clone(), &request, &mut tokens);
            packed.offsets.push(tokens.items.len());
            next.extend_from_slice(&corpus.history.items[w.targets.clone()]);
            objectives.items(w, &self.totals, &mut targets);
            classes.iter_mut().enumerate().for_each(|(i, to)| objectives.classes(i, w, &self.totals, to));
            if network.options.feedback > 0.0 {
                labels.extend(w.targets.clone().map(|k| objectives.label(k)));
            }
        }
        if network.options.time_bias {
            packed.query = std::mem::take(&mut tokens.query);
            packed.key = std::mem::take(&mut tokens.key);
        }
        let item = |row: u32| {
            let slot = self.touched.slot[row as usize] as usize;
            &self.items[slot * d..(slot + 1) * d]
        };
        let tables = [self.values.dense, self.values.features];
        let (x, fields) = Embedding::new(network).gather(&tokens, &packed, tables, item, memory);
        Input { tokens, packed: Arc::new(packed), targets, classes, labels, next, x, fields }
    }

    /// Adds the gradients of what [`Shared::embed`] gathered to where it came from.
    pub(crate) fn scatter(&self, input: &Input, dx: &[f32], dfields: Option<&[f32]>, part: &mut Gradients) {
        let d = self.context.network.options.width as usize;
        let Gradients { dense, features, items, .. } = part;
        let tables = [dense.as_mut_slice(), features.as_mut_slice()];
        let embedding = Embedding::new(self.context.network);
        embedding.scatter(&input.tokens, &input.packed, (dx, dfields), tables, |row, g| {
            let slot = self.touched.slot[row as usize] as usize;
            add(&mut items[slot * d..(slot + 1) * d], g);
        });
    }

    /// Adds the gradients of gathered item vectors to their rows.
    pub(crate) fn scatter_items(&self, rows: &[u32], gradients: &[f32], part: &mut Gradients) {
        let d = self.context.network.options.width as usize;
        for (&row, g) in rows.iter().zip(gradients.chunks_exact(d)) {
            let slot = self.touched.slot[row as usize] as usize;
            add(&mut part.items[slot * d..(slot + 1) * d], g);
        }
    }

    pub(crate) fn objective(&self) -> Objective {
        match self.context.loss {
            Loss::Full | Loss::Sampled(_) => Objective::Softmax,
            Loss::Gbce(Gbce { negatives, calibration }) => {
                let alpha = f64::from(negatives.count) / self.context.items.saturating_sub(1).max(1) as f64;
                let (alpha, t) = (alpha.min(1.0), f64::from(calibration));
                Objective::Binary { beta: (alpha * (t * (1.0 - 1.0 / alpha) + 1.0 / alpha)) as f32 }
            }
        }
    }

    pub(crate) fn candidates<'a>(&'a self, targets: &'a [u32], positive_shift: &'a [f32]) -> Candidates<'a> {
        let DrawnNegatives { rows, shift, .. } = &self.negatives;
        Candidates { targets, rows, positive_shift, negative_shift: shift }
    }

    pub(crate) fn dropouts(&self, chunk: &Chunk) -> Option<Dropouts> {
        Some(Dropouts { key: self.key, rate: self.context.dropout, first: chunk.first })
    }

    pub(crate) fn empty(&self) -> Gradients {
        let options = &self.context.network.options;
        let zeros = |n: usize| {
            let mut buffer = self.context.spare.lock().take(n);
            buffer.fill(0.0);
            buffer
        };
        Gradients {
            dense: zeros(self.values.dense.len()),
            items: zeros(self.touched.rows.len() * options.width as usize),
            features: zeros(self.context.network.features.event_rows() * options.field_width as usize),
            ..Gradients::default()
        }
    }
}

impl Context<'_> {
    /// The objectives in the order of [`Gradients::losses`].
    pub(crate) fn names(&self) -> Vec<String> {
        let heads = self.network.features.heads.iter().map(|h| h.name.clone());
        let feedback = (self.network.options.feedback > 0.0).then(|| "feedback".to_owned());
        std::iter::once("next-item".to_owned()).chain(heads).chain(feedback).collect()
    }

    /// What each weighs in the sum.
    fn weights(&self) -> Vec<f32> {
        let options = &self.network.options;
        let heads = self.network.features.heads.iter().map(|h| h.weight);
        std::iter::once(1.0).chain(heads).chain((options.feedback > 0.0).then_some(options.feedback)).collect()
    }
}

fn one(shared: &Shared<'_>, chunk: &Chunk, memory: &mut Memory) -> candle_core::Result<Gradients> {
    let input = shared.embed(chunk, memory);
    let mut part = shared.empty();
    match shared.context.composed {
        false => fused(shared, chunk, input, &mut part, memory)?,
        true => composed(shared, chunk, &input, &mut part)?,
    }
    Ok(part)
}
