//! The ranker of a training: whether there can be one, its training, and whether it has earned its place.

use crate::data::{Dataset, Split};
use crate::error::{Result, err};
use crate::model::{Inference, Weights};
use crate::options::{Publish, RankerTrainOptions};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::train::ranker::{
    FoundationModel, Impressions, Plan, RankerTrainer, TrainedRanker, Worth, choose_order, judge, untold,
};
use crate::train::{Stopped, TrainConfig, Trained};

/// What came of the training of a ranker.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RankerReport {
    /// Whether it is in the generation.
    pub published: bool,
    /// Labelled outcomes in the data.
    pub outcomes: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Epochs done.
    pub epochs: u32,
    /// The epoch of the best validation, from 1.
    pub best_epoch: u32,
    /// Metrics of the best validation.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::metrics"))]
    pub validation: Vec<(String, f64)>,
    /// The head that orders lists.
    pub order_head: String,
    /// The weight of its outcome beside the score; `None` where lists are in the order of the outcome alone.
    pub order_weight: Option<f32>,
    /// What it is worth beside the prior, by head.
    pub worth: Vec<Worth>,
    /// Why it ended.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::stopped"))]
    pub stopped: Stopped,
}

/// A ranker that was trained.
pub(super) struct Ranked {
    pub trained: TrainedRanker,
    pub worth: Vec<Worth>,
    /// Whether it is to be published.
    pub published: bool,
}

impl Ranked {
    pub(super) fn report(self) -> RankerReport {
        let Self { trained, worth, published } = self;
        RankerReport {
            published,
            outcomes: trained.outcomes,
            seconds: trained.seconds,
            epochs: trained.epochs,
            best_epoch: trained.best_epoch + 1,
            validation: trained.validation,
            order_head: trained.heads.get(trained.order.head as usize).cloned().unwrap_or_default(),
            order_weight: trained.order.weight,
            worth,
            stopped: trained.stopped,
        }
    }
}

/// Warnings, told as they come and kept for the report.
pub(super) struct Warnings<'p> {
    pub progress: &'p mut dyn ProgressSink,
    pub said: Vec<String>,
}

impl Warnings<'_> {
    fn warn(&mut self, what: String) {
        self.progress.on_event(&ProgressEvent::Warning(what.clone()));
        self.said.push(what);
    }
}

/// Whether a ranker is to be trained: known before the foundation model is trained, not after.
///
/// # Errors
/// `InvalidConfig` for options that do not go together, or that the outcomes do not have.
pub(super) fn is_trainable(
    data: &Dataset,
    split: &Split,
    outcomes: &Impressions,
    config: &TrainConfig,
    warnings: &mut Warnings<'_>,
) -> Result<bool> {
    if config.tokenizer.is_on() {
        return Err(err!(
            InvalidConfig,
            "a ranker reads plain events, and [tokenizer] merges them; leave one out (ranker.enabled = false, or no max_gap)"
        ));
    }
    if config.ranker.model.has_surface() {
        outcomes.surface(&config.ranker.model.surface)?;
    }
    let rules = &config.ranker.train;
    let ordering = rules.goal.head(&outcomes.heads)?;
    let untold = untold(data, outcomes, split, rules.validation, config.train.seed)?;
    let none = |why: &dyn std::fmt::Display, remedy: &str| {
        format!("no ranker is trained, and lists stay as they are retrieved: {why}. {remedy}")
    };
    if let Some(empty) = untold.iter().flatten().find(|head| head.is_empty()) {
        warnings.warn(none(empty, "Bring more labels, or hide fewer entities"));
        return Ok(false);
    }
    for (at, head) in untold.iter().enumerate() {
        let Some(head) = head else { continue };
        match rules.publish {
            Publish::Earned if at == ordering => {
                let remedy = "Bring outcomes of both kinds, such as what was shown and passed over, raise ranker.validation, or set \
                              ranker.publish = \"always\"";
                warnings.warn(none(head, remedy));
                return Ok(false);
            }
            _ => warnings.warn(format!("what the ranker says of it may be worth nothing: {head}")),
        }
    }
    Ok(true)
}

/// Trains a ranker over the vectors of `foundation`, and judges it.
pub(super) fn train_ranker(
    data: &Dataset,
    split: &Split,
    outcomes: &Impressions,
    config: &TrainConfig,
    foundation: &Trained,
    warnings: &mut Warnings<'_>,
    cancel: &Cancel,
) -> Result<Ranked> {
    let (seed, threads) = (config.train.seed, config.train.threads);
    let rules = RankerTrainOptions { seed, threads, ..config.ranker.train.clone() };
    let inference = Inference::new(&data.schema, &foundation.model)?;
    let cut = |of| Plan::new(data, outcomes, split, of, rules.validation, seed, threads as usize);
    let count = outcomes.kept_total();
    let note = format!("the ranker learns from {count} outcomes, those kept back for the test not counted");
    warnings.progress.on_event(&ProgressEvent::Note(note));
    let plan = cut(vectors(&inference, foundation))?;
    if rules.finetune > 0.0 {
        let note = format!("the foundation model learns along at {} of its rate", rules.finetune);
        warnings.progress.on_event(&ProgressEvent::Note(note));
    }
    let trainer = RankerTrainer::new(&plan).model(config.ranker.model.clone()).options(rules.clone());
    let mut trained = trainer.foundation(foundation, split).run(&mut *warnings.progress, cancel)?;
    if trained.stopped == Stopped::Interrupted {
        return Ok(Ranked { trained, worth: Vec::new(), published: false });
    }
    // It is judged with the vectors that it is published with.
    let tuned = trained.foundation.as_ref().map(|tuned| cut(vectors(&inference, tuned))).transpose()?;
    let plan = tuned.as_ref().unwrap_or(&plan);
    let worth = judge(plan, &trained.ranker, threads as usize)?;
    let ordering = rules.goal.head(&outcomes.heads)?;
    let mut published = true;
    for (at, head) in worth.iter().enumerate().filter(|(_, head)| !head.is_earned()) {
        if rules.publish == Publish::Earned && at == ordering {
            published = false;
            warnings.warn(format!(
                "no ranker is published, and lists stay as they are retrieved: {head}, which must lie below 0. Bring more outcomes, or \
                 set ranker.publish = \"always\""
            ));
        } else {
            warnings.warn(format!("the ranker has not earned its place: {head}, which should lie below 0"));
        }
    }
    if published {
        let (order, figures) = choose_order(plan, split, &trained, &rules.goal, threads as usize)?;
        trained.order = order;
        trained.validation.extend(figures);
    }
    Ok(Ranked { trained, worth, published })
}

fn vectors<'a>(inference: &'a Inference, of: &'a Trained) -> FoundationModel<'a> {
    let weights = Weights { items: &of.items, dense: &of.dense, features: &of.features, more: &() };
    FoundationModel { inference, weights }
}
