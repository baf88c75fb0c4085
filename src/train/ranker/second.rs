//! Training with a second meta block, by alternation: tasks of people with rows shifted by their items' embeddings, tasks of items (or
//! creators) with rows shifted by their people's. The embeddings that shift are constants in a step: those of the last step that
//! met their task, and all anew after every epoch. Tower and heads learn from people's tasks, and from those of items only where people
//! have no part: every outcome is asked by one task of either kind, and weights that meet it twice an epoch learn it by heart.

use super::groups::{Groups, evidence};
use super::plan::{Plan, TaskSet};
use super::settle::{Settled, item_row, latest};
use super::trainer::{Drawn, Part, Run};
use crate::error::Result;
use crate::random::{Rng, hash64};
use crate::ranker::batch::{Batch, gradients};
use crate::ranker::{Inputs, RankerShape};

/// Most outcomes of an item that one task of a step asks for; of more, a part is drawn each epoch.
const ASKED: usize = 512;

/// Which kind of entity a batch trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Item,
    /// A person on a surface.
    Surface,
}

impl Kind {
    /// Keeps the random choices of the kinds apart.
    pub(super) fn stream(self) -> u64 {
        match self {
            Self::Person => 0,
            Self::Item => 1 << 40,
            Self::Surface => 2 << 40,
        }
    }
}

/// What training knows of the second kind.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) groups: Groups,
    shape: RankerShape,
    inputs: Inputs,
    /// Tasks that ask something in training.
    places: Vec<u32>,
    /// Embeddings by task, as in [`Settled`]; zeros before the first.
    people: Vec<f32>,
    pub(super) items: Vec<f32>,
}

impl Second {
    /// The tasks of the second kind; `None` for a shape without.
    pub(super) fn new(plan: &Plan<'_>, shape: &RankerShape) -> Result<Option<Self>> {
        let Some(own) = shape.of_items() else { return Ok(None) };
        let groups = Groups::new(plan, &shape.options.items)?;
        let (e, tasks) = (shape.options.embedding as usize, groups.keys.len());
        let places = (0..tasks as u32).filter(|task| !groups.queries.get(*task as usize).is_empty()).collect();
        let inputs = Inputs::of_items(plan.width, &plan.means);
        let (people, items) = (vec![0.0; plan.len() * e], vec![0.0; tasks * e]);
        Ok(Some(Self { groups, shape: own, inputs, places, people, items }))
    }

    /// Takes all embeddings over.
    pub(super) fn take(&mut self, settled: &Settled) {
        self.people.copy_from_slice(&settled.people);
        self.items.copy_from_slice(&settled.items);
        if let Some(groups) = &settled.groups {
            self.groups.vectors.copy_from_slice(&groups.vectors);
        }
    }

    /// Keeps the embeddings to which a step adapted its tasks.
    pub(super) fn keep(&mut self, kind: Kind, chunks: &[Vec<Drawn>], parts: &[Part]) {
        let e = self.shape.options.embedding as usize;
        let table = match kind {
            Kind::Person => &mut self.people,
            Kind::Item => &mut self.items,
            Kind::Surface => return,
        };
        keep_in(table, e, chunks, parts);
    }
}

/// Keeps the embeddings of tasks in a table of `e` numbers each.
pub(super) fn keep_in(table: &mut [f32], e: usize, chunks: &[Vec<Drawn>], parts: &[Part]) {
    for (chunk, part) in chunks.iter().zip(parts) {
        let each = chunk.iter().zip(part.gradients.embeddings.chunks_exact(e));
        for (d, embedding) in each.filter(|(d, _)| !d.cold) {
            table[d.place as usize * e..(d.place as usize + 1) * e].copy_from_slice(embedding);
        }
    }
}

