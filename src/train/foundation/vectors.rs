//! The item vectors of a training step, and the table that a model is judged and published with.

use super::timeline::{Masking, Timeline};
use crate::kernels::math::add;
use crate::kernels::norm::{scale_rows, scale_rows_backward};
use crate::kernels::softmax::Targets;
use crate::model::tower::{Batch, Pass, Tables, TowerGradients};
use crate::model::{Metadata, Standing, Tower};
use crate::options::TowerOptions;
use crate::random::{Rng, hash64};

/// An item tower in training.
pub(crate) struct TowerTraining<'a> {
    pub tower: &'a Tower,
    pub metadata: Metadata,
    pub timeline: Timeline,
    /// The least share of items that are masked.
    pub masking: f32,
    pub options: TowerOptions,
}

impl TowerTraining<'_> {
    /// What is known of each of the items `rows` in step `step`: as it was just after one of the item's own events, drawn at random from all
    /// of them. Over many steps each item is met at the ages and with the evidence that it had when it was chosen. Whether the batch
    /// names the item must not matter: its target would be the one whose standing fits the time of the batch.
    fn standings(&self, rows: &[u32], seed: u64, step: u64) -> Vec<Standing> {
        let mut rng = Rng::new(hash64(key(seed, step), 2));
        rows.iter().map(|row| self.timeline.chosen(*row, &mut rng)).collect()
    }

    /// The masked items among those of a step; `None` where there is none.
    pub(crate) fn masked(
        &self,
        items: &ItemVectors<'_>,
        tables: Tables<'_>,
        [seed, step]: [u64; 2],
    ) -> Option<Masked<'_>> {
        let masking =
            Masking { rate: self.masking, young: self.options.masking_young, key: hash64(key(seed, step), 1) };
        let (described, _) = items.tower.as_ref()?;
        let standings = items.rows.iter().zip(&described.standings);
        let drawn = standings.map(|(row, standing)| masking.draw(*row, *standing));
        let (slots, standings): (Vec<u32>, Vec<Standing>) =
            (0..).zip(drawn).filter_map(|(slot, standing)| Some((slot, standing?))).unzip();
        if slots.is_empty() {
            return None;
        }
        let rows: Vec<u32> = slots.iter().map(|slot| items.rows[*slot as usize]).collect();
        let described = Described { tower: self.tower, metadata: &self.metadata, standings };
        let (ids, d) = (vec![0.0; rows.len() * items.d], items.d);
        let vectors = ItemVectors::of(Some(described), ids, &rows, tables, (items.unit, d));
        let (mut table, mut is_masked) = (items.vectors.clone(), vec![false; items.rows.len()]);
        for (slot, vector) in slots.iter().zip(vectors.vectors.chunks_exact(d)) {
            table[*slot as usize * d..(*slot as usize + 1) * d].copy_from_slice(vector);
            is_masked[*slot as usize] = true;
        }
        Some(Masked { slots, is_masked, table, negatives: Vec::new(), vectors })
    }

    /// The table of all items after the last training event: `ids` are the ID embeddings, `[n, d]`.
    pub(crate) fn table(&self, ids: &[f32], tables: Tables<'_>) -> Vec<f32> {
        let rows: Vec<u32> = (0..self.timeline.len() as u32).collect();
        let batch = Batch { standings: &self.timeline.last(), metadata: &self.metadata, items: &rows };
        self.tower.forward(ids, batch, tables).vectors
    }
}

/// Names the tower's random choices of a step.
fn key(seed: u64, step: u64) -> u64 {
    hash64(seed, hash64(7, step))
}

/// Items of a step as they would be known without their ID embeddings, so that metadata carries weight. They are scored as targets and as
/// candidates, in the place of their items, for some of the step's tokens. What comes of that moves the tower alone: the network, ID
/// embeddings and user vectors learn from the items as they are.
pub(crate) struct Masked<'a> {
    /// Their slots, ascending.
    slots: Vec<u32>,
    /// By slot.
    is_masked: Vec<bool>,
    /// The vectors of all touched items by slot, those of the masked ones as they are without IDs.
    pub table: Vec<f32>,
    /// The vectors of the shared negatives in that table.
    pub negatives: Vec<f32>,
    vectors: ItemVectors<'a>,
}

/// One in so many of the tokens that have a masked target is asked about masked items, and one in so many of the others.
const ASKED: [u64; 2] = [4, 16];

