//! Test, then train: each entity's outcomes are walked in order of time, each is predicted before anything learns from it. Compares
//! what may keep up with them: nothing, a table of embeddings from before the walk, adaptation anew after each outcome, and the
//! first-order update of the embedding. The foundation model's user vector is that of the moment in all of them.

use super::ctr::{Ctr, CtrMethod, ctr, ctr_metrics};
use crate::bootstrap::Resampling;
use crate::error::{Result, err};
use crate::ranker::{Adapter, DriftDetection, Ranker};
use crate::threads;
use crate::train::ranker::{FoundationModel, Plan, Task, TaskSet};
use std::fmt::Write;

/// What keeps up with a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: the embedding before any step, of what is known of the entity at the moment.
    Unadapted,
    /// The embedding that was adapted before the walk.
    Table,
    /// Adaptation anew after each outcome, to the latest ones.
    Readapted,
    /// The same, but to the outcomes since the latest change of taste ([`Adapter::change`]).
    DriftAware,
    /// The embedding from before the walk, moved by each outcome alone ([`Adapter::first_order`]).
    FirstOrder,
}

impl Policy {
    /// All of them, what is judged against the others first.
    pub const ALL: [Self; 5] = [Self::Readapted, Self::DriftAware, Self::FirstOrder, Self::Table, Self::Unadapted];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unadapted => "unadapted",
            Self::Table => "table",
            Self::Readapted => "re-adapted",
            Self::DriftAware => "drift-aware",
            Self::FirstOrder => "first-order",
        }
    }
}

/// How to walk.
#[derive(Debug, Clone, PartialEq)]
pub struct PrequentialOptions {
    /// What is compared; the first against each other.
    pub policies: Vec<Policy>,
    /// Most outcomes of one walk; 0 walks them all.
    pub most: usize,
    /// One entity in this many.
    pub every: usize,
    /// How many outcomes an embedding stands for at most when it is moved: fewer follow faster.
    pub memory: usize,
    /// When outcomes from before a change of taste are forgotten.
    pub drift: DriftDetection,
    /// Threads to use; they do not change the result.
    pub threads: usize,
    /// Intervals.
    pub resampling: Resampling,
}

impl Default for PrequentialOptions {
    fn default() -> Self {
        Self {
            policies: Policy::ALL.to_vec(),
            most: 0,
            every: 1,
            memory: usize::MAX,
            drift: DriftDetection::default(),
            threads: 1,
            resampling: Resampling::default(),
        }
    }
}

/// Outcomes by their place in the walk: the first of each bucket, counted from 1, and its name.
pub const WALK_BUCKETS: [(usize, &str); 6] =
    [(1, "1"), (2, "2-5"), (6, "6-10"), (11, "11-20"), (21, "21-50"), (51, ">50")];

/// The outcomes of one part of the walks.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkBucket {
    /// Places in the walk.
    pub places: &'static str,
    /// How many outcomes.
    pub targets: usize,
    /// AUC by policy.
    pub aucs: Vec<f64>,
    /// Log loss by policy.
    pub losses: Vec<f64>,
}

/// A judgement of walks.
#[derive(Debug, Clone, PartialEq)]
pub struct Prequential {
    /// All outcomes; the buckets are those of how many outcomes were known at the moment.
    pub judged: Ctr,
    /// By place in the walk; empty buckets are left out.
    pub walk: Vec<WalkBucket>,
}

