//! The embeddings of all kinds under given weights.
//!
//! People and items are adapted with the other's embeddings as they are, in turn: items beside people as they were learned, then
//! people beside these, then items again. People on surfaces come after people (`pairs`). Nothing else goes in, so the same weights
//! and outcomes give the same embeddings, whoever trained them.

use super::groups::{Groups, evidence, mean};
use super::pairs::{Pairs, read};
use super::plan::{Plan, TaskSet};
use crate::error::{Result, err};
use crate::ranker::{Adapter, Inputs, OnSurfaces, Ranker, RankerView, SurfaceBlock};
use crate::threads;

/// How many adaptations a job makes.
const JOB: usize = 16;

/// The embeddings of all kinds, by task.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// The tasks of items or creators, where they have a part.
    pub groups: Option<Groups>,
    /// Their embeddings, `[tasks, embedding]`.
    pub items: Vec<f32>,
    /// Those of the people's tasks that are trained on or validate, `[tasks of the plan, embedding]`; zeros without a part of
    /// the person.
    pub people: Vec<f32>,
    /// The tasks of those people on surfaces and their embeddings, where there are such parts.
    pub pairs: Option<Pairs>,
}

/// The embedding of each item, `[items, embedding]`, adapted to the outcomes of a plan; empty for a ranker with one kind of entity.
///
/// # Errors
/// Those of adaptations.
pub(crate) fn adapt_items(plan: &Plan<'_>, ranker: &Ranker, threads: usize) -> Result<Vec<f32>> {
    let labels = &plan.impressions.labels;
    match Settled::new(plan, ranker, labels, threads)? {
        Some(settled) => settled.table(plan, ranker, labels, threads),
        None => Ok(Vec::new()),
    }
}

/// What adaptations read.
struct Sight<'a> {
    plan: &'a Plan<'a>,
    ranker: &'a Ranker,
    labels: &'a [f32],
    threads: usize,
}

impl Settled {
    /// Adapts all kinds to `labels` under the weights of `ranker`; `None` where it has people alone.
    ///
    /// # Errors
    /// Those of adaptations; `InvalidConfig` for a field that items or outcomes do not have.
    pub(crate) fn new(plan: &Plan<'_>, ranker: &Ranker, labels: &[f32], threads: usize) -> Result<Option<Self>> {
        let options = &ranker.shape.options;
        if !options.has_several() {
            return Ok(None);
        }
        let steps = options.steps as usize;
        let sight = Sight { plan, ranker, labels, threads };
        let nobody = vec![0.0; plan.len() * options.embedding as usize];
        let people = |items: Option<(&Groups, &[f32])>, steps: usize| match options.person {
            true => sight.people(items, steps),
            false => Ok(nobody.clone()),
        };
        if !options.items.is_on() {
            let people = people(None, steps)?;
            let pairs = sight.pairs(None, &people)?;
            return Ok(Some(Self { groups: None, items: Vec::new(), people, pairs }));
        }
        let groups = Groups::new(plan, &options.items)?;
        let supports = |task: usize| (groups.keys[task], groups.supports.get(task));
        let mut beside = people(None, 0)?;
        let mut pairs = None;
        if options.person || options.has_surface() {
            let items = sight.items(&groups, groups.keys.len(), supports, &beside, None)?;
            beside = people(Some((&groups, &items)), steps)?;
            pairs = sight.pairs(Some((&groups, &items)), &beside)?;
        }
        let items = sight.items(&groups, groups.keys.len(), supports, &beside, pairs.as_ref())?;
        Ok(Some(Self { groups: Some(groups), items, people: beside, pairs }))
    }

    /// The embedding of each item, `[items, embedding]`, adapted to all its outcomes that are trained on: the mean over its
    /// entities. An entity without outcomes has that of the block as it was learned, an item without entities zeros. Empty where
    /// items have no part.
    ///
    /// # Errors
    /// Those of adaptations.
    pub(crate) fn table(&self, plan: &Plan<'_>, ranker: &Ranker, labels: &[f32], threads: usize) -> Result<Vec<f32>> {
        let Some(groups) = &self.groups else { return Ok(Vec::new()) };
        let e = ranker.shape.options.embedding as usize;
        let members = |key: usize| (key as u32, groups.members.get(key));
        let sight = Sight { plan, ranker, labels, threads };
        let entities = sight.items(groups, groups.members.len(), members, &self.people, self.pairs.as_ref())?;
        let mut table = Vec::with_capacity(groups.of_item.len() * e);
        for item in 0..groups.of_item.len() {
            mean(groups.of_item.get(item), &entities, e, &mut table);
        }
        Ok(table)
    }

