//! The people's tasks of a step: cut into chunks, their loss and gradients, and the gradients of people's own vectors.

use super::foundation::Foundation;
use super::plan::{Sight, Task};
use super::second::Kind;
use super::trainer::{Drawn, Part, Run};
use crate::error::Result;
use crate::kernels::math::add;
use crate::random::hash64;
use crate::ranker::batch::{Batch, gradients};

/// Rows that a chunk holds, so that they stay near a core.
const CHUNK: usize = 1024;

/// Stands for an item whose own vector was withheld, and gets no gradient.
pub(super) const NO_ITEM: u32 = u32::MAX;

impl Run<'_> {
    /// The gradients of the entities' own vectors, summed by entity, in ascending order.
    pub(super) fn shifts(&self, chunks: &[Vec<Drawn>], found: &[Part]) -> (Vec<u32>, Vec<f32>) {
        if self.entities.rows.values.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let e = self.entities.width;
        let named = chunks.iter().zip(found).flat_map(|(chunk, part)| {
            let each = chunk.iter().zip(part.gradients.shifts.chunks_exact(e)).filter(|(d, _)| !d.nameless);
            each.map(|(d, g)| (self.plan().task(d.place).entity, g))
        });
        let mut people: Vec<u32> = named.clone().map(|(u, _)| u).collect();
        people.sort_unstable();
        people.dedup();
        let mut shifts = vec![0.0; people.len() * e];
        for (u, g) in named {
            let slot = people.partition_point(|p| *p < u) * e;
            add(&mut shifts[slot..slot + e], g);
        }
        (people, shifts)
    }

    /// What the people's tasks of this step take to be known of an item: a share is withheld, as if no outcome of it were known, and
    /// half of these as if no event were either.
    fn sight(&self, item: u32) -> Sight {
        let key = hash64(self.trainer.options.seed, hash64(34, self.step));
        let draw = |place: u64| (hash64(hash64(key, place), u64::from(item)) >> 40) as f32 / (1u64 << 24) as f32;
        match draw(0) < self.trainer.options.cold_items {
            false => Sight::Known,
            true if draw(1) < 0.5 => Sight::Unlabelled,
            true => Sight::Cold,
        }
    }

    /// What of its support a task reads.
    fn read(&self, task: &Task, cold: bool) -> std::ops::Range<usize> {
        let most = if self.outer.steps.len() > 1 && !cold { self.shape.options.support as usize } else { 0 };
        task.support.end - task.support.len().min(most)..task.support.end
    }

    /// Cuts a batch into chunks of about [`CHUNK`] rows; where it is cut does not depend on the threads.
    pub(super) fn chunks(&self, kind: Kind, drawn: &[Drawn]) -> Vec<Vec<Drawn>> {
        let mut chunks: Vec<Vec<Drawn>> = vec![Vec::new()];
        let mut rows = 0;
        for d in drawn {
            rows += self.asked(kind, d.place);
            rows += match kind {
                Kind::Person => self.read(self.plan().task(d.place), d.cold).len(),
                Kind::Item => self.item_support(d.place, d.cold).len(),
                Kind::Surface => self.surface_support(d.place, d.cold).len(),
            };
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

    pub(super) fn chunk(&self, drawn: &[Drawn]) -> Result<Part> {
        let (plan, shape, labels) = (self.plan(), &self.shape, self.trainer.labels);
        let (inputs, e, own, heads) =
            (shape.inputs, self.entities.width, shape.options.item_width as usize, shape.heads);
        let mut batch =
            Batch { inputs: vec![0.0; drawn.len() * inputs], shifts: vec![0.0; drawn.len() * e], ..Batch::default() };
        batch.vectors = self.foundation.is_some();
        batch.support.offsets.push(0);
        batch.query.offsets.push(0);
        let (mut asked, mut known) = (Vec::new(), Vec::new());
        let mut block = self.surface_block()?;
        for (s, d) in drawn.iter().enumerate() {
            let task = plan.task(d.place);
            plan.input(d.place, labels, d.cold, &mut batch.inputs[s * inputs..(s + 1) * inputs])?;
            let vector = task.entity as usize * e..(task.entity as usize + 1) * e;
            if let Some(vector) = self.entities.rows.values.get(vector).filter(|_| !d.nameless) {
                batch.shifts[s * e..(s + 1) * e].copy_from_slice(vector);
            }
            let sides = [
                (self.read(task, d.cold), labels, &mut batch.support, &mut known, true),
                (task.query.clone(), plan.impressions.labels.as_slice(), &mut batch.query, &mut asked, d.cold),
            ];
            for (range, labels, side, items, before) in sides {
                side.labels.extend_from_slice(&labels[range.start * heads..range.end * heads]);
                let from = side.candidates.len();
                for i in range.clone() {
                    let item = plan.impressions.item[i];
                    let sight = self.sight(item);
                    items.push(if sight == Sight::Known { item } else { NO_ITEM });
                    plan.candidate_as(sight, d.place, i, &self.items.rows.values, own, &mut side.candidates);
                    // What is withheld has no embedding of its own either.
                    match sight {
                        Sight::Known => self.shift(i, &mut side.candidates),
                        _ => side.candidates.resize(side.candidates.len() + shape.shift(), 0.0),
                    }
                }
                if let (Some(surface), Some(block)) = (&self.surface, &mut block) {
                    let before = before.then_some(block);
                    surface.pairs.shift_rows(d.place, range, before, &mut side.candidates[from..])?;
                }
                side.offsets.push(side.labels.len() / heads);
            }
        }
        let mut memory = self.memory.lock().pop().unwrap_or_default();
        let gradients = gradients(shape, &self.dense.values, &batch, &self.outer, &mut memory);
        self.memory.lock().push(memory);
        let places = || drawn.iter().map(|d| d.place).collect::<Vec<u32>>();
        let learn = |f: &Foundation<'_>| f.learn_from(shape, &places(), &batch, &gradients, [&asked, &known]);
        let lesson = self.foundation.as_ref().map(learn).transpose()?;
        asked.extend_from_slice(if self.outer.exact { &known } else { &[] });
        Ok(Part { gradients, items: asked, lesson })
    }
}
