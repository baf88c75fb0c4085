//! How much do few outcomes teach? People that no training saw, adapted to their first outcomes: none, one, two and so on. All
//! sizes answer the same questions, so that the curve over sizes is one of learning and not of who has how many outcomes.

use super::ctr::{Ctr, CtrMethod, ctr};
use crate::bootstrap::Resampling;
use crate::error::{Result, err};
use crate::ranker::Ranker;
use crate::train::ranker::{FoundationModel, Plan, Predictor, Task, TaskSet};
use std::fmt::Write;

/// What to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct FewShotOptions {
    /// Sizes of the support, ascending. The outcomes after the largest are asked for.
    pub supports: Vec<usize>,
    /// Numbers of inner steps.
    pub steps: Vec<usize>,
    /// Threads to use; they do not change the result.
    pub threads: usize,
    /// Intervals.
    pub resampling: Resampling,
}

impl Default for FewShotOptions {
    fn default() -> Self {
        Self {
            supports: vec![0, 1, 2, 5, 10, 20, 50],
            steps: vec![0, 1, 2, 5, 10],
            threads: 1,
            resampling: Resampling::default(),
        }
    }
}

/// A ranker, trained with one seed or several.
#[derive(Debug, Clone)]
pub struct FewShotMethod<'a> {
    /// Its name.
    pub name: String,
    /// One ranker per run. Each is asked after the inner steps that its options name.
    pub runs: Vec<&'a Ranker>,
}

/// One size of the support.
#[derive(Debug, Clone, PartialEq)]
pub struct FewShotSize {
    /// How many outcomes are known.
    pub support: usize,
    /// The methods on them, the first against each other.
    pub judged: Ctr,
    /// AUC of the first method after each number of inner steps, mean over its runs.
    pub curve: Vec<(usize, f64)>,
}

/// The adaptation curve.
#[derive(Debug, Clone, PartialEq)]
pub struct FewShot {
    /// By size of the support.
    pub sizes: Vec<FewShotSize>,
}

/// Asks hidden entities of `plan` for the outcomes after the largest support, from what was known after the first `k` of each size:
/// the user vector reads the events up to there, the adaptation those outcomes. People without a later outcome are left out.
///
/// # Errors
/// `InvalidArgument` without sizes, methods or entities to ask; what prediction and judgement return.
pub fn few_shot(
    plan: &Plan<'_>,
    features: FoundationModel<'_>,
    methods: &[FewShotMethod<'_>],
    options: &FewShotOptions,
) -> Result<FewShot> {
    let (Some(first), Some(most)) = (methods.first(), options.supports.iter().max()) else {
        return Err(err!(InvalidArgument, "few-shot evaluation needs a method and a size of the support; name both"));
    };
    let mut entities: Vec<u32> = plan.tasks(TaskSet::Hidden).map(|t| t.entity).collect();
    entities.sort_unstable();
    entities.dedup();
    entities.retain(|u| plan.impressions.range(*u).len() > *most);
    if entities.is_empty() {
        return Err(err!(
            InvalidArgument,
            "nobody who is hidden from training has more than {most} outcomes; train with people hidden, such as --protocol \
             cold-entities (or ctr where events are labelled), on people with more outcomes, or ask for smaller supports"
        ));
    }
    let mut sizes = Vec::new();
    for support in &options.supports {
        let task = |u: &u32| {
            let own = plan.impressions.range(*u);
            Task { entity: *u, support: own.start..own.start + support, query: own.start + most..own.end }
        };
        let asked = plan.asking(entities.iter().map(task).collect(), features, options.threads)?;
        let answer = |ranker: &Ranker, steps: &[usize]| {
            Predictor::new(&asked, ranker, options.threads)?.calibrated(TaskSet::Hidden, steps)
        };
        let mut answers = Vec::new();
        for method in methods {
            let mut runs = Vec::new();
            for ranker in &method.runs {
                let steps = ranker.shape.options.steps as usize;
                runs.extend(answer(ranker, &[steps])?);
            }
            answers.push(CtrMethod { name: method.name.clone(), runs });
        }
        let judged = ctr(&asked, TaskSet::Hidden, &answers, &options.resampling, options.threads)?;
        let mut by_step = vec![Vec::new(); options.steps.len()];
        for ranker in &first.runs {
            let found = answer(ranker, &options.steps)?;
            by_step.iter_mut().zip(found).for_each(|(to, run)| to.push(run));
        }
        let mut curve = Vec::new();
        for (steps, runs) in options.steps.iter().zip(by_step) {
            let method = CtrMethod { name: steps.to_string(), runs };
            let plain = Resampling { resamples: 0, ..options.resampling.clone() };
            let found = ctr(&asked, TaskSet::Hidden, &[method], &plain, options.threads)?;
            curve.push((*steps, found.rows.first().and_then(|r| r.metric("auc")).unwrap_or(f64::NAN)));
        }
        sizes.push(FewShotSize { support: *support, judged, curve });
    }
    Ok(FewShot { sizes })
}

impl FewShot {
    /// Plain text: AUC by size of the support and method, the first against each other, and by inner steps.
    pub fn table(&self) -> String {
        let Some(first) = self.sizes.first() else { return String::new() };
        let mut text = format!("{} outcomes of {} people\n", first.judged.targets, first.judged.entities);
        // Writing into a String cannot fail.
        let _ = write!(text, "support");
        first.judged.rows.iter().for_each(|r| {
            let _ = write!(text, "  {:>10}", r.name);
        });
        first.curve.iter().for_each(|(k, _)| {
            let _ = write!(text, "  {:>6}", format!("K={k}"));
        });
        text.push('\n');
        for size in &self.sizes {
            let _ = write!(text, "{:>7}", size.support);
            for row in &size.judged.rows {
                let _ = write!(text, "  {:>w$.4}", row.metric("auc").unwrap_or(f64::NAN), w = row.name.len().max(10));
            }
            size.curve.iter().for_each(|(_, auc)| {
                let _ = write!(text, "  {auc:.4}");
            });
            for d in &size.judged.differences {
                let span = d.interval.map_or_else(String::new, |[a, z]| format!(" [{a:+.4}, {z:+.4}]"));
                let _ = write!(text, "  - {}: {:+.4}{span}", d.versus, d.mean);
            }
            text.push('\n');
        }
        text
    }

    /// The curve as JSON.
    #[cfg(feature = "files")]
    pub fn json(&self) -> serde_json::Value {
        let size = |s: &FewShotSize| {
            let curve: Vec<_> = s.curve.iter().map(|(k, auc)| serde_json::json!({"steps": k, "auc": auc})).collect();
            serde_json::json!({"support": s.support, "judged": s.judged.json(), "curve": curve})
        };
        serde_json::json!({"sizes": self.sizes.iter().map(size).collect::<Vec<_>>()})
    }
}
