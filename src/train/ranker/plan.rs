//! Tasks: whose outcomes up to when are the support, and which later ones are the query.
//!
//! An entity's training outcomes are cut at 80 % of their number, again at 80 % of those, and so on down to none: every outcome
//! is the query of exactly one task, asked from what was known at the cut, and the query of each task is as long beside its support
//! as the test is beside the training part. The user vector of a task reads the events before its first query, so nothing
//! of a query is known to it.

use super::impressions::{Impressions, Surface};
use crate::data::{Dataset, Split};
use crate::error::{Result, err};
use crate::model::{Inference, Scratch, Standing, Value, Weights, column_value};
use crate::options::RankerOptions;
use crate::random::Rng;
use crate::ranker::{Evidence, Inputs, unseen};
use crate::threads;
use crate::train::foundation::corpus::encode_events;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

/// The foundation model whose vectors are read.
#[derive(Debug, Clone, Copy)]
pub struct FoundationModel<'a> {
    /// Its forward pass.
    pub inference: &'a Inference,
    /// Its weights.
    pub weights: Weights<'a>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Whose.
    pub entity: u32,
    /// Outcomes known, oldest first: places in [`Impressions`]. An adaptation reads the latest of them, and the user vector the
    /// events before the outcome that comes next.
    pub support: Range<usize>,
    /// Outcomes asked for.
    pub query: Range<usize>,
}

/// Which tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskSet {
    /// Those that are trained on.
    Train,
    /// The latest training outcomes of some entities, which choose the model.
    Validation,
    /// The test outcomes of entities whose earlier ones are trained on.
    Known,
    /// The test outcomes of entities hidden from all training.
    Hidden,
    /// All cuts of hidden entities, the test's included: supports of every size from none.
    HiddenCuts,
}

/// The tasks of a dataset under a split, with the vectors that they read.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Profiles are read from here.
    pub data: &'a Dataset,
    /// The outcomes.
    pub impressions: &'a Impressions,
    /// How a meta block's input is laid out.
    pub inputs: Inputs,
    /// Width of the vectors.
    pub width: usize,
    /// Mean label by head over what is trained on.
    pub means: Vec<f32>,
    /// Item vectors of the foundation model, `[items, width]`.
    pub items: Cow<'a, [f32]>,
    /// Logarithm of how often an item is in what is trained on, standardised, `[items]`.
    pub popularity: Vec<f32>,
    /// The popularity of an item that is not in it.
    pub unseen: f32,
    /// The vectors that the foundation model would give the items if nobody had touched them, `[items, width]`; empty where it
    /// has no item tower. Made where training asks for them.
    pub(super) cold: OnceLock<Vec<f32>>,
    /// The foundation model; `None` without its vectors.
    pub(super) features: Option<FoundationModel<'a>>,
    tasks: Vec<Task>,
    /// User vectors, `[tasks, width]`.
    states: Vec<f32>,
    parts: [Vec<u32>; 5],
}

/// The share of an entity's outcomes that one cut asks for is one in this many.
const CUT: usize = 5;

impl<'a> Plan<'a> {
    /// Cuts the outcomes under `split`: entities without training events are hidden, an entity's outcomes after the history of its
    /// test cases test, and those that the outcomes hold out ([`Impressions::held_out`]). A seeded `validation` share of the others keeps its latest training task for validation.
    ///
    /// # Errors
    /// `InvalidData` if outcomes and dataset do not fit or nothing is left to train on; `StateMismatch` if the model belongs to
    /// another dataset.
    pub fn new(
        data: &'a Dataset,
        impressions: &'a Impressions,
        split: &Split,
        features: FoundationModel<'a>,
        validation: f32,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        Self::cut(data, impressions, Some(split), features, validation, seed, threads)
    }

    /// As [`Plan::new`], all outcomes that are kept trained on, to be read as a ranker does that was trained before: with these means by
    /// head and this popularity of items.
    pub(crate) fn of_all(
        data: &'a Dataset,
        impressions: &'a Impressions,
        features: FoundationModel<'a>,
        means: &[f32],
        popularity: &[f32],
        threads: usize,
    ) -> Result<Self> {
        let mut plan = Self::cut(data, impressions, None, features, 0.0, 1, threads)?;
        plan.inputs = Inputs::new(&data.schema, plan.width, means);
        plan.means = means.to_vec();
        plan.popularity = popularity.to_vec();
        plan.unseen = unseen(popularity);
        Ok(plan)
    }

