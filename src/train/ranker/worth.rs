//! Has a ranker earned its place? Whether there is enough to tell it by, and whether it beats the prior.
//!
//! The prior of a head is the mean label of what is trained on, the same for every item and everybody. A ranker that does not beat it
//! knows nothing that could put a list in a better order.

use super::calibration::loss;
use super::impressions::Impressions;
use super::plan::{Plan, Tally, TaskSet, tally};
use super::predict::Predictor;
use crate::bootstrap::{Bootstrap, Resampling};
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::ranker::Ranker;

/// The fewest outcomes of a head's rarer class, negative or positive, to train on.
pub const LEAST_IN_TRAINING: u32 = 20;
/// The fewest outcomes of a head's rarer class to validate on.
pub const LEAST_IN_VALIDATION: u32 = 10;
/// The fewest entities that they validate.
pub const LEAST_ENTITIES: u32 = 10;

/// What a ranker is worth on its validation outcomes, for one head.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Worth {
    /// The head's name.
    pub head: String,
    /// Validation outcomes.
    pub outcomes: u64,
    /// The ranker's mean log loss on them, before calibration (nats).
    pub logloss: f64,
    /// That of the prior.
    pub prior: f64,
    /// The 95 % interval of the ranker's minus the prior's, over resampled entities; `None` without outcomes.
    pub interval: Option<[f64; 2]>,
}

impl Worth {
    /// Whether the ranker beats the prior beyond doubt: the whole interval lies below 0.
    pub fn is_earned(&self) -> bool {
        self.interval.is_some_and(|[_, high]| high < 0.0)
    }
}

impl std::fmt::Display for Worth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { head, outcomes, logloss, prior, interval } = self;
        write!(
            f,
            "on {outcomes} validation outcomes its log loss of {head:?} is {logloss:.4}, that of the mean label {prior:.4}"
        )?;
        match interval {
            Some([low, high]) => write!(f, " (95 % interval of the difference {low:+.4} .. {high:+.4})"),
            None => Ok(()),
        }
    }
}

/// Why each head cannot be told, by head; `None` for one that can.
///
/// # Errors
/// `InvalidData` if outcomes and dataset do not fit.
pub(crate) fn untold(
    data: &Dataset,
    impressions: &Impressions,
    split: &Split,
    validation: f32,
    seed: u64,
) -> Result<Vec<Option<Untold>>> {
    let tallies = tally(data, impressions, split, validation, seed)?;
    Ok(tallies.into_iter().map(|tally| (!can_be_told(&tally)).then_some(Untold(tally))).collect())
}

fn can_be_told(tally: &Tally) -> bool {
    let rarer = |[negative, positive]: [f64; 2]| negative.min(positive);
    rarer(tally.training) >= f64::from(LEAST_IN_TRAINING)
        && rarer(tally.validation) >= f64::from(LEAST_IN_VALIDATION)
        && tally.entities >= LEAST_ENTITIES as usize
}

/// A head that cannot be told, and what there is of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Untold(Tally);

impl Untold {
    /// Whether there is nothing to train it on.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.training.iter().sum::<f64>() <= 0.0
    }
}

impl std::fmt::Display for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { head, training, validation, entities } = &self.0;
        write!(
            f,
            "the label {head:?} is positive in {:.0} and negative in {:.0} outcomes to train on, in {:.0} and {:.0} (of {entities} \
             entities) to validate on; it takes {LEAST_IN_TRAINING} of each to train on and {LEAST_IN_VALIDATION} of each, of \
             {LEAST_ENTITIES} entities, to tell whether a ranker helps",
            training[1], training[0], validation[1], validation[0]
        )
    }
}

/// What a ranker is worth on the validation tasks of a plan, by head.
///
/// # Errors
/// Those of [`Predictor::new`] and [`Predictor::predict`].
pub fn judge(plan: &Plan<'_>, ranker: &Ranker, threads: usize) -> Result<Vec<Worth>> {
    let predictor = Predictor::new(plan, ranker, threads)?;
    let found = predictor.predict(TaskSet::Validation, &[ranker.shape.options.steps as usize])?;
    let (logits, labels) = (found.first().map_or(&[][..], Vec::as_slice), predictor.labels(TaskSet::Validation));
    let people: Vec<u32> =
        plan.tasks(TaskSet::Validation).flat_map(|task| task.query.clone().map(|_| task.entity)).collect();
    let heads = plan.impressions.heads.len();
    let one = |(at, head): (usize, &String)| {
        let mean = plan.means.get(at).copied().unwrap_or(0.5).clamp(1e-6, 1.0 - 1e-6);
        let prior = (mean / (1.0 - mean)).ln();
        let (mut own, mut ranked, mut constant) = (Vec::new(), vec![Vec::new()], vec![Vec::new()]);
        let outcomes = people.iter().zip(logits.chunks_exact(heads)).zip(labels.chunks_exact(heads));
        for ((person, logits), labels) in outcomes.filter(|(_, labels)| !labels[at].is_nan()) {
            own.push(*person);
            ranked[0].push(loss(logits[at], labels[at]));
            constant[0].push(loss(prior, labels[at]));
        }
        let mean = |losses: &[Vec<f64>]| losses[0].iter().sum::<f64>() / own.len().max(1) as f64;
        let bootstrap = Bootstrap::new(&own, &[&ranked, &constant], &Resampling::default(), threads);
        Worth {
            head: head.clone(),
            outcomes: own.len() as u64,
            logloss: mean(&ranked),
            prior: mean(&constant),
            interval: bootstrap.difference(0, 1),
        }
    };
    Ok(plan.impressions.heads.iter().enumerate().map(one).collect())
}
