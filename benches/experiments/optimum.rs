//! What nothing can beat in the synthetic world.

use super::common::Result;
use docent::data::{Dataset, Impression, World};
use docent::train::ranker::Impressions;

/// The logit of each outcome as the world drew it: no predictor is better on average.
pub fn optimum(world: &World, data: &Dataset, outcomes: &Impressions) -> Result<Vec<f32>> {
    let mut of: Vec<Vec<&Impression>> = vec![Vec::new(); data.entities.len()];
    for shown in world.impressions() {
        if let Some(row) = data.entities.row(world.entity_id(shown.entity)) {
            of[row as usize].push(shown);
        }
    }
    let mut logits = Vec::with_capacity(outcomes.len());
    for (entity, shown) in (0..).zip(of) {
        for (i, shown) in outcomes.range(entity).zip(shown) {
            let item = data.items.row(world.item_id(shown.item));
            if item != Some(outcomes.item[i]) || (outcomes.labels[i] == 1.0) != shown.clicked {
                return Err("the outcomes are not in the order of the world".into());
            }
            logits.push((shown.probability / (1.0 - shown.probability)).ln() as f32);
        }
    }
    match logits.len() == outcomes.len() {
        true => Ok(logits),
        false => Err("the outcomes are not those of the world".into()),
    }
}