    fn cut(
        data: &'a Dataset,
        impressions: &'a Impressions,
        split: Option<&Split>,
        features: FoundationModel<'a>,
        validation: f32,
        seed: u64,
        threads: usize,
    ) -> Result<Self> {
        impressions.check(data)?;
        let width = features.inference.width();
        if features.weights.items.len() != data.items.len() * width {
            return Err(err!(
                StateMismatch,
                "the foundation model has {} item rows, the dataset {} items; use the model that was trained on it",
                features.weights.items.len() / width,
                data.items.len()
            ));
        }
        let (tasks, parts) = tasks(data, impressions, split, validation, seed);
        let mut plan = Self {
            data,
            impressions,
            inputs: Inputs::new(&data.schema, width, &[]),
            width,
            means: Vec::new(),
            items: Cow::Borrowed(features.weights.items),
            popularity: Vec::new(),
            unseen: 0.0,
            cold: OnceLock::new(),
            features: Some(features),
            states: Vec::new(),
            tasks,
            parts,
        };
        plan.measure(width)?;
        plan.states = plan.vectors(&plan.all(), features, threads)?;
        Ok(plan)
    }

    /// The same outcomes, means and popularity with other tasks: all are [`TaskSet::Hidden`], in the order given.
    ///
    /// # Errors
    /// `InvalidArgument` for a task that leaves its entity's outcomes, asks for nothing or for what is known; what the foundation
    /// model returns.
    pub fn asking(&self, tasks: Vec<Task>, features: FoundationModel<'_>, threads: usize) -> Result<Self> {
        let fits = |t: &Task| {
            let own = self.impressions.range(t.entity);
            let support = own.start <= t.support.start && t.support.start <= t.support.end;
            support && t.support.end <= t.query.start && t.query.start < t.query.end && t.query.end <= own.end
        };
        if let Some(t) = tasks.iter().find(|t| !fits(t)) {
            return Err(err!(
                InvalidArgument,
                "a task of entity {} knows outcomes {:?} and asks for {:?}; ask for later ones of the same entity",
                t.entity,
                t.support,
                t.query
            ));
        }
        let all = (0..tasks.len() as u32).collect();
        let parts = [Vec::new(), Vec::new(), Vec::new(), all, Vec::new()];
        let mut plan = Self { tasks, parts, states: Vec::new(), ..self.clone() };
        plan.states = plan.vectors(&plan.all(), features, threads)?;
        Ok(plan)
    }

    /// The same tasks without the foundation model: all of its vectors are zero. What the ranker is worth alone.
    pub fn without_vectors(mut self) -> Self {
        self.states.fill(0.0);
        self.items = Cow::Owned(vec![0.0; self.items.len()]);
        (self.cold, self.features) = (OnceLock::new(), None);
        self
    }

    /// Means and popularity over the queries that are trained on.
    fn measure(&mut self, width: usize) -> Result<()> {
        let heads = self.impressions.heads.len();
        let (mut sums, mut counts) = (vec![0.0f64; heads], vec![0.0f64; heads]);
        let mut seen = vec![0u32; self.data.items.len()];
        for task in self.tasks(TaskSet::Train) {
            for i in task.query.clone() {
                seen[self.impressions.item[i] as usize] += 1;
                for (t, label) in self.impressions.label(i).iter().enumerate().filter(|(_, l)| !l.is_nan()) {
                    sums[t] += f64::from(*label);
                    counts[t] += 1.0;
                }
            }
        }
        if counts.contains(&0.0) {
            return Err(err!(
                InvalidData,
                "the split leaves no labelled outcome to train on; bring more labels, or hide fewer entities"
            ));
        }
        self.means = sums.iter().zip(&counts).map(|(s, n)| (s / n) as f32).collect();
        self.inputs = Inputs::new(&self.data.schema, width, &self.means);
        let logs: Vec<f32> = seen.iter().map(|n| (1.0 + *n as f32).ln()).collect();
        let n = logs.len().max(1) as f32;
        let mean = logs.iter().sum::<f32>() / n;
        let deviation = (logs.iter().map(|l| (l - mean) * (l - mean)).sum::<f32>() / n).sqrt().max(1e-3);
        self.popularity = logs.iter().map(|l| (l - mean) / deviation).collect();
        self.unseen = unseen(&self.popularity);
        Ok(())
    }

