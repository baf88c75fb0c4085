//! Is the ranker of a generation any good? Its answers to the outcomes that its training kept back, adapted and not.

use super::ctr::{Ctr, CtrMethod, ctr};
use super::few_shot::{FewShot, FewShotMethod, FewShotOptions, few_shot};
use super::prequential::{Prequential, PrequentialOptions, prequential};
use crate::bootstrap::Resampling;
use crate::data::{Dataset, Split};
use crate::error::{Result, err};
use crate::generation::Coded;
use crate::ranker::Ranker;
use crate::serve::Generation;
use crate::train::ranker::{Biases, FoundationModel, Impressions, Plan, Predictor, TaskSet};
use std::sync::Arc;

/// Inner steps of the curve.
const CURVE: [usize; 5] = [0, 1, 2, 5, 10];
/// The share of entities whose latest training task chooses the shrinkage of the biases.
const VALIDATION: f32 = 0.1;

/// The judgement of one kind of entities.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomePart {
    /// `known` (whose earlier outcomes were trained on) or `hidden` (of whom nothing was).
    pub entities: &'static str,
    /// Methods `docent` (adapted), `learned` (no inner step) and `bias` (entity and item bias).
    pub judged: Ctr,
    /// Inner steps, and the AUC after them.
    pub curve: Vec<(usize, f64)>,
}

/// What the judgements of a generation's ranker have in common: its tasks, the vectors that they read, and its weights.
struct Asked<'a> {
    plan: Plan<'a>,
    features: FoundationModel<'a>,
    ranker: Ranker,
}

/// Prepares the questions. `outcomes` must hold out what the training did ([`crate::store::RankerRecord::held_out`]), and `split` be that
/// of the training.
fn asked<'a>(
    generation: &'a Arc<Generation>,
    data: &'a Dataset,
    outcomes: &'a Impressions,
    split: &Split,
    threads: usize,
) -> Result<Asked<'a>> {
    let view = generation.published_ranker()?.view;
    if !Coded::new(Arc::clone(generation), data)?.same_rows() {
        return Err(err!(
            StateMismatch,
            "generation {} has other items than dataset {}; outcomes are judged on the dataset that the ranker was trained on",
            generation.id(),
            data.schema.name
        ));
    }
    if let Some(record) = generation.ranker().filter(|r| r.shape.has_surface()) {
        let theirs = &outcomes.surface(&record.shape.surface)?.values;
        if *theirs != record.surfaces {
            return Err(err!(
                StateMismatch,
                "the ranker of generation {} was trained with the surfaces {:?}, the outcomes have {theirs:?}; bring the log that it \
                 was trained on",
                generation.id(),
                record.surfaces
            ));
        }
    }
    let features = FoundationModel { inference: generation.inference(), weights: generation.weights()? };
    let plan = Plan::new(data, outcomes, split, features, VALIDATION, 1, threads)?;
    Ok(Asked { plan, features, ranker: view.to_ranker() })
}

/// Judges the ranker of a generation on the outcomes after those that it was trained on. `outcomes` must hold out what the
/// training did ([`crate::store::RankerRecord::held_out`]), and `split` be that of the training. The result does not depend on
/// `threads`.
///
/// # Errors
/// `InvalidConfig` where the generation has no ranker; `StateMismatch` where the dataset is not the one that it was trained on;
/// `InvalidData` where nothing was kept back.
pub fn evaluate_outcomes(
    generation: &Arc<Generation>,
    data: &Dataset,
    outcomes: &Impressions,
    split: &Split,
    resampling: &Resampling,
    threads: usize,
) -> Result<Vec<OutcomePart>> {
    let Asked { plan, ranker, .. } = asked(generation, data, outcomes, split, threads)?;
    let steps = ranker.shape.options.steps as usize;
    let predictor = Predictor::new(&plan, &ranker, threads)?;
    let biases = Biases::tuned(&plan);
    let mut parts = Vec::new();
    for (set, entities) in [(TaskSet::Known, "known"), (TaskSet::Hidden, "hidden")] {
        if plan.tasks(set).len() == 0 {
            continue;
        }
        let mut asked: Vec<usize> = vec![steps];
        asked.extend(CURVE);
        let found = predictor.calibrated(set, &asked)?;
        let method = |name: &str, run: &Vec<f32>| CtrMethod { name: name.into(), runs: vec![run.clone()] };
        let [adapted, learned, ..] = found.as_slice() else { continue };
        let bias = biases.predict(&plan, set);
        let methods = [method("docent", adapted), method("learned", learned), method("bias", &bias)];
        let judged = ctr(&plan, set, &methods, resampling, threads)?;
        let quiet = Resampling { resamples: 0, ..resampling.clone() };
        let mut curve = Vec::new();
        for (k, run) in CURVE.iter().zip(found.iter().skip(1)) {
            let one = ctr(&plan, set, &[method("", run)], &quiet, 1)?;
            curve.push((*k, one.rows.first().and_then(|r| r.metric("auc")).unwrap_or(f64::NAN)));
        }
        parts.push(OutcomePart { entities, judged, curve });
    }
    if parts.is_empty() {
        return Err(err!(
            InvalidData,
            "no outcome was kept back from the training of generation {}; train under a protocol that keeps some",
            generation.id()
        ));
    }
    Ok(parts)
}

/// Judges the ranker of a generation on entities that no training saw, by how many of their outcomes it is adapted to ([`few_shot`]).
///
/// # Errors
/// As [`evaluate_outcomes`]; `InvalidArgument` where nobody was hidden from training.
pub fn evaluate_few_shot(
    generation: &Arc<Generation>,
    data: &Dataset,
    outcomes: &Impressions,
    split: &Split,
    options: &FewShotOptions,
) -> Result<FewShot> {
    let Asked { plan, features, ranker } = asked(generation, data, outcomes, split, options.threads)?;
    few_shot(&plan, features, &[FewShotMethod { name: "docent".into(), runs: vec![&ranker] }], options)
}

/// Walks the outcomes that training kept back, each predicted before anything learns from it ([`prequential`]): those of hidden entities
/// where there are any, else of known ones.
///
/// # Errors
/// As [`evaluate_outcomes`].
pub fn evaluate_prequential(
    generation: &Arc<Generation>,
    data: &Dataset,
    outcomes: &Impressions,
    split: &Split,
    options: &PrequentialOptions,
) -> Result<Prequential> {
    let Asked { plan, features, ranker } = asked(generation, data, outcomes, split, options.threads)?;
    let set = if plan.tasks(TaskSet::Hidden).len() > 0 { TaskSet::Hidden } else { TaskSet::Known };
    prequential(&plan, features, &ranker, set, options)
}
