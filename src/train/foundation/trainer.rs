//! The training loop: epochs of steps, validations, early stopping, checkpoints.

use super::checkpoint::{self, Arrays, Identity, Progress};
use super::corpus::Corpus;
use super::defaults::{self, Defaults};
use super::gradients::{Plan, gradients};
use super::negatives::NegativeSampler;
use super::step::{Setup, Values};
use super::targets::Objectives;
use super::timeline::{MASKING, Timeline};
use super::validate::Validation;
use super::vectors::TowerTraining;
use crate::data::{Dataset, Split};
use crate::error::{ErrorKind, Result, err};
use crate::kernels::adam::AdamStep;
use crate::kernels::norm::scale_rows;
use crate::model::network::Network;
use crate::model::tower::{Tables, fix_gate};
use crate::model::{Features, Inference, Standing, Weights};
use crate::options::{Device, Gate, Gbce, Loss, ModelOptions, Seen, TokenizerOptions, TowerOptions, TrainOptions};
use crate::progress::{self, Cancel, ProgressEvent, ProgressSink};
use crate::random::Rng;
use crate::schema::TokenVocabulary;
use crate::tokenizer::Tokenizer;
use crate::train::backend::Backend;
use crate::train::optimiser::{Averaging, Fall, Moments, Table, learning_rate, norm, update_dense};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// No better validation for as long as the patience.
    Patience,
    /// All epochs were done.
    Epochs,
    /// The time was up.
    Time,
    /// The caller asked; a checkpoint was written where a directory was given.
    Interrupted,
}

impl Stopped {
    /// Its word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patience => "patience",
            Self::Epochs => "epochs",
            Self::Time => "time",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Trained weights, those of the best validation, and how they came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The shape.
    pub model: ModelOptions,
    /// How events became tokens; `None` where each was one.
    pub tokenizer: Option<TokenVocabulary>,
    /// How it was trained.
    pub options: TrainOptions,
    /// Item vectors, `[items, width]`.
    pub items: Vec<f32>,
    /// ID embeddings, `[items, width]`: with metadata, what the item tower makes the item vectors of.
    pub ids: Vec<f32>,
    /// What the training events say of each item; empty without a tower.
    pub standings: Vec<Standing>,
    /// The flat dense array.
    pub dense: Vec<f32>,
    /// The feature tables.
    pub features: Vec<f32>,
    /// Mean training loss of each objective, by name, in the steps before the best validation.
    pub losses: Vec<(String, f64)>,
    /// Metrics of the best validation; empty where the split has no validation questions.
    pub validation: Vec<(String, f64)>,
    /// Epochs begun.
    pub epochs: u32,
    /// The epoch of the best validation.
    pub best_epoch: u32,
    /// Steps done.
    pub steps: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Seconds of training, over all resumptions, validation included.
    pub seconds: f64,
    /// Tokens per second of training time since the last start, validation excluded.
    pub tokens_per_second: f64,
    /// Why it ended.
    pub stopped: Stopped,
}

/// Trains the foundation model on what a split allows.
///
/// ```no_run
/// # use docent::{data, options, progress, train};
/// # fn f(data: data::Dataset) -> docent::Result<()> {
/// let split = data::Split::new(&data, &data::Protocol::LeaveOneOut)?;
/// let trained = train::Trainer::new(&data, &split)
///     .options(options::TrainOptions { epochs: 20, ..Default::default() })
///     .run(&mut progress::Silent, &progress::Cancel::new())?;
/// println!("{:?}", trained.validation);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Trainer<'a> {
    data: &'a Dataset,
    split: &'a Split,
    model: Option<ModelOptions>,
    options: Option<TrainOptions>,
    tokenizer: TokenizerOptions,
    device: Device,
    checkpoints: Option<PathBuf>,
    resume: bool,
}

