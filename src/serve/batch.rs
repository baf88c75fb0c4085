//! Many requests in one call, on the threads that the caller grants.

use super::filter::Filter;
use super::generation::Generation;
use super::query::Query;
use super::retrieve::Recommendations;
use super::session::Work;
use crate::error::{Result, err};

impl Generation {
    /// As [`super::Engine::recommend_batch`], from this generation.
    ///
    /// # Errors
    /// As [`super::Engine::recommend_batch`].
    pub fn recommend_batch(
        &self,
        queries: &[Query<'_>],
        filter: &Filter<'_>,
        k: usize,
        threads: usize,
    ) -> Result<Vec<Result<Recommendations>>> {
        spread(queries, threads, |work, query| self.recommend_with(work, query, filter, k, None))
    }

    /// As [`super::Engine::user_embeddings`], from this generation.
    ///
    /// # Errors
    /// As [`super::Engine::user_embeddings`].
    pub fn user_embeddings(&self, queries: &[Query<'_>], threads: usize) -> Result<Vec<Result<Vec<f32>>>> {
        spread(queries, threads, |work, query| self.user_embedding_with(work, query))
    }
}

/// Answers every query with `answer`, on `threads` threads of which the caller's is one; answers are in the order of the
/// queries.
pub(super) fn spread<T: Send>(
    queries: &[Query<'_>],
    threads: usize,
    answer: impl Fn(&mut Work, &Query<'_>) -> Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    if threads == 0 {
        return Err(err!(InvalidArgument, "threads is 0; grant at least 1, which is the caller's own"));
    }
    let answer_all = |queries: &[Query<'_>]| -> Vec<Result<T>> {
        let mut work = Work::default();
        queries.iter().map(|query| answer(&mut work, query)).collect()
    };
    let share = queries.len().div_ceil(threads).max(1);
    let mut shares = queries.chunks(share);
    let own = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let started: Vec<_> = shares
            .map(|queries| (queries.len(), std::thread::Builder::new().spawn_scoped(scope, || answer_all(queries))))
            .collect();
        let mut answers = answer_all(own);
        for (count, thread) in started {
            match thread.map(|t| t.join()) {
                Ok(Ok(part)) => answers.extend(part),
                Ok(Err(_)) => answers.extend(
                    (0..count).map(|_| Err(err!(Internal, "a thread of the batch panicked; please report it"))),
                ),
                Err(e) => answers.extend(
                    (0..count).map(|_| Err(err!(Io, "cannot start a thread of the batch: {e}; grant fewer threads"))),
                ),
            }
        }
        Ok(answers)
    })
}
