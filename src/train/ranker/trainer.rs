//! The outer loop: epochs over the tasks, Adam on both blocks, validation, early stopping.

use super::foundation::{Arrays, Foundation, Lesson, square_norm};
use super::pairs::OnSurface;
use super::people::NO_ITEM;
use super::plan::{Plan, TaskSet};
use super::predict::{Predictor, calibrate, labels, log_loss};
use super::second::{Kind, Second};
use super::settle::Settled;
use crate::data::Split;
use crate::error::{Result, err};
use crate::kernels::adam::{AdamStep, adamw};
use crate::kernels::math::{add, square_sum};
use crate::options::{RankerOptions, RankerTrainOptions};
use crate::progress::{self, Cancel, ProgressEvent, ProgressSink};
use crate::random::{Rng, hash64};
use crate::ranker::batch::{Gradients, Memory, Outer};
use crate::ranker::{Ranker, RankerShape};
use crate::schema::ImpressionField;
use crate::threads;
use crate::train::optimiser::{Averaging, Moments, Table};
use crate::train::{Stopped, Trained};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Longest gradient norm.
const CLIP: f64 = 1.0;
/// Steps of linear warm-up.
const WARMUP: u64 = 50;
/// The logarithms of inner rates learn faster than weights by this factor: they have far to go.
const RATES: f32 = 10.0;

/// A trained ranker and how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedRanker {
    /// The weights of the best validation.
    pub ranker: Ranker,
    /// How it was trained.
    pub options: RankerTrainOptions,
    /// Names of its heads.
    pub heads: Vec<String>,
    /// Mean label by head over what it was trained on.
    pub means: Vec<f32>,
    /// The numbers that it reads beside a candidate, after its popularity.
    pub impression: Vec<ImpressionField>,
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
    /// The foundation model as it was at the best validation, where it learned along ([`RankerTrainOptions::finetune`]): the ranker reads
    /// its vectors and no others'.
    pub foundation: Option<Trained>,
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
pub struct RankerTrainer<'a> {
    pub(super) plan: &'a Plan<'a>,
    model: RankerOptions,
    pub(super) options: RankerTrainOptions,
    heads: Vec<f32>,
    pub(super) labels: &'a [f32],
    foundation: Option<(&'a Trained, &'a Split)>,
}

impl<'a> RankerTrainer<'a> {
    /// A trainer with default options.
    pub fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            model: RankerOptions::default(),
            options: RankerTrainOptions::default(),
            heads: vec![1.0; plan.means.len()],
            labels: &plan.impressions.labels,
            foundation: None,
        }
    }

    /// The foundation model whose vectors the plan reads, and the split that it was trained under. It learns along if
    /// [`RankerTrainOptions::finetune`] is above 0.
    pub fn foundation(mut self, trained: &'a Trained, split: &'a Split) -> Self {
        self.foundation = Some((trained, split));
        self
    }

    /// The shape. No inner steps make it the global model alone; with [`RankerOptions::identity`], a wide-and-deep model with
    /// vectors of entities.
    pub fn model(mut self, model: RankerOptions) -> Self {
        self.model = model;
        self
    }

    /// How to train it.
    pub fn options(mut self, options: RankerTrainOptions) -> Self {
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
    /// `InvalidConfig` for options out of range or a foundation model that shall learn and cannot; `InvalidArgument` for weights or labels
    /// that do not fit; `StateMismatch` for a foundation model that the plan does not read; `Diverged` when a loss or gradient is not
    /// finite.
    pub fn run(&self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<TrainedRanker> {
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
        let shape = RankerShape::new(
            &self.model,
            plan.inputs.width(),
            plan.width,
            plan.numbers(),
            plan.means.len(),
            options.inner_rate,
        )?;
        if options.cold_items > 0.0 {
            plan.make_cold()?;
        }
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
            foundation: self.tuned()?,
            memory: Mutex::default(),
            plain: vec![[1.0, 0.0]; plan.means.len()],
            step: 0,
            taken: [0; 3],
            begun: Instant::now(),
        }
        .complete(observer, cancel)
    }

    /// The foundation model, where it learns along.
    fn tuned(&self) -> Result<Option<Foundation<'a>>> {
        match (self.options.finetune > 0.0, self.foundation) {
            (false, _) => Ok(None),
            (true, Some((trained, split))) => Foundation::new(self.plan, trained, split, &self.model).map(Some),
            (true, None) => Err(err!(
                InvalidConfig,
                "ranker.finetune is {}, and no foundation model was given to learn along; pass it (RankerTrainer::foundation) or set 0",
                self.options.finetune
            )),
        }
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
    pub(super) trainer: &'a RankerTrainer<'a>,
    pub(super) shape: RankerShape,
    /// The second meta block, where there is one.
    pub(super) second: Option<Second>,
    /// The block of people on surfaces, where there is one.
    pub(super) surface: Option<OnSurface>,
    pub(super) outer: Outer<f32>,
    pub(super) dense: Moments,
    pub(super) items: Table,
    pub(super) entities: Table,
    /// The foundation model, where it learns along.
    pub(super) foundation: Option<Foundation<'a>>,
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
    pub(super) nameless: bool,
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
    /// Of the foundation model, where it learns along.
    arrays: Option<Arrays>,
}

/// What a chunk gives.
#[derive(Default)]
pub(super) struct Part {
    pub(super) gradients: Gradients<f32>,
    pub(super) items: Vec<u32>,
    /// What it teaches the foundation model, where that learns along.
    pub(super) lesson: Option<Lesson>,
}