    /// Appends the shift of the row of outcome `i` by its item, zeros where items have no part.
    pub(crate) fn shift(&self, i: usize, width: usize, out: &mut Vec<f32>) {
        shift(self.groups.as_ref().map(|groups| (groups, self.items.as_slice())), i, width, out);
    }
}

/// The shift of the row of outcome `i` by its item, zeros where items have no part.
fn shift(items: Option<(&Groups, &[f32])>, i: usize, width: usize, out: &mut Vec<f32>) {
    match items {
        Some((groups, items)) => groups.shift(i, items, width, out),
        None => out.resize(out.len() + width, 0.0),
    }
}

impl Sight<'_> {
    /// The embeddings of people, after `steps` inner steps, their rows shifted by those of items, and of surfaces before any
    /// outcome.
    fn people(&self, items: Option<(&Groups, &[f32])>, steps: usize) -> Result<Vec<f32>> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let (e, own, heads) = (shape.options.embedding as usize, shape.options.item_width as usize, shape.heads);
        let places: Vec<u32> =
            plan.places(TaskSet::Train).iter().chain(plan.places(TaskSet::Validation)).copied().collect();
        let (surface, on) = (plan.surface(&shape.options)?, shape.of_surface());
        type Thread<'t> = (Adapter<'t>, Option<SurfaceBlock<'t>>, Vec<f32>);
        let one = |place: u32, (adapter, block, candidates): &mut Thread<'_>| -> Result<Vec<f32>> {
            let task = plan.task(place);
            let mut input = vec![0.0; shape.inputs];
            plan.input(place, self.labels, false, &mut input)?;
            candidates.clear();
            let range = read(plan, place, if steps > 0 { shape.options.support } else { 0 });
            for i in range.clone() {
                plan.candidate(place, i, &self.ranker.items, own, candidates);
                shift(items, i, e, candidates);
            }
            if let (Some(surface), Some(block)) = (surface, block) {
                block.shift(&surface.codes[range.clone()], candidates)?;
            }
            let labels = &self.labels[range.start * heads..range.end * heads];
            let vector = self.ranker.entity(task.entity);
            Ok(adapter.adapt(&input, vector, candidates, labels, steps)?.embedding.to_vec())
        };
        let block = on.as_ref().map(|shape| self.block(shape)).transpose()?;
        let start = (self.ranker.adapter()?, block, Vec::new());
        let found = self.each(places.len(), &start, |job, thread| one(places[job], thread))?;
        let mut all = vec![0.0; plan.len() * e];
        for (place, vector) in places.iter().zip(found.chunks_exact(e)) {
            all[*place as usize * e..(*place as usize + 1) * e].copy_from_slice(vector);
        }
        Ok(all)
    }

    /// The block of people on surfaces, of a shape that has one.
    fn block<'s>(&'s self, shape: &'s crate::ranker::RankerShape) -> Result<SurfaceBlock<'s>> {
        SurfaceBlock::new(RankerView { shape, entities: &[], ..self.ranker.view() }, &self.plan.means)
    }

    /// The embeddings of people on surfaces, their rows shifted by those of `people` and items; `None` without such parts.
    fn pairs(&self, items: Option<(&Groups, &[f32])>, people: &[f32]) -> Result<Option<Pairs>> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let (Some(surface), Some(on)) = (plan.surface(&shape.options)?, shape.of_surface()) else { return Ok(None) };
        let (e, own, heads) = (shape.options.embedding as usize, shape.options.item_width as usize, shape.heads);
        let mut pairs = Pairs::new(plan, surface, shape);
        let found = self.each(pairs.keys.len(), &(self.block(&on)?, Vec::new(), Vec::new()), |task, thread| {
            let (block, rows, labels): &mut (SurfaceBlock<'_>, Vec<f32>, Vec<f32>) = thread;
            let ((place, code), support) = (pairs.keys[task], pairs.supports.get(task));
            rows.clear();
            labels.clear();
            for i in support.iter().map(|i| *i as usize) {
                plan.candidate(place, i, &self.ranker.items, own, rows);
                shift(items, i, e, rows);
                labels.extend_from_slice(&self.labels[i * heads..(i + 1) * heads]);
            }
            let known = OnSurfaces { rows, labels, surfaces: &vec![code; support.len()] };
            let person = &people[place as usize * e..(place as usize + 1) * e];
            let steps = shape.options.steps as usize;
            Ok(block.adapt(code, person, known, steps)?.embedding.to_vec())
        })?;
        pairs.embeddings = found;
        Ok(Some(pairs))
    }

    /// The embeddings of `count` items or creators, each adapted to the outcomes that `which` gives, their rows shifted by the
    /// embeddings of people, and of people on surfaces.
    fn items<'g>(
        &self,
        groups: &'g Groups,
        count: usize,
        which: impl Fn(usize) -> (u32, &'g [u32]) + Sync,
        people: &[f32],
        pairs: Option<&Pairs>,
    ) -> Result<Vec<f32>> {
        let (plan, ranker) = (self.plan, self.ranker);
        let Some(shape) = ranker.shape.of_items() else { return Ok(Vec::new()) };
        let inputs = Inputs::of_items(plan.width, &plan.means);
        let view = RankerView { shape: &shape, entities: &[], ..ranker.view() };
        let (steps, heads) = (shape.options.steps as usize, shape.heads);
        let one = |(key, support): (u32, &[u32]), adapter: &mut Adapter<'_>, candidates: &mut Vec<f32>| {
            let mut input = vec![0.0; shape.inputs];
            inputs.write(groups.vector(key, plan.width), &evidence(support, self.labels, heads), &[], &mut input)?;
            let read = latest(support, shape.options.support);
            let (mut labels, candidates) = (Vec::with_capacity(read.len() * heads), candidates);
            candidates.clear();
            for i in read {
                item_row(plan, groups, *i, &ranker.items, people, candidates, &shape.options);
                if let Some(pairs) = pairs {
                    pairs.shift(groups.asked_by[*i as usize], *i, candidates);
                }
                labels.extend_from_slice(&self.labels[*i as usize * heads..(*i as usize + 1) * heads]);
            }
            Ok(adapter.adapt(&input, None, candidates, &labels, steps)?.embedding.to_vec())
        };
        self.each(count, &(view.adapter()?, Vec::new()), |job, (adapter, memory)| one(which(job), adapter, memory))
    }

    /// The results of `count` adaptations, one after another; each thread begins with a copy of `start`.
    fn each<T: Clone + Sync>(
        &self,
        count: usize,
        start: &T,
        one: impl Fn(usize, &mut T) -> Result<Vec<f32>> + Sync,
    ) -> Result<Vec<f32>> {
        let parts = threads::map(
            self.threads,
            count.div_ceil(JOB),
            || start.clone(),
            |job, thread| -> Result<Vec<f32>> {
                let mut out = Vec::new();
                for i in job * JOB..((job + 1) * JOB).min(count) {
                    out.extend(one(i, thread)?);
                }
                Ok(out)
            },
        );
        let mut all = Vec::new();
        for part in parts {
            all.extend(part?);
        }
        match all.iter().all(|x| x.is_finite()) {
            true => Ok(all),
            false => {
                Err(err!(Diverged, "an adapted ranker gave an embedding that is not finite; lower the inner rate"))
            }
        }
    }
}

/// The latest `most` of outcomes.
pub(crate) fn latest(outcomes: &[u32], most: u32) -> &[u32] {
    &outcomes[outcomes.len() - outcomes.len().min(most as usize)..]
}

/// Appends the row of outcome `i` as an item's task reads it: under the user vector that its person had when it was asked, shifted
/// by the embedding that the person had then.
pub(crate) fn item_row(
    plan: &Plan<'_>,
    groups: &Groups,
    i: u32,
    own: &[f32],
    people: &[f32],
    out: &mut Vec<f32>,
    options: &crate::options::RankerOptions,
) {
    let (place, e) = (groups.asked_by[i as usize], options.embedding as usize);
    plan.candidate(place, i as usize, own, options.item_width as usize, out);
    out.extend_from_slice(&people[place as usize * e..(place as usize + 1) * e]);
}
