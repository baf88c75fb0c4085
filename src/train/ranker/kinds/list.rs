//! The kinds that a ranker has.

use super::super::plan::Plan;
use super::item::Item;
use super::kind::Kind;
use super::person::Person;
use super::surface::Surface;
use crate::error::Result;
use crate::ranker::RankerShape;
use std::sync::Arc;

/// The kinds of a ranker over the outcomes of a plan.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// All of them, each at its number.
    pub all: Vec<Arc<dyn Kind>>,
    /// The one whose tasks teach what all share.
    pub leader: usize,
    /// That of items and its number, where there is one.
    pub item: Option<(usize, Arc<Item>)>,
}

impl Kinds {
    /// The kinds of a shape.
    ///
    /// # Errors
    /// `InvalidConfig` for a field that items or outcomes do not have.
    pub(crate) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Result<Self> {
        let mut all: Vec<Arc<dyn Kind>> = Vec::new();
        if shape.options.person {
            all.push(Arc::new(Person::new(plan, shape)));
        }
        let item = Item::new(plan, shape)?.map(|item| (all.len(), Arc::new(item)));
        if let Some((_, item)) = &item {
            all.push(Arc::clone(item) as Arc<dyn Kind>);
        }
        if let Some(surface) = Surface::new(plan, shape)? {
            all.push(Arc::new(surface));
        }
        // Persons where they have a part, else persons on surfaces, else items.
        let leader = if shape.options.person { 0 } else { all.len().saturating_sub(1) };
        Ok(Self { all, leader, item })
    }

    /// The number of the kind with this meta block.
    pub(crate) fn of_block(&self, block: &str) -> Option<usize> {
        self.all.iter().position(|kind| kind.about().block == block)
    }

    /// The order in which embeddings are made from weights alone, with the number of inner steps of each: items beside persons as
    /// they were learned, persons beside these, persons on surfaces beside both, then items again.
    pub(crate) fn schedule(&self, steps: usize) -> Vec<(usize, usize)> {
        let [person, item, surface] = [Person::BLOCK, Item::BLOCK, Surface::BLOCK].map(|block| self.of_block(block));
        let mut order = Vec::new();
        if let Some(item) = item.filter(|_| self.all.len() > 1) {
            order.extend(person.map(|person| (person, 0)));
            order.push((item, steps));
        }
        order.extend([person, surface, item].into_iter().flatten().map(|kind| (kind, steps)));
        order
    }
}
