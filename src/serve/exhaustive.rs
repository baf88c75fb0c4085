//! Every item's score for many users at once: what evaluation and batch jobs ask for.

use super::generation::Generation;
use crate::error::{Result, err};
use crate::kernels::matmul::{View, matmul};
use crate::kernels::retrieve::dot_rows;
use crate::model::{Expectations, Features, History, Request, Scratch};

impl Generation {
    /// The score of every item row for each of `users` (what they did, by item row and code, and what is known of the request), into
    /// `scores`, `[users, items]` row-major. Users without an event get the items' popularity instead of the model's scores.
    /// Nothing is filtered, not even removed items; added ones have no popularity.
    ///
    /// # Errors
    /// `InvalidArgument` for rows or codes out of range, or where `scores` has another length; `Corrupt` where a score is
    /// not finite.
    pub fn score_all(&self, users: &[(History, Request)], scratch: &mut Scratch, scores: &mut [f32]) -> Result<()> {
        let (n, d) = (self.items(), self.width());
        if scores.len() != users.len().saturating_mul(n) {
            let (have, want) = (scores.len(), users.len());
            return Err(err!(InvalidArgument, "{have} scores for {want} users of {n} items; pass one a pair"));
        }
        let weights = self.weights()?;
        let mut vectors = vec![0.0f32; users.len() * d];
        for ((history, request), vector) in users.iter().zip(vectors.chunks_exact_mut(d)) {
            self.inference().user_vector(weights, history, request, scratch, vector)?;
        }
        let published = self.published_items();
        let items = View::dense(weights.items, published, d).t();
        matmul(View::dense(&vectors, users.len(), d), items, scores, n, false);
        for (((history, _), vector), row) in users.iter().zip(vectors.chunks_exact(d)).zip(scores.chunks_exact_mut(n)) {
            let (own, mut added) = row.split_at_mut(published);
            match history.items.is_empty() {
                true => {
                    own.copy_from_slice(self.popularity()?);
                    added.fill(0.0);
                }
                false => {
                    for rows in self.overlay().vectors() {
                        let (to, rest) = added.split_at_mut(rows.len() / d);
                        dot_rows(vector, rows, to);
                        added = rest;
                    }
                }
            }
        }
        match scores.iter().all(|s| s.is_finite()) {
            true => Ok(()),
            false => Err(err!(Corrupt, "a score of generation {} is not finite; verify the store", self.id())),
        }
    }

    /// The features of a token and the heads that the model has beside the item head.
    pub fn features(&self) -> &Features {
        self.inference().features()
    }

    /// Whether the model has a feedback head.
    pub fn has_feedback(&self) -> bool {
        self.inference().has_feedback()
    }

    /// What the auxiliary and feedback heads expect after a history.
    ///
    /// # Errors
    /// `InvalidArgument` for rows or codes out of range; `Corrupt` where the weights are damaged.
    pub fn expect(&self, history: &History, request: &Request, scratch: &mut Scratch) -> Result<Expectations> {
        self.inference().expect(self.weights()?, history, request, scratch)
    }

    /// The probability that the outcome of an item is positive; `None` where there is no feedback head.
    ///
    /// # Errors
    /// As [`Generation::item_vector`].
    pub fn feedback(&self, expected: &Expectations, row: u32) -> Result<Option<f32>> {
        Ok(self.inference().feedback(self.weights()?, expected, self.item_vector(row)?))
    }
}
