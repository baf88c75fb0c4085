//! How a request is answered: a list of stages, each with buffers of its own, none looking up what an earlier one knows.

use super::list::{Recommendations, Source, check_k, check_score, named};
use super::person::{Personal, read_state};
use super::rank::{Place, Predict};
use super::request::{Conditions, Filter, Query, Ranking};
use super::retrieve::{Blend, Exact, Likeness, Retrieve, Wanted, user_vector};
use super::session::Work;
use crate::error::{Result, err};
use crate::generation::{Generation, PublishedRanker};
use crate::kernels::retrieve::{Scored, dot};
use crate::options::ListOrder;
use crate::ranker::{RETRIEVED, list_score};

/// What answers a request: one generation, its ranker, and what is kept of entities.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) generation: &'a Generation,
    ranker: Option<PublishedRanker<'a>>,
    personal: Option<&'a Personal>,
}

impl<'a> View<'a> {
    pub(super) fn new(generation: &'a Generation, personal: Option<&'a Personal>) -> Result<Self> {
        Ok(Self { generation, ranker: generation.find_ranker()?, personal })
    }

    /// Where a query is ranked, and in which order; `None` where its list is to stay as it is retrieved.
    fn ranking(&self, ranking: Ranking<'_>) -> Result<Option<(Place<'a>, ListOrder)>> {
        let generation = self.generation;
        match (ranking, self.ranker) {
            (Ranking::Retrieval, _) | (Ranking::Auto, None) => Ok(None),
            (Ranking::Auto, Some(ranker)) => {
                let order = ranker.record.order;
                Ok((order.weight != Some(0.0)).then_some((Place { generation, ranker }, order)))
            }
            (Ranking::Head(name), _) => {
                let place = Place::new(generation)?;
                let head = Predict::head(&place.ranker.record.heads, name)? as u32;
                Ok(Some((place, ListOrder { head, weight: None })))
            }
        }
    }

    /// Reads the query into `work`: what is stored of whoever asks, what was observed since, and what the query brings. Gives whether
    /// the query is to be ranked at `place` under the embeddings of a state.
    pub(super) fn ask(&self, work: &mut Work, query: &Query<'_>, place: Option<Place<'_>>) -> Result<bool> {
        let Work { asked, given, .. } = work;
        asked.begin(self.generation, self.ranker.as_ref(), query)?;
        let has_embedding = match self.personal {
            Some(personal) => read_state(personal, self.generation, place, query, asked, given)?,
            None => false,
        };
        asked.finish(self.generation, query)?;
        Ok(has_embedding)
    }

    /// Writes the user vector under the request to `work.user`.
    fn read_user(&self, work: &mut Work) -> Result<()> {
        let Work { asked, scratch, user, .. } = work;
        user_vector(self.generation, asked.read_by_model(), &asked.request, scratch, user)
    }

    /// Leaves the best `k` rows for a query in `work.top`.
    pub(super) fn list(&self, work: &mut Work, query: &Query<'_>, filter: &Filter<'_>, k: usize) -> Result<Source> {
        check_k(k)?;
        let ranking = self.ranking(query.ranking)?;
        let has_embedding = self.ask(work, query, ranking.map(|(place, _)| place))?;
        work.mask.read(self.generation, filter, Some(&work.asked))?;
        match ranking.filter(|_| !work.asked.is_empty()) {
            None => self.retrieve(work, filter, k),
            Some((place, order)) => {
                self.retrieve(work, filter, k.max(RETRIEVED))?;
                self.rank(work, place, order, query, has_embedding, k)?;
                Ok(Source::Ranker)
            }
        }
    }

    /// Leaves the best `k` rows for what is asked in `work.top`.
    pub(super) fn retrieve(&self, work: &mut Work, filter: &Filter<'_>, k: usize) -> Result<Source> {
        let conditions = Conditions::read(self.generation, filter)?;
        work.top.reset(k.min(self.generation.items()));
        if work.asked.is_empty() {
            let Work { asked, mask, popular, top, .. } = work;
            let blend = Blend::new(self.generation, &asked.profile)?;
            popular.retrieve(&blend, mask, &conditions, k, top)?;
            return Ok(Source::Popularity);
        }
        self.read_user(work)?;
        let Work { user, mask, top, .. } = work;
        let wanted = Wanted { vector: user, likeness: Likeness::Dot, mask, conditions: &conditions };
        Exact(self.generation).retrieve(&wanted, top)?;
        Ok(Source::Model)
    }

    /// Puts the rows in `work.top` in the order that the ranker gives, and leaves the best `k`.
    fn rank(
        &self,
        work: &mut Work,
        place: Place<'_>,
        order: ListOrder,
        query: &Query<'_>,
        has_embedding: bool,
        k: usize,
    ) -> Result<()> {
        let Work { asked, given, user, scratch, rank, top, .. } = work;
        rank.rows.clear();
        rank.scores.clear();
        for found in top.finish() {
            rank.rows.push(found.row);
            rank.scores.push(found.score);
        }
        top.reset(k.min(self.generation.items()));
        let given = has_embedding.then_some(&*given);
        let predict = Predict { place, asked, impression: query.impression, given, user: Some(user) };
        let retrieved = std::mem::take(&mut rank.scores);
        let mut scores = retrieved.iter();
        let found = predict.run(scratch, rank, |row, probabilities| {
            if let (Some(probability), Some(score)) = (probabilities.nth(order.head as usize), scores.next()) {
                top.offer(list_score(order, *score, probability?), row);
            }
            Ok(())
        });
        rank.scores = retrieved;
        found
    }

