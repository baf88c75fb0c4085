//! People on surfaces: whose outcomes where are adapted to when which ones are asked, and training on them.
//!
//! A task of a person is divided by surface: what it knows there is the support, what it asks there the query. So a part of a
//! surface knows what its person knows and nothing else. In a step on people, rows of the support are shifted by what the block
//! says before any outcome, as when a person is adapted (`model/meta/surface`), and those of the query by the adapted parts of their
//! surfaces; in a step on people on surfaces, all rows by the person's part. The parts that shift are constants in a step: those
//! of the last step that met their task, and all anew after every epoch.

use super::groups::{Ragged, evidence};
use super::impressions::Surface;
use super::plan::{Plan, TaskSet};
use super::second::{Kind, keep_in};
use super::settle::Settled;
use super::trainer::{Drawn, Part, Run};
use crate::error::Result;
use crate::kernels::math::add;
use crate::model::Value;
use crate::ranker::batch::{Batch, gradients};
use crate::ranker::{Inputs, RankerShape, RankerView, SurfaceBlock};
use std::ops::Range;

/// Tasks of people on surfaces, and an embedding for each.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    /// The tasks of each person's task, by its place: `offsets[place]..offsets[place + 1]`, in the order of surfaces.
    offsets: Vec<usize>,
    /// The person's task and the surface of each.
    pub(super) keys: Vec<(u32, u32)>,
    /// Its outcomes known, oldest first: those that an adaptation of the person reads.
    pub(super) supports: Ragged,
    /// The outcomes that are asked.
    pub(super) queries: Ragged,
    /// Their embeddings, `[tasks, width]`; zeros before the first.
    pub(super) embeddings: Vec<f32>,
    codes: Vec<u32>,
    width: usize,
}

impl Pairs {
    /// The tasks of the people's tasks that are trained on or validate.
    pub(crate) fn new(plan: &Plan<'_>, surface: &Surface, shape: &RankerShape) -> Self {
        let mut wanted = vec![false; plan.len()];
        for place in plan.places(TaskSet::Train).iter().chain(plan.places(TaskSet::Validation)) {
            wanted[*place as usize] = true;
        }
        let (codes, width) = (surface.codes.clone(), shape.options.embedding as usize);
        let (mut offsets, mut keys) = (vec![0], Vec::new());
        let (mut supports, mut queries) = (Ragged::new(), Ragged::new());
        for place in 0..plan.len() as u32 {
            if wanted[place as usize] {
                let (read, asked) = (read(plan, place, shape.options.support), plan.task(place).query.clone());
                let mut own: Vec<u32> = codes[read.clone()].iter().chain(&codes[asked.clone()]).copied().collect();
                own.sort_unstable();
                own.dedup();
                for surface in own.into_iter().filter(|s| *s > 0) {
                    let on = |range: &Range<usize>| {
                        let codes = &codes;
                        range.clone().filter(move |i| codes[*i] == surface).map(|i| i as u32)
                    };
                    keys.push((place, surface));
                    supports.push(on(&read));
                    queries.push(on(&asked));
                }
            }
            offsets.push(keys.len());
        }
        let embeddings = vec![0.0; keys.len() * width];
        Self { offsets, keys, supports, queries, embeddings, codes, width }
    }

    /// Adds to the end of `row`, that of outcome `i`, the embedding of the task of the person's task `place` on the outcome's surface.
    pub(crate) fn shift(&self, place: u32, i: u32, row: &mut [f32]) {
        let (place, surface) = (place as usize, self.codes[i as usize]);
        let tasks = self.offsets[place]..self.offsets[place + 1];
        let Ok(at) = self.keys[tasks.clone()].binary_search_by_key(&surface, |key| key.1) else { return };
        let (task, end) = (tasks.start + at, row.len());
        add(&mut row[end - self.width..], &self.embeddings[task * self.width..(task + 1) * self.width]);
    }

    /// Adds to `rows`, those of outcomes `range` in the person's task `place`, the embeddings of their surfaces: of `before` any
    /// outcome, or those of the tasks.
    pub(super) fn shift_rows(
        &self,
        place: u32,
        range: Range<usize>,
        before: Option<&mut SurfaceBlock<'_>>,
        rows: &mut [f32],
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let width = rows.len() / range.len();
        match before {
            Some(block) => block.shift(&self.codes[range], rows),
            None => {
                range.zip(rows.chunks_exact_mut(width)).for_each(|(i, row)| self.shift(place, i as u32, row));
                Ok(())
            }
        }
    }
}

/// What an adaptation of the person's task `place` reads.
pub(crate) fn read(plan: &Plan<'_>, place: u32, most: u32) -> Range<usize> {
    let support = &plan.task(place).support;
    support.end - support.len().min(most as usize)..support.end
}

/// What training knows of people on surfaces.
#[derive(Debug)]
pub(super) struct OnSurface {
    pub(super) pairs: Pairs,
    shape: RankerShape,
    inputs: Inputs,
    /// Tasks that ask something in training.
    pub(super) tasks: Vec<u32>,
    /// The people's embeddings by their task, as in [`Settled`]; zeros before the first.
    people: Vec<f32>,
}