impl Masked<'_> {
    /// Length of the gradients of the masked vectors.
    pub(crate) fn len(&self) -> usize {
        self.vectors.vectors.len()
    }

    /// The tokens of a chunk that are scored against the table, and their targets: a sample of those that have a masked target and a smaller
    /// one of the others. Each weighs as many as it stands for. `slot` gives an item's slot; `first` is the place of the chunk's first token in the batch.
    pub(crate) fn asked(&self, targets: &Targets, slot: &[u32], first: usize, key: u64) -> (Vec<u32>, Targets) {
        let (mut tokens, mut asked) = (Vec::new(), Targets::default());
        for i in 0..targets.len() {
            let (rows, weights) = targets.row(i);
            let has_masked = rows.iter().any(|row| self.is_masked[slot[*row as usize] as usize]);
            let one_in = ASKED[usize::from(!has_masked)];
            if !hash64(hash64(key, 1), (first + i) as u64).is_multiple_of(one_in) {
                continue;
            }
            tokens.push(i as u32);
            asked.rows.extend_from_slice(rows);
            asked.weights.extend(weights.iter().map(|w| w * one_in as f32));
            asked.close();
        }
        (tokens, asked)
    }

    /// Adds the gradients of the masked vectors among those of the table to `to`.
    pub(crate) fn collect(&self, gradients: &[f32], to: &mut [f32]) {
        let d = self.vectors.d;
        for (slot, to) in self.slots.iter().zip(to.chunks_exact_mut(d)) {
            add(to, &gradients[*slot as usize * d..(*slot as usize + 1) * d]);
        }
    }

    /// From the gradients of the masked vectors to those of the tower's weights, which are added to `dense` and `features`.
    pub(crate) fn backward(self, gradient: Vec<f32>, tables: Tables<'_>, dense: &mut [f32], features: &mut [f32]) {
        self.vectors.backward(gradient, tables, dense, features);
    }
}

/// What the tower is told of some items.
pub(crate) struct Described<'a> {
    pub tower: &'a Tower,
    pub metadata: &'a Metadata,
    /// One for each of the items.
    pub standings: Vec<Standing>,
}

impl Described<'_> {
    fn batch<'b>(&'b self, rows: &'b [u32]) -> Batch<'b> {
        Batch { standings: &self.standings, metadata: self.metadata, items: rows }
    }
}

/// The vectors of the items that a step touches, as the network sees them.
pub(crate) struct ItemVectors<'a> {
    tower: Option<(Described<'a>, Pass)>,
    rows: Vec<u32>,
    /// Before they are brought to length 1.
    raw: Vec<f32>,
    /// `[rows, d]`.
    pub vectors: Vec<f32>,
    unit: bool,
    d: usize,
}

impl<'a> ItemVectors<'a> {
    /// The vectors of `rows`, whose ID embeddings are `ids`.
    pub(crate) fn new(
        tower: Option<&'a TowerTraining<'a>>,
        ids: Vec<f32>,
        rows: &[u32],
        tables: Tables<'_>,
        [seed, step]: [u64; 2],
        (unit, d): (bool, usize),
    ) -> Self {
        let described = tower.map(|training| Described {
            tower: training.tower,
            metadata: &training.metadata,
            standings: training.standings(rows, seed, step),
        });
        Self::of(described, ids, rows, tables, (unit, d))
    }

    /// The same of items whose standings are known.
    pub(crate) fn of(
        described: Option<Described<'a>>,
        ids: Vec<f32>,
        rows: &[u32],
        tables: Tables<'_>,
        (unit, d): (bool, usize),
    ) -> Self {
        let (tower, raw) = match described {
            None => (None, ids),
            Some(described) => {
                let mut pass = described.tower.forward(&ids, described.batch(rows), tables);
                let vectors = std::mem::take(&mut pass.vectors);
                (Some((described, pass)), vectors)
            }
        };
        let mut vectors = raw.clone();
        if unit {
            scale_rows(&mut vectors, d, true, 1.0);
        }
        Self { tower, rows: rows.to_vec(), raw, vectors, unit, d }
    }

    /// From the gradients of the vectors to those of the ID embeddings; adds what the tower's weights get to `dense` and
    /// `features`.
    pub(crate) fn backward(
        self,
        gradient: Vec<f32>,
        tables: Tables<'_>,
        dense: &mut [f32],
        features: &mut [f32],
    ) -> Vec<f32> {
        let mut gradient = gradient;
        if self.unit {
            let mut through = vec![0.0; gradient.len()];
            scale_rows_backward(&self.raw, self.d, true, 1.0, &gradient, &mut through);
            gradient = through;
        }
        match self.tower {
            None => gradient,
            Some((described, pass)) => {
                let mut to = TowerGradients { dense, features };
                described.tower.backward(&pass, described.batch(&self.rows), tables, &gradient, &mut to)
            }
        }
    }
}
