//! How a generation answers: the user vector, the scan over the catalogue, the popular list, likeness of items.

use super::filter::{Conditions, Filter, Mask};
use super::generation::Generation;
use super::query::Query;
use super::session::Work;
use crate::error::{Result, err};
use crate::kernels::retrieve::{TopK, cosine_rows, dot_rows, finite};
use crate::store::GenerationId;

/// Rows scored at once: their scores stay in the nearest cache.
const BLOCK: usize = 512;

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The model's scores for this history.
    Model,
    /// Recency-weighted popularity, because nothing is known of what the person did: an entity that the generation does not
    /// know, or no event at all. Scores are shares of the recent events, of people with a like profile where one is known.
    Popularity,
    /// Retrieved by the model, put in order by the ranker: scores are calibrated probabilities of the outcome.
    Ranker,
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

impl Generation {
    /// Reads query and filter into `work`.
    pub(super) fn prepare(&self, work: &mut Work, query: &Query<'_>, filter: &Filter<'_>) -> Result<()> {
        work.resolved.read(self, query)?;
        work.mask.read(self, filter)?;
        match filter.exclude_seen {
            true => work.mask.leave_out_seen(self, &work.resolved),
            false => Ok(()),
        }
    }

    /// Leaves the best `k` in `work.top`, in the circumstances in `work`.
    pub(super) fn rank(&self, work: &mut Work, filter: &Filter<'_>, k: usize) -> Result<Source> {
        check_k(k)?;
        let conditions = Conditions::read(self, filter)?;
        work.top.reset(k.min(self.items()));
        if work.resolved.is_empty() {
            self.rank_popular(work, &conditions, k)?;
            return Ok(Source::Popularity);
        }
        self.user_vector(work)?;
        let Work { user, block, top, mask, .. } = work;
        match filter.allow {
            None => {
                let score = |rows: &[f32], scores: &mut [f32]| dot_rows(user, rows, scores);
                self.scan(block, top, score, |row| Ok(mask.lets(row) && conditions.hold(row)?))?;
            }
            Some(_) => self.pick(mask, top, &conditions, |row, score| dot_rows(user, row, score))?,
        }
        Ok(Source::Model)
    }

    /// Scores the allowed rows only.
    fn pick(
        &self,
        mask: &Mask,
        top: &mut TopK,
        conditions: &Conditions<'_>,
        score: impl Fn(&[f32], &mut [f32]),
    ) -> Result<()> {
        for row in &mask.allowed {
            if mask.lets(*row) && conditions.hold(*row)? {
                let mut one = [0.0];
                score(self.item_vector(*row)?, &mut one);
                top.offer(check_score(one[0], *row)?, *row);
            }
        }
        Ok(())
    }

    fn rank_popular(&self, work: &mut Work, conditions: &Conditions<'_>, k: usize) -> Result<()> {
        let blend = self.profile_blend(&work.resolved.profile)?;
        let shares = self.popularity()?;
        // What the profile speaks for, first: every other item keeps its place among the others.
        for row in blend.rows() {
            if work.mask.lets(row) && conditions.hold(row)? {
                work.top.offer(blend.share(row, shares)?, row);
            }
        }
        let mut left = k;
        work.listed.clear();
        for row in self.popular()? {
            if left == 0 {
                break;
            }
            let share = blend.share(*row, shares)?;
            if !blend.names(*row) && work.mask.lets(*row) && conditions.hold(*row)? {
                // Each row once, whatever the section says.
                work.mask.leave_out(*row);
                work.listed.push(*row);
                work.top.offer(share, *row);
                left -= 1;
            }
        }
        // Nobody has touched added items yet: they come last.
        for (row, _) in self.overlay().items() {
            if left == 0 {
                break;
            }
            if work.mask.lets(row) && conditions.hold(row)? {
                work.top.offer(0.0, row);
                left -= 1;
            }
        }
        work.listed.iter().for_each(|row| work.mask.let_in(*row));
        Ok(())
    }

    /// Scores the whole catalogue block by block with `score` and offers what passes `admits`.
    fn scan(
        &self,
        block: &mut Vec<f32>,
        top: &mut TopK,
        score: impl Fn(&[f32], &mut [f32]),
        admits: impl Fn(u32) -> Result<bool>,
    ) -> Result<()> {
        block.resize(BLOCK, 0.0);
        let mut row = 0u32;
        let published = self.item_vectors()?.chunks(BLOCK.saturating_mul(self.width()));
        for rows in published.chain(self.overlay().vectors()) {
            let scores = block.get_mut(..rows.len() / self.width().max(1)).unwrap_or_default();
            score(rows, scores);
            if !finite(scores) {
                let bad = scores.iter().position(|s| !s.is_finite()).unwrap_or_default();
                check_score(f32::NAN, row.saturating_add(bad as u32))?;
            }
            for score in scores.iter() {
                // The cheap test first: most rows are not among the best.
                if top.wants(*score, row) && admits(row)? {
                    top.offer(*score, row);
                }
                row = row.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Writes the user vector of the history in `work` to `work.user`.
    pub(super) fn user_vector(&self, work: &mut Work) -> Result<()> {
        let Work { resolved, scratch, user, .. } = work;
        user.clear();
        user.resize(self.width(), 0.0);
        self.inference().user_vector(self.weights()?, resolved.read_by_model(), &resolved.request, scratch, user)?;
        match finite(user) {
            true => Ok(()),
            false => Err(err!(
                Corrupt,
                "generation {} gives a user vector that is not finite; verify the store and roll back",
                self.id()
            )),
        }
    }

    /// Leaves the `k` items most like `item` in `work.top`.
    pub(super) fn rank_similar(&self, work: &mut Work, item: u32, filter: &Filter<'_>, k: usize) -> Result<()> {
        check_k(k)?;
        let conditions = Conditions::read(self, filter)?;
        work.mask.read(self, filter)?;
        work.mask.leave_out(item);
        work.top.reset(k.min(self.items()));
        let vector = self.item_vector(item)?;
        let Work { block, top, mask, .. } = work;
        match filter.allow {
            None => {
                let score = |rows: &[f32], scores: &mut [f32]| cosine_rows(vector, rows, scores);
                self.scan(block, top, score, |row| Ok(mask.lets(row) && conditions.hold(row)?))
            }
            Some(_) => self.pick(mask, top, &conditions, |row, score| cosine_rows(vector, row, score)),
        }
    }

    /// Names the rows in `work.top`.
    pub(super) fn named(&self, work: &mut Work) -> Result<Vec<Recommended>> {
        work.top.finish().iter().map(|s| self.name(s.row, s.score)).collect()
    }

    /// Names a row.
    pub(super) fn name(&self, row: u32, score: f32) -> Result<Recommended> {
        let id = self.item_id(row)?.to_owned();
        Ok(Recommended { row, id, title: self.item_title(row)?.map(str::to_owned), score })
    }
}

pub(super) fn check_k(k: usize) -> Result<()> {
    match k {
        0 => Err(err!(InvalidArgument, "k is 0; ask for at least 1 item")),
        _ => Ok(()),
    }
}

pub(super) fn check_score(score: f32, row: u32) -> Result<f32> {
    match score.is_finite() {
        true => Ok(score),
        false => Err(err!(Corrupt, "the score of item row {row} is not finite; verify the store and roll back")),
    }
}
