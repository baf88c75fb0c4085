//! Items, or the values of an item field such as its creator; an item with several values has the mean of their embeddings.

use super::super::plan::{ItemKnowledge, Plan, evidence};
use super::super::tasks::ItemTasks;
use super::kind::{About, Kind, Shown, Table};
use crate::error::Result;
use crate::random::Rng;
use crate::ranker::{Inputs, RankerShape};

/// Most outcomes of an item that one task of a step asks for; of more, a part is drawn each epoch.
const ASKED: usize = 512;

/// The kind of items.
#[derive(Debug)]
pub(crate) struct Item {
    about: About,
    tasks: ItemTasks,
    inputs: Inputs,
}

impl Item {
    pub(super) const BLOCK: &'static str = "items";

    /// `None` for a shape without a block of items.
    pub(super) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Result<Option<Self>> {
        let Some(own) = shape.of_items() else { return Ok(None) };
        let tasks = ItemTasks::new(plan, &shape.options.items)?;
        Ok(Some(Self::over(tasks, own, Inputs::of_items(plan.width, &plan.means))))
    }

    /// The same with one task for each entity, which knows all of its outcomes.
    pub(crate) fn of_members(&self) -> Self {
        Self::over(self.tasks.of_members(), self.about.shape.clone(), self.inputs.clone())
    }

    fn over(tasks: ItemTasks, shape: RankerShape, inputs: Inputs) -> Self {
        let asks = |task: &u32| !tasks.queries.get(*task as usize).is_empty();
        let trained = (0..tasks.keys.len() as u32).filter(asks).collect();
        let about = About { block: Self::BLOCK, streams: [1 << 40, 29], shape, tasks: tasks.keys.len(), trained };
        Self { about, tasks, inputs }
    }

    /// The embedding of each item, `[items, width]`, from those of the entities; zeros for an item without any.
    pub(crate) fn by_item(&self, entities: &[f32], width: usize) -> Vec<f32> {
        let mut table = vec![0.0; self.tasks.of_item.len() * width];
        for (item, out) in table.chunks_exact_mut(width).enumerate() {
            add_mean(self.tasks.of_item.get(item), entities, out);
        }
        table
    }
}

/// Adds the mean of the rows `which` of `table`.
fn add_mean(which: &[u32], table: &[f32], to: &mut [f32]) {
    let (width, share) = (to.len(), 1.0 / which.len().max(1) as f32);
    for (column, to) in to.iter_mut().enumerate() {
        *to += which.iter().fold(0.0, |sum, row| sum + share * table[*row as usize * width + column]);
    }
}

impl Kind for Item {
    fn about(&self) -> &About {
        &self.about
    }

    fn input(
        &self,
        plan: &Plan<'_>,
        labels: &[f32],
        table: &Table,
        task: u32,
        cold: bool,
        out: &mut [f32],
    ) -> Result<()> {
        let (key, d) = (self.tasks.keys[task as usize] as usize, plan.width);
        let known = if cold { &[] } else { self.tasks.supports.get(task as usize) };
        let evidence = evidence(known.iter().map(|i| *i as usize), labels, self.about.shape.heads);
        self.inputs.write(&table.vectors[key * d..(key + 1) * d], &evidence, &[], out)
    }

    fn support(&self, _: &Plan<'_>, task: u32) -> Vec<u32> {
        let known = self.tasks.supports.get(task as usize);
        known[known.len() - known.len().min(self.about.shape.options.support as usize)..].to_vec()
    }

    fn asked(&self, _: &Plan<'_>, task: u32) -> usize {
        let n = self.tasks.queries.get(task as usize).len();
        n.div_ceil(n.div_ceil(ASKED).max(1))
    }

    fn query(&self, plan: &Plan<'_>, task: u32, mut rng: Rng) -> Vec<u32> {
        let queries = self.tasks.queries.get(task as usize);
        let every = queries.len().div_ceil(ASKED).max(1);
        let first = rng.below(every);
        // As many as `asked` says, whatever the first: past the end they begin again, in the gap before the first.
        (0..self.asked(plan, task)).map(|j| queries[(first + j * every) % queries.len()]).collect()
    }

    fn reader(&self, _: u32, outcome: u32) -> u32 {
        self.tasks.asked_by[outcome as usize]
    }

    fn shift(&self, table: &Table, _: u32, outcome: u32, shown: Shown, shift: &mut [f32]) {
        // An item that is withheld has no embedding either.
        if shown.item == ItemKnowledge::Full {
            add_mean(self.tasks.tasks_of.get(outcome as usize), &table.embeddings, shift);
        }
    }

    fn vectors(&self, plan: &Plan<'_>) -> Vec<f32> {
        self.tasks.vectors(plan)
    }
}