impl<'a> Trainer<'a> {
    /// A trainer on one CPU thread. Its options are those that [`defaults`](crate::train::defaults()) chooses for the data, unless
    /// [`Trainer::model`] or [`Trainer::options`] replace them.
    pub fn new(data: &'a Dataset, split: &'a Split) -> Self {
        Self {
            data,
            split,
            model: None,
            options: None,
            tokenizer: TokenizerOptions::default(),
            device: Device::Cpu,
            checkpoints: None,
            resume: false,
        }
    }

    /// The shape to train.
    pub fn model(mut self, model: ModelOptions) -> Self {
        self.model = Some(model);
        self
    }

    /// How to train it.
    pub fn options(mut self, options: TrainOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// How events become tokens. What merges is learned from the training events.
    pub fn tokenizer(mut self, options: TokenizerOptions) -> Self {
        self.tokenizer = options;
        self
    }

    /// Where to train it. CUDA devices need the feature `cuda`.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Keep a checkpoint in this directory; continue from it if `resume` and there is one.
    pub fn checkpoints(mut self, directory: impl Into<PathBuf>, resume: bool) -> Self {
        self.checkpoints = Some(directory.into());
        self.resume = resume;
        self
    }

    /// Finds out whether the options and the device can be used, before anything is written.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range, or that name a field or an action which the data does not have;
    /// `DeviceUnavailable`.
    pub fn check(&self) -> Result<()> {
        self.options.as_ref().map_or(Ok(()), TrainOptions::check)?;
        self.model.as_ref().map_or(Ok(()), ModelOptions::check)?;
        if self.tokenizer.is_on() {
            self.learn(&Corpus::new(self.data, self.split)?)?;
        }
        Backend::open(self.device).map(|_| ())
    }

    /// Trains to the end, to the limit, or until `cancel`. The same seed, data and options give the same weights, to the
    /// bit, with or without interruptions.
    ///
    /// # Errors
    /// `InvalidConfig` for options out of range, `DeviceUnavailable`, `Diverged` when a loss, gradient or score is not finite (the
    /// last good checkpoint stays), `StateMismatch` or `Corrupt` for a checkpoint that cannot be continued, and input and output
    /// failures while writing one.
    pub fn run(&self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Trained> {
        self.run_on(&Backend::open(self.device)?, observer, cancel)
    }

    /// The same on a backend of the caller's.
    pub(super) fn run_on(
        &self,
        backend: &Backend,
        observer: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Trained> {
        let (mut model, options) = self.chosen()?;
        options.check()?;
        model.time_bias &= self.data.schema.has_time;
        model.time_input &= self.data.schema.has_time;
        model.tower = model.tower.map(|t| match self.data.titles.iter().any(|title| !title.is_empty()) {
            true => t,
            false => TowerOptions { title_buckets: 0, ..t },
        });
        let described = |t: &TowerOptions| t.title_buckets > 0 || !self.data.schema.item_fields.is_empty();
        model.tower = model.tower.filter(described);
        let mut corpus = Corpus::new(self.data, self.split)?;
        let tokenizer = self.learn(&corpus)?;
        if let Some(tokenizer) = &tokenizer {
            corpus = corpus.merged(tokenizer, options.seed);
        }
        let schema = tokenizer.as_ref().map_or(&self.data.schema, Tokenizer::schema);
        let inference = Inference::new(schema, &model)?;
        let network = Network::new(&model, Features::new(schema, &model)?);
        let feedback = model.feedback > 0.0;
        let (split, objective) = (self.split, &options.objective);
        let objectives = Objectives::new(self.data, &corpus, &network.features, objective, split.seen, feedback)?;
        let tower = inference.tower().zip(model.tower).map(|(tower, o)| {
            let timeline = Timeline::new(self.data, &corpus, &self.split.hidden);
            let masking = o.masking.unwrap_or(MASKING);
            TowerTraining { tower, metadata: tower.metadata(self.data), timeline, masking, options: o }
        });
        let loss = match options.loss {
            Some(loss) => loss,
            None => defaults::loss_for(self.data, self.split, &model, options.batch)?,
        };
        let identity = Identity {
            data: &self.data.hash,
            targets: &self.split.target_hash,
            protocol: &self.split.protocol,
            excluded: self.excluded(),
            model: &model,
            options: &options,
            tokenizer: &self.tokenizer,
            device: self.device,
        };
        let widths = [model.width as usize, model.field_width as usize];
        let saved = match (&self.checkpoints, self.resume) {
            (Some(dir), true) => checkpoint::load(dir, &identity, widths)?,
            _ => None,
        };
        let (progress, arrays) = match saved {
            Some(saved) => saved,
            None => (
                Progress { identity: identity.hash(), ..Progress::default() },
                self.start(&network, &inference, widths, &options),
            ),
        };
        let items = self.data.items.len();
        let sampler = match loss {
            Loss::Full => None,
            Loss::Sampled(n) | Loss::Gbce(Gbce { negatives: n, .. }) => {
                Some(NegativeSampler::new(n, &corpus, items, options.seed))
            }
        };
        let setup = Setup {
            network: &network,
            corpus: &corpus,
            threads: options.threads.max(1) as usize,
            loss,
            sampler,
            objectives,
            tower,
            dropout: options.dropout,
            items,
            seed: options.seed,
            memory: Mutex::default(),
            spare: Mutex::default(),
        };
        Run {
            trainer: self,
            validation: Validation::new(self.data, self.split, tokenizer.as_ref(), options.seed),
            tokenizer: tokenizer.as_ref(),
            inference: &inference,
            backend,
            setup,
            progress,
            arrays,
            model: &model,
            options: &options,
            begun: Instant::now(),
            before: 0.0,
            tokens: 0,
            busy: 0.0,
        }
        .complete(observer, cancel)
    }

    /// The tokenizer that the options ask for, learned from the training events.
    fn learn(&self, corpus: &Corpus) -> Result<Option<Tokenizer>> {
        self.tokenizer.check()?;
        match self.tokenizer.is_on() {
            true => Tokenizer::learn(&self.data.schema, &self.tokenizer, &corpus.history, &corpus.offsets).map(Some),
            false => Ok(None),
        }
    }

    /// Whether seen items are excluded, and that keeps any question or target out.
    fn excluded(&self) -> bool {
        let split = self.split;
        split.seen == Seen::Excluded
            && (split.repeated > 0.0 || split.validation.iter().any(|case| case.is_repeat(self.data)))
    }

    /// The options that were given, the rule's where none were.
    fn chosen(&self) -> Result<(ModelOptions, TrainOptions)> {
        if let (Some(model), Some(options)) = (&self.model, &self.options) {
            return Ok((model.clone(), options.clone()));
        }
        let Defaults { model, train, .. } = defaults::defaults(self.data, self.split)?;
        Ok((self.model.clone().unwrap_or(model), self.options.clone().unwrap_or(train)))
    }

    fn start(&self, network: &Network, inference: &Inference, widths: [usize; 2], options: &TrainOptions) -> Arrays {
        let mut rng = Rng::for_stream(options.seed, 6);
        let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32 * 0.02).collect() };
        let (_, features) = inference.sizes();
        let averaged = options.ema > 0.0;
        let items = Table::new(normal(self.data.items.len() * widths[0]), widths[0], averaged);
        let features = Table::new(normal(features), widths[1], averaged);
        let mut dense = network.layout.start(&mut rng);
        let fixed = network.options.tower.is_some_and(|t| t.gate == Gate::Fixed);
        let gate = ["tower.gate.in", "tower.gate.out", "tower.gate.out.bias"].map(|name| network.layout.range(name));
        if let (true, [Ok(inputs), Ok(outputs), Ok(bias)]) = (fixed, gate)
            && let Ok([inputs, outputs, bias]) = dense.get_disjoint_mut([inputs, outputs, bias])
        {
            fix_gate(inputs, outputs, bias);
        }
        let dense = Moments::new(dense, averaged);
        Arrays { dense, items, features, best: Default::default() }
    }
}

struct Run<'a> {
    trainer: &'a Trainer<'a>,
    validation: Validation<'a>,
    tokenizer: Option<&'a Tokenizer>,
    inference: &'a Inference,
    backend: &'a Backend,
    setup: Setup<'a>,
    progress: Progress,
    arrays: Arrays,
    model: &'a ModelOptions,
    options: &'a TrainOptions,
    begun: Instant,
    /// Seconds of training before this run.
    before: f64,
    /// Tokens of this run.
    tokens: u64,
    /// Seconds of this run spent in steps.
    busy: f64,
}

