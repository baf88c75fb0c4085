//! One training step: a batch of windows cut into chunks of like size, gradients summed in a fixed order.
//!
//! Chunks run on as many threads as were granted; their gradients are added up in the order of the chunks, so that the sum does not
//! depend on how many threads there were or which was faster.

use super::corpus::{Corpus, Window};
use super::negatives::Sampler;
use crate::error::{Error, Result};
use crate::kernels::math::add;
use crate::kernels::norm::{scale_rows, scale_rows_backward};
use crate::kernels::softmax::{Candidates, Objective, cross_entropy, sampled_loss};
use crate::model::composed::{self, Composed};
use crate::model::graph::Packed;
use crate::model::network::{Dropouts, Network};
use crate::model::tape::{Memory, Tape};
use crate::model::{Request, Tokens};
use crate::options::{Gbce, Loss};
use crate::random::hash64;
use candle_core::{Device, Tensor, Var};
use parking_lot::Mutex;
use std::borrow::Cow;
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
    pub sampler: Option<Sampler>,
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
    /// Mean loss per target.
    pub loss: f64,
    /// Tokens read.
    pub tokens: usize,
}

/// Which rows of a table a step touches, and their places in the step's own array.
struct Touched {
    rows: Vec<u32>,
    slot: Vec<u32>,
}

impl Touched {
    fn all(rows: usize) -> Self {
        Self { rows: (0..rows as u32).collect(), slot: (0..rows as u32).collect() }
    }

    fn some(total: usize, used: impl Iterator<Item = u32>) -> Self {
        let mut slot = vec![u32::MAX; total];
        used.for_each(|r| slot[r as usize] = 0);
        let rows: Vec<u32> = (0..total as u32).filter(|r| slot[*r as usize] == 0).collect();
        rows.iter().enumerate().for_each(|(i, r)| slot[*r as usize] = i as u32);
        Self { rows, slot }
    }

    fn places(&self, rows: &[u32]) -> Vec<u32> {
        rows.iter().map(|r| self.slot[*r as usize]).collect()
    }
}

#[derive(Debug, Default)]
struct Chunk {
    windows: Vec<Window>,
    first: usize,
    tokens: usize,
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

struct Shared<'a> {
    context: &'a Context<'a>,
    values: &'a Values<'a>,
    /// The touched item vectors as the network sees them, by slot.
    items: Cow<'a, [f32]>,
    touched: Touched,
    features: Touched,
    negatives: Negatives,
    key: u64,
    weight: f32,
}

/// The shared negatives of a step: empty under the full softmax.
#[derive(Debug, Default)]
struct Negatives {
    rows: Vec<u32>,
    vectors: Vec<f32>,
    shift: Vec<f32>,
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
    let (d, width) = (options.width as usize, options.field_width as usize);
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let rows = context.sampler.as_ref().map(|s| s.draw(context.corpus, &windows, step)).unwrap_or_default();
    let touched = match context.sampler {
        None => Touched::all(context.items),
        Some(_) => {
            let used = windows.iter().flat_map(|w| {
                let from = w.targets.start.saturating_sub(1).max(w.begin);
                context.corpus.history.items[from..w.targets.end].iter().copied()
            });
            Touched::some(context.items, used.chain(rows.iter().copied()))
        }
    };
    let raw = match context.sampler {
        None => Cow::Borrowed(values.items),
        Some(_) => Cow::Owned(gather(values.items, &touched.rows, d)),
    };
    let mut items = raw.clone();
    if options.normalized {
        scale_rows(items.to_mut(), d, true, 1.0);
    }
    let vectors = gather(&items, &touched.places(&rows), d);
    let shift = context.sampler.as_ref().map(|s| s.shifts(&rows)).unwrap_or_default();
    let shared = Shared {
        context,
        values,
        items,
        touched,
        features: Touched::all(values.features.len() / width),
        negatives: Negatives { rows, vectors, shift },
        key: hash64(context.seed, hash64(4, step)),
        weight: 1.0 / total.max(1) as f32,
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
        sum.loss += part.loss;
    }
    if options.normalized {
        let mut through = vec![0.0; sum.items.len()];
        scale_rows_backward(&raw, d, true, 1.0, &sum.items, &mut through);
        sum.items = through;
    }
    sum.item_rows = shared.touched.rows;
    sum.feature_rows = shared.features.rows;
    Ok(sum)
}

