//! A guard against changes of taste: outcomes from before a change are not adapted to.
//!
//! What the older outcomes teach is put to the test on the newer ones, which it has not seen. Where it predicts the latest of
//! them much worse than the embedding of an entity of which no outcome is known, the older outcomes speak of another taste. The sum of the
//! differences in log loss from the newest outcome backwards is a log-likelihood ratio; the place of its maximum estimates the
//! change (cumulative sums, Page 1954).

use super::adapter::Adapter;
use crate::error::Result;

/// When to forget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftDetection {
    /// The newest outcomes among which a change is looked for, half of all at most.
    pub latest: usize,
    /// The sum of the differences in log loss, in nats, from which there is one. Lower forgets sooner, and in vain more often.
    pub evidence: f32,
}

impl Default for DriftDetection {
    fn default() -> Self {
        Self { latest: 64, evidence: 3.0 }
    }
}

impl Adapter<'_> {
    /// The first outcome after the latest change of taste, 0 if there is none. The arguments are those of [`Adapter::adapt`],
    /// which is then to be given the outcomes from there on. Costs an adaptation to the older half.
    ///
    /// # Errors
    /// What [`Adapter::adapt`] returns.
    pub fn change(
        &mut self,
        input: &[f32],
        own: Option<&[f32]>,
        candidates: &[f32],
        labels: &[f32],
        steps: usize,
        drift: &DriftDetection,
    ) -> Result<usize> {
        let (heads, width) = (self.ranker().shape.heads, self.ranker().shape.candidate());
        let n = labels.len() / heads;
        let newer = drift.latest.min(n / 2);
        if newer == 0 || candidates.len() != n * width {
            return Ok(0);
        }
        let old = n - newer;
        let adapted =
            self.adapt(input, own, &candidates[..old * width], &labels[..old * heads], steps)?.embedding.to_vec();
        let start = self.embedding_after(0).to_vec();
        let (mut with, mut without) = (vec![0.0; newer * heads], vec![0.0; newer * heads]);
        self.read(&candidates[old * width..], newer * heads)?;
        self.score_read(&adapted, &mut with)?;
        self.score_read(&start, &mut without)?;
        let (mut sum, mut best, mut from) = (0.0, drift.evidence, 0);
        for i in (0..newer).rev() {
            for t in i * heads..(i + 1) * heads {
                let label = labels[old * heads + t];
                if !label.is_nan() {
                    sum += cross_entropy(with[t], label) - cross_entropy(without[t], label);
                }
            }
            if sum > best {
                (best, from) = (sum, old + i);
            }
        }
        Ok(from)
    }
}

fn cross_entropy(logit: f32, label: f32) -> f32 {
    logit.max(0.0) + (-logit.abs()).exp().ln_1p() - label * logit
}
