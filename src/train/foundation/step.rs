//! What a training step is made of: what it reads, the chunks that its windows are dealt to, and the gradients that it gives.

use super::corpus::{Corpus, Window};
use super::embedding::Embedding;
use super::negatives::NegativeSampler;
use super::targets::{Objectives, Totals};
use super::vectors::{Masked, TowerTraining};
use crate::kernels::math::add;
use crate::kernels::softmax::{Candidates, Objective, Targets};
use crate::model::feedback::{Feedback, FeedbackGradients};
use crate::model::graph::Packed;
use crate::model::network::{Dropouts, Network};
use crate::model::tape::Memory;
use crate::model::{Request, Tokens};
use crate::options::{Gbce, Loss};
use parking_lot::Mutex;
use std::sync::Arc;

/// What a step reads.
pub(crate) struct Setup<'a> {
    pub network: &'a Network,
    pub corpus: &'a Corpus,
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
    /// Of the masked items' vectors.
    pub masked: Vec<f32>,
    /// Rows of the feature tables that the step touched, ascending.
    pub feature_rows: Vec<u32>,
    /// Of those rows.
    pub features: Vec<f32>,
    /// The weighted sum of all losses.
    pub loss: f64,
    /// Mean loss of each objective, unweighted, in the order of [`Setup::names`].
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
    pub(crate) fn all(rows: usize) -> Self {
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

/// The windows that one thread passes at once.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) windows: Vec<Window>,
    /// Place of the first token in the batch.
    pub(crate) first: usize,
    pub(crate) tokens: usize,
}

/// What the chunks of a step share.
pub(crate) struct Shared<'a> {
    pub(crate) setup: &'a Setup<'a>,
    pub(crate) values: &'a Values<'a>,
    /// The touched item vectors as the network sees them, by slot.
    pub(crate) items: &'a [f32],
    pub(crate) touched: &'a Touched,
    pub(crate) negatives: DrawnNegatives,
    /// Items without their IDs; none without a tower.
    pub(crate) masked: Option<Masked<'a>>,
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

