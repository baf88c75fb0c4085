//! What a method must do to be judged: give every item of the catalogue a score.

use crate::data::{Case, Dataset};
use crate::error::Result;

/// A method that is judged. Shared by threads, so it keeps no mutable state outside of locks.
pub trait Scorer: Sync {
    /// The name of its row in the report. Scorers that share a name are taken as runs of one method (seeds or
    /// generations) and share a row.
    fn name(&self) -> &str;

    /// Writes one score per item row, higher is better, for the question `case`.
    ///
    /// What may be read: the events in `case.history`, and the request-time fields and the time of the event
    /// `case.target`; never its item, action, value, outcomes or label. `scores` has one entry per item of the
    /// catalogue and arrives filled with zeros. `-inf` takes an item out of the recommended list; NaN is an error.
    ///
    /// # Errors
    /// Whatever keeps the method from answering; the evaluation stops and returns it.
    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()>;

    /// Answers several questions at once: `scores` holds one row of catalogue length per case. Methods that gain from
    /// batches override it; the numbers must not depend on which cases share a batch.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    fn score_batch(&self, data: &Dataset, cases: &[Case], scores: &mut [f32]) -> Result<()> {
        let items = data.items.len().max(1);
        for (case, row) in cases.iter().zip(scores.chunks_exact_mut(items)) {
            self.score(data, case, row)?;
        }
        Ok(())
    }
}
