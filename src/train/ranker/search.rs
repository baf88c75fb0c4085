//! The inner rate on a log grid: published set-ups differ by 2,000 times, so it is searched, not guessed.

use super::plan::{Plan, TaskSet};
use super::predict::{Predictor, log_loss};
use super::trainer::RankerTrainer;
use crate::error::{ErrorKind, Result, err};
use crate::options::{RankerOptions, RankerTrainOptions};
use crate::progress::{Cancel, ProgressSink};
use crate::ranker::Ranker;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSearch {
    /// The best rate.
    pub rate: f32,
    /// Each rate of the grid with its log loss on the validation tasks; infinite where it diverged.
    pub tried: Vec<(f32, f64)>,
}

/// Sets all inner rates of `ranker` to the rate of `grid` with which `steps` inner steps have the lowest log loss on the
/// validation tasks.
///
/// # Errors
/// `InvalidArgument` without a usable rate or validation task; what [`Predictor::predict`] returns.
pub fn search_inner_rate(
    plan: &Plan<'_>,
    ranker: &mut Ranker,
    grid: &[f32],
    steps: usize,
    threads: usize,
) -> Result<RateSearch> {
    if plan.tasks(TaskSet::Validation).len() == 0 || grid.iter().any(|r| !(*r > 0.0 && r.is_finite())) {
        return Err(err!(
            InvalidArgument,
            "a search for the inner rate needs validation tasks and positive rates; raise `validation` or correct the grid"
        ));
    }
    let mut tried = Vec::with_capacity(grid.len());
    for rate in grid {
        set(ranker, *rate);
        let predictor = Predictor::new(plan, ranker, threads)?;
        let loss = match predictor.predict(TaskSet::Validation, &[steps]) {
            Ok(found) => log_loss(found.first().map_or(&[], Vec::as_slice), &predictor.labels(TaskSet::Validation)),
            Err(e) if e.kind() == ErrorKind::Diverged => f64::INFINITY,
            Err(e) => return Err(e),
        };
        tried.push((*rate, loss));
    }
    let best = tried.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let Some((rate, _)) = best.copied() else {
        return Err(err!(InvalidArgument, "the grid of inner rates is empty; name at least one"));
    };
    set(ranker, rate);
    Ok(RateSearch { rate, tried })
}

/// Trains a ranker from each inner rate of `grid` as its start, and gives the one with the lowest log loss on the validation tasks.
/// Rates are learned from there on; far starts are not made up for. The foundation model stays as it is.
///
/// # Errors
/// `InvalidArgument` without a usable rate or validation task; what [`RankerTrainer::run`] returns, but for a rate that diverges.
pub fn search_inner_start(
    plan: &Plan<'_>,
    model: &RankerOptions,
    options: &RankerTrainOptions,
    grid: &[f32],
    observer: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<RateSearch> {
    if plan.tasks(TaskSet::Validation).len() == 0
        || grid.is_empty()
        || grid.iter().any(|r| !(*r > 0.0 && r.is_finite()))
    {
        return Err(err!(
            InvalidArgument,
            "a search for the inner rate needs validation tasks and positive rates; raise `validation` or correct the grid"
        ));
    }
    let mut tried = Vec::with_capacity(grid.len());
    for rate in grid {
        let options = RankerTrainOptions { inner_rate: *rate, finetune: 0.0, ..options.clone() };
        let loss = match RankerTrainer::new(plan).model(model.clone()).options(options).run(observer, cancel) {
            Ok(trained) => trained.validation.first().map_or(f64::INFINITY, |m| m.1),
            Err(e) if e.kind() == ErrorKind::Diverged => f64::INFINITY,
            Err(e) => return Err(e),
        };
        tried.push((*rate, loss));
        if cancel.is_cancelled() {
            break;
        }
    }
    let best = tried.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(options.inner_rate, |b| b.0);
    Ok(RateSearch { rate: best, tried })
}

fn set(ranker: &mut Ranker, rate: f32) {
    for [_, _, rates] in ranker.shape.layer_ranges() {
        ranker.dense[rates.clone()].fill(rate.ln());
    }
}
