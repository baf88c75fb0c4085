//! A step on tasks of one kind: cut into chunks, their loss and gradients.

use super::embeddings::Sources;
use super::joint::{JointModel, Lesson};
use super::kinds::{Kind, Shown};
use super::plan::{ItemKnowledge, WITHHELD};
use crate::error::Result;
use crate::kernels::math::add;
use crate::options::RankerTrainOptions;
use crate::random::{Rng, hash64};
use crate::ranker::batch::{Batch, Gradients, Memory, Outer, gradients};
use crate::threads;
use parking_lot::Mutex;

/// Rows that a chunk holds, so that they stay near a core.
const CHUNK: usize = 1024;

/// A task in a batch.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    task: u32,
    /// Its outcomes are withheld.
    cold: bool,
    /// Its entity's own vector is withheld.
    nameless: bool,
}

/// What the tasks of a step are read from and judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'s, 'p> {
    pub(super) sources: Sources<'s, 'p>,
    /// Number of the kind.
    pub(super) at: usize,
    pub(super) kind: &'s dyn Kind,
    pub(super) dense: &'s [f32],
    /// The entities' own vectors.
    pub(super) entities: &'s [f32],
    pub(super) outer: &'s Outer<f32>,
    pub(super) options: &'s RankerTrainOptions,
    pub(super) epoch: u32,
    /// Steps before this one.
    pub(super) taken: u64,
    /// The foundation model, where it learns from these tasks.
    pub(super) joint: Option<&'s JointModel<'p>>,
    pub(super) memory: &'s Mutex<Vec<Memory<f32>>>,
}

/// What a chunk of tasks gives.
struct Part {
    gradients: Gradients<f32>,
    /// The items of the rows of query and, where the gradient is exact, support.
    items: Vec<u32>,
    /// The entity whose own vector each task read.
    entities: Vec<Option<u32>>,
    lesson: Option<Lesson>,
}

/// What a step gives.
pub(super) struct Found {
    pub(super) loss: f64,
    pub(super) dense: Vec<f32>,
    /// Items, ascending, and the gradients of their vectors.
    pub(super) items: (Vec<u32>, Vec<f32>),
    /// Entities, ascending, and the gradients of theirs.
    pub(super) entities: (Vec<u32>, Vec<f32>),
    /// What the foundation model learns.
    pub(super) lessons: Vec<Lesson>,
    /// Tasks whose outcomes were not withheld, and the embeddings to which they were adapted.
    pub(super) adapted: Vec<(u32, Vec<f32>)>,
}

impl Step<'_, '_> {
    /// What keeps the random choices of a task apart.
    fn stream(&self, purpose: u64, task: u32) -> Rng {
        let task = u64::from(task) + self.kind.about().streams[0];
        Rng::for_stream(self.options.seed, hash64(purpose + u64::from(self.epoch), task))
    }

    /// Runs tasks, on any number of threads to the same bytes.
    pub(super) fn run(&self, tasks: &[u32]) -> Result<Found> {
        let draw = |task: &u32| {
            let mut rng = self.stream(33, *task);
            let mut chance = || rng.uniform() < f64::from(self.options.cold);
            Drawn { task: *task, cold: chance(), nameless: chance() }
        };
        let drawn: Vec<Drawn> = tasks.iter().map(draw).collect();
        let chunks = self.chunks(&drawn);
        let run = |i: usize, (): &mut ()| self.chunk(&chunks[i]);
        let parts = threads::map(self.options.threads as usize, chunks.len(), || (), run);
        Ok(self.sum(&drawn, parts.into_iter().collect::<Result<_>>()?))
    }

    /// The outcomes that a task's adaptation reads.
    fn support(&self, drawn: Drawn) -> Vec<u32> {
        match self.outer.steps.len() > 1 && !drawn.cold {
            true => self.kind.support(self.sources.plan, drawn.task),
            false => Vec::new(),
        }
    }

    /// Cuts a batch into chunks of about [`CHUNK`] rows; where it is cut does not depend on the threads.
    fn chunks(&self, drawn: &[Drawn]) -> Vec<Vec<Drawn>> {
        let mut chunks: Vec<Vec<Drawn>> = vec![Vec::new()];
        let mut rows = 0;
        for d in drawn {
            rows += self.kind.asked(self.sources.plan, d.task) + self.support(*d).len();
            if let Some(last) = chunks.last_mut() {
                last.push(*d);
            }
            if rows >= CHUNK {
                chunks.push(Vec::new());
                rows = 0;
            }
        }
        chunks.retain(|c| !c.is_empty());
        chunks
    }

