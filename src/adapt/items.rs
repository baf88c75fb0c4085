//! Every item's embedding, for rankers with a meta block of items.

use crate::data::Dataset;
use crate::error::Result;
use crate::generation::Coded;
use crate::model::sections;
use crate::train::ranker::{FoundationModel, Impressions, Plan, adapt_items};

/// Adapts the items of a generation to outcomes, `[items, embedding]`; `None` where the dataset has other rows, fields or scales
/// than the generation, whose embeddings then stay.
pub(super) fn adapt(
    coded: &Coded,
    data: &Dataset,
    impressions: &Impressions,
    threads: usize,
) -> Result<Option<Vec<f32>>> {
    let generation = coded.generation();
    let Some(record) = generation.ranker() else { return Ok(None) };
    let same = coded.same_rows()
        && data.items.len() == generation.published_items()
        && data.entities.len() == generation.entities()
        && data.schema == *generation.schema()
        && impressions.impression_fields == record.impression;
    if !same {
        return Ok(None);
    }
    let features = FoundationModel { inference: generation.inference(), weights: generation.weights()? };
    let popularity = generation.snapshot().f32s(sections::RANKER_POPULARITY)?;
    let name = &record.shape.surface;
    let coded;
    let impressions = match record.shape.has_surface() && impressions.surface(name)?.values != record.surfaces {
        true => {
            coded = impressions.coded_by(name, &record.surfaces);
            &coded
        }
        false => impressions,
    };
    let plan = Plan::of_all(data, impressions, features, &record.means, popularity, threads)?;
    adapt_items(&plan, &generation.published_ranker()?.view.to_ranker(), threads).map(Some)
}
