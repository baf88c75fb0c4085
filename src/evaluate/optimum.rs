//! The best ranking that exists in a synthetic world: the distribution that its events were drawn from.

use super::scorer::Scorer;
use crate::data::{Case, Dataset, World};
use crate::error::{Result, err};

/// Ranks by the true probability of each item at the target event, given everything that the world knows before it: the
/// person's tastes at that moment, which nobody else sees. An upper bound, not a method.
#[derive(Debug)]
pub struct Optimum<'a> {
    world: &'a World,
    /// The item row of each item of the world.
    items: Vec<Option<u32>>,
    /// The place in the world of each entity row.
    people: Vec<u32>,
}

impl<'a> Optimum<'a> {
    /// Matches the rows of `data` with the world that it was made from.
    ///
    /// # Errors
    /// `StateMismatch` if `data` is not that world's dataset, whole and unfiltered.
    pub fn new(world: &'a World, data: &Dataset) -> Result<Self> {
        let wrong = |what: &str| {
            err!(
                StateMismatch,
                "dataset {:?} does not fit the synthetic world: {what}; use the dataset that this world wrote, unfiltered",
                data.schema.name
            )
        };
        let options = world.options();
        let items = (0..options.items).map(|i| data.items.row(world.item_id(i))).collect();
        let mut people = vec![u32::MAX; data.entities.len()];
        for p in 0..options.entities {
            let events = world.history(p);
            let Some(row) = data.entities.row(world.entity_id(p)) else {
                if events.len() == 0 {
                    continue;
                }
                return Err(wrong(&format!("person {} is missing", world.entity_id(p))));
            };
            let known = data.history(row).iter().map(|i| data.items.id(*i));
            if !known.eq(events.map(|i| world.item_id(i))) {
                return Err(wrong(&format!("person {} has other events", world.entity_id(p))));
            }
            if let Some(slot) = people.get_mut(row as usize) {
                *slot = p;
            }
        }
        if people.contains(&u32::MAX) {
            return Err(wrong("it has more people"));
        }
        Ok(Self { world, items, people })
    }
}

impl Scorer for Optimum<'_> {
    fn name(&self) -> &str {
        "optimum"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        let person = self.people.get(case.entity as usize).copied().unwrap_or(u32::MAX);
        let event = case.target.saturating_sub(data.range(case.entity).start);
        let probabilities = self.world.probabilities(person, event)?;
        for (probability, row) in probabilities.iter().zip(&self.items) {
            if let Some(score) = row.and_then(|row| scores.get_mut(row as usize)) {
                *score = probability.ln() as f32;
            }
        }
        Ok(())
    }
}