    /// Makes the vectors of items that nobody has touched, which [`ItemKnowledge::MetadataAlone`] reads.
    pub(super) fn make_cold(&self) -> Result<()> {
        if let (None, Some(features)) = (self.cold.get(), self.features) {
            // Whoever else made them made the same.
            let _ = self.cold.set(cold_vectors(self.data, features)?);
        }
        Ok(())
    }

    /// All places, ascending.
    fn all(&self) -> Vec<u32> {
        (0..self.tasks.len() as u32).collect()
    }

    /// The user vectors of the tasks `places`, ascending, `[places, width]`.
    pub(super) fn vectors(&self, places: &[u32], features: FoundationModel<'_>, threads: usize) -> Result<Vec<f32>> {
        let entities: Vec<&[u32]> = places.chunk_by(|a, b| self.task(*a).entity == self.task(*b).entity).collect();
        let parts = threads::map(threads, entities.len(), Scratch::default, |e, scratch| -> Result<Vec<f32>> {
            let tasks = || entities[e].iter().map(|place| self.task(*place));
            let range = tasks().next().map_or(0..0, |task| self.data.range(task.entity));
            let mut order: Vec<(usize, usize)> =
                tasks().enumerate().map(|(i, t)| (self.impressions.before[t.support.end] as usize, i)).collect();
            order.sort_unstable();
            let prefixes: Vec<usize> = order.iter().map(|(p, _)| *p).collect();
            let longest = prefixes.last().copied().unwrap_or(0);
            let history = encode_events(self.data, range.start..range.start + longest);
            let mut sorted = vec![0.0; prefixes.len() * self.width];
            features.inference.user_vectors(features.weights, &history, &prefixes, scratch, &mut sorted)?;
            let mut out = vec![0.0; sorted.len()];
            for ((_, i), from) in order.iter().zip(sorted.chunks_exact(self.width)) {
                out[i * self.width..(i + 1) * self.width].copy_from_slice(from);
            }
            Ok(out)
        });
        let mut states = Vec::with_capacity(places.len() * self.width);
        for part in parts {
            states.extend(part?);
        }
        Ok(states)
    }

    /// Takes user vectors of the tasks `places` over, `[places, width]`.
    pub(super) fn keep(&mut self, places: &[u32], states: &[f32]) {
        for (place, state) in places.iter().zip(states.chunks_exact(self.width)) {
            self.states[*place as usize * self.width..(*place as usize + 1) * self.width].copy_from_slice(state);
        }
    }

    /// The tasks of a part, in order of entities.
    pub fn tasks(&self, set: TaskSet) -> impl ExactSizeIterator<Item = &Task> + Clone {
        self.parts[set as usize].iter().map(|i| &self.tasks[*i as usize])
    }

    /// Where the outcomes' items were shown, if a ranker of this shape tells it apart.
    ///
    /// # Errors
    /// As [`Impressions::surface`].
    pub(crate) fn surface(&self, options: &RankerOptions) -> Result<Option<&'a Surface>> {
        options.has_surface().then(|| self.impressions.surface(&options.surface)).transpose()
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The places of a part's tasks among all.
    pub(crate) fn places(&self, set: TaskSet) -> &[u32] {
        &self.parts[set as usize]
    }

    /// A task by its place.
    pub(crate) fn task(&self, place: u32) -> &Task {
        &self.tasks[place as usize]
    }

    /// The latest `most` outcomes that a task knows.
    pub(crate) fn latest(&self, place: u32, most: u32) -> Range<usize> {
        let support = &self.task(place).support;
        support.end - support.len().min(most as usize)..support.end
    }

    /// The labels of the query outcomes of a part, `[n, heads]` in the order of tasks.
    pub(crate) fn query_labels(&self, set: TaskSet) -> Vec<f32> {
        let h = self.means.len();
        let queries = self.tasks(set).map(|task| task.query.clone());
        queries.flat_map(|q| &self.impressions.labels[q.start * h..q.end * h]).copied().collect()
    }

    /// The user vector of a task.
    pub(crate) fn state(&self, place: u32) -> &[f32] {
        &self.states[place as usize * self.width..(place as usize + 1) * self.width]
    }