fn gather(table: &[f32], rows: &[u32], width: usize) -> Vec<f32> {
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
struct Input {
    tokens: Tokens,
    packed: Arc<Packed>,
    /// Item rows of the targets.
    targets: Vec<u32>,
    /// Items and positions, `[n, d]`.
    x: Vec<f32>,
    /// Embedded features, `[n, features * field_width]`; none where there are no features.
    fields: Option<Vec<f32>>,
}

impl Shared<'_> {
    fn range(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let layout = &self.context.network.layout;
        layout.index(name).and_then(|i| layout.weights.get(i)).map(|w| w.range.clone())
    }

    /// Calls `f` with each token: its number, item row and place in its sequence.
    fn each_token(input: &Input, mut f: impl FnMut(usize, u32, usize)) {
        for range in input.packed.ranges() {
            for (place, t) in range.enumerate() {
                f(t, input.tokens.items[t], place);
            }
        }
    }

    fn embed(&self, chunk: &Chunk, memory: &mut Memory) -> Input {
        let Context { network, corpus, .. } = self.context;
        let (d, width) = (network.options.width as usize, network.options.field_width as usize);
        let mut tokens = Tokens::default();
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        let mut targets = Vec::with_capacity(chunk.tokens);
        let request = Request::default();
        for w in &chunk.windows {
            network.features.encode(&corpus.history, w.begin, w.targets.clone(), &request, &mut tokens);
            packed.offsets.push(tokens.items.len());
            targets.extend_from_slice(&corpus.history.items[w.targets.clone()]);
        }
        if network.options.time_bias {
            packed.query = std::mem::take(&mut tokens.query);
            packed.key = std::mem::take(&mut tokens.key);
        }
        let n = tokens.items.len();
        let x = memory.take(n * d);
        let mut fields = None;
        if !network.features.list.is_empty() {
            let starts = network.features.first_rows();
            let mut values = memory.take(tokens.codes.len() * width);
            for (i, (&c, to)) in tokens.codes.iter().zip(values.chunks_exact_mut(width)).enumerate() {
                let at = (starts[i % network.features.list.len()] + c as usize) * width;
                to.copy_from_slice(&self.values.features[at..at + width]);
            }
            fields = Some(values);
        }
        let mut input = Input { tokens, packed: Arc::new(packed), targets, x: Vec::new(), fields };
        let (opening, positions) = (self.range("opening").unwrap_or(0..0), self.range("positions"));
        let mut x = x;
        Self::each_token(&input, |t, item, place| {
            let to = &mut x[t * d..(t + 1) * d];
            match item {
                Tokens::OPENING => to.copy_from_slice(&self.values.dense[opening.clone()]),
                item => {
                    let slot = self.touched.slot[item as usize] as usize;
                    to.copy_from_slice(&self.items[slot * d..(slot + 1) * d]);
                }
            }
            if let Some(p) = &positions {
                add(to, &self.values.dense[p.start + place * d..p.start + (place + 1) * d]);
            }
        });
        input.x = x;
        input
    }

    /// Adds the gradients of what [`Shared::embed`] gathered to where it came from.
    fn scatter(&self, input: &Input, dx: &[f32], dfields: Option<&[f32]>, part: &mut Gradients) {
        let network = self.context.network;
        let (d, width) = (network.options.width as usize, network.options.field_width as usize);
        let (opening, positions) = (self.range("opening").unwrap_or(0..0), self.range("positions"));
        Self::each_token(input, |t, item, place| {
            let g = &dx[t * d..(t + 1) * d];
            match item {
                Tokens::OPENING => add(&mut part.dense[opening.clone()], g),
                item => {
                    let slot = self.touched.slot[item as usize] as usize;
                    add(&mut part.items[slot * d..(slot + 1) * d], g);
                }
            }
            if let Some(p) = &positions {
                add(&mut part.dense[p.start + place * d..p.start + (place + 1) * d], g);
            }
        });
        if let Some(dfields) = dfields {
            let starts = network.features.first_rows();
            for (i, (&c, g)) in input.tokens.codes.iter().zip(dfields.chunks_exact(width)).enumerate() {
                let at = (starts[i % network.features.list.len()] + c as usize) * width;
                add(&mut part.features[at..at + width], g);
            }
        }
    }

    /// Adds the gradients of gathered item vectors to their rows.
    fn scatter_items(&self, rows: &[u32], gradients: &[f32], part: &mut Gradients) {
        let d = self.context.network.options.width as usize;
        for (&row, g) in rows.iter().zip(gradients.chunks_exact(d)) {
            let slot = self.touched.slot[row as usize] as usize;
            add(&mut part.items[slot * d..(slot + 1) * d], g);
        }
    }

    fn objective(&self) -> Objective {
        match self.context.loss {
            Loss::Full | Loss::Sampled(_) => Objective::Softmax,
            Loss::Gbce(Gbce { negatives, calibration }) => {
                let alpha = f64::from(negatives.count) / self.context.items.saturating_sub(1).max(1) as f64;
                let (alpha, t) = (alpha.min(1.0), f64::from(calibration));
                Objective::Binary { beta: (alpha * (t * (1.0 - 1.0 / alpha) + 1.0 / alpha)) as f32 }
            }
        }
    }

    fn candidates<'a>(&'a self, targets: &'a [u32], positive_shift: &'a [f32]) -> Candidates<'a> {
        let Negatives { rows, shift, .. } = &self.negatives;
        Candidates { targets, rows, positive_shift, negative_shift: shift }
    }

    fn dropouts(&self, chunk: &Chunk) -> Option<Dropouts> {
        Some(Dropouts { key: self.key, rate: self.context.dropout, first: chunk.first })
    }

    fn empty(&self) -> Gradients {
        let options = &self.context.network.options;
        let zeros = |n: usize| {
            let mut buffer = self.context.spare.lock().take(n);
            buffer.fill(0.0);
            buffer
        };
        Gradients {
            dense: zeros(self.values.dense.len()),
            items: zeros(self.touched.rows.len() * options.width as usize),
            features: zeros(self.features.rows.len() * options.field_width as usize),
            ..Gradients::default()
        }
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

fn fused(
    shared: &Shared<'_>,
    chunk: &Chunk,
    mut input: Input,
    part: &mut Gradients,
    memory: &mut Memory,
) -> candle_core::Result<()> {
    let network = shared.context.network;
    let (d, n) = (network.options.width as usize, input.targets.len());
    let mut seed = memory.take(n * d);
    seed.fill(0.0);
    let mut positives = (Vec::new(), Vec::new());
    if shared.context.sampler.is_some() {
        positives = (memory.take(n * d), memory.take(n * d));
        positives.1.fill(0.0);
    }
    let (x, fields) = (std::mem::take(&mut input.x), input.fields.take());
    let mut logits = std::mem::take(&mut memory.logits);
    let mut tape = Tape::new(&network.layout, shared.values.dense, n, memory);
    let x = tape.leaf(x);
    let fields = fields.map(|f| tape.leaf(f));
    let h = network.forward(&mut tape, x, fields.as_ref(), &input.packed, shared.dropouts(chunk))?;
    let weights = vec![shared.weight; n];
    let user = tape.value(h);
    part.loss = match &shared.context.sampler {
        None => {
            let items = &shared.items;
            cross_entropy(user, items, &input.targets, &weights, d, &mut seed, &mut part.items, &mut logits)
        }
        Some(sampler) => {
            let (p, dp) = &mut positives;
            for (to, row) in p.chunks_exact_mut(d).zip(&input.targets) {
                let slot = shared.touched.slot[*row as usize] as usize;
                to.copy_from_slice(&shared.items[slot * d..(slot + 1) * d]);
            }
            let shift = sampler.shifts(&input.targets);
            let candidates = shared.candidates(&input.targets, &shift);
            let negatives = &shared.negatives.vectors;
            let mut dn = vec![0.0; negatives.len()];
            let objective = shared.objective();
            let loss = sampled_loss(
                user,
                p,
                negatives,
                &candidates,
                objective,
                &weights,
                d,
                &mut seed,
                dp,
                &mut dn,
                &mut logits,
            );
            shared.scatter_items(&input.targets, dp, part);
            shared.scatter_items(&shared.negatives.rows, &dn, part);
            loss
        }
    };
    let mut leaves = tape.backward(h, seed, &mut part.dense).into_iter();
    memory.logits = logits;
    let (dx, dfields) = (leaves.next().unwrap_or_default(), leaves.next());
    shared.scatter(&input, &dx, dfields.as_deref(), part);
    memory.give(dx);
    dfields.into_iter().for_each(|b| memory.give(b));
    memory.give(positives.0);
    memory.give(positives.1);
    Ok(())
}

fn composed(shared: &Shared<'_>, chunk: &Chunk, input: &Input, part: &mut Gradients) -> candle_core::Result<()> {
    let Context { network, device, .. } = shared.context;
    let d = network.options.width as usize;
    let n = input.targets.len();
    let var = |values: &[f32], rows: usize| {
        Var::from_tensor(&Tensor::from_slice(values, (rows, values.len() / rows.max(1)), device)?)
    };
    let mut parameters = Composed::new(&network.layout, shared.values.dense, device)?;
    let x = var(&input.x, n)?;
    let fields = input.fields.as_ref().map(|f| var(f, n)).transpose()?;
    let fields_tensor = fields.as_ref().map(|f| f.as_tensor());
    let drop = shared.dropouts(chunk);
    let h = network.forward(&mut parameters, x.as_tensor().clone(), fields_tensor, &input.packed, drop)?;
    let weights = vec![shared.weight; n];
    let mut sampled = None;
    let (loss, catalogue) = match &shared.context.sampler {
        None => {
            let items = var(&shared.items, shared.touched.rows.len())?;
            (composed::full_loss(&h, items.as_tensor(), &input.targets, &weights)?, items)
        }
        Some(sampler) => {
            let positives = var(&gather(&shared.items, &shared.touched.places(&input.targets), d), n)?;
            let negatives = var(&shared.negatives.vectors, shared.negatives.rows.len())?;
            let shift = sampler.shifts(&input.targets);
            let candidates = shared.candidates(&input.targets, &shift);
            let objective = shared.objective();
            let loss = composed::sampled_loss(&h, &positives, &negatives, &candidates, objective, &weights)?;
            sampled = Some(positives);
            (loss, negatives)
        }
    };
    part.loss = f64::from(loss.to_scalar::<f32>()?);
    let grads = loss.backward()?;
    let take = |v: &Var| -> candle_core::Result<Vec<f32>> {
        match grads.get(v) {
            Some(g) => g.flatten_all()?.to_vec1(),
            None => Ok(vec![0.0; v.elem_count()]),
        }
    };
    for (w, v) in network.layout.weights.iter().zip(parameters.vars()) {
        if w.name != "opening" && w.name != "positions" {
            part.dense[w.range.clone()].copy_from_slice(&take(v)?);
        }
    }
    match sampled {
        None => part.items = take(&catalogue)?,
        Some(positives) => {
            shared.scatter_items(&input.targets, &take(&positives)?, part);
            shared.scatter_items(&shared.negatives.rows, &take(&catalogue)?, part);
        }
    }
    let dfields = fields.as_ref().map(take).transpose()?;
    shared.scatter(input, &take(&x)?, dfields.as_deref(), part);
    Ok(())
}
