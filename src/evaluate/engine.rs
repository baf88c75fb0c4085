//! The foundation model of a published generation as a method to be judged, on the dataset it was trained on or on a later one.

use super::scorer::Scorer;
use crate::data::{Case, Dataset};
use crate::error::Result;
use crate::generation::Coded;
use crate::model::{History, Request, Scratch};
use crate::serve::{Generation, score_all};
use std::sync::Arc;

/// Scores questions with the foundation model of a generation alone: what lists are retrieved by. Items, actions and field values are matched by their text; items that the
/// generation does not know score `-inf`.
#[derive(Debug)]
pub struct EngineScorer {
    name: String,
    coded: Coded,
}

impl EngineScorer {
    /// Matches a generation with a dataset.
    ///
    /// # Errors
    /// `StateMismatch` where the dataset declares other event fields than the model was trained with, or shares no item with
    /// it; `Corrupt` where the generation's id table is damaged.
    pub fn new(generation: Arc<Generation>, data: &Dataset) -> Result<Self> {
        Ok(Self { name: "retrieval".into(), coded: Coded::new(generation, data)? })
    }

    /// The same under another name than `retrieval`.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The generation that is judged.
    pub fn generation(&self) -> &Generation {
        self.coded.generation()
    }

    /// The generation's row of an item of the dataset.
    pub(super) fn row(&self, item: u32) -> Option<u32> {
        self.coded.row(item)
    }

    /// The question in the generation's rows and codes.
    pub(super) fn question(&self, data: &Dataset, case: &Case) -> (History, Request) {
        (self.coded.history(data, case.history.clone()), self.coded.request(data, case.target, case.at))
    }
}

impl Scorer for EngineScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        self.score_batch(data, std::slice::from_ref(case), scores)
    }

    fn score_batch(&self, data: &Dataset, cases: &[Case], scores: &mut [f32]) -> Result<()> {
        let users: Vec<_> = cases.iter().map(|case| self.question(data, case)).collect();
        let mut scratch = Scratch::default();
        let generation = self.coded.generation();
        if self.coded.same_rows() {
            return score_all(generation, &users, &mut scratch, scores);
        }
        let n = generation.items();
        let mut all = vec![0.0f32; n * users.len()];
        score_all(generation, &users, &mut scratch, &mut all)?;
        for (to, from) in scores.chunks_exact_mut(self.coded.rows().len()).zip(all.chunks_exact(n)) {
            for (to, row) in to.iter_mut().zip(self.coded.rows()) {
                *to = row.and_then(|r| from.get(r as usize).copied()).unwrap_or(f32::NEG_INFINITY);
            }
        }
        Ok(())
    }
}
