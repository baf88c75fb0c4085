//! The outer loop: epochs over the tasks, Adam on both blocks, validation, early stopping.

use super::pairs::OnSurface;
use super::plan::{Plan, Task, Who};
use super::predict::{Predictor, calibrate, labels, log_loss};
use super::second::{Kind, Second};
use super::settle::Settled;
use super::work::parallel;
use crate::error::{Result, err};
use crate::kernels::adam::{AdamStep, adamw};
use crate::kernels::math::{add, square_sum};
use crate::model::meta::batch::{Batch, Gradients, Memory, Outer, gradients};
use crate::model::meta::{Ranker, Shape};
use crate::observe::{self, Cancel, Event, Observer};
use crate::options::{MetaOptions, MetaTrainOptions};
use crate::random::{Rng, hash64};
use crate::schema::ContextField;
use crate::train::Stopped;
use crate::train::optimiser::{Averaging, Moments, Table};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Rows that a chunk holds, so that they stay near a core.
const CHUNK: usize = 1024;
/// Longest gradient norm.
const CLIP: f64 = 1.0;
/// Steps of linear warm-up.
const WARMUP: u64 = 50;
/// The logarithms of inner rates learn faster than weights by this factor: they have far to go.
const RATES: f32 = 10.0;

/// A trained ranker and how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaTrained {
    /// The weights of the best validation.
    pub ranker: Ranker,
    /// How it was trained.
    pub options: MetaTrainOptions,
    /// Names of its heads.
    pub heads: Vec<String>,
    /// Mean label by head over what it was trained on.
    pub means: Vec<f32>,
    /// The numbers that it reads beside a candidate, after its popularity.
    pub context: Vec<ContextField>,
    /// The popularity of each item as it reads it, `[items]`.
    pub popularity: Vec<f32>,
    /// The embedding of each item, adapted to all its outcomes that are trained on, `[items, embedding]`; empty with one kind of
    /// entity.
    pub item_embeddings: Vec<f32>,
    /// The surfaces that it tells apart, by code from 1; empty where it tells none apart.
    pub surfaces: Vec<String>,
    /// Labelled outcomes in the data.
    pub outcomes: u64,
    /// The share of each entity's that tests.
    pub held_out: f32,
    /// Metrics of the best validation: `logloss`, and `logloss@0` before any inner step; empty without validation tasks.
    pub validation: Vec<(String, f64)>,
    /// Epochs done.
    pub epochs: u32,
    /// The epoch of the best validation.
    pub best_epoch: u32,
    /// Seconds of training.
    pub seconds: f64,
    /// Why it ended.
    pub stopped: Stopped,
}

/// Trains a ranker on the tasks of a plan.
#[derive(Debug, Clone)]
pub struct MetaTrainer<'a> {
    pub(super) plan: &'a Plan<'a>,
    model: MetaOptions,
    pub(super) options: MetaTrainOptions,
    heads: Vec<f32>,
    pub(super) labels: &'a [f32],
}

