//! The foundation model in training beside the ranker (docs/ranker.md, joint fine-tuning): the outer loss goes on through the user
//! vectors and item vectors that candidates are made of, into the network, the item vectors and the tables.
//!
//! A step reads the vectors anew, by the pass that serves ([`Inference`]); the pass back runs the histories once more on the tape,
//! next to the rows that they answer for. The vectors are those that are published: items stand as they do after the last training
//! event, nothing is masked or dropped, no request is known. The meta block's input holds its user vector. Tasks of persons alone
//! teach: the others read the vectors as the last step left them.

use super::plan::{FoundationModel, Plan, WITHHELD, cold_vectors};
use crate::data::Split;
use crate::error::{Result, err};
use crate::kernels::adam::AdamStep;
use crate::kernels::math::add;
use crate::model::graph::Packed;
use crate::model::network::Network;
use crate::model::tape::{Memory, Tape};
use crate::model::tower::Tables;
use crate::model::{self, Inference, Metadata, Request, Tokens, Weights};
use crate::options::RankerOptions;
use crate::ranker::batch::{Batch, Gradients, Side};
use crate::ranker::{RankerShape, unit_backward};
use crate::train::Trained;
use crate::train::foundation::corpus::encode_events;
use crate::train::foundation::embedding::Embedding;
use crate::train::foundation::step::{self, Touched, gather};
use crate::train::foundation::validate::Validation;
use crate::train::foundation::vectors::{Described, ItemVectors};
use crate::train::optimiser::{Averaging, Moments, Table, norm, update_dense};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Tokens of one pass, at most where histories allow: its activations stay near a core.
const PASS: usize = 1536;

/// Dense weights, ID embeddings and feature tables.
pub(super) type Arrays = [Vec<f32>; 3];

/// A foundation model that learns.
#[derive(Debug)]
pub(super) struct JointModel<'a> {
    trained: &'a Trained,
    split: &'a Split,
    inference: Inference,
    network: Network,
    metadata: Metadata,
    dense: Moments,
    ids: Table,
    features: Table,
    /// Steps taken.
    taken: u64,
    memory: Mutex<Vec<Memory>>,
    /// The plan with the vectors of this moment.
    pub(super) plan: Plan<'a>,
}

/// What the tasks of a chunk teach the foundation model.
#[derive(Debug, Default)]
pub(super) struct Lesson {
    dense: Vec<f32>,
    /// Of the tables of event features, which come before those of the item tower.
    features: Vec<f32>,
    /// Item rows, one for each place where the chunk read an item's vector.
    items: Vec<u32>,
    /// The gradients of those vectors, `[items, d]`.
    vectors: Vec<f32>,
}

/// Events of an entity that the network reads in one sequence.
struct Sequence {
    entity: u32,
    events: usize,
    /// How many events each answer has read, and the task that it answers for.
    asked: Vec<(usize, usize)>,
}

impl<'a> JointModel<'a> {
    /// Takes the model up where it was left.
    ///
    /// # Errors
    /// `InvalidConfig` for a ranker without tasks of persons, or for merged events; `StateMismatch` for a model whose vectors the plan does
    /// not read.
    pub(super) fn new(plan: &Plan<'a>, trained: &'a Trained, split: &'a Split, ranker: &RankerOptions) -> Result<Self> {
        if !ranker.person {
            return Err(err!(
                InvalidConfig,
                "the foundation model learns from tasks of persons, and ranker.person is false; set ranker.finetune = 0 or ranker.person = \
                 true"
            ));
        }
        if trained.tokenizer.is_some() {
            return Err(err!(
                InvalidConfig,
                "the foundation model reads merged events, which a ranker does not; train it without [tokenizer]"
            ));
        }
        if *plan.items != *trained.items {
            return Err(err!(
                StateMismatch,
                "the tasks were made with other item vectors than those of the foundation model; make them with that model"
            ));
        }
        let (data, options) = (plan.data, &trained.model);
        let inference = Inference::new(&data.schema, options)?;
        let (dense, features) = inference.sizes();
        let (d, width) = (options.width as usize, options.field_width as usize);
        if trained.dense.len() != dense
            || trained.features.len() != features
            || trained.ids.len() != data.items.len() * d
            || (inference.tower().is_some() && trained.standings.len() != data.items.len())
        {
            return Err(err!(
                StateMismatch,
                "the foundation model's weights do not fit dataset {}; train it on the same data",
                data.schema.name
            ));
        }
        Ok(Self {
            trained,
            split,
            network: Network::new(options, model::Features::new(&data.schema, options)?),
            metadata: inference.tower().map(|tower| tower.metadata(data)).unwrap_or_default(),
            inference,
            dense: Moments::new(trained.dense.clone(), false),
            ids: Table::new(trained.ids.clone(), d, false),
            features: Table::new(trained.features.clone(), width, false),
            taken: 0,
            memory: Mutex::default(),
            plan: plan.clone(),
        })
    }

