//! Which setting of a baseline is best on the validation questions?

use super::judge::ranks;
use super::known::CountedEvents;
use super::metrics::RankMetric;
use super::scorer::Scorer;
use crate::data::{Case, Dataset, Split};
use crate::error::{Result, err};
use crate::progress::Cancel;

/// The most validation questions that are asked; of more, evenly spread ones.
const QUESTIONS: usize = 4_000;

/// The setting of `settings` whose scorer, fitted on training events alone, has the best NDCG@10; the first where there are no validation
/// questions.
///
/// # Errors
/// `InvalidArgument` without settings; what `fit` returns; `Cancelled`.
pub(super) fn best<O: Copy, S: Scorer>(
    data: &Dataset,
    split: &Split,
    settings: &[O],
    fit: impl Fn(CountedEvents, &O) -> Result<S>,
    threads: usize,
    cancel: &Cancel,
) -> Result<O> {
    let asked: Vec<&Case> = split.validation.iter().filter(|case| split.asks(data, case)).collect();
    let cases: Vec<Case> = asked.iter().step_by(asked.len().div_ceil(QUESTIONS).max(1)).copied().cloned().collect();
    let mut best: Option<(f64, O)> = None;
    for setting in settings {
        if cancel.is_cancelled() {
            return Err(err!(Cancelled, "the evaluation was cancelled; nothing of it is kept, run it again"));
        }
        if cases.is_empty() {
            return Ok(*setting);
        }
        let ranks = ranks(data, split, &cases, &fit(CountedEvents::Training, setting)?, threads, cancel)?;
        let ndcg: f64 = ranks.iter().map(|r| RankMetric::Ndcg10.value(*r)).sum();
        if best.as_ref().is_none_or(|(most, _)| ndcg > *most) {
            best = Some((ndcg, *setting));
        }
    }
    best.map(|(_, setting)| setting)
        .ok_or_else(|| err!(InvalidArgument, "there is no setting to choose from; give one"))
}
