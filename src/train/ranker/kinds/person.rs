//! Persons: the entities of the plan, whose tasks are the plan's own.
//!
//! Their steps alone withhold items, learn vectors of entities and teach the foundation model. Rows of a support are shifted by what the
//! blocks of surfaces say before any outcome, as when a person is adapted (`ranker/surface`), those of a query by the adapted parts.

use super::super::plan::{ItemKnowledge, Plan, TaskSet};
use super::kind::{About, Kind, Shown, Table};
use crate::error::Result;
use crate::kernels::math::add;
use crate::options::RankerTrainOptions;
use crate::random::{Rng, hash64};
use crate::ranker::RankerShape;

/// The kind of persons.
#[derive(Debug)]
pub(super) struct Person {
    about: About,
    validated: Vec<u32>,
}

impl Person {
    pub(super) const BLOCK: &'static str = "meta";

    pub(super) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Self {
        let places = |set| plan.places(set).to_vec();
        let (trained, validated) = (places(TaskSet::Train), places(TaskSet::Validation));
        let (block, shape) = (Self::BLOCK, shape.clone());
        Self { about: About { block, streams: [0, 32], shape, tasks: plan.len(), trained }, validated }
    }
}

impl Kind for Person {
    fn about(&self) -> &About {
        &self.about
    }

    fn adapted(&self) -> Vec<u32> {
        [self.about.trained.as_slice(), &self.validated].concat()
    }

    fn input(&self, plan: &Plan<'_>, labels: &[f32], _: &Table, task: u32, cold: bool, out: &mut [f32]) -> Result<()> {
        plan.input(task, labels, cold, out)
    }

    fn support(&self, plan: &Plan<'_>, task: u32) -> Vec<u32> {
        plan.latest(task, self.about.shape.options.support).map(|i| i as u32).collect()
    }

    fn asked(&self, plan: &Plan<'_>, task: u32) -> usize {
        plan.task(task).query.len()
    }

    fn query(&self, plan: &Plan<'_>, task: u32, _: Rng) -> Vec<u32> {
        plan.task(task).query.clone().map(|i| i as u32).collect()
    }

    fn reader(&self, task: u32, _: u32) -> u32 {
        task
    }

    fn shift(&self, table: &Table, reader: u32, _: u32, _: Shown, shift: &mut [f32]) {
        let e = shift.len();
        add(shift, &table.embeddings[reader as usize * e..(reader as usize + 1) * e]);
    }

    fn entity(&self, plan: &Plan<'_>, task: u32) -> Option<u32> {
        Some(plan.task(task).entity)
    }

    /// A share of the items is withheld in each step, as if no outcome of them were known, and half of these as if no event were
    /// either.
    fn knowledge(&self, options: &RankerTrainOptions, step: u64, item: u32) -> ItemKnowledge {
        let key = hash64(options.seed, hash64(34, step));
        let draw = |which: u64| (hash64(hash64(key, which), u64::from(item)) >> 40) as f32 / (1u64 << 24) as f32;
        match draw(0) < options.cold_items {
            false => ItemKnowledge::Full,
            true if draw(1) < 0.5 => ItemKnowledge::NoOutcomes,
            true => ItemKnowledge::MetadataAlone,
        }
    }

    fn is_first(&self) -> bool {
        true
    }
}