    /// Puts each person's tasks next to each other, in the place of the first, where several prefixes of a history are read in one
    /// pass.
    pub(super) fn together(&self, order: Vec<u32>) -> Vec<u32> {
        if !self.inference.reads_together() {
            return order;
        }
        let mut by_person: Vec<Vec<u32>> = Vec::new();
        let mut at: HashMap<u32, usize> = HashMap::new();
        for place in order {
            let own = *at.entry(self.plan.task(place).entity).or_insert(by_person.len());
            match by_person.get_mut(own) {
                Some(own) => own.push(place),
                None => by_person.push(vec![place]),
            }
        }
        by_person.into_iter().flatten().collect()
    }

    fn tables(&self) -> Tables<'_> {
        Tables { dense: &self.dense.values, features: &self.features.rows.values }
    }

    /// The vectors of some items under the weights of this moment.
    fn vectors(&self, rows: &[u32]) -> ItemVectors<'_> {
        let standing = |row: &u32| self.trained.standings.get(*row as usize).copied();
        let described = self.inference.tower().map(|tower| Described {
            tower,
            metadata: &self.metadata,
            standings: rows.iter().filter_map(standing).collect(),
        });
        let d = self.ids.width;
        let ids = gather(&self.ids.rows.values, rows, d);
        ItemVectors::of(described, ids, rows, self.tables(), (self.trained.model.normalized, d))
    }

    /// The weights of this moment with the plan's item vectors.
    fn weights(&self) -> Weights<'_> {
        Weights { items: &self.plan.items, dense: &self.dense.values, features: &self.features.rows.values, more: &() }
    }

    /// Makes the vectors that tasks read anew: those of the items of their histories and outcomes, then their user vectors. Gives the
    /// items.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub(super) fn read(&mut self, places: &[u32], support: u32, threads: usize) -> Result<Touched> {
        let plan = &self.plan;
        let (mut used, d) = (Vec::new(), self.ids.width);
        for place in places {
            let task = plan.task(*place);
            let outcomes = plan.latest(*place, support).start..task.query.end;
            used.extend_from_slice(&plan.impressions.item[outcomes]);
            let before = plan.impressions.before[task.support.end] as usize;
            let first = plan.data.range(task.entity).start;
            let newest = first + before.saturating_sub(self.inference.max_length())..first + before;
            used.extend_from_slice(&plan.data.events.item[newest]);
        }
        let touched = Touched::some(plan.data.items.len(), used.into_iter());
        let vectors = self.vectors(&touched.rows).vectors;
        let table = self.plan.items.to_mut();
        for (row, vector) in touched.rows.iter().zip(vectors.chunks_exact(d)) {
            table[*row as usize * d..(*row as usize + 1) * d].copy_from_slice(vector);
        }
        let mut places = places.to_vec();
        places.sort_unstable();
        self.answer(&places, threads)?;
        Ok(touched)
    }

    /// Makes all vectors of the plan anew.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub(super) fn refresh(&mut self, threads: usize) -> Result<()> {
        let rows: Vec<u32> = (0..self.plan.data.items.len() as u32).collect();
        let vectors = self.vectors(&rows).vectors;
        *self.plan.items.to_mut() = vectors;
        if self.plan.cold.get().is_some() {
            let features = FoundationModel { inference: &self.inference, weights: self.weights() };
            self.plan.cold = cold_vectors(self.plan.data, features)?.into();
        }
        let places: Vec<u32> = (0..self.plan.len() as u32).collect();
        self.answer(&places, threads)
    }

    /// Makes the user vectors of tasks, ascending, anew.
    fn answer(&mut self, places: &[u32], threads: usize) -> Result<()> {
        let features = FoundationModel { inference: &self.inference, weights: self.weights() };
        let states = self.plan.vectors(places, features, threads)?;
        self.plan.keep(places, &states);
        Ok(())
    }

    /// Carries the gradients at the candidates of a chunk's tasks back to the foundation model. `places` are the tasks in the order of the
    /// batch, `items` the items of the rows of query and support.
    ///
    /// # Errors
    /// `Internal` if an operation fails.
    pub(super) fn learn_from(
        &self,
        shape: &RankerShape,
        places: &[u32],
        batch: &Batch<f32>,
        gradients: &Gradients<f32>,
        items: [&[u32]; 2],
    ) -> Result<Lesson> {
        let (d, width, plan) = (self.ids.width, shape.candidate(), &self.plan);
        let own = shape.options.item_width as usize;
        let mut lesson = Lesson {
            dense: vec![0.0; self.dense.values.len()],
            features: vec![0.0; self.network.features.event_rows() * self.features.width],
            ..Lesson::default()
        };
        let (mut directions, mut towards) = (Vec::new(), vec![0.0; places.len() * d]);
        let sides: [(&Side<f32>, &[f32]); 2] =
            [(&batch.query, &gradients.query_vectors), (&batch.support, &gradients.support_vectors)];
        for ((side, found), items) in sides.into_iter().zip(items).filter(|((_, found), _)| !found.is_empty()) {
            for (s, state) in towards.chunks_exact_mut(d).enumerate() {
                let r = side.range(s);
                let (rows, found) =
                    (&side.candidates[r.start * width..r.end * width], &found[r.start * 3 * d..r.end * 3 * d]);
                plan.inputs.candidates_backward(rows, [own, width], found, &mut directions, state);
            }
            lesson.items.extend_from_slice(items);
        }
        // Items that were withheld have no row to learn.
        let rows = lesson.items.iter().zip(directions.chunks_exact(d)).filter(|(item, _)| **item != WITHHELD);
        let directions: Vec<f32> = rows.flat_map(|(_, g)| g).copied().collect();
        lesson.items.retain(|item| *item != WITHHELD);
        lesson.vectors.resize(directions.len(), 0.0);
        unit_backward(&gather(&plan.items, &lesson.items, d), d, &directions, &mut lesson.vectors);
        let states: Vec<f32> = places.iter().flat_map(|place| plan.state(*place)).copied().collect();
        let mut seeds = vec![0.0; states.len()];
        unit_backward(&states, d, &towards, &mut seeds);
        let mut memory = self.memory.lock().pop().unwrap_or_default();
        let sequences = self.sequences(places);
        let mut rest = sequences.as_slice();
        while !rest.is_empty() {
            let mut tokens = 0;
            let mut fits = |s: &Sequence| {
                tokens += (s.events + 1).min(self.inference.max_length());
                tokens <= PASS
            };
            let n = rest.iter().take_while(|s| fits(s)).count().max(1);
            let (now, later) = rest.split_at(n);
            self.pass(now, &seeds, &mut lesson, &mut memory)?;
            rest = later;
        }
        self.memory.lock().push(memory);
        Ok(lesson)
    }

    /// What the network reads to answer tasks: a history once for all answers inside the first window where the pass that serves does
    /// so, once for each otherwise.
    fn sequences(&self, places: &[u32]) -> Vec<Sequence> {
        let plan = &self.plan;
        let one = |(i, place): (usize, &u32)| {
            let task = plan.task(*place);
            (task.entity, plan.impressions.before[task.support.end] as usize, i)
        };
        let mut asked: Vec<(u32, usize, usize)> = places.iter().enumerate().map(one).collect();
        asked.sort_unstable();
        let mut found: Vec<Sequence> = Vec::new();
        for (entity, events, task) in asked {
            let joins = self.inference.reads_together() && events < self.inference.max_length();
            match found.last_mut().filter(|s| s.entity == entity && (s.events == events || joins)) {
                Some(last) => {
                    last.events = events;
                    last.asked.push((events, task));
                }
                None => found.push(Sequence { entity, events, asked: vec![(events, task)] }),
            }
        }
        found
    }

    /// One pass forward and back; `seeds` are the gradients of the tasks' user vectors.
    fn pass(&self, sequences: &[Sequence], seeds: &[f32], lesson: &mut Lesson, memory: &mut Memory) -> Result<()> {
        let (d, network, plan) = (self.ids.width, &self.network, &self.plan);
        let mut tokens = Tokens::default();
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        let mut answers = Vec::new();
        for s in sequences {
            let start = plan.data.range(s.entity).start;
            let history = encode_events(plan.data, start..start + s.events);
            let first = (s.events + 1).saturating_sub(self.inference.max_length());
            let at = tokens.items.len();
            network.features.encode(&history, 0, first..s.events + 1, &Request::default(), &mut tokens);
            packed.offsets.push(tokens.items.len());
            answers.extend(s.asked.iter().map(|(events, task)| (at + events - first, *task)));
        }
        if network.options.time_bias {
            packed.query = std::mem::take(&mut tokens.query);
            packed.key = std::mem::take(&mut tokens.key);
        }
        let (n, packed) = (tokens.items.len(), Arc::new(packed));
        let mut seed = memory.take(n * d);
        seed.fill(0.0);
        for (token, task) in answers {
            add(&mut seed[token * d..(token + 1) * d], &seeds[task * d..(task + 1) * d]);
        }
        let embedding = Embedding::new(network);
        let item = |row: u32| &plan.items[row as usize * d..(row as usize + 1) * d];
        let tables = [self.dense.values.as_slice(), self.features.rows.values.as_slice()];
        let (x, fields) = embedding.gather(&tokens, &packed, tables, item, memory);
        let mut tape = Tape::new(&network.layout, &self.dense.values, n, memory);
        let x = tape.leaf(x);
        let fields = fields.map(|f| tape.leaf(f));
        let out = network.forward(&mut tape, x, fields.as_ref(), &packed, None)?;
        let mut leaves = tape.backward(vec![(out.user, seed)], &mut lesson.dense).into_iter();
        let (dx, dfields) = (leaves.next().unwrap_or_default(), leaves.next());
        let Lesson { features, items, vectors, .. } = lesson;
        let tables = [lesson.dense.as_mut_slice(), features.as_mut_slice()];
        embedding.scatter(&tokens, &packed, (&dx, dfields.as_deref()), tables, |row, g| {
            items.push(row);
            vectors.extend_from_slice(g);
        });
        memory.give(dx);
        dfields.into_iter().for_each(|b| memory.give(b));
        Ok(())
    }

    /// The gradients of a step's chunks together, added in their order.
    pub(super) fn sum<'l>(&self, touched: Touched, lessons: impl Iterator<Item = &'l Lesson>) -> step::Gradients {
        let d = self.ids.width;
        let mut dense = vec![0.0; self.dense.values.len()];
        let mut features = vec![0.0; self.features.rows.values.len()];
        let mut vectors = vec![0.0; touched.rows.len() * d];
        for lesson in lessons {
            add(&mut dense, &lesson.dense);
            add(&mut features, &lesson.features);
            for (item, g) in lesson.items.iter().zip(lesson.vectors.chunks_exact(d)) {
                let slot = touched.slot[*item as usize] as usize;
                add(&mut vectors[slot * d..(slot + 1) * d], g);
            }
        }
        let items = self.vectors(&touched.rows).backward(vectors, self.tables(), &mut dense, &mut features);
        let feature_rows = (0..self.network.features.rows() as u32).collect();
        step::Gradients { dense, item_rows: touched.rows, items, feature_rows, features, ..step::Gradients::default() }
    }

    /// One step of Adam, without decay: the weights are good where they are.
    pub(super) fn update(&mut self, gradients: &step::Gradients, rate: f32, scale: f32) {
        self.taken += 1;
        let (t, off) = (self.taken, Averaging { ema: 0.0 });
        let step = AdamStep::new(rate, 0.0, t, scale);
        update_dense(&self.network.layout, &mut self.dense, step, 0.0, 0.0, &gradients.dense);
        self.ids.update(t, step, off, &gradients.item_rows, &gradients.items);
        self.features.update(t, step, off, &gradients.feature_rows, &gradients.features);
    }

    /// The weights of this moment.
    pub(super) fn arrays(&self) -> Arrays {
        [self.dense.values.clone(), self.ids.rows.values.clone(), self.features.rows.values.clone()]
    }

    /// Goes back to the weights of another moment, and makes all vectors anew.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub(super) fn restore(&mut self, arrays: Arrays, threads: usize) -> Result<()> {
        [self.dense.values, self.ids.rows.values, self.features.rows.values] = arrays;
        self.refresh(threads)
    }

    /// The model with the weights of this moment, whose vectors the plan holds, judged by the validation questions of its split.
    ///
    /// # Errors
    /// `Diverged` for scores that are not finite.
    pub(super) fn trained(&self, threads: usize) -> Result<Trained> {
        let [dense, ids, features] = self.arrays();
        let validation = Validation::new(self.plan.data, self.split, None, self.trained.options.seed);
        let found = match validation.is_empty() {
            true => Vec::new(),
            false => validation.run(&self.inference, self.weights(), threads)?,
        };
        Ok(Trained { items: self.plan.items.to_vec(), ids, dense, features, validation: found, ..self.trained.clone() })
    }
}

/// The length of a step's gradient, squared.
pub(super) fn square_norm(gradients: &step::Gradients) -> f64 {
    let n = norm(&[&gradients.dense, &gradients.items, &gradients.features]);
    n * n
}
