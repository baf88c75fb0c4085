//! Labelled outcomes of entities: what meta training learns from.

use crate::data::{Dataset, World};
use crate::error::{Result, err};
use std::ops::Range;

/// Labelled outcomes, an entity's one after another, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Impressions {
    /// Entity `u` has `offsets[u]..offsets[u + 1]`.
    pub offsets: Vec<usize>,
    /// Item row of each.
    pub item: Vec<u32>,
    /// How many events of the entity's history came before it: its user vector reads these and no more.
    pub before: Vec<u32>,
    /// Label per head, 0 to 1, NaN is none, `[n, heads]`.
    pub labels: Vec<f32>,
    /// Numbers known when the item was shown, `[n, contexts]`.
    pub context: Vec<f32>,
    /// Names of the heads.
    pub heads: Vec<String>,
    /// Numbers of context.
    pub contexts: usize,
}

impl Impressions {
    /// The labelled events of a dataset: one head, `label`, no context.
    ///
    /// # Errors
    /// `InvalidData` if the dataset has no labels.
    pub fn from_labels(data: &Dataset) -> Result<Self> {
        let mut found = Self { offsets: vec![0], heads: vec!["label".into()], ..Self::default() };
        for entity in 0..data.entities.len() as u32 {
            let range = data.range(entity);
            for i in range.clone() {
                let (Some(item), Some(label)) = (data.events.item.get(i), data.events.label.get(i)) else { continue };
                if !label.is_nan() {
                    found.item.push(*item);
                    found.before.push((i - range.start) as u32);
                    found.labels.push(*label);
                }
            }
            found.offsets.push(found.item.len());
        }
        if found.item.is_empty() {
            return Err(err!(
                InvalidData,
                "dataset `{}` has no labelled events to learn from; declare `label` in [events]",
                data.schema.name
            ));
        }
        Ok(found)
    }

    /// What the slates of a synthetic world showed, with their place on the slate as context: one head, `click`. `data` are the
    /// world's events.
    ///
    /// # Errors
    /// `InvalidData` if the dataset is not that of the world.
    pub fn from_world(world: &World, data: &Dataset) -> Result<Self> {
        let mut found = Self { offsets: vec![0], heads: vec!["click".into()], contexts: 1, ..Self::default() };
        let mut own = vec![Vec::new(); data.entities.len()];
        for i in world.impressions() {
            let (entity, item) = (data.entities.row(world.entity_id(i.entity)), data.items.row(world.item_id(i.item)));
            if let Some((own, item)) = entity.and_then(|u| own.get_mut(u as usize)).zip(item) {
                own.push((i, item));
            }
        }
        for (u, own) in own.iter().enumerate() {
            let times = data.events.time.get(data.range(u as u32)).unwrap_or(&[]);
            for (i, item) in own {
                found.item.push(*item);
                found.before.push(times.partition_point(|t| *t < i.time) as u32);
                found.labels.push(f32::from(u8::from(i.clicked)));
                found.context.push(i.position as f32 / world.options().slate.max(1) as f32);
            }
            found.offsets.push(found.item.len());
        }
        found.check(data)?;
        Ok(found)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.item.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.item.is_empty()
    }

    /// Those of an entity.
    pub fn range(&self, entity: u32) -> Range<usize> {
        let u = entity as usize;
        match (self.offsets.get(u), self.offsets.get(u + 1)) {
            (Some(a), Some(z)) => *a..*z,
            _ => 0..0,
        }
    }

    /// The labels of one by head.
    pub fn label(&self, i: usize) -> &[f32] {
        &self.labels[i * self.heads.len()..(i + 1) * self.heads.len()]
    }

    /// Checks lengths and ranges against a dataset.
    ///
    /// # Errors
    /// `InvalidData` naming what does not fit.
    pub fn check(&self, data: &Dataset) -> Result<()> {
        let n = self.item.len();
        let fail = |what: &str| Err(err!(InvalidData, "the labelled outcomes are unusable: {what}; build them anew"));
        if self.heads.is_empty() {
            return fail("they have no head");
        }
        if self.offsets.len() != data.entities.len() + 1 || !self.offsets.is_sorted() || self.offsets.last() != Some(&n)
        {
            return fail("their offsets do not divide them by entity");
        }
        if self.before.len() != n
            || self.labels.len() != n * self.heads.len()
            || self.context.len() != n * self.contexts
        {
            return fail("their columns differ in length");
        }
        if self.item.iter().any(|i| *i as usize >= data.items.len()) {
            return fail("one names an item that is not in the dataset");
        }
        if self.labels.iter().any(|l| !l.is_nan() && !(0.0..=1.0).contains(l)) {
            return fail("a label lies outside of 0 to 1");
        }
        if self.context.iter().any(|c| !c.is_finite()) {
            return fail("a number of context is not finite");
        }
        for u in 0..data.entities.len() as u32 {
            let own = &self.before[self.range(u)];
            if !own.is_sorted() || own.last().is_some_and(|b| *b as usize > data.range(u).len()) {
                return fail("they are not in the order of the entity's history");
            }
        }
        Ok(())
    }
}
