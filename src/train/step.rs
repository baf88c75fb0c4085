//! One training step: a batch of windows cut into chunks that fit a core's cache, gradients summed in a fixed order.
//!
//! Chunks run on as many threads as were granted; their gradients are added up in the order of the chunks, so that the sum does not
//! depend on how many threads there were or which was faster.

use super::corpus::{Corpus, Window};
use crate::error::{Error, Result};
use crate::kernels::math::add;
use crate::model::Request;
use crate::model::network::{Dropouts, Network, Parameters};
use crate::model::operations::{Packed, full_loss, sampled_loss};
use crate::options::{Gbce, Loss};
use crate::random::{Rng, hash64};
use candle_core::{Device, Tensor, Var};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens of one chunk on the CPU: its activations stay in a core's cache.
const CHUNK: usize = 2048;

/// What a step reads.
pub(crate) struct Context<'a> {
    pub network: &'a Network,
    pub corpus: &'a Corpus,
    pub device: &'a Device,
    pub threads: usize,
    pub loss: Loss,
    pub dropout: f32,
    pub items: usize,
    pub seed: u64,
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
}

struct Chunk {
    windows: Vec<Window>,
    first: usize,
    tokens: usize,
}

fn chunks(windows: Vec<Window>, limit: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut first = 0;
    for w in windows {
        let n = w.targets.len();
        match chunks.last_mut() {
            Some(c) if c.tokens + n <= limit => {
                c.tokens += n;
                c.windows.push(w);
            }
            _ => chunks.push(Chunk { windows: vec![w], first, tokens: n }),
        }
        first += n;
    }
    chunks
}

struct Shared<'a> {
    context: &'a Context<'a>,
    values: &'a Values<'a>,
    parameters: Parameters,
    /// The whole item table, or the negatives' rows.
    catalogue: Var,
    negatives: Arc<Vec<u32>>,
    items: Touched,
    features: Touched,
    key: u64,
    weight: f32,
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
    let fail = |e| Error::tensor("training step", e);
    let d = context.network.options.width as usize;
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let negatives: Vec<u32> = match context.loss {
        Loss::Full => Vec::new(),
        Loss::Sampled(n) | Loss::Gbce(Gbce { negatives: n, .. }) => {
            let mut rng = Rng::for_stream(context.seed, hash64(3, step));
            (0..n.count).map(|_| rng.below(context.items) as u32).collect()
        }
    };
    let items = match context.loss {
        Loss::Full => Touched::all(context.items),
        Loss::Sampled(_) | Loss::Gbce(_) => {
            let used = windows.iter().flat_map(|w| {
                let from = w.targets.start.saturating_sub(1).max(w.begin);
                context.corpus.history.items[from..w.targets.end].iter().copied()
            });
            Touched::some(context.items, used.chain(negatives.iter().copied()))
        }
    };
    let catalogue = match context.loss {
        Loss::Full => Tensor::from_slice(values.items, (context.items, d), context.device),
        Loss::Sampled(_) | Loss::Gbce(_) => {
            let rows = negatives.iter().flat_map(|&r| &values.items[r as usize * d..(r as usize + 1) * d]);
            Tensor::from_vec(rows.copied().collect(), (negatives.len(), d), context.device)
        }
    };
    let width = context.network.options.field_width as usize;
    let shared = Shared {
        context,
        values,
        parameters: Parameters::new(&context.network.layout, values.dense, context.device).map_err(fail)?,
        catalogue: catalogue.and_then(|t| Var::from_tensor(&t)).map_err(fail)?,
        negatives: Arc::new(negatives),
        items,
        features: Touched::all(values.features.len() / width),
        key: hash64(context.seed, hash64(4, step)),
        weight: 1.0 / total.max(1) as f32,
    };
    let limit = if context.device.is_cpu() { CHUNK } else { usize::MAX };
    let chunks = chunks(windows, limit);
    let parts = run(&shared, &chunks)?;
    let mut sum = Gradients { tokens: total, ..Gradients::default() };
    for part in parts {
        if sum.dense.is_empty() {
            (sum.dense, sum.items, sum.features) = (part.dense, part.items, part.features);
        } else {
            add(&mut sum.dense, &part.dense);
            add(&mut sum.items, &part.items);
            add(&mut sum.features, &part.features);
        }
        sum.loss += part.loss;
    }
    sum.item_rows = shared.items.rows;
    sum.feature_rows = shared.features.rows;
    Ok(sum)
}

/// Runs the chunks on the granted threads; gives their gradients in order.
fn run(shared: &Shared<'_>, chunks: &[Chunk]) -> Result<Vec<Gradients>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            match chunks.get(i) {
                Some(chunk) => done.push((i, one(shared, chunk))),
                None => return done,
            }
        }
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

