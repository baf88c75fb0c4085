//! The inner rate on a log grid: published set-ups differ by 2,000 times, so it is searched, not guessed.

use super::calibration::log_loss;
use super::plan::{Plan, TaskSet};
use super::predict::Predictor;
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

impl RateSearch {
    fn of(tried: Vec<(f32, f64)>, otherwise: f32) -> Self {
        let best = tried.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        Self { rate: best.map_or(otherwise, |b| b.0), tried }
    }
}

fn check(plan: &Plan<'_>, grid: &[f32]) -> Result<()> {
    let usable = !grid.is_empty() && grid.iter().all(|r| *r > 0.0 && r.is_finite());
    match usable && plan.tasks(TaskSet::Validation).len() > 0 {
        true => Ok(()),
        false => Err(err!(
            InvalidArgument,
            "a search for the inner rate needs validation tasks and positive rates; raise `validation` or correct the grid"
        )),
    }
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
    check(plan, grid)?;
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
    let found = RateSearch::of(tried, grid[0]);
    set(ranker, found.rate);
    Ok(found)
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
    check(plan, grid)?;
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
    Ok(RateSearch::of(tried, options.inner_rate))
}

fn set(ranker: &mut Ranker, rate: f32) {
    for [_, _, rates] in ranker.shape.layer_ranges() {
        ranker.dense[rates.clone()].fill(rate.ln());
    }
}
