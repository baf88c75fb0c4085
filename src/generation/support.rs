//! What is known of an entity's outcomes, in the rows of a generation.

use crate::ranker::Evidence;

/// The outcomes that an adaptation reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Support {
    /// By head, over all outcomes.
    pub evidence: Vec<Evidence>,
    /// Item rows of the latest outcomes, oldest first.
    pub rows: Vec<u32>,
    /// Their labels, `[n, heads]`.
    pub labels: Vec<f32>,
    /// Their impression features, `[n, numbers]`, scaled.
    pub impression: Vec<f32>,
    /// The codes of their surfaces, 0 is unknown.
    pub surfaces: Vec<u32>,
    /// When the newest happened, Unix milliseconds.
    pub until: Option<i64>,
}

impl Support {
    /// Nothing known of so many heads.
    pub(crate) fn none(heads: usize) -> Self {
        Self { evidence: vec![Evidence::default(); heads], ..Self::default() }
    }

    /// Adds an outcome, newer than all before it, and keeps the latest `most`.
    pub(crate) fn push(
        &mut self,
        row: u32,
        labels: &[f32],
        impression: &[f32],
        surface: u32,
        time: Option<i64>,
        most: usize,
    ) {
        self.evidence.iter_mut().zip(labels).for_each(|(e, l)| e.push(*l));
        self.rows.push(row);
        self.labels.extend_from_slice(labels);
        self.impression.extend_from_slice(impression);
        self.surfaces.push(surface);
        self.until = self.until.max(time);
        let over = self.rows.len().saturating_sub(most);
        self.rows.drain(..over);
        self.surfaces.drain(..over);
        self.labels.drain(..over.saturating_mul(labels.len()).min(self.labels.len()));
        self.impression.drain(..over.saturating_mul(impression.len()).min(self.impression.len()));
    }
}
