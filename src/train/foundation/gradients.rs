//! The gradients of one training step: a batch of windows cut into chunks of like size, and what they give summed in a fixed order.
//!
//! Chunks run on as many threads as were granted; their gradients are added up in the order of the chunks, so that the sum does not
//! depend on how many threads there were or which was faster.

use super::corpus::Window;
use super::step::{Chunk, DrawnNegatives, Gradients, Setup, Shared, Touched, Values, gather};
use super::vectors::ItemVectors;
use crate::error::Result;
use crate::kernels::math::add;
use crate::model::tower::Tables;
use crate::random::hash64;
use crate::threads;
use crate::train::backend::Backend;

/// What a step is about: its windows, its shared negatives, and the item rows that it reads.
pub(crate) struct Plan {
    windows: Vec<Window>,
    negatives: Vec<u32>,
    /// Item rows that the step touches.
    pub(crate) touched: Touched,
}

impl Plan {
    /// `step` names the random choices.
    pub(crate) fn new(setup: &Setup<'_>, windows: Vec<Window>, step: u64) -> Self {
        let mut negatives = setup.sampler.as_ref().map(|s| s.draw(setup.corpus, &windows, step)).unwrap_or_default();
        if let Some(tower) = &setup.tower {
            // As under the full softmax; a step that draws later items alone keeps them, so that it has a loss.
            let offered = |row: &u32| tower.timeline.offered(*row);
            if negatives.iter().any(offered) {
                negatives.retain(offered);
            }
        }
        let touched = match (&setup.sampler, &setup.tower) {
            (None, None) => Touched::all(setup.items),
            // An item that was there and that nobody chose is one that was not chosen: it competes with those that were.
            (None, Some(tower)) => {
                Touched::some(setup.items, (0..setup.items as u32).filter(|i| tower.timeline.offered(*i)))
            }
            (Some(_), _) => {
                let mut used = Vec::new();
                for w in &windows {
                    let from = w.targets.start.saturating_sub(1).max(w.begin);
                    used.extend_from_slice(&setup.corpus.history.items[from..w.targets.end]);
                    setup.objectives.each_item(w, |item| used.push(item));
                }
                Touched::some(setup.items, used.into_iter().chain(negatives.iter().copied()))
            }
        };
        Self { windows, negatives, touched }
    }
}

/// Gradients of one batch. `step` names the random choices.
///
/// # Errors
/// `Internal` if an operation fails.
pub(crate) fn gradients(
    backend: &Backend,
    setup: &Setup<'_>,
    values: &Values<'_>,
    plan: Plan,
    step: u64,
) -> Result<Gradients> {
    let Plan { windows, negatives: rows, touched } = plan;
    let options = &setup.network.options;
    let d = options.width as usize;
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let tables = Tables { dense: values.dense, features: values.features };
    let ids = gather(values.items, &touched.rows, d);
    let (names, unit) = ([setup.seed, step], options.normalized);
    let items = ItemVectors::new(setup.tower.as_ref(), ids, &touched.rows, tables, names, (unit, d));
    let mut masked = setup.tower.as_ref().and_then(|tower| tower.masked(&items, tables, names));
    let drawn = touched.places(&rows);
    if let Some(masked) = &mut masked {
        masked.negatives = gather(&masked.table, &drawn, d);
    }
    let vectors = gather(&items.vectors, &drawn, d);
    let shift = setup.sampler.as_ref().map(|s| s.shifts(&rows)).unwrap_or_default();
    let shared = Shared {
        setup,
        values,
        items: &items.vectors,
        touched: &touched,
        negatives: DrawnNegatives { rows, vectors, shift },
        masked,
        totals: setup.objectives.totals(&windows),
        key: hash64(setup.seed, hash64(4, step)),
    };
    let mut sum = Gradients { tokens: total, ..Gradients::default() };
    let compared = if setup.sampler.is_some() { shared.negatives.rows.len() } else { touched.rows.len() };
    for part in run(backend, &shared, &chunks(windows, backend.chunk_tokens(), compared))? {
        if sum.dense.is_empty() {
            (sum.dense, sum.items, sum.masked, sum.features) = (part.dense, part.items, part.masked, part.features);
        } else {
            add(&mut sum.dense, &part.dense);
            add(&mut sum.items, &part.items);
            add(&mut sum.masked, &part.masked);
            add(&mut sum.features, &part.features);
            let mut spare = setup.spare.lock();
            [part.dense, part.items, part.masked, part.features].into_iter().for_each(|b| spare.give(b));
        }
        sum.losses.resize(part.losses.len(), 0.0);
        sum.losses.iter_mut().zip(&part.losses).for_each(|(s, l)| *s += l);
    }
    sum.loss = sum.losses.iter().sum();
    // A loss is reported as it is, whatever it weighs in the sum.
    sum.losses.iter_mut().zip(setup.weights()).for_each(|(l, w)| *l /= f64::from(w).max(f64::MIN_POSITIVE));
    sum.features.resize(values.features.len(), 0.0);
    if let Some(masked) = shared.masked {
        masked.backward(std::mem::take(&mut sum.masked), tables, &mut sum.dense, &mut sum.features);
    }
    sum.items = items.backward(std::mem::take(&mut sum.items), tables, &mut sum.dense, &mut sum.features);
    sum.item_rows = touched.rows;
    sum.feature_rows = (0..setup.network.features.rows() as u32).collect();
    Ok(sum)
}

/// Few tokens are a chunk of their own unless their scores, with `compared` items each, are at least so many.
const MANY_SCORES: usize = 1 << 20;

/// Deals windows to an even number of chunks of about `limit` tokens, longest first to the emptiest: as many tokens to each
/// as windows allow.
fn chunks(mut windows: Vec<Window>, limit: usize, compared: usize) -> Vec<Chunk> {
    let total: usize = windows.iter().map(|w| w.targets.len()).sum();
    let few = total <= limit / 4 && total * compared < MANY_SCORES;
    let wanted = if few { 1 } else { total.div_ceil(limit).next_multiple_of(2) };
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

/// Runs the chunks on the granted threads; gives their gradients in order.
fn run(backend: &Backend, shared: &Shared<'_>, chunks: &[Chunk]) -> Result<Vec<Gradients>> {
    let buffers = &shared.setup.memory;
    let one = |i: usize, _: &mut ()| {
        let mut memory = buffers.lock().pop().unwrap_or_default();
        let input = shared.embed(&chunks[i], &mut memory);
        let mut part = shared.empty();
        backend.pass(shared, &chunks[i], input, &mut part, &mut memory)?;
        buffers.lock().push(memory);
        Ok(part)
    };
    threads::map(shared.setup.threads, chunks.len(), || (), one).into_iter().collect()
}
