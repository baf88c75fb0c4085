//! The embeddings of both kinds under given weights.
//!
//! Each kind is adapted with the other's embeddings as they are, in turn: items beside people as they were learned, then people beside
//! these, then items again. Nothing else goes in, so the same weights and outcomes give the same embeddings, whoever trained them.

use super::groups::{Groups, evidence, mean};
use super::plan::{Plan, Who};
use super::work::parallel;
use crate::error::{Result, err};
use crate::model::meta::{Adapter, Inputs, Ranker, RankerView};

/// How many adaptations a job makes.
const JOB: usize = 16;

/// The embeddings of both kinds, by task.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// The tasks of items or creators.
    pub groups: Groups,
    /// Their embeddings, `[tasks, embedding]`.
    pub items: Vec<f32>,
    /// Those of the people's tasks that are trained on or validate, `[tasks of the plan, embedding]`; zeros without a part of
    /// the person.
    pub people: Vec<f32>,
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
    /// Adapts both kinds to `labels` under the weights of `ranker`; `None` where it has one kind.
    ///
    /// # Errors
    /// Those of adaptations; `InvalidConfig` for a field that items do not have.
    pub(crate) fn new(plan: &Plan<'_>, ranker: &Ranker, labels: &[f32], threads: usize) -> Result<Option<Self>> {
        let options = &ranker.shape.options;
        if !options.items.is_on() {
            return Ok(None);
        }
        let (groups, steps) = (Groups::new(plan, &options.items)?, options.steps as usize);
        let sight = Sight { plan, ranker, labels, threads };
        let nobody = vec![0.0; plan.len() * options.embedding as usize];
        let supports = |task: usize| (groups.keys[task], groups.supports.get(task));
        if !options.person {
            let items = sight.items(&groups, groups.keys.len(), supports, &nobody)?;
            return Ok(Some(Self { groups, items, people: nobody }));
        }
        let learned = sight.people(&groups, None, 0)?;
        let items = sight.items(&groups, groups.keys.len(), supports, &learned)?;
        let people = sight.people(&groups, Some(&items), steps)?;
        let items = sight.items(&groups, groups.keys.len(), supports, &people)?;
        Ok(Some(Self { groups, items, people }))
    }

    /// The embedding of each item, `[items, embedding]`, adapted to all its outcomes that are trained on: the mean over its
    /// entities. An entity without outcomes has that of the block as it was learned, an item without entities zeros.
    ///
    /// # Errors
    /// Those of adaptations.
    pub(crate) fn table(&self, plan: &Plan<'_>, ranker: &Ranker, labels: &[f32], threads: usize) -> Result<Vec<f32>> {
        let (groups, e) = (&self.groups, ranker.shape.options.embedding as usize);
        let members = |key: usize| (key as u32, groups.members.get(key));
        let sight = Sight { plan, ranker, labels, threads };
        let entities = sight.items(groups, groups.members.len(), members, &self.people)?;
        let mut table = Vec::with_capacity(groups.of_item.len() * e);
        for item in 0..groups.of_item.len() {
            mean(groups.of_item.get(item), &entities, e, &mut table);
        }
        Ok(table)
    }
}

impl Sight<'_> {
    /// The embeddings of people, after `steps` inner steps, their rows shifted by those of items.
    fn people(&self, groups: &Groups, items: Option<&[f32]>, steps: usize) -> Result<Vec<f32>> {
        let (plan, shape) = (self.plan, &self.ranker.shape);
        let (e, own, heads) = (shape.options.embedding as usize, shape.options.item_width as usize, shape.heads);
        let places: Vec<u32> = plan.places(Who::Train).iter().chain(plan.places(Who::Validation)).copied().collect();
        let one = |place: u32, adapter: &mut Adapter<'_>, candidates: &mut Vec<f32>| -> Result<Vec<f32>> {
            let task = plan.task(place);
            let mut input = vec![0.0; shape.inputs];
            plan.input(place, self.labels, false, &mut input)?;
            candidates.clear();
            let from = match items {
                Some(_) => task.support.end - task.support.len().min(shape.options.support as usize),
                None => task.support.end,
            };
            for i in from..task.support.end {
                plan.candidate(place, i, &self.ranker.items, own, candidates);
                groups.shift(i, items.unwrap_or(&[]), e, candidates);
            }
            let labels = &self.labels[from * heads..task.support.end * heads];
            let vector = self.ranker.entity(task.entity);
            Ok(adapter.adapt(&input, vector, candidates, labels, steps)?.embedding.to_vec())
        };
        let adapter = self.ranker.adapter()?;
        let found = self.each(places.len(), &adapter, |job, adapter, memory| one(places[job], adapter, memory))?;
        let mut all = vec![0.0; plan.len() * e];
        for (place, vector) in places.iter().zip(found.chunks_exact(e)) {
            all[*place as usize * e..(*place as usize + 1) * e].copy_from_slice(vector);
        }
        Ok(all)
    }

    /// The embeddings of `count` items or creators, each adapted to the outcomes that `which` gives, their rows shifted by the
    /// embeddings of people.
    fn items<'g>(
        &self,
        groups: &'g Groups,
        count: usize,
        which: impl Fn(usize) -> (u32, &'g [u32]) + Sync,
        people: &[f32],
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
                labels.extend_from_slice(&self.labels[*i as usize * heads..(*i as usize + 1) * heads]);
            }
            Ok(adapter.adapt(&input, None, candidates, &labels, steps)?.embedding.to_vec())
        };
        self.each(count, &view.adapter()?, |job, adapter, memory| one(which(job), adapter, memory))
    }

    /// The results of `count` adaptations, one after another.
    fn each<'r>(
        &self,
        count: usize,
        adapter: &Adapter<'r>,
        one: impl Fn(usize, &mut Adapter<'r>, &mut Vec<f32>) -> Result<Vec<f32>> + Sync,
    ) -> Result<Vec<f32>> {
        let parts = parallel(
            self.threads,
            count.div_ceil(JOB),
            || (adapter.clone(), Vec::new()),
            |job, (adapter, memory)| -> Result<Vec<f32>> {
                let mut out = Vec::new();
                for i in job * JOB..((job + 1) * JOB).min(count) {
                    out.extend(one(i, adapter, memory)?);
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
    options: &crate::options::MetaOptions,
) {
    let (place, e) = (groups.asked_by[i as usize], options.embedding as usize);
    plan.candidate(place, i as usize, own, options.item_width as usize, out);
    out.extend_from_slice(&people[place as usize * e..(place as usize + 1) * e]);
}