impl Run<'_> {
    fn complete(mut self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<TrainedRanker> {
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
            if let Some(f) = &mut self.foundation {
                f.refresh(options.threads as usize)?;
            }
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
                let arrays = self.foundation.as_ref().map(Foundation::arrays);
                best = Some(Best { loss, ranker, settled, metrics: metrics.clone(), epoch, arrays });
                waited = 0;
            } else {
                waited += 1;
            }
            let best = best.as_ref().map_or(loss, |b| b.loss);
            observer.on_event(&ProgressEvent::Validation(progress::Validation { epoch, metrics, best, improved }));
            if waited >= options.patience {
                stopped = Stopped::Patience;
                break;
            }
        }
        let Best { mut ranker, settled, metrics: validation, epoch: best_epoch, arrays, .. } = match best {
            Some(best) => best,
            None => {
                let arrays = self.foundation.as_ref().map(Foundation::arrays);
                Best { loss: 0.0, ranker: self.ranker(), settled: None, metrics: Vec::new(), epoch: 0, arrays }
            }
        };
        if let (Some(f), Some(arrays)) = (&mut self.foundation, arrays) {
            f.restore(arrays, options.threads as usize)?;
        }
        self.calibrate(&mut ranker, settled.as_ref())?;
        let plan = self.plan();
        let item_embeddings = match settled.filter(|_| self.second.is_some()) {
            Some(settled) => settled.table(plan, &ranker, self.trainer.labels, options.threads as usize)?,
            None => Vec::new(),
        };
        Ok(TrainedRanker {
            ranker,
            options: options.clone(),
            heads: self.trainer.plan.impressions.heads.clone(),
            means: self.trainer.plan.means.clone(),
            impression: self.trainer.plan.impressions.impression_fields.clone(),
            popularity: self.trainer.plan.popularity.clone(),
            item_embeddings,
            surfaces: plan.surface(&self.shape.options)?.map_or_else(Vec::new, |s| s.values.clone()),
            outcomes: self.trainer.plan.impressions.len() as u64,
            held_out: self.trainer.plan.impressions.held_out,
            validation,
            foundation: self.foundation.as_ref().map(|f| f.trained(options.threads as usize)).transpose()?,
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
            items: self.items.trained(),
            entities: self.entities.rows.values.clone(),
            calibration: self.plain.clone(),
        }
    }

    fn validate(&self, ranker: &Ranker) -> Result<(Metrics, Option<Arc<Settled>>)> {
        let plan = self.plan();
        let threads = self.trainer.options.threads as usize;
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(self.trainer.labels);
        let settled = match predictor.settled()?.cloned() {
            // Where items have no part, nobody but the next epoch asks for them.
            None => Settled::new(plan, ranker, self.trainer.labels, threads)?.map(Arc::new),
            settled => settled,
        };
        if plan.places(TaskSet::Validation).is_empty() {
            return Ok((Vec::new(), settled));
        }
        let steps = self.shape.options.steps as usize;
        let found = predictor.predict(TaskSet::Validation, &[steps, 0])?;
        let labels = predictor.labels(TaskSet::Validation);
        let names = ["logloss", "logloss@0"];
        Ok((names.iter().zip(&found).map(|(n, x)| ((*n).to_owned(), log_loss(x, &labels))).collect(), settled))
    }

    /// Fits the calibration on the validation tasks.
    fn calibrate(&self, ranker: &mut Ranker, settled: Option<&Arc<Settled>>) -> Result<()> {
        let plan = self.plan();
        let threads = self.trainer.options.threads as usize;
        let steps = self.shape.options.steps as usize;
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(self.trainer.labels).beside(settled);
        let (found, labels) = (predictor.predict(TaskSet::Validation, &[steps])?, labels(plan, TaskSet::Validation));
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
        observer: &mut dyn ProgressSink,
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
        let touched = match &mut self.foundation {
            Some(f) if kind == Kind::Person => {
                Some(f.read(places, self.shape.options.support, options.threads as usize)?)
            }
            _ => None,
        };
        let chunks = self.chunks(kind, &drawn);
        let parts = {
            let this = &*self;
            threads::map(
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
            rows.extend(part.items.iter().filter(|item| **item != NO_ITEM));
            found.push(part);
        }
        rows.sort_unstable();
        rows.dedup();
        let own = self.items.width;
        let mut items = vec![0.0; rows.len() * own];
        for part in &found {
            let gradients =
                part.gradients.query_items.chunks_exact(own).chain(part.gradients.support_items.chunks_exact(own));
            for (item, g) in part.items.iter().zip(gradients).filter(|(item, _)| **item != NO_ITEM) {
                let slot = rows.partition_point(|r| r < item) * own;
                add(&mut items[slot..slot + own], g);
            }
        }
        let (people, shifts) = match kind {
            Kind::Person => self.shifts(&chunks, &found),
            _ => (Vec::new(), Vec::new()),
        };
        let tuned = self.foundation.as_ref().zip(touched);
        let tuned = tuned.map(|(f, touched)| f.sum(touched, found.iter().filter_map(|p| p.lesson.as_ref())));
        let squares = square_sum(&dense) + square_sum(&items) + square_sum(&shifts);
        let norm = (squares + tuned.as_ref().map_or(0.0, square_norm)).sqrt();
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
        if let (Some(f), Some(tuned)) = (&mut self.foundation, &tuned) {
            f.update(tuned, options.finetune * rate, scale);
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
        observer.on_event(&ProgressEvent::Step(progress::Step {
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
}