pub(crate) fn gather(table: &[f32], rows: &[u32], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|&r| &table[r as usize * width..(r as usize + 1) * width]).copied().collect()
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
    /// The targets with their places in the step's own array in place of item rows.
    pub(crate) fn slots(&self, targets: &Targets) -> Targets {
        Targets { rows: self.touched.places(&targets.rows), ..targets.clone() }
    }

    /// The feedback head over a chunk's states (`[n, d]`): the loss and, added to the arrays, its gradients.
    pub(crate) fn feedback(&self, input: &Input, states: &[f32], dstates: &mut [f32], part: &mut Gradients) -> f64 {
        let Network { options, layout, .. } = self.setup.network;
        let d = options.width as usize;
        let share = f64::from(options.feedback) / self.totals.feedback.max(1.0);
        let ranges = ["cross", "user", "item", "bias"].map(|p| layout.range(&format!("feedback.{p}")).unwrap_or(0..0));
        let head = Feedback { weights: ranges.clone().map(|r| &self.values.dense[r]) };
        let mut loss = 0.0;
        for (t, label) in input.labels.iter().enumerate() {
            let Some(label) = label else { continue };
            let slot = self.touched.slot[input.next[t] as usize] as usize;
            let item = slot * d..(slot + 1) * d;
            let mut to = FeedbackGradients {
                state: &mut dstates[t * d..(t + 1) * d],
                item: &mut part.items[item.clone()],
                weights: &mut part.dense,
                ranges: &ranges,
            };
            loss += head.learn(&states[t * d..(t + 1) * d], &self.items[item], *label, share as f32, &mut to);
        }
        loss
    }

    pub(crate) fn embed(&self, chunk: &Chunk, memory: &mut Memory) -> Input {
        let Setup { network, corpus, .. } = self.setup;
        let d = network.options.width as usize;
        let mut tokens = Tokens::default();
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        let (mut targets, mut labels, mut next) = (Targets::default(), Vec::new(), Vec::with_capacity(chunk.tokens));
        let mut classes = vec![Targets::default(); network.features.heads.len()];
        let objectives = &self.setup.objectives;
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
        let d = self.setup.network.options.width as usize;
        let Gradients { dense, features, items, .. } = part;
        let tables = [dense.as_mut_slice(), features.as_mut_slice()];
        let embedding = Embedding::new(self.setup.network);
        embedding.scatter(&input.tokens, &input.packed, (dx, dfields), tables, |row, g| {
            let slot = self.touched.slot[row as usize] as usize;
            add(&mut items[slot * d..(slot + 1) * d], g);
        });
    }

    /// Adds the gradients of gathered item vectors to their rows.
    pub(crate) fn scatter_items(&self, rows: &[u32], gradients: &[f32], to: &mut [f32]) {
        let d = self.setup.network.options.width as usize;
        for (&row, g) in rows.iter().zip(gradients.chunks_exact(d)) {
            let slot = self.touched.slot[row as usize] as usize;
            add(&mut to[slot * d..(slot + 1) * d], g);
        }
    }

    pub(crate) fn objective(&self) -> Objective {
        match self.setup.loss {
            Loss::Full | Loss::Sampled(_) => Objective::Softmax,
            Loss::Gbce(Gbce { negatives, calibration }) => {
                let alpha = f64::from(negatives.count) / self.setup.items.saturating_sub(1).max(1) as f64;
                let (alpha, t) = (alpha.min(1.0), f64::from(calibration));
                Objective::Binary { beta: (alpha * (t * (1.0 - 1.0 / alpha) + 1.0 / alpha)) as f32 }
            }
        }
    }

    pub(crate) fn candidates<'a>(&'a self, targets: &'a [u32]) -> Candidates<'a> {
        let DrawnNegatives { rows, shift, .. } = &self.negatives;
        Candidates { targets, rows, negative_shift: shift }
    }

    /// The masked items, with the tokens of a chunk that are asked about them and their targets; `None` where there are none.
    pub(crate) fn asked(&self, targets: &Targets, chunk: &Chunk) -> Option<(&Masked<'_>, Vec<u32>, Targets)> {
        let masked = self.masked.as_ref()?;
        let (tokens, targets) = masked.asked(targets, &self.touched.slot, chunk.first, self.key);
        (!tokens.is_empty()).then_some((masked, tokens, targets))
    }

    pub(crate) fn dropouts(&self, chunk: &Chunk) -> Option<Dropouts> {
        Some(Dropouts { key: self.key, rate: self.setup.dropout, first: chunk.first })
    }

    pub(crate) fn empty(&self) -> Gradients {
        let options = &self.setup.network.options;
        let zeros = |n: usize| {
            let mut buffer = self.setup.spare.lock().take(n);
            buffer.fill(0.0);
            buffer
        };
        Gradients {
            dense: zeros(self.values.dense.len()),
            items: zeros(self.touched.rows.len() * options.width as usize),
            masked: zeros(self.masked.as_ref().map_or(0, Masked::len)),
            features: zeros(self.setup.network.features.event_rows() * options.field_width as usize),
            ..Gradients::default()
        }
    }
}

impl Setup<'_> {
    /// The objectives in the order of [`Gradients::losses`].
    pub(crate) fn names(&self) -> Vec<String> {
        let heads = self.network.features.heads.iter().map(|h| h.name.clone());
        let feedback = (self.network.options.feedback > 0.0).then(|| "feedback".to_owned());
        std::iter::once("next-item".to_owned()).chain(heads).chain(feedback).collect()
    }

    /// What each weighs in the sum.
    pub(crate) fn weights(&self) -> Vec<f32> {
        let options = &self.network.options;
        let heads = self.network.features.heads.iter().map(|h| h.weight);
        std::iter::once(1.0).chain(heads).chain((options.feedback > 0.0).then_some(options.feedback)).collect()
    }
}
