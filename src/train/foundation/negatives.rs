//! Which items does a sampled loss compare the target with?

use super::corpus::{Corpus, Window};
use crate::options::{NegativeSource, Negatives};
use crate::random::{Rng, hash64};

/// Draws the negatives of each step, a function of the seed and the step alone.
#[derive(Debug, Clone)]
pub(crate) struct NegativeSampler {
    options: Negatives,
    seed: u64,
    items: usize,
    /// Added to the score of each item as a negative where logQ correction is asked for; empty otherwise.
    shift: Vec<f32>,
}

impl NegativeSampler {
    /// Prepares the draws over a catalogue of `items` rows.
    pub(crate) fn new(options: Negatives, corpus: &Corpus, items: usize, seed: u64) -> Self {
        let shift = if options.log_q { shifts(options, corpus, items) } else { Vec::new() };
        Self { options, seed, items, shift }
    }

    /// The item rows of the negatives that all rows of step `step` share, drawn with replacement.
    pub(crate) fn draw(&self, corpus: &Corpus, windows: &[Window], step: u64) -> Vec<u32> {
        let mut rng = Rng::for_stream(self.seed, hash64(3, step));
        let events = &corpus.history.items;
        let batch: Vec<u32> = match self.options.source {
            NegativeSource::InBatch => windows.iter().flat_map(|w| &events[w.targets.clone()]).copied().collect(),
            _ => Vec::new(),
        };
        let draw = |_| match self.options.source {
            NegativeSource::Uniform => rng.below(self.items) as u32,
            NegativeSource::Popularity => events[rng.below(events.len())],
            NegativeSource::Mixed if rng.below(2) == 0 => rng.below(self.items) as u32,
            NegativeSource::Mixed => events[rng.below(events.len())],
            NegativeSource::InBatch => batch[rng.below(batch.len())],
        };
        (0..self.options.count).map(draw).collect()
    }

    /// What is added to the scores of `rows`; empty without correction.
    pub(crate) fn shifts(&self, rows: &[u32]) -> Vec<f32> {
        if self.shift.is_empty() {
            return Vec::new();
        }
        rows.iter().map(|r| self.shift[*r as usize]).collect()
    }
}

/// Minus the logarithm of how often each item is expected among the negatives of a step: so corrected, the sum over them is that over
/// the catalogue in the mean. A target is in its own sum for certain, so nothing is added to it (Khrylchenko et al. 2025,
/// "Correcting the LogQ correction"). Items that are never drawn count as seen once.
fn shifts(options: Negatives, corpus: &Corpus, items: usize) -> Vec<f32> {
    let count = f64::from(options.count);
    let uniform = 1.0 / items.max(1) as f64;
    if options.source == NegativeSource::Uniform {
        return vec![-(count * uniform).ln() as f32; items];
    }
    let mut seen = vec![0u32; items];
    corpus.history.items.iter().for_each(|i| seen[*i as usize] += 1);
    let events = corpus.history.items.len().max(1) as f64;
    let drawn = |n: u32| match options.source {
        NegativeSource::Mixed => (uniform + f64::from(n) / events) / 2.0,
        _ => f64::from(n.max(1)) / events,
    };
    seen.iter().map(|n| -(count * drawn(*n)).ln() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::History;

    fn corpus() -> Corpus {
        // Item 1 is seen three times as often as item 0, item 2 never.
        Corpus {
            history: History { items: vec![1, 1, 0, 1], ..History::default() },
            offsets: vec![0, 2, 4],
            ..Corpus::default()
        }
    }

    fn draw(source: NegativeSource, windows: &[Window]) -> Vec<u32> {
        let options = Negatives { count: 4000, source, log_q: false };
        NegativeSampler::new(options, &corpus(), 3, 1).draw(&corpus(), windows, 1)
    }

    #[test]
    fn each_source_draws_from_its_own_distribution() {
        let share = |rows: &[u32], item| rows.iter().filter(|r| **r == item).count() as f64 / rows.len() as f64;
        let uniform = draw(NegativeSource::Uniform, &[]);
        assert!((0..3).all(|i| (share(&uniform, i) - 1.0 / 3.0).abs() < 0.03));
        let popular = draw(NegativeSource::Popularity, &[]);
        assert!((share(&popular, 1) - 0.75).abs() < 0.03 && share(&popular, 2) == 0.0);
        let mixed = draw(NegativeSource::Mixed, &[]);
        assert!(
            (share(&mixed, 1) - 0.75 / 2.0 - 1.0 / 6.0).abs() < 0.03 && (share(&mixed, 2) - 1.0 / 6.0).abs() < 0.03
        );
        let batch = draw(NegativeSource::InBatch, &[Window { begin: 2, end: 4, targets: 2..3 }]);
        assert!(batch.iter().all(|i| *i == 0));
    }

    #[test]
    fn shifts_are_the_expected_counts() {
        let with = |source, log_q| NegativeSampler::new(Negatives { count: 8, source, log_q }, &corpus(), 3, 1);
        assert!(with(NegativeSource::Popularity, false).shifts(&[0, 1]).is_empty());
        let popular = with(NegativeSource::Popularity, true).shifts(&[0, 1]);
        assert!((popular[0] + 2f32.ln()).abs() < 1e-6 && (popular[1] + 6f32.ln()).abs() < 1e-6);
        let mixed = with(NegativeSource::Mixed, true).shifts(&[1, 2]);
        assert!((mixed[0] + (8f32 * (0.75 + 1.0 / 3.0) / 2.0).ln()).abs() < 1e-6);
        assert!((mixed[1] + (8f32 / 6.0).ln()).abs() < 1e-6);
        let uniform = with(NegativeSource::Uniform, true).shifts(&[2]);
        assert!((uniform[0] + (8f32 / 3.0).ln()).abs() < 1e-6);
    }
}