impl OnSurface {
    /// The tasks of a plan; `None` for a shape without surfaces.
    pub(super) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Result<Option<Self>> {
        let (Some(surface), Some(own)) = (plan.surface(&shape.options)?, shape.of_surface()) else { return Ok(None) };
        let pairs = Pairs::new(plan, surface, shape);
        let mut trained = vec![false; plan.len()];
        plan.places(TaskSet::Train).iter().for_each(|place| trained[*place as usize] = true);
        let asks = |task: &u32| {
            let (place, _) = pairs.keys[*task as usize];
            trained[place as usize] && !pairs.queries.get(*task as usize).is_empty()
        };
        let tasks = (0..pairs.keys.len() as u32).filter(asks).collect();
        let inputs = Inputs::of_surface(&plan.means);
        let people = vec![0.0; plan.len() * shape.options.embedding as usize];
        Ok(Some(Self { pairs, shape: own, inputs, tasks, people }))
    }

    /// Takes all embeddings over.
    pub(super) fn take(&mut self, settled: &Settled) {
        self.people.copy_from_slice(&settled.people);
        if let Some(pairs) = &settled.pairs {
            self.pairs.embeddings.copy_from_slice(&pairs.embeddings);
        }
    }

    /// Keeps the embeddings to which a step adapted its tasks.
    pub(super) fn keep(&mut self, kind: Kind, chunks: &[Vec<Drawn>], parts: &[Part]) {
        let table = match kind {
            Kind::Person => &mut self.people,
            Kind::Surface => &mut self.pairs.embeddings,
            Kind::Item => return,
        };
        keep_in(table, self.pairs.width, chunks, parts);
    }
}

impl Run<'_> {
    /// The block of people on surfaces as it is; `None` without one.
    pub(super) fn surface_block(&self) -> Result<Option<SurfaceBlock<'_>>> {
        let Some(surface) = &self.surface else { return Ok(None) };
        let view = RankerView {
            shape: &surface.shape,
            dense: &self.dense.values,
            items: &self.items.rows.values,
            entities: &[],
            calibration: &self.plain,
        };
        SurfaceBlock::new(view, &self.trainer.plan.means).map(Some)
    }

    /// Appends what shifts the row of outcome `i` besides its person: the embedding of its item, where items have one.
    pub(super) fn shift(&self, i: usize, out: &mut Vec<f32>) {
        let e = self.shape.shift();
        match &self.second {
            Some(second) => second.groups.shift(i, &second.items, e, out),
            None => out.resize(out.len() + e, 0.0),
        }
    }

    /// What of its support a task of a person on a surface reads.
    pub(super) fn surface_support(&self, task: u32, cold: bool) -> &[u32] {
        match &self.surface {
            Some(surface) if self.outer.steps.len() > 1 && !cold => surface.pairs.supports.get(task as usize),
            _ => &[],
        }
    }

    /// Loss and gradients of tasks of people on surfaces.
    pub(super) fn surface_chunk(&self, drawn: &[Drawn]) -> Result<Part> {
        let Some(surface) = &self.surface else {
            return Ok(Part { gradients: crate::ranker::batch::Gradients::default(), items: Vec::new(), lesson: None });
        };
        let (plan, shape, pairs) = (self.plan(), &surface.shape, &surface.pairs);
        let (inputs, e, heads) = (shape.inputs, pairs.width, shape.heads);
        let (own, width) = (&self.items.rows.values, shape.options.item_width as usize);
        let mut batch =
            Batch { inputs: vec![0.0; drawn.len() * inputs], shifts: vec![0.0; drawn.len() * e], ..Batch::default() };
        batch.support.offsets.push(0);
        batch.query.offsets.push(0);
        let (mut asked, mut known) = (Vec::new(), Vec::new());
        for (d, input) in drawn.iter().zip(batch.inputs.chunks_exact_mut(inputs)) {
            let (place, code) = pairs.keys[d.place as usize];
            let support = if d.cold { &[] } else { pairs.supports.get(d.place as usize) };
            let evidence = evidence(support, self.trainer.labels, heads);
            surface.inputs.write(&[], &evidence, &[Value::Codes(&[code])], input)?;
            let person = &surface.people[place as usize * e..(place as usize + 1) * e];
            let queries = pairs.queries.get(d.place as usize);
            let sides = [
                (self.surface_support(d.place, d.cold), self.trainer.labels, &mut batch.support, &mut known),
                (queries, plan.impressions.labels.as_slice(), &mut batch.query, &mut asked),
            ];
            for (outcomes, labels, side, items) in sides {
                for i in outcomes.iter().map(|i| *i as usize) {
                    items.push(plan.impressions.item[i]);
                    side.labels.extend_from_slice(&labels[i * heads..(i + 1) * heads]);
                    plan.candidate(place, i, own, width, &mut side.candidates);
                    self.shift(i, &mut side.candidates);
                    let end = side.candidates.len();
                    add(&mut side.candidates[end - e..], person);
                }
                side.offsets.push(side.labels.len() / heads);
            }
        }
        let mut memory = self.memory.lock().pop().unwrap_or_default();
        let gradients = gradients(shape, &self.dense.values, &batch, &self.outer, &mut memory);
        self.memory.lock().push(memory);
        asked.extend_from_slice(if self.outer.exact { &known } else { &[] });
        Ok(Part { gradients, items: asked, lesson: None })
    }
}
