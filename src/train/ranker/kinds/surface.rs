//! Persons on surfaces, which are where an item was shown.
//!
//! A part on a surface is adapted beside its person's: all of its rows are shifted by that.

use super::super::plan::{Plan, TaskSet, evidence};
use super::super::tasks::SurfaceTasks;
use super::kind::{About, Kind, Shown, Table};
use crate::error::Result;
use crate::kernels::math::add;
use crate::model::Value;
use crate::random::Rng;
use crate::ranker::{Inputs, RankerShape, RankerView, SurfaceBlock};

/// The kind of persons on surfaces.
#[derive(Debug)]
pub(super) struct Surface {
    about: About,
    tasks: SurfaceTasks,
    inputs: Inputs,
    means: Vec<f32>,
    surfaces: u32,
}

impl Surface {
    pub(super) const BLOCK: &'static str = "surface";

    /// `None` for a shape without surfaces.
    pub(super) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Result<Option<Self>> {
        let (Some(surface), Some(shape)) = (plan.surface(&shape.options)?, shape.of_surface()) else { return Ok(None) };
        let tasks = SurfaceTasks::new(plan, surface, shape.options.support);
        let mut in_training = vec![false; plan.len()];
        plan.places(TaskSet::Train).iter().for_each(|place| in_training[*place as usize] = true);
        let asks = |task: &u32| {
            let (place, _) = tasks.keys[*task as usize];
            in_training[place as usize] && !tasks.queries.get(*task as usize).is_empty()
        };
        let trained = (0..tasks.keys.len() as u32).filter(asks).collect();
        let (inputs, means) = (Inputs::of_surface(&plan.means), plan.means.clone());
        let about = About { block: Self::BLOCK, streams: [2 << 40, 41], shape, tasks: tasks.keys.len(), trained };
        Ok(Some(Self { about, tasks, inputs, means, surfaces: surface.values.len() as u32 }))
    }
}

impl Kind for Surface {
    fn about(&self) -> &About {
        &self.about
    }

    fn input(&self, _: &Plan<'_>, labels: &[f32], _: &Table, task: u32, cold: bool, out: &mut [f32]) -> Result<()> {
        let (_, code) = self.tasks.keys[task as usize];
        let known = if cold { &[] } else { self.tasks.supports.get(task as usize) };
        let evidence = evidence(known.iter().map(|i| *i as usize), labels, self.about.shape.heads);
        self.inputs.write(&[], &evidence, &[Value::Codes(&[code])], out)
    }

    fn support(&self, _: &Plan<'_>, task: u32) -> Vec<u32> {
        self.tasks.supports.get(task as usize).to_vec()
    }

    fn asked(&self, _: &Plan<'_>, task: u32) -> usize {
        self.tasks.queries.get(task as usize).len()
    }

    fn query(&self, _: &Plan<'_>, task: u32, _: Rng) -> Vec<u32> {
        self.tasks.queries.get(task as usize).to_vec()
    }

    fn reader(&self, task: u32, _: u32) -> u32 {
        self.tasks.keys[task as usize].0
    }

    fn shift(&self, table: &Table, reader: u32, outcome: u32, shown: Shown, shift: &mut [f32]) {
        let (row, table) = match shown.before {
            true => ((self.tasks.codes[outcome as usize] as usize).checked_sub(1), &table.starts),
            false => (self.tasks.find(reader, outcome), &table.embeddings),
        };
        if let Some(row) = row {
            let e = shift.len();
            add(shift, &table[row * e..(row + 1) * e]);
        }
    }

    fn starts(&self, ranker: RankerView<'_>) -> Result<Vec<f32>> {
        let mut block = SurfaceBlock::new(RankerView { shape: &self.about.shape, ..ranker }, &self.means)?;
        let mut found = Vec::new();
        for code in 1..=self.surfaces {
            found.extend_from_slice(block.start(code)?);
        }
        Ok(found)
    }
}