    fn chunk(&self, drawn: &[Drawn]) -> Result<Part> {
        let Sources { plan, labels, embeddings, .. } = self.sources;
        let (kind, shape) = (self.kind, &self.kind.about().shape);
        let (inputs, e, heads) = (shape.inputs, shape.options.embedding as usize, shape.heads);
        let mut batch =
            Batch { inputs: vec![0.0; drawn.len() * inputs], shifts: vec![0.0; drawn.len() * e], ..Batch::default() };
        batch.vectors = self.joint.is_some();
        batch.support.offsets.push(0);
        batch.query.offsets.push(0);
        let (mut asked, mut known, mut entities) = (Vec::new(), Vec::new(), Vec::new());
        let each = drawn.iter().zip(batch.inputs.chunks_exact_mut(inputs)).zip(batch.shifts.chunks_exact_mut(e));
        for ((d, input), shift) in each {
            kind.input(plan, labels, &embeddings.tables[self.at], d.task, d.cold, input)?;
            let entity = kind.entity(plan, d.task).filter(|_| !d.nameless && !self.entities.is_empty());
            if let Some(row) = entity.map(|row| row as usize) {
                shift.copy_from_slice(&self.entities[row * e..(row + 1) * e]);
            }
            entities.push(entity);
            let query = kind.query(plan, d.task, self.stream(31, d.task));
            let first = kind.is_first();
            let sides = [
                (self.support(*d), labels, &mut batch.support, &mut known, first),
                (query, plan.impressions.labels.as_slice(), &mut batch.query, &mut asked, first && d.cold),
            ];
            for (outcomes, labels, side, items, before) in sides {
                for i in outcomes {
                    let (at, row) = (i as usize, plan.impressions.item[i as usize]);
                    let item = kind.knowledge(self.options, self.taken, row);
                    items.push(if item == ItemKnowledge::Full { row } else { WITHHELD });
                    side.labels.extend_from_slice(&labels[at * heads..(at + 1) * heads]);
                    self.sources.row((self.at, kind), d.task, i, Shown { item, before }, &mut side.candidates);
                }
                side.offsets.push(side.labels.len() / heads);
            }
        }
        let mut memory = self.memory.lock().pop().unwrap_or_default();
        let gradients = gradients(shape, self.dense, &batch, self.outer, &mut memory);
        self.memory.lock().push(memory);
        let tasks = || drawn.iter().map(|d| d.task).collect::<Vec<u32>>();
        let learn = |model: &JointModel<'_>| model.learn_from(shape, &tasks(), &batch, &gradients, [&asked, &known]);
        let lesson = self.joint.map(learn).transpose()?;
        asked.extend_from_slice(if self.outer.exact { &known } else { &[] });
        Ok(Part { gradients, items: asked, entities, lesson })
    }

    /// The parts together, added in the order of the chunks.
    fn sum(&self, drawn: &[Drawn], parts: Vec<Part>) -> Found {
        let shape = &self.kind.about().shape;
        let (own, e) = (shape.options.item_width as usize, shape.options.embedding as usize);
        let (mut loss, mut dense) = (0.0, vec![0.0; self.dense.len()]);
        for part in &parts {
            add(&mut dense, &part.gradients.dense);
            loss += f64::from(part.gradients.loss);
        }
        let items = parts.iter().flat_map(|part| {
            let Gradients { query_items, support_items, .. } = &part.gradients;
            part.items.iter().copied().zip(query_items.chunks_exact(own).chain(support_items.chunks_exact(own)))
        });
        let entities = parts.iter().flat_map(|part| {
            let each = part.entities.iter().zip(part.gradients.shifts.chunks_exact(e));
            each.filter_map(|(row, g)| row.map(|row| (row, g)))
        });
        let embeddings = parts.iter().flat_map(|part| part.gradients.embeddings.chunks_exact(e));
        let adapted = drawn.iter().zip(embeddings).filter(|(d, _)| !d.cold && shape.shift() > 0);
        let adapted = adapted.map(|(d, embedding)| (d.task, embedding.to_vec())).collect();
        let items = by_row(own, items.filter(|(item, _)| *item != WITHHELD));
        let entities = by_row(e, entities);
        Found { loss, dense, items, entities, adapted, lessons: parts.into_iter().filter_map(|p| p.lesson).collect() }
    }
}

/// Gradients of rows, summed by row, in ascending order.
fn by_row<'g>(width: usize, each: impl Iterator<Item = (u32, &'g [f32])> + Clone) -> (Vec<u32>, Vec<f32>) {
    let mut rows: Vec<u32> = each.clone().map(|(row, _)| row).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut sums = vec![0.0; rows.len() * width];
    for (row, g) in each {
        let slot = rows.partition_point(|r| *r < row) * width;
        add(&mut sums[slot..slot + width], g);
    }
    (rows, sums)
}
