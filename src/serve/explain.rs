//! Why an item is in a list: how much of its score came from which past event, and from its ID or its metadata.

use super::engine::Engine;
use super::generation::Generation;
use super::query::Query;
use super::retrieve::{Source, check_score};
use super::session::Work;
use crate::error::Result;
use crate::kernels::retrieve::dot;
use crate::model::Attribution;
use crate::tokenizer::Tokenizer;

/// What one past event did to a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Because {
    /// How many events of the history came after it (runs of events, where the model reads merged ones): 0 is the newest.
    pub ago: usize,
    /// The event's item, by row.
    pub row: u32,
    /// The event's item, by id.
    pub id: String,
    /// Its title; `None` where it is not known.
    pub title: Option<String>,
    /// What it added to the score; negative where it spoke against the item.
    pub weight: f32,
}

/// The two parts of a score that come of the item's two sides; they add up to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemParts {
    /// What the item's ID embedding contributes: what people did with it.
    pub id: f32,
    /// What its metadata contributes.
    pub metadata: f32,
    /// How far the item is known by its metadata, 0 to 1.
    pub metadata_weight: f32,
}

/// Why an item has its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The item's row.
    pub row: u32,
    /// Its score, as [`Engine::score`] gives it.
    pub score: f32,
    /// What the score would be if the items of the history were not known: what times, actions, circumstances and the item
    /// itself say. The score is the base and the weights of all events together, within some hundredths.
    pub base: f32,
    /// Events, the heaviest first by the size of their weight.
    pub because: Vec<Because>,
    /// `None` where the model has no item tower or the score is no model's.
    pub parts: Option<ItemParts>,
}

impl Engine {
    /// Explains the scores of the given items for a query, in their order: at most `most` events each. The weights are
    /// integrated gradients (Sundararajan et al. 2017) over the vectors of the history's items; only events that the model
    /// still reads have one. For those of whom nothing is known, scores are shares of popularity and nothing explains them.
    ///
    /// An item costs 8 to 168 forward and backward passes over the history, as many as the weights need to add up: this is for
    /// lists that somebody looks at, not for every request.
    ///
    /// # Errors
    /// As [`Engine::score`].
    pub fn explain(&self, query: &Query<'_>, items: &[&str], most: usize) -> Result<Vec<Explanation>> {
        let generation = self.current();
        self.with_state(&generation, query, |query, _| generation.explain(query, items, most))
    }
}

impl Generation {
    /// As [`Engine::explain`], from this generation.
    ///
    /// # Errors
    /// As [`Engine::explain`].
    pub fn explain(&self, query: &Query<'_>, items: &[&str], most: usize) -> Result<Vec<Explanation>> {
        let mut work = Work::default();
        let (source, scores) = self.score_with(&mut work, query, items)?;
        let rows = items.iter().map(|id| self.item_row(id)).collect::<Result<Vec<u32>>>()?;
        if source == Source::Popularity {
            let plain = |(row, score)| Explanation { row, score, base: score, because: Vec::new(), parts: None };
            return Ok(rows.into_iter().zip(scores).map(plain).collect());
        }
        let vectors = rows.iter().map(|row| self.item_vector(*row)).collect::<Result<Vec<_>>>()?;
        let history = work.resolved.read_by_model();
        let schema = self.tokenizer().map_or(self.schema(), Tokenizer::schema);
        let attribution = Attribution::new(schema, self.model())?;
        let found = attribution.attribute(self.weights()?, history, &work.resolved.request, &vectors)?;
        let mut explanations = Vec::with_capacity(rows.len());
        for (((row, score), base), weights) in rows.iter().zip(scores).zip(found.bases).zip(found.weights) {
            let mut heaviest: Vec<(usize, f32)> = found.events.clone().zip(weights).collect();
            heaviest.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(b.0.cmp(&a.0)));
            heaviest.truncate(most);
            let mut because = Vec::with_capacity(heaviest.len());
            for (event, weight) in heaviest {
                let item = history.items.get(event).copied().unwrap_or(u32::MAX);
                because.push(Because {
                    ago: history.items.len() - 1 - event,
                    row: item,
                    id: self.item_id(item)?.to_owned(),
                    title: self.item_title(item)?.map(str::to_owned),
                    weight: check_score(weight, *row)?,
                });
            }
            let parts = match self.item_parts(*row, None)? {
                Some(parts) => Some(ItemParts {
                    id: check_score(dot(&work.user, &parts.id), *row)?,
                    metadata: check_score(dot(&work.user, &parts.metadata), *row)?,
                    metadata_weight: parts.metadata_weight,
                }),
                None => None,
            };
            explanations.push(Explanation { row: *row, score, base, because, parts });
        }
        Ok(explanations)
    }
}
