//! The place of one item among all scores, and how well scores tell two classes apart.

/// The rank (0 is first) of `target` among `scores`: how many others score higher, plus half of those that tie. Items whose
/// score is `f32::NEG_INFINITY` take no part.
pub(crate) fn mean_rank(scores: &[f32], target: usize) -> f64 {
    let own = scores[target];
    let higher = scores.iter().filter(|s| **s > own).count();
    let ties = scores.iter().filter(|s| **s == own).count().saturating_sub(1);
    higher as f64 + ties as f64 / 2.0
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. `None` where one of
/// the classes is missing, or the slices differ in length.
pub(crate) fn auc(scores: &[f32], labels: &[bool]) -> Option<f64> {
    if scores.len() != labels.len() {
        return None;
    }
    let mut pairs: Vec<(f32, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = pairs.iter().filter(|p| p.1).count() as f64;
    let negatives = pairs.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut below, mut won) = (0.0, 0.0);
    for tie in pairs.chunk_by(|a, b| a.0 == b.0) {
        let up = tie.iter().filter(|p| p.1).count() as f64;
        let down = tie.len() as f64 - up;
        won += up * (below + down / 2.0);
        below += down;
    }
    Some(won / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_ties_half() {
        assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
        assert_eq!(auc(&[1.0, 1.0], &[false, true]), Some(0.5));
        assert_eq!(auc(&[1.0], &[true]), None);
        assert_eq!(auc(&[1.0], &[true, false]), None);
    }
}