    /// The best `k` items by name.
    pub(super) fn recommend(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
    ) -> Result<Recommendations> {
        let source = self.list(work, query, filter, k)?;
        named(self.generation, source, work.top.finish())
    }

    /// Leaves the `k` rows most like `item` in `work.top`.
    pub(super) fn like(&self, work: &mut Work, item: &str, filter: &Filter<'_>, k: usize) -> Result<()> {
        check_k(k)?;
        let item = self.generation.item_row(item)?;
        let conditions = Conditions::read(self.generation, filter)?;
        let Work { mask, top, .. } = work;
        mask.read(self.generation, filter, None)?;
        mask.leave_out(item);
        top.reset(k.min(self.generation.items()));
        let vector = self.generation.item_vector(item)?;
        let wanted = Wanted { vector, likeness: Likeness::Cosine, mask, conditions: &conditions };
        Exact(self.generation).retrieve(&wanted, top)
    }

    /// The `k` items most like `item` by name.
    pub(super) fn similar(
        &self,
        work: &mut Work,
        item: &str,
        filter: &Filter<'_>,
        k: usize,
    ) -> Result<Recommendations> {
        self.like(work, item, filter, k)?;
        named(self.generation, Source::Model, work.top.finish())
    }

    /// Hands the scores of the given items, with their rows, to `each` and gives what they are; leaves the history and, where the
    /// model scored, the user vector in `work`.
    pub(super) fn score(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        items: &[&str],
        mut each: impl FnMut(u32, f32),
    ) -> Result<Source> {
        self.ask(work, query, None)?;
        if work.asked.is_empty() {
            let blend = Blend::new(self.generation, &work.asked.profile)?;
            for id in items {
                let row = self.candidate(id)?;
                // Nobody has touched added items yet.
                let added = row as usize >= self.generation.published_items();
                each(row, if added { 0.0 } else { blend.share(row)? });
            }
            return Ok(Source::Popularity);
        }
        self.read_user(work)?;
        for id in items {
            let row = self.candidate(id)?;
            each(row, check_score(dot(&work.user, self.generation.item_vector(row)?), row)?);
        }
        Ok(Source::Model)
    }

    /// The scores of the given items.
    pub(super) fn scores(&self, work: &mut Work, query: &Query<'_>, items: &[&str]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(items.len());
        self.score(work, query, items, |_, score| scores.push(score))?;
        Ok(scores)
    }

    /// The calibrated probability of every head for each item, in their order.
    pub(super) fn probabilities(&self, work: &mut Work, query: &Query<'_>, items: &[&str]) -> Result<Vec<Vec<f32>>> {
        let place = match self.ranker {
            Some(ranker) => Place { generation: self.generation, ranker },
            None => Place::new(self.generation)?,
        };
        let has_embedding = self.ask(work, query, Some(place))?;
        let Work { asked, given, scratch, rank, .. } = work;
        rank.rows.clear();
        for id in items {
            rank.rows.push(self.candidate(id)?);
        }
        let given = has_embedding.then_some(&*given);
        let mut found = Vec::with_capacity(items.len());
        let predict = Predict { place, asked, impression: query.impression, given, user: None };
        predict.run(scratch, rank, |_, probabilities| {
            found.push(probabilities.collect::<Result<Vec<f32>>>()?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Leaves the user vector for a query in `work.user`.
    pub(super) fn user(&self, work: &mut Work, query: &Query<'_>) -> Result<()> {
        self.ask(work, query, None)?;
        self.read_user(work)
    }

    /// The row of an item that may be scored.
    fn candidate(&self, id: &str) -> Result<u32> {
        let row = self.generation.item_row(id)?;
        match self.generation.is_removed(row) {
            false => Ok(row),
            true => Err(err!(UnknownItem, "item {id:?} was removed; leave it out, or add it again")),
        }
    }
}

/// Writes the best rows and their scores to the caller's slices; gives how many.
pub(super) fn write(best: &[Scored], rows: &mut [u32], scores: &mut [f32]) -> usize {
    for ((row, score), found) in rows.iter_mut().zip(scores.iter_mut()).zip(best) {
        (*row, *score) = (found.row, found.score);
    }
    best.len()
}

/// Refuses slices of two lengths; gives their length.
pub(super) fn check_room(rows: &[u32], scores: &[f32]) -> Result<usize> {
    let (row_room, score_room) = (rows.len(), scores.len());
    match row_room == score_room {
        true => Ok(row_room),
        false => Err(err!(
            InvalidArgument,
            "there is room for {row_room} rows but for {score_room} scores; pass slices of one length"
        )),
    }
}
