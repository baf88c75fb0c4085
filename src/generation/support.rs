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
    /// When they happened, Unix milliseconds; `i64::MIN` is not known.
    pub times: Vec<i64>,
    /// When the newest happened, Unix milliseconds.
    pub until: Option<i64>,
}

impl Support {
    /// Nothing known of so many heads.
    pub(crate) fn none(heads: usize) -> Self {
        Self { evidence: vec![Evidence::default(); heads], ..Self::default() }
    }

    /// Adds an outcome behind those that are not newer, and keeps the latest `most`. One without a time is the newest.
    pub(crate) fn insert(
        &mut self,
        row: u32,
        labels: &[f32],
        impression: &[f32],
        surface: u32,
        time: Option<i64>,
        most: usize,
    ) {
        self.evidence.iter_mut().zip(labels).for_each(|(e, l)| e.push(*l));
        let behind = |other: &i64| time.is_none_or(|time| *other <= time);
        let at = self.times.iter().rposition(behind).map_or(0, |last| last + 1).min(self.rows.len());
        let start = |wide: usize, numbers: &[f32]| (at * wide).min(numbers.len());
        let (labels_at, impression_at) = (start(labels.len(), &self.labels), start(impression.len(), &self.impression));
        self.rows.insert(at, row);
        self.surfaces.insert(at.min(self.surfaces.len()), surface);
        self.times.insert(at, time.unwrap_or(i64::MIN));
        self.labels.splice(labels_at..labels_at, labels.iter().copied());
        self.impression.splice(impression_at..impression_at, impression.iter().copied());
        self.until = self.until.max(time);
        let over = self.rows.len().saturating_sub(most);
        self.rows.drain(..over);
        self.surfaces.drain(..over);
        self.times.drain(..over);
        self.labels.drain(..over.saturating_mul(labels.len()).min(self.labels.len()));
        self.impression.drain(..over.saturating_mul(impression.len()).min(self.impression.len()));
    }
}
