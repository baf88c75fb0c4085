//! Requests to one generation, which knows nothing of what was observed since.

use super::answer::View;
use super::list::Recommendations;
use super::request::{Filter, Query};
use super::session::Work;
use crate::error::Result;
use crate::generation::Generation;

/// Requests to one generation as it was published, without the states of entities: what an [`super::Engine`] keeps of what they did
/// since ([`super::Engine::observe`]) is not read. An engine's own requests read it.
///
/// ```no_run
/// use docent::serve::{Engine, EngineOptions, Filter, Query, WithoutStates};
/// let engine = Engine::open("shop.store", &EngineOptions::default())?;
/// let generation = engine.current();
/// let published = WithoutStates(&generation).recommend(&Query::entity("u42"), &Filter::default(), 10)?;
/// # Ok::<(), docent::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WithoutStates<'a>(pub &'a Generation);

impl WithoutStates<'_> {
    fn answer<T>(&self, answer: impl FnOnce(&View<'_>, &mut Work) -> Result<T>) -> Result<T> {
        answer(&View::new(self.0, None)?, &mut Work::default())
    }

    /// As [`super::Engine::recommend`].
    ///
    /// # Errors
    /// As there.
    pub fn recommend(&self, query: &Query<'_>, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        self.answer(|view, work| view.recommend(work, query, filter, k))
    }

    /// As [`super::Engine::score`].
    ///
    /// # Errors
    /// As there.
    pub fn score(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<f32>> {
        self.answer(|view, work| view.scores(work, query, candidates))
    }

    /// As [`super::Engine::probabilities`].
    ///
    /// # Errors
    /// As there.
    pub fn probabilities(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.answer(|view, work| view.probabilities(work, query, candidates))
    }

    /// As [`super::Engine::similar`].
    ///
    /// # Errors
    /// As there.
    pub fn similar(&self, item: &str, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        self.answer(|view, work| view.similar(work, item, filter, k))
    }

    /// As [`super::Engine::user_embedding`].
    ///
    /// # Errors
    /// As there.
    pub fn user_embedding(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.answer(|view, work| {
            view.user(work, query)?;
            Ok(std::mem::take(&mut work.user))
        })
    }
}