impl<'a> MetaTrainer<'a> {
    /// A trainer with default options.
    pub fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            model: MetaOptions::default(),
            options: MetaTrainOptions::default(),
            heads: vec![1.0; plan.means.len()],
            labels: &plan.impressions.labels,
        }
    }

    /// The shape. No inner steps make it the global model alone; with [`MetaOptions::identity`], a wide-and-deep model with
    /// vectors of entities.
    pub fn model(mut self, model: MetaOptions) -> Self {
        self.model = model;
        self
    }

    /// How to train it.
    pub fn options(mut self, options: MetaTrainOptions) -> Self {
        self.options = options;
        self
    }

    /// Weight of each head's loss.
    pub fn heads(mut self, weights: Vec<f32>) -> Self {
        self.heads = weights;
        self
    }

    /// Adapts to these labels instead of the true ones, in training too: the control that must not gain.
    pub fn adapting_to(mut self, labels: &'a [f32]) -> Self {
        self.labels = labels;
        self
    }

    /// Trains to the end or until `cancel`. The same plan and options give the same weights, to the bit, on any number of
    /// threads.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range; `InvalidArgument` for weights or labels that do not fit; `Diverged` when a loss or
    /// gradient is not finite.
    pub fn run(&self, observer: &mut dyn Observer, cancel: &Cancel) -> Result<MetaTrained> {
        let (plan, options) = (self.plan, &self.options);
        options.check()?;
        if self.heads.len() != plan.means.len() || self.labels.len() != plan.impressions.labels.len() {
            return Err(err!(
                InvalidArgument,
                "{} head weights and {} labels do not fit {} heads and {} labels; pass one for each",
                self.heads.len(),
                self.labels.len(),
                plan.means.len(),
                plan.impressions.labels.len()
            ));
        }
        let shape = Shape::new(
            &self.model,
            plan.inputs.width(),
            plan.width,
            plan.contexts(),
            plan.means.len(),
            options.inner_rate,
        )?;
        let mut rng = Rng::for_stream(options.seed, 31);
        let (own, e) = (self.model.item_width as usize, self.model.embedding as usize);
        let dense = Moments::new(shape.layout.start(&mut rng), false);
        let items = (0..plan.data.items.len() * own).map(|_| 0.1 * rng.normal() as f32).collect();
        let entities = if self.model.identity { plan.data.entities.len() * e } else { 0 };
        let steps = self.model.steps as usize;
        Run {
            trainer: self,
            outer: Outer {
                steps: step_weights(steps, options.unadapted, options.first),
                heads: self.heads.clone(),
                scale: 1.0,
                exact: options.exact && steps > 0,
            },
            second: Second::new(plan, &shape)?,
            surface: OnSurface::new(plan, &shape)?,
            shape,
            dense,
            items: Table::new(items, own, false),
            entities: Table::new(vec![0.0; entities], e, false),
            memory: Mutex::default(),
            plain: vec![[1.0, 0.0]; plan.means.len()],
            step: 0,
            taken: [0; 3],
            begun: Instant::now(),
        }
        .complete(observer, cancel)
    }
}

/// Weights of the outer loss after 0 to K steps (multi-step loss, Antoniou et al. 2019): `unadapted` before any, a share `first` of
/// the rest after the first of several, half of what remains after the last, the other half in equal parts on the steps between.
fn step_weights(steps: usize, unadapted: f32, first: f32) -> Vec<f32> {
    let rest = 1.0 - unadapted;
    let remains = rest * (1.0 - first);
    match steps {
        0 => vec![1.0],
        1 => vec![unadapted, rest],
        2 => vec![unadapted, rest * first, remains],
        _ => {
            let mut weights = vec![0.5 * remains / (steps - 2) as f32; steps + 1];
            (weights[0], weights[1], weights[steps]) = (unadapted, rest * first, 0.5 * remains);
            weights
        }
    }
}

pub(super) struct Run<'a> {
    pub(super) trainer: &'a MetaTrainer<'a>,
    pub(super) shape: Shape,
    /// The second meta block, where there is one.
    pub(super) second: Option<Second>,
    /// The block of people on surfaces, where there is one.
    pub(super) surface: Option<OnSurface>,
    pub(super) outer: Outer<f32>,
    pub(super) dense: Moments,
    pub(super) items: Table,
    pub(super) entities: Table,
    pub(super) memory: Mutex<Vec<Memory<f32>>>,
    /// A calibration that changes nothing.
    pub(super) plain: Vec<[f32; 2]>,
    pub(super) step: u64,
    /// Steps on tasks of each kind.
    pub(super) taken: [u64; 3],
    begun: Instant,
}

/// A task in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) place: u32,
    /// Its outcomes are withheld.
    pub(super) cold: bool,
    /// Its entity's own vector is withheld.
    nameless: bool,
}

/// Metrics by name.
type Metrics = Vec<(String, f64)>;

/// The best validation so far.
struct Best {
    loss: f64,
    ranker: Ranker,
    settled: Option<Arc<Settled>>,
    metrics: Vec<(String, f64)>,
    epoch: u32,
}