/// Walks the query outcomes of the tasks `set` of a plan, first head only.
///
/// # Errors
/// `InvalidConfig` for a ranker with a block of items or surfaces; `InvalidArgument` without policies or outcomes to walk; what adaptation and judgement return.
pub fn prequential(
    plan: &Plan<'_>,
    features: FoundationModel<'_>,
    ranker: &Ranker,
    set: TaskSet,
    options: &PrequentialOptions,
) -> Result<Prequential> {
    if ranker.shape.options.has_several() {
        return Err(err!(
            InvalidConfig,
            "a ranker that is adapted to items or surfaces, too, is not walked outcome by outcome; judge it by ctr or few-shot, or \
             train one with ranker.items = \"off\" and ranker.surface = \"\""
        ));
    }
    let most = if options.most == 0 { usize::MAX } else { options.most };
    let walks = plan.tasks(set).step_by(options.every.max(1));
    let mut tasks = Vec::new();
    for walk in walks {
        let step = |i: usize| Task { entity: walk.entity, support: walk.support.start..i, query: i..i + 1 };
        tasks.extend(walk.query.clone().take(most).map(step));
    }
    if tasks.is_empty() || options.policies.is_empty() {
        return Err(err!(InvalidArgument, "there is no outcome to walk, or no policy to walk with; name both"));
    }
    let asked = plan.asking(tasks, features, options.threads)?;
    let all: Vec<u32> = (0..asked.tasks(TaskSet::Hidden).len() as u32).collect();
    let entity = |place: &u32| asked.task(*place).entity;
    let entities: Vec<&[u32]> = all.chunk_by(|a, b| entity(a) == entity(b)).collect();
    let adapter = ranker.adapter()?;
    let parts = threads::map(
        options.threads,
        entities.len(),
        || adapter.clone(),
        |p, adapter| {
            let places = entities.get(p).copied().unwrap_or(&[]);
            Walk::new(&asked, ranker, options, adapter).go(places)
        },
    );
    let mut runs = vec![Vec::new(); options.policies.len()];
    for part in parts {
        runs.iter_mut().zip(part?).for_each(|(run, own)| run.extend(own));
    }
    let names = options.policies.iter().map(|p| p.name().to_owned());
    let methods: Vec<CtrMethod> = names.zip(runs).map(|(name, run)| CtrMethod { name, runs: vec![run] }).collect();
    let judged = ctr(&asked, TaskSet::Hidden, &methods, &options.resampling, options.threads)?;
    let place: Vec<usize> = entities.iter().flat_map(|own| 1..=own.len()).collect();
    let owners: Vec<u32> = all.iter().map(entity).collect();
    let heads = plan.means.len();
    let labels: Vec<f32> =
        asked.tasks(TaskSet::Hidden).map(|t| plan.impressions.labels[t.query.start * heads]).collect();
    let mut walk = Vec::new();
    for (b, (low, name)) in WALK_BUCKETS.iter().enumerate() {
        let high = WALK_BUCKETS.get(b + 1).map_or(usize::MAX, |n| n.0);
        let own: Vec<usize> = (0..place.len()).filter(|q| (*low..high).contains(&place[*q])).collect();
        if own.is_empty() {
            continue;
        }
        let pick = |from: &[f32]| -> Vec<f32> { own.iter().map(|q| from[*q]).collect() };
        let (labels, entities) = (pick(&labels), own.iter().map(|q| owners[*q]).collect::<Vec<u32>>());
        let (mut aucs, mut losses) = (Vec::new(), Vec::new());
        for method in &methods {
            let found = ctr_metrics(&entities, &pick(&method.runs[0]), &labels);
            let value = |name: &str| found.iter().find(|m| m.0 == name).map_or(f64::NAN, |m| m.1);
            aucs.push(value("auc"));
            losses.push(value("logloss"));
        }
        walk.push(WalkBucket { places: name, targets: labels.iter().filter(|l| !l.is_nan()).count(), aucs, losses });
    }
    Ok(Prequential { judged, walk })
}

/// One entity's walk.
struct Walk<'w, 'a> {
    plan: &'w Plan<'w>,
    ranker: &'w Ranker,
    options: &'w PrequentialOptions,
    adapter: &'w mut Adapter<'a>,
    input: Vec<f32>,
    known: Vec<f32>,
    asked: Vec<f32>,
}

impl<'w, 'a> Walk<'w, 'a> {
    fn new(
        plan: &'w Plan<'w>,
        ranker: &'w Ranker,
        options: &'w PrequentialOptions,
        adapter: &'w mut Adapter<'a>,
    ) -> Self {
        let input = vec![0.0; ranker.shape.inputs];
        Self { plan, ranker, options, adapter, input, known: Vec::new(), asked: Vec::new() }
    }

