//! The place of one item among all scores.

/// The rank (0 is first) of `target` among `scores`: how many others score higher, plus half of those that tie. Items whose
/// score is `f32::NEG_INFINITY` take no part.
pub(crate) fn mean_rank(scores: &[f32], target: usize) -> f64 {
    let own = scores[target];
    let higher = scores.iter().filter(|s| **s > own).count();
    let ties = scores.iter().filter(|s| **s == own).count().saturating_sub(1);
    higher as f64 + ties as f64 / 2.0
}
