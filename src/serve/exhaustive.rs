//! Every item's score for many users at once: what evaluation and batch jobs ask for.

use crate::error::{Result, err};
use crate::generation::Generation;
use crate::kernels::matmul::{View, matmul};
use crate::kernels::retrieve::dot_rows;
use crate::model::{History, Request, Scratch};

/// The score of every item row for each of `users` (what they did, by item row and code, and what is known of the request), into
/// `scores`, `[users, items]` row-major. Users without an event get the items' popularity instead of the model's scores.
/// Nothing is filtered, not even removed items; added ones have no popularity.
///
/// # Errors
/// `InvalidArgument` for rows or codes out of range, or where `scores` has another length; `Corrupt` where a score is
/// not finite.
pub fn score_all(
    generation: &Generation,
    users: &[(History, Request)],
    scratch: &mut Scratch,
    scores: &mut [f32],
) -> Result<()> {
    let (n, d) = (generation.items(), generation.width());
    if scores.len() != users.len().saturating_mul(n) {
        let (have, want) = (scores.len(), users.len());
        return Err(err!(InvalidArgument, "{have} scores for {want} users of {n} items; pass one a pair"));
    }
    let weights = generation.weights()?;
    let mut vectors = vec![0.0f32; users.len() * d];
    for ((history, request), vector) in users.iter().zip(vectors.chunks_exact_mut(d)) {
        generation.inference().user_vector(weights, history, request, scratch, vector)?;
    }
    let published = generation.published_items();
    let items = View::dense(weights.items, published, d).t();
    matmul(View::dense(&vectors, users.len(), d), items, scores, n, false);
    for (((history, _), vector), row) in users.iter().zip(vectors.chunks_exact(d)).zip(scores.chunks_exact_mut(n)) {
        let (own, mut added) = row.split_at_mut(published);
        match history.items.is_empty() {
            true => {
                own.copy_from_slice(generation.popularity()?);
                added.fill(0.0);
            }
            false => {
                for rows in generation.overlay().vectors() {
                    let (to, rest) = added.split_at_mut(rows.len() / d);
                    dot_rows(vector, rows, to);
                    added = rest;
                }
            }
        }
    }
    match scores.iter().all(|s| s.is_finite()) {
        true => Ok(()),
        false => Err(err!(Corrupt, "a score of generation {} is not finite; verify the store", generation.id())),
    }
}
