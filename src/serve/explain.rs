//! Why an item is in a list: how much of its score came from which past event, and from its ID or its metadata.

use super::answer::View;
use super::list::{Source, check_score};
use super::request::Query;
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
    /// Its score, as [`super::Engine::score`] gives it.
    pub score: f32,
    /// What the score would be if the items of the history were not known: what times, actions, circumstances and the item
    /// itself say. The score is the base and the weights of all events together, within some hundredths.
    pub base: f32,
    /// Events, the heaviest first by the size of their weight.
    pub because: Vec<Because>,
    /// `None` where the model has no item tower or the score is no model's.
    pub parts: Option<ItemParts>,
}

/// As [`super::Engine::explain`].
pub(super) fn explain(
    view: &View<'_>,
    work: &mut Work,
    query: &Query<'_>,
    items: &[&str],
    most: usize,
) -> Result<Vec<Explanation>> {
    let generation = view.generation;
    let (mut rows, mut scores) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    let source = view.score(work, query, items, |row, score| {
        rows.push(row);
        scores.push(score);
    })?;
    if source == Source::Popularity {
        let plain = |(row, score)| Explanation { row, score, base: score, because: Vec::new(), parts: None };
        return Ok(rows.into_iter().zip(scores).map(plain).collect());
    }
    let vectors = rows.iter().map(|row| generation.item_vector(*row)).collect::<Result<Vec<_>>>()?;
    let history = work.asked.read_by_model();
    let schema = generation.tokenizer().map_or(generation.schema(), Tokenizer::schema);
    let attribution = Attribution::new(schema, generation.model())?;
    let found = attribution.attribute(generation.weights()?, history, &work.asked.request, &vectors)?;
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
                id: generation.item_id(item)?.to_owned(),
                title: generation.item_title(item)?.map(str::to_owned),
                weight: check_score(weight, *row)?,
            });
        }
        let parts = match generation.item_parts(*row, None)? {
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