impl Run<'_> {
    fn complete(mut self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Trained> {
        let options = self.options;
        self.before = self.progress.seconds;
        let corpus = self.setup.corpus;
        let batches = self.batches();
        while self.progress.epoch < self.epochs() {
            if self.ended() {
                return self.finish(Stopped::Patience);
            }
            let epoch = self.progress.epoch;
            let order = corpus.order(options.seed, epoch);
            let skip = self.progress.batch as usize;
            for entities in order.chunks(options.batch as usize).skip(skip) {
                self.step(entities, epoch, observer)?;
                if cancel.is_cancelled() {
                    self.save(observer)?;
                    return self.finish(Stopped::Interrupted);
                }
                if options.max_seconds > 0 && self.seconds() >= options.max_seconds as f64 {
                    self.validate(epoch, observer)?;
                    self.save(observer)?;
                    return self.finish(Stopped::Time);
                }
                let every = u64::from(options.checkpoint_every);
                if every > 0 && self.progress.step.is_multiple_of(every) && self.progress.batch < batches {
                    self.save(observer)?;
                }
            }
            let last = epoch + 1 == self.epochs();
            if (epoch + 1).is_multiple_of(options.validate_every.max(1)) || last {
                self.validate(epoch, observer)?;
            }
            (self.progress.epoch, self.progress.batch) = (epoch + 1, 0);
            if self.cools() {
                self.progress.held = epoch + 1;
            }
            self.save(observer)?;
        }
        let stopped = if self.epochs() < options.epochs { Stopped::Patience } else { Stopped::Epochs };
        self.finish(stopped)
    }

    /// Whether validation has not improved for as long as we wait.
    fn stalled(&self) -> bool {
        self.progress.waited >= self.options.patience && !self.progress.best.is_empty()
    }

    /// Whether training is over before its planned end.
    fn ended(&self) -> bool {
        self.options.cooldown == 0.0 && self.stalled()
    }

    /// Epochs of the cooldown after `held` others.
    fn cooldown(&self, held: u32) -> u32 {
        (f64::from(self.options.cooldown) * f64::from(held)).ceil() as u32
    }

    /// Whether the cooldown begins now: learning has ended, or the bound leaves no more epochs than it takes.
    fn cools(&self) -> bool {
        let (done, bound) = (self.progress.epoch, self.options.epochs);
        let near = done.saturating_add(self.cooldown(done)) >= bound && done < bound;
        self.options.cooldown > 0.0 && self.progress.held == 0 && (self.stalled() || near)
    }

    /// Planned epochs, those of the cooldown included once it has begun.
    fn epochs(&self) -> u32 {
        let (held, bound) = (self.progress.held, self.options.epochs);
        if held == 0 { bound } else { held.saturating_add(self.cooldown(held)).min(bound) }
    }

    /// Steps of an epoch.
    fn batches(&self) -> u64 {
        self.setup.corpus.len().div_ceil(self.options.batch as usize) as u64
    }

    /// Planned steps.
    fn steps(&self) -> u64 {
        self.batches() * u64::from(self.epochs())
    }

    /// The learning rate of step `t`.
    fn rate(&self, t: u64) -> f32 {
        let (bound, held) = (u64::from(self.options.epochs), u64::from(self.progress.held));
        let fall = match (self.options.cooldown > 0.0 && bound > 1, held) {
            (false, _) => Fall::Cosine,
            (true, 0) => Fall::Held,
            (true, held) => Fall::Between(self.batches() * held, self.steps()),
        };
        learning_rate(self.options, t, self.batches() * bound, fall)
    }

    fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }

    fn step(&mut self, entities: &[u32], epoch: u32, observer: &mut dyn ProgressSink) -> Result<()> {
        let options = self.options;
        let began = Instant::now();
        let (length, seed) = (self.model.max_length as usize, options.seed);
        let window = |s: &u32| self.setup.corpus.window(*s, length, options.window_share, seed, epoch);
        let windows = entities.iter().map(window).collect();
        let t = self.progress.step + 1;
        let (steps, rate) = (self.steps(), self.rate(t));
        let plan = Plan::new(&self.setup, windows, t);
        let (averaging, decay) = (Averaging { ema: options.ema }, options.weight_decay);
        let arrays = &mut self.arrays;
        let coasting = AdamStep::new(rate, 0.0, t, 1.0);
        arrays.items.catch_up(t - 1, coasting, averaging, plan.touched.rows.iter().copied());
        let values = Values {
            dense: &arrays.dense.values,
            items: &arrays.items.rows.values,
            features: &arrays.features.rows.values,
        };
        let g = gradients(self.backend, &self.setup, &values, plan, t)?;
        let length = norm(&[&g.dense, &g.items, &g.features]);
        if !g.loss.is_finite() || !length.is_finite() {
            return Err(self.diverged(&format!("the loss of step {t} is {}, its gradient's norm {length}", g.loss)));
        }
        let clip = f64::from(options.clip);
        let factor = if clip > 0.0 && length > clip { (clip / length) as f32 } else { 1.0 };
        let step = AdamStep::new(rate, 0.0, t, factor);
        update_dense(&self.setup.network.layout, &mut arrays.dense, step, decay, averaging.decay(t), &g.dense);
        arrays.items.update(t, step, averaging, &g.item_rows, &g.items);
        arrays.features.update(t, step, averaging, &g.feature_rows, &g.features);
        self.progress.step = t;
        self.progress.batch += 1;
        self.progress.tokens += g.tokens as u64;
        let (sums, count) = &mut self.progress.losses;
        sums.resize(g.losses.len(), 0.0);
        sums.iter_mut().zip(&g.losses).for_each(|(s, l)| *s += l);
        *count += 1;
        self.tokens += g.tokens as u64;
        self.busy += began.elapsed().as_secs_f64();
        let speed = self.tokens as f64 / self.busy.max(1e-9);
        let mean = self.progress.tokens as f64 / t as f64;
        observer.on_event(&ProgressEvent::Step(progress::Step {
            step: t,
            steps,
            epoch,
            epochs: self.epochs(),
            loss: g.loss,
            losses: self.setup.names().into_iter().zip(g.losses).collect(),
            tokens: self.tokens,
            tokens_per_second: speed,
            eta_seconds: steps.saturating_sub(t) as f64 * mean / speed.max(1e-9),
        }));
        Ok(())
    }

    fn diverged(&self, what: &str) -> crate::Error {
        let kept = match &self.trainer.checkpoints {
            Some(dir) if checkpoint::path(dir).exists() => {
                format!("the last good checkpoint is {}", checkpoint::path(dir).display())
            }
            _ => "no checkpoint was kept".into(),
        };
        err!(Diverged, "training diverged: {what}; lower the learning rate or the dropout and train again; {kept}")
    }

    /// The weights that would be published now: dense, ID embeddings, features.
    fn current(&mut self) -> [Vec<f32>; 3] {
        let (t, averaging) = (self.progress.step, Averaging { ema: self.options.ema });
        let coasting = AdamStep::new(self.rate(t), 0.0, t.max(1), 1.0);
        let rows = 0..self.arrays.items.last.len() as u32;
        self.arrays.items.catch_up(t, coasting, averaging, rows);
        let a = &self.arrays;
        let dense = if a.dense.average.is_empty() { &a.dense.values } else { &a.dense.average };
        [dense.clone(), a.items.averages(t, averaging), a.features.averages(t, averaging)]
    }

    /// The item vectors of such weights: ID embeddings through the tower, of length 1 where scores are cosines.
    fn items(&self, weights: &[Vec<f32>; 3]) -> Vec<f32> {
        let [dense, ids, features] = weights;
        let mut items = match &self.setup.tower {
            Some(tower) => tower.table(ids, Tables { dense, features }),
            None => ids.clone(),
        };
        if self.model.normalized {
            scale_rows(&mut items, self.model.width as usize, true, 1.0);
        }
        items
    }

    fn validate(&mut self, epoch: u32, observer: &mut dyn ProgressSink) -> Result<()> {
        let current = self.current();
        let (sums, count) = std::mem::take(&mut self.progress.losses);
        let losses: Vec<f64> = sums.iter().map(|s| s / count.max(1) as f64).collect();
        if self.validation.is_empty() {
            self.progress.best_losses = losses;
            self.arrays.best = current;
            self.progress.best_epoch = epoch;
            return Ok(());
        }
        let items = self.items(&current);
        let weights = Weights { dense: &current[0], items: &items, features: &current[2], more: &() };
        let metrics = match self.validation.run(self.inference, weights, self.setup.threads) {
            Err(e) if e.kind() == ErrorKind::Diverged => return Err(self.diverged(e.message())),
            other => other?,
        };
        let ndcg = |m: &[(String, f64)]| m.iter().find(|(n, _)| n == "ndcg@10").map_or(-1.0, |(_, v)| *v);
        let improved = ndcg(&metrics) > ndcg(&self.progress.best);
        if improved {
            self.arrays.best = current;
            self.progress.best = metrics.clone();
            self.progress.best_losses = losses;
            self.progress.best_epoch = epoch;
            self.progress.waited = 0;
        } else {
            self.progress.waited += 1;
        }
        let best = ndcg(&self.progress.best);
        observer.on_event(&ProgressEvent::Validation(progress::Validation { epoch, metrics, best, improved }));
        Ok(())
    }

    fn save(&mut self, observer: &mut dyn ProgressSink) -> Result<()> {
        if let Some(directory) = &self.trainer.checkpoints {
            self.progress.seconds = self.seconds();
            checkpoint::save(directory, &self.progress, &mut self.arrays)?;
            observer.on_event(&ProgressEvent::Checkpoint { step: self.progress.step });
        }
        Ok(())
    }

    fn finish(mut self, stopped: Stopped) -> Result<Trained> {
        let seconds = self.seconds();
        let best = match self.arrays.best[0].is_empty() {
            true => self.current(),
            false => std::mem::take(&mut self.arrays.best),
        };
        let items = self.items(&best);
        let standings = self.setup.tower.as_ref().map(|t| t.timeline.last()).unwrap_or_default();
        let [dense, ids, features] = best;
        Ok(Trained {
            model: self.model.clone(),
            tokenizer: self.tokenizer.map(|t| t.vocabulary().clone()),
            options: self.options.clone(),
            items,
            ids,
            standings,
            dense,
            features,
            losses: self.setup.names().into_iter().zip(self.progress.best_losses).collect(),
            validation: self.progress.best,
            epochs: (self.progress.epoch + u32::from(self.progress.batch > 0)).min(self.options.epochs),
            best_epoch: self.progress.best_epoch,
            steps: self.progress.step,
            tokens: self.progress.tokens,
            seconds,
            tokens_per_second: self.tokens as f64 / self.busy.max(1e-9),
            stopped,
        })
    }
}

/// Forgets the checkpoint of a directory: the training that it belongs to is published.
///
/// # Errors
/// `Io` or `PermissionDenied`.
pub fn forget_checkpoint(directory: &Path) -> Result<()> {
    checkpoint::remove(directory)
}

/// Whether a directory holds a checkpoint, of whichever training.
pub fn has_checkpoint(directory: &Path) -> bool {
    checkpoint::path(directory).exists()
}