    /// Calibrated logits of the first head by policy.
    fn go(&mut self, places: &[u32]) -> Result<Vec<Vec<f32>>> {
        let (plan, shape, policies) = (self.plan, &self.ranker.shape, &self.options.policies);
        let (width, heads, steps) = (shape.options.item_width as usize, shape.heads, shape.options.steps as usize);
        let labels = plan.impressions.labels.as_slice();
        let [slope, intercept] = self.ranker.calibration.first().copied().unwrap_or([1.0, 0.0]);
        let mut out = vec![Vec::with_capacity(places.len()); policies.len()];
        let (mut table, mut moved) = (Vec::new(), Vec::new());
        let mut scores = vec![0.0; heads];
        for (j, place) in places.iter().enumerate() {
            let task = plan.task(*place);
            let own = self.ranker.entity(task.entity);
            let read = plan.latest(*place, shape.options.support);
            plan.input(*place, labels, false, &mut self.input)?;
            self.known.clear();
            self.asked.clear();
            plan.candidates(*place, task.query.clone(), &self.ranker.items, width, &mut self.asked);
            plan.candidates(*place, read.clone(), &self.ranker.items, width, &mut self.known);
            let outcomes = &labels[read.start * heads..read.end * heads];
            for (policy, out) in policies.iter().zip(&mut out) {
                let anew = j == 0 || *policy == Policy::Readapted;
                let embedding = match policy {
                    Policy::Unadapted => self.adapter.adapt(&self.input, own, &[], &[], 0)?.embedding.to_vec(),
                    Policy::DriftAware => {
                        let (input, drift) = (&self.input, &self.options.drift);
                        let from = self.adapter.change(input, own, &self.known, outcomes, steps, drift)?;
                        let (rows, outcomes) = (&self.known[from * shape.candidate()..], &outcomes[from * heads..]);
                        self.adapter.adapt(input, own, rows, outcomes, steps)?.embedding.to_vec()
                    }
                    _ if anew => self.adapter.adapt(&self.input, own, &self.known, outcomes, steps)?.embedding.to_vec(),
                    Policy::FirstOrder => moved.clone(),
                    _ => Vec::clone(&table),
                };
                if j == 0 && *policy == Policy::Table {
                    table.clone_from(&embedding);
                }
                self.adapter.score(&embedding, &self.asked, &mut scores)?;
                out.push(slope * scores.first().copied().unwrap_or(0.0) + intercept);
                if *policy == Policy::FirstOrder {
                    let label = &labels[task.query.start * heads..task.query.end * heads];
                    let known = task.support.len().min(self.options.memory);
                    moved = self.adapter.first_order(&self.input, own, &embedding, &self.asked, label, known)?.to_vec();
                }
            }
        }
        Ok(out)
    }
}

impl Prequential {
    /// Plain text: the judgement of all outcomes, then AUC and log loss by place in the walk.
    pub fn table(&self) -> String {
        let mut text = self.judged.table();
        // Writing into a String cannot fail.
        let _ = write!(text, "place in the walk  outcomes");
        for measure in ["auc", "logloss"] {
            self.judged.rows.iter().for_each(|r| {
                let _ = write!(text, "  {measure} {}", r.name);
            });
        }
        text.push('\n');
        for b in &self.walk {
            let _ = write!(text, "{:<17}  {:>8}", b.places, b.targets);
            for (values, measure) in [(&b.aucs, "auc"), (&b.losses, "logloss")] {
                values.iter().zip(&self.judged.rows).for_each(|(v, r)| {
                    let _ = write!(text, "  {v:>w$.4}", w = measure.len() + 1 + r.name.len());
                });
            }
            text.push('\n');
        }
        text
    }

    /// The judgement as JSON.
    #[cfg(feature = "files")]
    pub fn json(&self) -> serde_json::Value {
        let bucket = |b: &WalkBucket| serde_json::json!({"places": b.places, "targets": b.targets, "auc": b.aucs, "logloss": b.losses});
        serde_json::json!({"judged": self.judged.json(), "walk": self.walk.iter().map(bucket).collect::<Vec<_>>()})
    }
}
