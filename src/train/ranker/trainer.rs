//! The outer loop: epochs over the tasks, Adam on both blocks, validation, early stopping.

use super::calibration::{calibrate, log_loss};
use super::embeddings::{Embeddings, Sources};
use super::joint::{Arrays, JointModel, square_norm};
use super::kinds::Kinds;
use super::plan::{Plan, TaskSet};
use super::predict::Predictor;
use super::step::{Found, Step};
use crate::data::Split;
use crate::error::{Result, err};
use crate::kernels::adam::{AdamStep, adamw};
use crate::kernels::math::square_sum;
use crate::options::{ListOrder, RankerOptions, RankerTrainOptions};
use crate::progress::{self, Cancel, ProgressEvent, ProgressSink};
use crate::random::{Rng, hash64};
use crate::ranker::batch::{Memory, Outer};
use crate::ranker::{Ranker, RankerShape, RankerView};
use crate::schema::ImpressionField;
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
    /// The order of lists: by the probability of the first head's outcome, until [`choose_order`](super::choose_order) says otherwise.
    pub order: ListOrder,
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
    plan: &'a Plan<'a>,
    model: RankerOptions,
    options: RankerTrainOptions,
    heads: Vec<f32>,
    labels: &'a [f32],
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
        let kinds = Arc::new(Kinds::new(plan, &shape)?);
        Run {
            trainer: self,
            outer: Outer {
                steps: step_weights(steps, options.unadapted, options.first),
                heads: self.heads.clone(),
                scale: 1.0,
                exact: options.exact && steps > 0,
            },
            taken: vec![0; kinds.all.len()],
            embeddings: Arc::new(Embeddings::new(plan, kinds)),
            shape,
            dense,
            items: Table::new(items, own, false),
            entities: Table::new(vec![0.0; entities], e, false),
            joint: self.joint()?,
            memory: Mutex::default(),
            plain: vec![[1.0, 0.0]; plan.means.len()],
            step: 0,
            begun: Instant::now(),
        }
        .complete(observer, cancel)
    }

    /// The foundation model, where it learns along.
    fn joint(&self) -> Result<Option<JointModel<'a>>> {
        match (self.options.finetune > 0.0, self.foundation) {
            (false, _) => Ok(None),
            (true, Some((trained, split))) => JointModel::new(self.plan, trained, split, &self.model).map(Some),
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

struct Run<'a> {
    trainer: &'a RankerTrainer<'a>,
    shape: RankerShape,
    /// Those that shift rows, with the kinds of entity.
    embeddings: Arc<Embeddings>,
    outer: Outer<f32>,
    dense: Moments,
    items: Table,
    entities: Table,
    /// The foundation model, where it learns along.
    joint: Option<JointModel<'a>>,
    memory: Mutex<Vec<Memory<f32>>>,
    /// A calibration that changes nothing.
    plain: Vec<[f32; 2]>,
    step: u64,
    /// Steps on tasks of each kind.
    taken: Vec<u64>,
    begun: Instant,
}

/// Metrics by name.
type Metrics = Vec<(String, f64)>;

/// The best validation so far.
struct Best {
    loss: f64,
    ranker: Ranker,
    embeddings: Option<Arc<Embeddings>>,
    metrics: Vec<(String, f64)>,
    epoch: u32,
    /// Of the foundation model, where it learns along.
    arrays: Option<Arrays>,
}

