//! A search for options that suit a dataset, the ranker's inner rate included.

use super::settings::Settings;
use super::source::{Source, held_out, with_seen};
use crate::data::{Dataset, Protocol, Split};
use crate::error::{Result, err};
use crate::model::{Inference, Weights};
use crate::options::{RankerTrainOptions, TrainOptions};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::train::ranker::{FoundationModel, Impressions, Plan, RateSearch, search_inner_start};
use crate::train::{TrainConfig, Trainer, TuneOptions, Tuned, Tuner};
use std::path::Path;
use std::time::Instant;

/// The share of the time that goes to the ranker's inner rate, where there are outcomes.
const RANKER_SHARE: f64 = 0.2;
/// The inner rates that are tried.
const RATES: [f32; 6] = [0.02, 0.1, 0.5, 2.0, 8.0, 32.0];

/// How to search.
#[derive(Debug, Clone)]
pub struct TuneJob {
    /// The options to start from: candidate 0. Their seed draws the others.
    pub settings: Settings,
    /// How to split; `None` is what the dataset's description says, or leave-one-out.
    pub protocol: Option<Protocol>,
    /// Seconds of search.
    pub seconds: f64,
    /// Candidates of the first rung, the default included.
    pub candidates: usize,
}

impl Default for TuneJob {
    fn default() -> Self {
        let TuneOptions { seconds, candidates, .. } = TuneOptions::default();
        Self { settings: Settings::default(), protocol: None, seconds, candidates }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TuneReport {
    /// The name of the dataset.
    pub dataset: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The candidates and how they fared.
    pub tuned: Tuned,
    /// The search for the ranker's inner rate; `None` without outcomes, or where the search was interrupted.
    pub rates: Option<RateSearch>,
    /// The winner's options, all of them.
    pub config: TrainConfig,
}

/// Searches for options by validation questions alone ([`Tuner`]), with checkpoints in `folder`, which the caller removes. What was
/// found until an interruption is given.
///
/// # Errors
/// Those of [`Tuner::run`], and of reading the data.
pub fn tune<'a>(
    source: impl Into<Source<'a>>,
    folder: impl AsRef<Path>,
    job: &TuneJob,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<TuneReport> {
    let source = source.into();
    let (data, declared) = source.dataset(progress, cancel)?;
    let protocol = job.protocol.clone().or(declared.protocol).unwrap_or(Protocol::LeaveOneOut);
    let split = Split::new(&data, &protocol)?;
    let base = job.settings.resolve(&data, &split, progress)?;
    let split = with_seen(split, &data, &base.tokenizer, declared.seen, progress)?;
    let outcomes = match base.ranker.enabled && !base.tokenizer.is_on() {
        true => source.outcomes(&data, held_out(&protocol), progress, cancel)?,
        false => None,
    };
    // The ranker's inner rate is searched on a short training of the winner.
    let rest = if outcomes.is_some() { RANKER_SHARE * job.seconds } else { 0.0 };
    let options = TuneOptions { seconds: job.seconds - rest, candidates: job.candidates, seed: base.train.seed };
    let tuner = Tuner::new(&data, &split, folder.as_ref())
        .options(options)
        .base(base.model.clone(), base.train.clone())
        .tokenizer(base.tokenizer.clone());
    let tuned = tuner.run(&mut Slots { progress: &mut *progress, since: Instant::now() }, cancel)?;
    let best = tuned.best().ok_or_else(|| err!(Internal, "no winner; please report it"))?;
    let mut config = TrainConfig { model: best.model.clone(), train: best.train.clone(), ..base };
    let mut rates = None;
    if let Some(outcomes) = outcomes.as_deref().filter(|_| !tuned.interrupted) {
        let found = inner_rate(&data, &split, outcomes, &config, rest, progress, cancel)?;
        config.ranker.train.inner_rate = found.rate;
        rates = Some(found);
    }
    Ok(TuneReport { dataset: data.schema.name.clone(), protocol, tuned, rates, config })
}

/// Trains the winner for a part of `seconds`, and a ranker over it from each inner rate for one epoch.
fn inner_rate(
    data: &Dataset,
    split: &Split,
    outcomes: &Impressions,
    config: &TrainConfig,
    seconds: f64,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<RateSearch> {
    let note = format!("the ranker's inner rate is searched on {} outcomes", outcomes.len());
    progress.on_event(&ProgressEvent::Note(note));
    let train = TrainOptions { max_seconds: (seconds / 3.0).ceil() as u64, ..config.train.clone() };
    let (seed, threads) = (train.seed, train.threads);
    let trained = Trainer::new(data, split).model(config.model.clone()).options(train).run(progress, cancel)?;
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let rules = RankerTrainOptions { seed, threads, epochs: 1, ..config.ranker.train.clone() };
    let features = FoundationModel { inference: &inference, weights };
    let plan = Plan::new(data, outcomes, split, features, rules.validation, seed, threads as usize)?;
    search_inner_start(&plan, &config.ranker.model, &rules, &RATES, progress, cancel)
}

/// Tells each candidate's time as the progress of its stage.
struct Slots<'a> {
    progress: &'a mut dyn ProgressSink,
    since: Instant,
}

impl ProgressSink for Slots<'_> {
    fn on_event(&mut self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Stage { .. } => {
                self.since = Instant::now();
                self.progress.on_event(event);
            }
            ProgressEvent::Step(_) => {
                self.progress.on_event(&ProgressEvent::Advance { done: self.since.elapsed().as_secs() });
            }
            ProgressEvent::Warning(_) => self.progress.on_event(event),
            _ => {}
        }
    }
}
