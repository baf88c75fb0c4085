//! The item vectors of a training step, and the table that a model is judged and published with.

use super::timeline::{Masking, Timeline};
use crate::kernels::norm::{scale_rows, scale_rows_backward};
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
        let key = hash64(seed, hash64(7, step));
        let masking = Masking { rate: self.masking, young: self.options.masking_young, key: hash64(key, 1) };
        let mut rng = Rng::new(hash64(key, 2));
        rows.iter().map(|row| masking.apply(*row, self.timeline.chosen(*row, &mut rng))).collect()
    }

    /// The table of all items after the last training event: `ids` are the ID embeddings, `[n, d]`.
    pub(crate) fn table(&self, ids: &[f32], tables: Tables<'_>) -> Vec<f32> {
        let rows: Vec<u32> = (0..self.timeline.len() as u32).collect();
        let batch = Batch { standings: &self.timeline.last(), metadata: &self.metadata, items: &rows };
        self.tower.forward(ids, batch, tables).vectors
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