/// What a chunk gives.
pub(super) struct Part {
    pub(super) gradients: Gradients<f32>,
    pub(super) items: Vec<u32>,
}

impl Run<'_> {
    fn complete(mut self, observer: &mut dyn Observer, cancel: &Cancel) -> Result<MetaTrained> {
        let options = &self.trainer.options;
        let steps = self.batches(0).len() as u64 * u64::from(options.epochs);
        let mut best: Option<Best> = None;
        let (mut waited, mut stopped, mut done) = (0, Stopped::Epochs, 0);
        'epochs: for epoch in 0..options.epochs {
            for (kind, own) in self.batches(epoch) {
                self.update(kind, &own, epoch, steps, observer)?;
                if cancel.is_cancelled() {
                    stopped = Stopped::Interrupted;
                    break 'epochs;
                }
            }
            done = epoch + 1;
            let ranker = self.ranker();
            let (metrics, settled) = self.validate(&ranker)?;
            if let (Some(second), Some(settled)) = (&mut self.second, &settled) {
                second.take(settled);
            }
            if let (Some(surface), Some(settled)) = (&mut self.surface, &settled) {
                surface.take(settled);
            }
            let loss = metrics.first().map_or(-f64::from(epoch), |m| m.1);
            let improved = best.as_ref().is_none_or(|b| loss < b.loss);
            if improved {
                best = Some(Best { loss, ranker, settled, metrics: metrics.clone(), epoch });
                waited = 0;
            } else {
                waited += 1;
            }
            let best = best.as_ref().map_or(loss, |b| b.loss);
            observer.on_event(&Event::Validation(observe::Validation { epoch, metrics, best, improved }));
            if waited >= options.patience {
                stopped = Stopped::Patience;
                break;
            }
        }
        let Best { mut ranker, settled, metrics: validation, epoch: best_epoch, .. } = match best {
            Some(best) => best,
            None => Best { loss: 0.0, ranker: self.ranker(), settled: None, metrics: Vec::new(), epoch: 0 },
        };
        self.calibrate(&mut ranker, settled.as_ref())?;
        let plan = self.trainer.plan;
        let item_embeddings = match settled.filter(|_| self.second.is_some()) {
            Some(settled) => settled.table(plan, &ranker, self.trainer.labels, options.threads as usize)?,
            None => Vec::new(),
        };
        Ok(MetaTrained {
            ranker,
            options: options.clone(),
            heads: self.trainer.plan.impressions.heads.clone(),
            means: self.trainer.plan.means.clone(),
            context: self.trainer.plan.impressions.context_fields.clone(),
            popularity: self.trainer.plan.popularity.clone(),
            item_embeddings,
            surfaces: plan.surface(&self.shape.options)?.map_or_else(Vec::new, |s| s.values.clone()),
            outcomes: self.trainer.plan.impressions.len() as u64,
            held_out: self.trainer.plan.impressions.held_out,
            validation,
            epochs: done,
            best_epoch,
            seconds: self.begun.elapsed().as_secs_f64(),
            stopped,
        })
    }

    fn ranker(&self) -> Ranker {
        Ranker {
            shape: self.shape.clone(),
            dense: self.dense.values.clone(),
            items: self.items.rows.values.clone(),
            entities: self.entities.rows.values.clone(),
            calibration: self.plain.clone(),
        }
    }

    fn validate(&self, ranker: &Ranker) -> Result<(Metrics, Option<Arc<Settled>>)> {
        let plan = self.trainer.plan;
        let threads = self.trainer.options.threads as usize;
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(self.trainer.labels);
        let settled = match predictor.settled()?.cloned() {
            // Where items have no part, nobody but the next epoch asks for them.
            None => Settled::new(plan, ranker, self.trainer.labels, threads)?.map(Arc::new),
            settled => settled,
        };
        if plan.places(Who::Validation).is_empty() {
            return Ok((Vec::new(), settled));
        }
        let steps = self.shape.options.steps as usize;
        let found = predictor.predict(Who::Validation, &[steps, 0])?;
        let labels = predictor.labels(Who::Validation);
        let names = ["logloss", "logloss@0"];
        Ok((names.iter().zip(&found).map(|(n, x)| ((*n).to_owned(), log_loss(x, &labels))).collect(), settled))
    }

    /// Fits the calibration on the validation tasks.
    fn calibrate(&self, ranker: &mut Ranker, settled: Option<&Arc<Settled>>) -> Result<()> {
        let plan = self.trainer.plan;
        let threads = self.trainer.options.threads as usize;
        let steps = self.shape.options.steps as usize;
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(self.trainer.labels).beside(settled);
        let (found, labels) = (predictor.predict(Who::Validation, &[steps])?, labels(plan, Who::Validation));
        let heads = self.shape.heads;
        let logits = found.first().map_or(&[][..], Vec::as_slice);
        let pairs = |t: usize| logits.iter().copied().zip(labels.iter().copied()).skip(t).step_by(heads);
        ranker.calibration = (0..heads).map(|t| calibrate(pairs(t))).collect();
        Ok(())
    }

    /// One step of the outer loop.
    fn update(
        &mut self,
        kind: Kind,
        places: &[u32],
        epoch: u32,
        steps: u64,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let options = &self.trainer.options;
        let t = self.step + 1;
        self.taken[kind as usize] += 1;
        let draw = |place: &u32| {
            let task = u64::from(*place) + kind.stream();
            let mut rng = Rng::for_stream(options.seed, hash64(33 + u64::from(epoch), task));
            let mut chance = || rng.uniform() < f64::from(options.cold);
            Drawn { place: *place, cold: chance(), nameless: chance() }
        };
        let drawn: Vec<Drawn> = places.iter().map(draw).collect();
        let queries: usize = places.iter().map(|p| self.asked(kind, *p)).sum();
        self.outer.scale = 1.0 / queries.max(1) as f32;
        let chunks = self.chunks(kind, &drawn);
        let parts = {
            let this = &*self;
            parallel(
                options.threads as usize,
                chunks.len(),
                || (),
                |i, ()| match kind {
                    Kind::Person => this.chunk(&chunks[i]),
                    Kind::Item => this.item_chunk(&chunks[i], epoch),
                    Kind::Surface => this.surface_chunk(&chunks[i]),
                },
            )
        };
        let mut dense = vec![0.0; self.dense.values.len()];
        let (mut loss, mut rows) = (0.0, Vec::new());
        let mut found = Vec::with_capacity(parts.len());
        for part in parts {
            let part = part?;
            add(&mut dense, &part.gradients.dense);
            loss += f64::from(part.gradients.loss);
            rows.extend_from_slice(&part.items);
            found.push(part);
        }
        rows.sort_unstable();
        rows.dedup();
        let own = self.items.width;
        let mut items = vec![0.0; rows.len() * own];
        for part in &found {
            let gradients =
                part.gradients.query_items.chunks_exact(own).chain(part.gradients.support_items.chunks_exact(own));
            for (item, g) in part.items.iter().zip(gradients) {
                let slot = rows.partition_point(|r| r < item) * own;
                add(&mut items[slot..slot + own], g);
            }
        }
        let (people, shifts) = match kind {
            Kind::Person => self.shifts(&chunks, &found),
            _ => (Vec::new(), Vec::new()),
        };
        let norm = (square_sum(&dense) + square_sum(&items) + square_sum(&shifts)).sqrt();
        if !loss.is_finite() || !norm.is_finite() {
            return Err(err!(
                Diverged,
                "meta training diverged: the loss of step {t} is {loss}, its gradient's norm {norm}; lower the learning rate or the \
                 inner rate"
            ));
        }
        let scale = if norm > CLIP { (CLIP / norm) as f32 } else { 1.0 };
        let progress = t as f64 / steps.max(1) as f64;
        let fall = 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        let warm = (t as f64 / WARMUP.min(steps / 4).max(1) as f64).min(1.0);
        let rate = options.learning_rate * (fall * warm) as f32;
        for w in &self.shape.layout.weights {
            let Some(taken) = self.steps_of(&w.name, kind) else { continue };
            let decay = if w.decay { options.weight_decay } else { 0.0 };
            let faster = if w.name.ends_with(".rates") { RATES } else { 1.0 };
            let step = AdamStep::new(rate * faster, decay, taken, scale);
            let (r, d) = (w.range.clone(), &mut self.dense);
            adamw(step, &mut d.values[r.clone()], &dense[r.clone()], &mut d.first[r.clone()], &mut d.second[r]);
        }
        if let Some(taken) = self.steps_of("tables", kind) {
            let step = AdamStep::new(rate, options.vector_decay, taken, scale);
            self.items.update(taken, step, Averaging { ema: 0.0 }, &rows, &items);
            self.entities.update(taken, step, Averaging { ema: 0.0 }, &people, &shifts);
        }
        if let Some(second) = &mut self.second {
            second.keep(kind, &chunks, &found);
        }
        if let Some(surface) = &mut self.surface {
            surface.keep(kind, &chunks, &found);
        }
        self.step = t;
        let seconds = self.begun.elapsed().as_secs_f64();
        let speed = (t * u64::from(options.batch)) as f64 / seconds.max(1e-9);
        observer.on_event(&Event::Step(observe::Step {
            step: t,
            steps,
            epoch,
            epochs: options.epochs,
            loss,
            losses: vec![("outer".into(), loss)],
            tokens: t * u64::from(options.batch),
            tokens_per_second: speed,
            eta_seconds: (steps - t) as f64 * seconds / t as f64,
        }));
        Ok(())
    }

    /// The gradients of the entities' own vectors, summed by entity, in ascending order.
    fn shifts(&self, chunks: &[Vec<Drawn>], found: &[Part]) -> (Vec<u32>, Vec<f32>) {
        if self.entities.rows.values.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let e = self.entities.width;
        let named = chunks.iter().zip(found).flat_map(|(chunk, part)| {
            let each = chunk.iter().zip(part.gradients.shifts.chunks_exact(e)).filter(|(d, _)| !d.nameless);
            each.map(|(d, g)| (self.trainer.plan.task(d.place).entity, g))
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

    /// What of its support a task reads.
    fn read(&self, task: &Task, cold: bool) -> std::ops::Range<usize> {
        let most = if self.outer.steps.len() > 1 && !cold { self.shape.options.support as usize } else { 0 };
        task.support.end - task.support.len().min(most)..task.support.end
    }

    /// Cuts a batch into chunks of about [`CHUNK`] rows; where it is cut does not depend on the threads.
    fn chunks(&self, kind: Kind, drawn: &[Drawn]) -> Vec<Vec<Drawn>> {
        let mut chunks: Vec<Vec<Drawn>> = vec![Vec::new()];
        let mut rows = 0;
        for d in drawn {
            rows += self.asked(kind, d.place);
            rows += match kind {
                Kind::Person => self.read(self.trainer.plan.task(d.place), d.cold).len(),
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

    fn chunk(&self, drawn: &[Drawn]) -> Result<Part> {
        let (plan, shape, labels) = (self.trainer.plan, &self.shape, self.trainer.labels);
        let (inputs, e, own, heads) =
            (shape.inputs, self.entities.width, shape.options.item_width as usize, shape.heads);
        let mut batch =
            Batch { inputs: vec![0.0; drawn.len() * inputs], shifts: vec![0.0; drawn.len() * e], ..Batch::default() };
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
                items.extend_from_slice(&plan.impressions.item[range.clone()]);
                side.labels.extend_from_slice(&labels[range.start * heads..range.end * heads]);
                let from = side.candidates.len();
                for i in range.clone() {
                    plan.candidate(d.place, i, &self.items.rows.values, own, &mut side.candidates);
                    self.shift(i, &mut side.candidates);
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
        asked.extend_from_slice(if self.outer.exact { &known } else { &[] });
        Ok(Part { gradients, items: asked })
    }
}