impl<'a> Run<'a> {
    /// The tasks, with the vectors of this moment.
    fn plan(&self) -> &Plan<'a> {
        self.joint.as_ref().map_or(self.trainer.plan, |joint| &joint.plan)
    }

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
            if let Some(joint) = &mut self.joint {
                joint.refresh(options.threads as usize)?;
            }
            let ranker = self.ranker();
            let (metrics, embeddings) = self.validate(&ranker)?;
            if let Some(embeddings) = &embeddings {
                self.embeddings = Arc::clone(embeddings);
            }
            let loss = metrics.first().map_or(-f64::from(epoch), |m| m.1);
            let improved = best.as_ref().is_none_or(|b| loss < b.loss);
            if improved {
                let arrays = self.joint.as_ref().map(JointModel::arrays);
                best = Some(Best { loss, ranker, embeddings, metrics: metrics.clone(), epoch, arrays });
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
        let Best { mut ranker, embeddings, metrics: validation, epoch: best_epoch, arrays, .. } = match best {
            Some(best) => best,
            None => {
                let arrays = self.joint.as_ref().map(JointModel::arrays);
                Best { loss: 0.0, ranker: self.ranker(), embeddings: None, metrics: Vec::new(), epoch: 0, arrays }
            }
        };
        if let (Some(joint), Some(arrays)) = (&mut self.joint, arrays) {
            joint.restore(arrays, options.threads as usize)?;
        }
        self.calibrate(&mut ranker, embeddings.as_ref())?;
        let plan = self.plan();
        let item_embeddings = match embeddings {
            Some(found) => found.items(plan, &ranker, self.trainer.labels, options.threads as usize)?,
            None => Vec::new(),
        };
        Ok(TrainedRanker {
            ranker,
            options: options.clone(),
            heads: plan.impressions.heads.clone(),
            order: ListOrder::default(),
            means: plan.means.clone(),
            impression: plan.impressions.impression_fields.clone(),
            popularity: plan.popularity.clone(),
            item_embeddings,
            surfaces: plan.surface(&self.shape.options)?.map_or_else(Vec::new, |s| s.values.clone()),
            outcomes: plan.impressions.len() as u64,
            held_out: plan.impressions.held_out,
            validation,
            foundation: self.joint.as_ref().map(|joint| joint.trained(options.threads as usize)).transpose()?,
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

    /// Metrics on the validation tasks, and the embeddings that the weights give, where rows are shifted by them.
    fn validate(&self, ranker: &Ranker) -> Result<(Metrics, Option<Arc<Embeddings>>)> {
        let (plan, labels, threads) = (self.plan(), self.trainer.labels, self.trainer.options.threads as usize);
        let adapt = || Embeddings::adapt(plan, ranker, labels, Arc::clone(&self.embeddings.kinds), threads);
        let embeddings = self.shape.options.has_several().then(adapt).transpose()?.map(Arc::new);
        if plan.places(TaskSet::Validation).is_empty() {
            return Ok((Vec::new(), embeddings));
        }
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(labels).beside(embeddings.as_ref());
        let found = predictor.predict(TaskSet::Validation, &[self.shape.options.steps as usize, 0])?;
        let labels = predictor.labels(TaskSet::Validation);
        let names = ["logloss", "logloss@0"];
        Ok((names.iter().zip(&found).map(|(n, x)| ((*n).to_owned(), log_loss(x, &labels))).collect(), embeddings))
    }

    /// Fits the calibration on the validation tasks.
    fn calibrate(&self, ranker: &mut Ranker, embeddings: Option<&Arc<Embeddings>>) -> Result<()> {
        let plan = self.plan();
        let threads = self.trainer.options.threads as usize;
        let steps = self.shape.options.steps as usize;
        let predictor = Predictor::new(plan, ranker, threads)?.adapting_to(self.trainer.labels).beside(embeddings);
        let (found, labels) =
            (predictor.predict(TaskSet::Validation, &[steps])?, predictor.labels(TaskSet::Validation));
        let heads = self.shape.heads;
        let logits = found.first().map_or(&[][..], Vec::as_slice);
        let pairs = |t: usize| logits.iter().copied().zip(labels.iter().copied()).skip(t).step_by(heads);
        ranker.calibration = (0..heads).map(|t| calibrate(pairs(t))).collect();
        Ok(())
    }

    /// The batches of an epoch in order, each of tasks of one kind.
    fn batches(&self, epoch: u32) -> Vec<(usize, Vec<u32>)> {
        let options = &self.trainer.options;
        let stream = |which: u64| Rng::for_stream(options.seed, hash64(which, u64::from(epoch)));
        let mut batches = Vec::new();
        for (at, kind) in self.embeddings.kinds.all.iter().enumerate() {
            let mut order = kind.about().trained.clone();
            stream(kind.about().streams[1]).shuffle(&mut order);
            if let Some(joint) = self.joint.as_ref().filter(|_| kind.is_first()) {
                order = joint.together(order);
            }
            batches.extend(order.chunks(options.batch as usize).map(|tasks| (at, tasks.to_vec())));
        }
        if self.shape.options.has_several() {
            stream(30).shuffle(&mut batches);
        }
        batches
    }

    /// How many steps, this one included, have trained a weight; `None` for one that a step on this kind leaves alone: another
    /// kind's block, and all that is shared where another leads. (A step without a gradient would let the optimiser's moments
    /// decay.)
    fn steps_of(&self, weight: &str, at: usize) -> Option<u64> {
        let (kinds, block) = (&self.embeddings.kinds, weight.split('.').next().unwrap_or_default());
        (kinds.of_block(block).unwrap_or(kinds.leader) == at).then_some(self.taken[at])
    }

    /// One step of the outer loop, on tasks of the kind at number `at`.
    fn update(
        &mut self,
        at: usize,
        tasks: &[u32],
        epoch: u32,
        steps: u64,
        observer: &mut dyn ProgressSink,
    ) -> Result<()> {
        let (options, labels) = (&self.trainer.options, self.trainer.labels);
        let kinds = Arc::clone(&self.embeddings.kinds);
        let kind = kinds.all[at].as_ref();
        let t = self.step + 1;
        self.taken[at] += 1;
        let asked: usize = tasks.iter().map(|task| kind.asked(self.plan(), *task)).sum();
        self.outer.scale = 1.0 / asked.max(1) as f32;
        let touched = match &mut self.joint {
            Some(joint) if kind.is_first() => {
                Some(joint.read(tasks, self.shape.options.support, options.threads as usize)?)
            }
            _ => None,
        };
        if self.shape.options.has_surface() {
            Arc::make_mut(&mut self.embeddings).start(RankerView {
                shape: &self.shape,
                dense: &self.dense.values,
                items: &self.items.rows.values,
                entities: &[],
                calibration: &self.plain,
            })?;
        }
        let step = Step {
            sources: Sources {
                plan: self.plan(),
                labels,
                items: &self.items.rows.values,
                embeddings: &self.embeddings,
            },
            at,
            kind,
            dense: &self.dense.values,
            entities: &self.entities.rows.values,
            outer: &self.outer,
            options,
            epoch,
            taken: self.step,
            joint: self.joint.as_ref().filter(|_| kind.is_first()),
            memory: &self.memory,
        };
        let found = step.run(tasks)?;
        let lessons = self.joint.as_ref().zip(touched).map(|(joint, touched)| joint.sum(touched, found.lessons.iter()));
        let Found { loss, dense, items, entities, .. } = &found;
        let squares = square_sum(dense) + square_sum(&items.1) + square_sum(&entities.1);
        let norm = (squares + lessons.as_ref().map_or(0.0, square_norm)).sqrt();
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
            let Some(taken) = self.steps_of(&w.name, at) else { continue };
            let decay = if w.decay { options.weight_decay } else { 0.0 };
            let faster = if w.name.ends_with(".rates") { RATES } else { 1.0 };
            let step = AdamStep::new(rate * faster, decay, taken, scale);
            let (r, d) = (w.range.clone(), &mut self.dense);
            adamw(step, &mut d.values[r.clone()], &dense[r.clone()], &mut d.first[r.clone()], &mut d.second[r]);
        }
        if at == kinds.leader {
            let (taken, off) = (self.taken[at], Averaging { ema: 0.0 });
            let step = AdamStep::new(rate, options.vector_decay, taken, scale);
            self.items.update(taken, step, off, &items.0, &items.1);
            self.entities.update(taken, step, off, &entities.0, &entities.1);
        }
        if let (Some(joint), Some(lessons)) = (&mut self.joint, &lessons) {
            joint.update(lessons, options.finetune * rate, scale);
        }
        if self.shape.options.has_several() {
            let adapted = found.adapted.iter().map(|(task, made)| (*task, made.as_slice()));
            Arc::make_mut(&mut self.embeddings).keep(at, adapted);
        }
        self.step = t;
        let seconds = self.begun.elapsed().as_secs_f64();
        observer.on_event(&ProgressEvent::Step(progress::Step {
            step: t,
            steps,
            epoch,
            epochs: options.epochs,
            loss: *loss,
            losses: vec![("outer".into(), *loss)],
            tokens: t * u64::from(options.batch),
            tokens_per_second: (t * u64::from(options.batch)) as f64 / seconds.max(1e-9),
            eta_seconds: (steps - t) as f64 * seconds / t as f64,
        }));
        Ok(())
    }
}