    /// How many impression features stand beside a candidate: its popularity and those of its impression features.
    pub fn numbers(&self) -> usize {
        1 + self.impressions.impression_fields.len()
    }

    /// Writes the meta block's input of a task; `cold` withholds the outcomes.
    pub(crate) fn input(&self, place: u32, labels: &[f32], cold: bool, out: &mut [f32]) -> Result<()> {
        let task = self.task(place);
        let known = if cold { 0..0 } else { task.support.clone() };
        let evidence = evidence(known, labels, self.means.len());
        let row = task.entity as usize;
        let profile: Vec<Value<'_>> = self.data.entity_columns.iter().map(|c| column_value(c, row)).collect();
        self.inputs.write(self.state(place), &evidence, &profile, out)
    }

    /// Appends the candidates of outcomes `range`, read under a task's user vector; `own` gives the ranker's item vectors.
    pub(crate) fn candidates(&self, place: u32, range: Range<usize>, own: &[f32], width: usize, out: &mut Vec<f32>) {
        range.for_each(|i| self.candidate(place, i, own, width, out));
    }

    /// Appends the candidate of outcome `i`.
    pub(crate) fn candidate(&self, place: u32, i: usize, own: &[f32], width: usize, out: &mut Vec<f32>) {
        self.candidate_as(ItemKnowledge::Full, place, i, own, width, out);
    }

    /// Appends the candidate of an item under a user vector, with nothing known of how it is shown.
    pub(super) fn unshown(&self, item: u32, state: &[f32], own: &[f32], width: usize, out: &mut Vec<f32>) {
        let (item, d) = (item as usize, self.width);
        let mut impression = vec![0.0; self.numbers()];
        impression[0] = self.popularity[item];
        let (own, vector) = (&own[item * width..(item + 1) * width], &self.items[item * d..(item + 1) * d]);
        self.inputs.candidate(own, vector, state, &impression, out);
    }

    /// Appends the candidate of outcome `i`, as if so much were known of its item.
    pub(crate) fn candidate_as(
        &self,
        known: ItemKnowledge,
        place: u32,
        i: usize,
        own: &[f32],
        width: usize,
        out: &mut Vec<f32>,
    ) {
        let (state, d, c) = (self.state(place), self.width, self.impressions.impression_fields.len());
        let item = self.impressions.item[i] as usize;
        let full = known == ItemKnowledge::Full;
        let mut impression = Vec::with_capacity(1 + c);
        impression.push(if full { self.popularity[item] } else { self.unseen });
        impression.extend_from_slice(&self.impressions.impression[i * c..(i + 1) * c]);
        let nothing;
        let own = match full {
            true => &own[item * width..(item + 1) * width],
            false => {
                nothing = vec![0.0; width];
                &nothing
            }
        };
        let cold = self.cold.get().filter(|_| known == ItemKnowledge::MetadataAlone);
        let cold = cold.and_then(|c| c.get(item * d..(item + 1) * d));
        self.inputs.candidate(own, cold.unwrap_or(&self.items[item * d..(item + 1) * d]), state, &impression, out);
    }
}

/// Cuts the outcomes into tasks, and says of which part each is.
fn tasks(
    data: &Dataset,
    impressions: &Impressions,
    split: Option<&Split>,
    validation: f32,
    seed: u64,
) -> (Vec<Task>, [Vec<u32>; 5]) {
    let entities = data.entities.len();
    let hidden: Vec<bool> = match split {
        Some(split) => split.train.iter().map(Range::is_empty).collect(),
        None => vec![false; entities],
    };
    let mut end: Vec<usize> = match split {
        Some(_) => (0..entities as u32).map(|u| data.range(u).len()).collect(),
        None => vec![usize::MAX; entities],
    };
    for case in split.map_or(&[][..], |split| &split.test) {
        if let Some(end) = end.get_mut(case.entity as usize) {
            *end = (*end).min(case.history.len());
        }
    }
    let mut tasks = Vec::new();
    let mut parts: [Vec<u32>; 5] = Default::default();
    for entity in 0..data.entities.len() as u32 {
        let (range, u) = (impressions.range(entity), entity as usize);
        let hidden = hidden.get(u).copied().unwrap_or(true);
        let before = &impressions.before[range.clone()];
        let trained = range.start + before.partition_point(|b| (*b as usize) < end[u]);
        let trained = trained.min(impressions.kept(entity).end);
        let mut push = |cut: usize, to: usize, sets: &[TaskSet]| {
            sets.iter().for_each(|set| parts[*set as usize].push(tasks.len() as u32));
            tasks.push(Task { entity, support: range.start..cut, query: cut..to });
        };
        if trained < range.end {
            let sets: &[TaskSet] = if hidden { &[TaskSet::Hidden, TaskSet::HiddenCuts] } else { &[TaskSet::Known] };
            push(trained, range.end, sets);
        }
        let chosen = Rng::for_stream(seed, u64::from(entity)).uniform() < f64::from(validation);
        let mut to = trained;
        while to > range.start {
            let n = to - range.start;
            let cut = range.start + (n - n.div_ceil(CUT));
            let set = match () {
                () if hidden => TaskSet::HiddenCuts,
                () if chosen && to == trained && n > 1 => TaskSet::Validation,
                () => TaskSet::Train,
            };
            push(cut, to, &[set]);
            to = cut;
        }
    }
    (tasks, parts)
}