impl Run<'_> {
    /// The kind whose tasks teach all that is shared.
    fn leader(&self) -> Kind {
        match (self.shape.options.person, self.shape.options.has_surface()) {
            (true, _) => Kind::Person,
            (false, true) => Kind::Surface,
            (false, false) => Kind::Item,
        }
    }

    /// How many steps, this one included, have trained a weight; `None` for one that a step of this kind leaves alone: another
    /// kind's block, and all that is shared where another leads. (A step without a gradient would let the optimiser's moments
    /// decay.)
    pub(super) fn steps_of(&self, weight: &str, kind: Kind) -> Option<u64> {
        let own = match weight.split('.').next() {
            Some("items") => Kind::Item,
            Some("surface") => Kind::Surface,
            _ => self.leader(),
        };
        (own == kind).then_some(self.taken[kind as usize])
    }

    /// The batches of an epoch, in order.
    pub(super) fn batches(&self, epoch: u32) -> Vec<(Kind, Vec<u32>)> {
        let options = &self.trainer.options;
        let stream = |which: u64| Rng::for_stream(options.seed, hash64(which, u64::from(epoch)));
        let cut = |kind: Kind, places: &[u32], which: u64| -> Vec<(Kind, Vec<u32>)> {
            let mut order = places.to_vec();
            stream(which).shuffle(&mut order);
            if kind == Kind::Person {
                order = self.together(order);
            }
            order.chunks(options.batch as usize).map(|own| (kind, own.to_vec())).collect()
        };
        let mut batches = match self.shape.options.person {
            true => cut(Kind::Person, self.plan().places(TaskSet::Train), 32),
            false => Vec::new(),
        };
        if let Some(second) = &self.second {
            batches.extend(cut(Kind::Item, &second.places, 29));
        }
        if let Some(surface) = &self.surface {
            batches.extend(cut(Kind::Surface, &surface.tasks, 41));
        }
        if self.second.is_some() || self.surface.is_some() {
            stream(30).shuffle(&mut batches);
        }
        batches
    }

    /// How many outcomes a task asks for.
    pub(super) fn asked(&self, kind: Kind, place: u32) -> usize {
        match (kind, &self.second, &self.surface) {
            (Kind::Item, Some(second), _) => {
                let n = second.groups.queries.get(place as usize).len();
                n.div_ceil(n.div_ceil(ASKED).max(1))
            }
            (Kind::Surface, _, Some(surface)) => surface.pairs.queries.get(place as usize).len(),
            _ => self.plan().task(place).query.len(),
        }
    }

    /// What of its support a task of the second kind reads.
    pub(super) fn item_support(&self, place: u32, cold: bool) -> &[u32] {
        let most = if self.outer.steps.len() > 1 && !cold { self.shape.options.support } else { 0 };
        self.second.as_ref().map_or(&[], |second| latest(second.groups.supports.get(place as usize), most))
    }

    /// Loss and gradients of tasks of the second kind.
    pub(super) fn item_chunk(&self, drawn: &[Drawn], epoch: u32) -> Result<Part> {
        let Some(second) = &self.second else {
            return Ok(Part::default());
        };
        let (plan, shape, groups) = (self.plan(), &second.shape, &second.groups);
        let (inputs, e, heads) = (shape.inputs, shape.options.embedding as usize, shape.heads);
        let mut batch =
            Batch { inputs: vec![0.0; drawn.len() * inputs], shifts: vec![0.0; drawn.len() * e], ..Batch::default() };
        batch.support.offsets.push(0);
        batch.query.offsets.push(0);
        let (mut asked, mut known) = (Vec::new(), Vec::new());
        for (d, input) in drawn.iter().zip(batch.inputs.chunks_exact_mut(inputs)) {
            let (key, support) = (groups.keys[d.place as usize], groups.supports.get(d.place as usize));
            let outcomes = if d.cold { &[] } else { support };
            let evidence = evidence(outcomes, self.trainer.labels, heads);
            second.inputs.write(groups.vector(key, plan.width), &evidence, &[], input)?;
            let queries = groups.queries.get(d.place as usize);
            let step = queries.len().div_ceil(ASKED).max(1);
            let task = hash64(31 + u64::from(epoch), u64::from(d.place) + Kind::Item.stream());
            let first = Rng::for_stream(self.trainer.options.seed, task).below(step);
            // As many as `asked` says, whatever the first: past the end they begin again, in the gap before the first.
            let count = self.asked(Kind::Item, d.place);
            let query: Vec<u32> = (0..count).map(|j| queries[(first + j * step) % queries.len()]).collect();
            let sides = [
                (self.item_support(d.place, d.cold), self.trainer.labels, &mut batch.support, &mut known),
                (&query, plan.impressions.labels.as_slice(), &mut batch.query, &mut asked),
            ];
            for (outcomes, labels, side, items) in sides {
                for i in outcomes {
                    let at = *i as usize;
                    items.push(plan.impressions.item[at]);
                    side.labels.extend_from_slice(&labels[at * heads..(at + 1) * heads]);
                    let own = &self.items.rows.values;
                    item_row(plan, groups, *i, own, &second.people, &mut side.candidates, &shape.options);
                    if let Some(surface) = &self.surface {
                        surface.pairs.shift(groups.asked_by[at], *i, &mut side.candidates);
                    }
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
