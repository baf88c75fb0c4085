//! In which order: what retrieval and the ranker say of a candidate, as one number. Serving orders by it, training chooses its weight.

use crate::options::ListOrder;

/// Items that are retrieved for ranking, where fewer are asked for.
pub(crate) const RETRIEVED: usize = 200;

/// What a list is ordered by, of the score of retrieval and the probability of the outcome; finite where both are.
pub(crate) fn list_score(order: ListOrder, score: f32, probability: f32) -> f32 {
    match order.weight {
        None => probability,
        // A probability may be too small for a number.
        Some(weight) => score + weight * probability.max(f32::MIN_POSITIVE).ln(),
    }
}