/// What there is to tell a head by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    /// The head's name.
    pub head: String,
    /// Negative and positive outcomes that are trained on; a label between counts in part for each.
    pub training: [f64; 2],
    /// The same of those that validate.
    pub validation: [f64; 2],
    /// Entities that validate.
    pub entities: usize,
}

/// What there is to tell each head by in the tasks that [`Plan::new`] would cut.
///
/// # Errors
/// `InvalidData` if outcomes and dataset do not fit.
pub(super) fn tally(
    data: &Dataset,
    impressions: &Impressions,
    split: &Split,
    validation: f32,
    seed: u64,
) -> Result<Vec<Tally>> {
    impressions.check(data)?;
    let (tasks, parts) = tasks(data, impressions, Some(split), validation, seed);
    let count = |set: TaskSet, head: usize| {
        let (mut classes, mut entities) = ([0.0; 2], 0);
        for task in parts[set as usize].iter().map(|place| &tasks[*place as usize]) {
            let before = classes;
            for label in task.query.clone().map(|i| impressions.label(i)[head]).filter(|l| !l.is_nan()) {
                classes[0] += 1.0 - f64::from(label);
                classes[1] += f64::from(label);
            }
            entities += usize::from(classes != before);
        }
        (classes, entities)
    };
    let one = |(at, head): (usize, &String)| {
        let (validation, entities) = count(TaskSet::Validation, at);
        Tally { head: head.clone(), training: count(TaskSet::Train, at).0, validation, entities }
    };
    Ok(impressions.heads.iter().enumerate().map(one).collect())
}

/// What is taken to be known of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemKnowledge {
    /// What there is.
    Full,
    /// Events, but no outcome: no vector of the ranker's own, no popularity.
    NoOutcomes,
    /// Its metadata alone.
    MetadataAlone,
}

/// Stands for an item whose own vector was withheld, and gets no gradient.
pub(super) const WITHHELD: u32 = u32::MAX;

/// What is known of outcomes, oldest first, by head.
pub(super) fn evidence(outcomes: impl Iterator<Item = usize>, labels: &[f32], heads: usize) -> Vec<Evidence> {
    let mut found = vec![Evidence::default(); heads];
    for i in outcomes {
        found.iter_mut().zip(&labels[i * heads..(i + 1) * heads]).for_each(|(e, l)| e.push(*l));
    }
    found
}

/// The vectors of all items by their metadata alone.
pub(super) fn cold_vectors(data: &Dataset, features: FoundationModel<'_>) -> Result<Vec<f32>> {
    let Some(tower) = features.inference.tower() else { return Ok(Vec::new()) };
    let d = features.inference.width();
    let mut vectors = vec![0.0; data.items.len() * d];
    for (row, out) in vectors.chunks_exact_mut(d).enumerate() {
        let values: Vec<Value<'_>> = data.item_columns.iter().map(|column| column_value(column, row)).collect();
        let title = data.titles.get(row).map_or("", String::as_str);
        let released = data.released.get(row).is_some_and(|at| *at != i64::MIN);
        let age = (data.schema.has_time && released).then_some(0.0);
        tower.vector(features.weights, &tower.describe(title, &values), None, Standing::unseen(age), out)?;
    }
    Ok(vectors)
}
