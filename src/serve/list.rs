//! What is answered: lists, and what their scores are.

use crate::error::{Result, err};
use crate::generation::Generation;
use crate::kernels::retrieve::Scored;
use crate::store::GenerationId;
use std::fmt;

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The model's scores for this history.
    Model,
    /// Recency-weighted popularity, because nothing is known of what the person did: an entity that the generation does not
    /// know, or no event at all. Scores are shares of the recent events, of people with a like profile where one is known.
    Popularity,
    /// Retrieved by the model, put in order by the ranker. By the outcome alone, as a query may ask ([`super::Ranking::Head`]), scores are
    /// its calibrated probabilities; else they are `score + weight * ln(probability)`, the model's score of the item and the
    /// weight of the generation ([`crate::options::ListOrder`]).
    Ranker,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Popularity => "popularity",
            Self::Ranker => "ranker",
        })
    }
}

/// One item of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommended {
    /// Its row in the generation.
    pub row: u32,
    /// Its id.
    pub id: String,
    /// Its title; `None` where it is not known.
    pub title: Option<String>,
    /// Its score; finite. Comparable within one list only.
    pub score: f32,
}

/// A list, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendations {
    /// The generation that the whole list comes from.
    pub generation: GenerationId,
    /// What the scores are.
    pub source: Source,
    /// The items, highest score first, among equals the lower row first. Shorter than asked for only where the filter
    /// leaves fewer; empty only where it leaves none.
    pub items: Vec<Recommended>,
}

impl IntoIterator for Recommendations {
    type Item = Recommended;
    type IntoIter = std::vec::IntoIter<Recommended>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a> IntoIterator for &'a Recommendations {
    type Item = &'a Recommended;
    type IntoIter = std::slice::Iter<'a, Recommended>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// What was written by [`super::Engine::recommend_into`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How many rows and scores were written.
    pub count: usize,
    /// The generation that they come from.
    pub generation: GenerationId,
    /// What the scores are.
    pub source: Source,
}

/// Names a row.
pub(super) fn name(generation: &Generation, scored: &Scored) -> Result<Recommended> {
    let Scored { row, score } = *scored;
    let id = generation.item_id(row)?.to_owned();
    Ok(Recommended { row, id, title: generation.item_title(row)?.map(str::to_owned), score })
}

/// Names rows.
pub(super) fn named(generation: &Generation, source: Source, best: &[Scored]) -> Result<Recommendations> {
    let items = best.iter().map(|scored| name(generation, scored)).collect::<Result<_>>()?;
    Ok(Recommendations { generation: generation.id(), source, items })
}

/// Refuses a list of no items.
pub(super) fn check_k(k: usize) -> Result<()> {
    match k {
        0 => Err(err!(InvalidArgument, "k is 0; ask for at least 1 item")),
        _ => Ok(()),
    }
}

/// Refuses a score that is no number.
pub(super) fn check_score(score: f32, row: u32) -> Result<f32> {
    match score.is_finite() {
        true => Ok(score),
        false => Err(err!(Corrupt, "the score of item row {row} is not finite; verify the store and roll back")),
    }
}