fn one(shared: &Shared<'_>, chunk: &Chunk) -> candle_core::Result<Gradients> {
    let Context { network, corpus, device, .. } = shared.context;
    let d = network.options.width as usize;
    let width = network.options.field_width as usize;
    let mut tokens = Default::default();
    let mut packed = Packed { offsets: vec![0], ..Packed::default() };
    let mut targets = Vec::with_capacity(chunk.tokens);
    let request = Request::default();
    for w in &chunk.windows {
        network.features.encode(&corpus.history, w.begin, w.targets.clone(), &request, &mut tokens);
        packed.offsets.push(tokens.items.len());
        targets.extend_from_slice(&corpus.history.items[w.targets.clone()]);
    }
    let n = tokens.items.len();
    if network.options.time_bias {
        packed.query = std::mem::take(&mut tokens.query);
        packed.key = std::mem::take(&mut tokens.key);
    }
    let opening = network.layout.index("opening").map(|i| network.layout.weights[i].range.clone()).unwrap_or(0..0);
    let positions = network.layout.index("positions").map(|i| network.layout.weights[i].range.clone());
    let mut x = vec![0.0f32; n * d];
    for range in packed.offsets.windows(2) {
        for (place, t) in (range[0]..range[1]).enumerate() {
            let to = &mut x[t * d..(t + 1) * d];
            match tokens.items[t] {
                u32::MAX => to.copy_from_slice(&shared.values.dense[opening.clone()]),
                i => to.copy_from_slice(&shared.values.items[i as usize * d..(i as usize + 1) * d]),
            }
            if let Some(p) = &positions {
                add(to, &shared.values.dense[p.start + place * d..p.start + (place + 1) * d]);
            }
        }
    }
    let x = Var::from_tensor(&Tensor::from_vec(x, (n, d), device)?)?;
    let count = network.features.list.len();
    let starts = network.features.first_rows();
    let table_row = |i: usize, code: u32| starts[i % count] + code as usize;
    let fields = match count {
        0 => None,
        _ => {
            let mut values = Vec::with_capacity(tokens.codes.len() * width);
            for (i, &c) in tokens.codes.iter().enumerate() {
                let at = table_row(i, c) * width;
                values.extend_from_slice(&shared.values.features[at..at + width]);
            }
            Some(Var::from_tensor(&Tensor::from_vec(values, (n, count * width), device)?)?)
        }
    };
    let packed = Arc::new(packed);
    let path = Network::path(device);
    let drop = Dropouts { key: shared.key, rate: shared.context.dropout, first: chunk.first };
    let fields_tensor = fields.as_ref().map(|f| f.as_tensor());
    let h = network.forward(path, &shared.parameters, x.as_tensor(), fields_tensor, &packed, Some(drop))?;
    let weights = Arc::new(vec![shared.weight; n]);
    let targets = Arc::new(targets);
    let mut positives = None;
    let loss = match shared.context.loss {
        Loss::Full => full_loss(path, &h, shared.catalogue.as_tensor(), &targets, &weights)?,
        Loss::Sampled(_) | Loss::Gbce(_) => {
            let rows = targets.iter().flat_map(|&r| &shared.values.items[r as usize * d..(r as usize + 1) * d]);
            let p = Var::from_tensor(&Tensor::from_vec(rows.copied().collect(), (n, d), device)?)?;
            let loss = sampled_loss(
                path,
                &h,
                p.as_tensor(),
                shared.catalogue.as_tensor(),
                &targets,
                &shared.negatives,
                &weights,
            )?;
            positives = Some(p);
            loss
        }
    };
    let grads = loss.backward()?;
    let take = |v: &Var| -> candle_core::Result<Vec<f32>> {
        match grads.get(v) {
            Some(g) => g.flatten_all()?.to_vec1(),
            None => Ok(vec![0.0; v.elem_count()]),
        }
    };
    let mut part = Gradients {
        dense: vec![0.0; shared.values.dense.len()],
        items: vec![0.0; shared.items.rows.len() * d],
        features: vec![0.0; shared.features.rows.len() * width],
        loss: f64::from(loss.to_scalar::<f32>()?),
        ..Gradients::default()
    };
    for (w, v) in network.layout.weights.iter().zip(shared.parameters.vars()) {
        if w.name != "opening" && w.name != "positions" {
            part.dense[w.range.clone()].copy_from_slice(&take(v)?);
        }
    }
    let catalogue = take(&shared.catalogue)?;
    match positives {
        None => part.items = catalogue,
        Some(p) => {
            let mut to_item = |row: u32, g: &[f32]| {
                let at = shared.items.slot[row as usize] as usize * d;
                add(&mut part.items[at..at + d], g);
            };
            let p = take(&p)?;
            targets.iter().zip(p.chunks_exact(d)).for_each(|(&r, g)| to_item(r, g));
            shared.negatives.iter().zip(catalogue.chunks_exact(d)).for_each(|(&r, g)| to_item(r, g));
        }
    }
    let dx = take(&x)?;
    for range in packed.offsets.windows(2) {
        for (place, t) in (range[0]..range[1]).enumerate() {
            let g = &dx[t * d..(t + 1) * d];
            match tokens.items[t] {
                u32::MAX => add(&mut part.dense[opening.clone()], g),
                i => {
                    let at = shared.items.slot[i as usize] as usize * d;
                    add(&mut part.items[at..at + d], g);
                }
            }
            if let Some(p) = &positions {
                add(&mut part.dense[p.start + place * d..p.start + (place + 1) * d], g);
            }
        }
    }
    if let Some(fields) = &fields {
        let df = take(fields)?;
        for (i, (&c, g)) in tokens.codes.iter().zip(df.chunks_exact(width)).enumerate() {
            let at = table_row(i, c) * width;
            add(&mut part.features[at..at + width], g);
        }
    }
    Ok(part)
}
