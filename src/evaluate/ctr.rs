//! Are predicted outcomes any good? Judges logits of labelled outcomes: by order (AUC, AUC and NDCG within an entity), by
//! probability (log loss, calibration error), over all and by how much was known of the entity.

use crate::bootstrap::{Bootstrap, Resampling};
use crate::error::{Result, err};
use crate::random::Rng;
use crate::train::ranker::{Plan, TaskSet};
use std::fmt::Write;

/// Sizes of the support by which results are told apart: the lowest of each bucket, and its name.
pub const SUPPORT_BUCKETS: [(usize, &str); 5] = [(0, "0"), (1, "1-5"), (6, "6-20"), (21, "21-100"), (101, ">100")];

/// Bins of the expected calibration error.
const BINS: usize = 15;
/// Length of the list that NDCG reads.
const LIST: usize = 10;
/// The metrics, in the order of [`ctr_metrics`].
const METRICS: [&str; 5] = ["auc", "entity_auc", "logloss", "ece", "ndcg@10"];

/// Answers of one method to the tasks of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct CtrMethod {
    /// Its name.
    pub name: String,
    /// Logits of the query outcomes of the first head, in the order of tasks; one list per run (seed).
    pub runs: Vec<Vec<f32>>,
}

/// The metrics of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct CtrRow {
    /// The method.
    pub name: String,
    /// Mean over the runs: `auc`, `entity_auc`, `logloss`, `ece`, `ndcg@10`.
    pub metrics: Vec<(String, f64)>,
    /// The AUC of each run.
    pub aucs: Vec<f64>,
}

impl CtrRow {
    /// A metric by name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|m| m.0 == name).map(|m| m.1)
    }
}

/// How the AUC of the first method compares with another's.
#[derive(Debug, Clone, PartialEq)]
pub struct CtrDifference {
    /// The other method.
    pub versus: String,
    /// Mean AUC of the first method minus that of the other.
    pub mean: f64,
    /// Its interval: entities and runs resampled, both methods under the same draw. `None` without resamples.
    pub interval: Option<[f64; 2]>,
}

/// The AUC of all methods on the outcomes of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct CtrBucket {
    /// The support sizes.
    pub support: &'static str,
    /// How many outcomes were asked for.
    pub targets: usize,
    /// AUC by method, in the order of the rows.
    pub aucs: Vec<f64>,
    /// Log loss by method.
    pub losses: Vec<f64>,
    /// The first method's AUC minus each other's, with intervals.
    pub differences: Vec<CtrDifference>,
}

/// A judgement of methods on one part of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Ctr {
    /// How many outcomes were asked for.
    pub targets: usize,
    /// Of how many entities.
    pub entities: usize,
    /// One row per method.
    pub rows: Vec<CtrRow>,
    /// The first method against each other.
    pub differences: Vec<CtrDifference>,
    /// By the size of the support; empty buckets are left out.
    pub buckets: Vec<CtrBucket>,
}

/// Judges methods on the tasks `set` of a plan, first head only. Uses up to `threads` threads; the result does not depend on how
/// many.
///
/// # Errors
/// `InvalidArgument` if a method has another number of answers, or none; `Diverged` for answers that are not numbers.
pub fn ctr(
    plan: &Plan<'_>,
    set: TaskSet,
    methods: &[CtrMethod],
    resampling: &Resampling,
    threads: usize,
) -> Result<Ctr> {
    let heads = plan.means.len();
    let (mut entities, mut labels, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    for task in plan.tasks(set) {
        for i in task.query.clone() {
            entities.push(task.entity);
            labels.push(plan.impressions.labels.get(i * heads).copied().unwrap_or(f32::NAN));
            sizes.push(task.support.len());
        }
    }
    for method in methods {
        for run in &method.runs {
            if run.len() != labels.len() {
                return Err(err!(
                    InvalidArgument,
                    "method {} answers {} outcomes of {}; predict the same part",
                    method.name,
                    run.len(),
                    labels.len()
                ));
            }
            if run.iter().any(|x| x.is_nan()) {
                return Err(err!(Diverged, "method {} answers NaN; train it with a lower rate", method.name));
            }
        }
        if method.runs.is_empty() {
            return Err(err!(InvalidArgument, "method {} has no run; predict at least once", method.name));
        }
    }
    let kept: Vec<usize> = (0..labels.len()).filter(|q| labels.get(*q).is_some_and(|l| !l.is_nan())).collect();
    let whole = Part::new(&kept, &entities, &labels, methods);
    let rows = methods.iter().zip(&whole.columns).map(|(m, runs)| row(m, runs, &whole)).collect();
    let mut buckets = Vec::new();
    for (b, (low, support)) in SUPPORT_BUCKETS.iter().enumerate() {
        let high = SUPPORT_BUCKETS.get(b + 1).map_or(usize::MAX, |n| n.0);
        let own: Vec<usize> =
            kept.iter().copied().filter(|q| sizes.get(*q).is_some_and(|s| (*low..high).contains(s))).collect();
        if own.is_empty() {
            continue;
        }
        let part = Part::new(&own, &entities, &labels, methods);
        let mean = |f: &dyn Fn(&Column) -> f64| -> Vec<f64> {
            part.columns.iter().map(|runs| runs.iter().map(f).sum::<f64>() / runs.len() as f64).collect()
        };
        buckets.push(CtrBucket {
            support,
            targets: own.len(),
            aucs: mean(&|c| c.auc(&part.entity, &part.positive, None)),
            losses: mean(&|c| logloss(&c.logits, &part.positive)),
            differences: part.differences(methods, resampling, threads),
        });
    }
    let differences = whole.differences(methods, resampling, threads);
    Ok(Ctr { targets: kept.len(), entities: whole.entities, rows, differences, buckets })
}

/// `auc`, `entity_auc` (mean over entities with both outcomes), `logloss`, `ece` (expected calibration error, 15 bins of equal
/// width, Naeini et al. 2015) and `ndcg@10` (mean over entities with a positive outcome) of logits; labels from 0.5 are positive;
/// NaN labels do not count.
pub fn ctr_metrics(entities: &[u32], logits: &[f32], labels: &[f32]) -> Vec<(String, f64)> {
    let kept: Vec<usize> = (0..labels.len()).filter(|q| labels.get(*q).is_some_and(|l| !l.is_nan())).collect();
    let method = CtrMethod { name: String::new(), runs: vec![logits.to_vec()] };
    let part = Part::new(&kept, entities, labels, std::slice::from_ref(&method));
    part.columns.first().and_then(|runs| runs.first()).map(|c| metrics(c, &part)).unwrap_or_default()
}

fn row(method: &CtrMethod, runs: &[Column], part: &Part) -> CtrRow {
    let found: Vec<Vec<(String, f64)>> = runs.iter().map(|c| metrics(c, part)).collect();
    let mean = |m: usize| found.iter().filter_map(|f| f.get(m)).map(|f| f.1).sum::<f64>() / found.len() as f64;
    CtrRow {
        name: method.name.clone(),
        metrics: METRICS.iter().enumerate().map(|(m, name)| ((*name).to_owned(), mean(m))).collect(),
        aucs: found.iter().filter_map(|f| f.first()).map(|f| f.1).collect(),
    }
}

fn metrics(column: &Column, part: &Part) -> Vec<(String, f64)> {
    let (entity_auc, ndcg) = within(column, part);
    let values = [
        column.auc(&part.entity, &part.positive, None),
        entity_auc,
        logloss(&column.logits, &part.positive),
        calibration_error(&column.logits, &part.positive),
        ndcg,
    ];
    METRICS.iter().zip(values).map(|(n, v)| ((*n).to_owned(), v)).collect()
}

/// Some outcomes with the answers of all methods.
struct Part {
    /// Entity of each outcome, counted from 0.
    entity: Vec<u32>,
    entities: usize,
    positive: Vec<bool>,
    columns: Vec<Vec<Column>>,
}

/// One run's answers and their order.
struct Column {
    logits: Vec<f32>,
    /// Outcomes in ascending order of their logits.
    order: Vec<u32>,
}

impl Column {
    fn new(logits: Vec<f32>) -> Self {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let key = |q: &u32| logits.get(*q as usize).copied().unwrap_or(0.0);
        order.sort_unstable_by(|a, b| key(a).total_cmp(&key(b)));
        Self { logits, order }
    }

    /// The share of pairs of a positive and a negative outcome that are in order, ties counting half; outcomes count as often as
    /// their entity was drawn. NaN without such a pair.
    fn auc(&self, entity: &[u32], positive: &[bool], drawn: Option<&[u32]>) -> f64 {
        let (mut below, mut positives, mut won) = (0.0f64, 0.0f64, 0.0f64);
        let at = |q: u32| {
            let q = q as usize;
            let weight = match drawn {
                Some(drawn) => drawn.get(entity.get(q).map_or(usize::MAX, |p| *p as usize)).copied().unwrap_or(0),
                None => 1,
            };
            (self.logits.get(q).copied().unwrap_or(0.0), positive.get(q) == Some(&true), f64::from(weight))
        };
        let mut rest = self.order.as_slice();
        while let Some(first) = rest.first() {
            let tied = at(*first).0;
            let (mut up, mut down) = (0.0, 0.0);
            while let Some((q, after)) = rest.split_first() {
                let (logit, is_positive, weight) = at(*q);
                if logit != tied {
                    break;
                }
                if is_positive {
                    up += weight
                } else {
                    down += weight
                }
                rest = after;
            }
            won += up * (below + 0.5 * down);
            below += down;
            positives += up;
        }
        won / (positives * below)
    }
}

impl Part {
    fn new(kept: &[usize], entities: &[u32], labels: &[f32], methods: &[CtrMethod]) -> Self {
        let mut names: Vec<u32> = kept.iter().filter_map(|q| entities.get(*q)).copied().collect();
        let entity = names.clone();
        names.sort_unstable();
        names.dedup();
        let entity = entity.iter().map(|p| names.partition_point(|n| n < p) as u32).collect();
        let pick = |run: &Vec<f32>| Column::new(kept.iter().filter_map(|q| run.get(*q)).copied().collect());
        Self {
            entity,
            entities: names.len(),
            positive: kept.iter().filter_map(|q| labels.get(*q)).map(|l| *l >= 0.5).collect(),
            columns: methods.iter().map(|m| m.runs.iter().map(pick).collect()).collect(),
        }
    }

    /// The mean AUC of each method under one draw of entities and runs.
    fn resample(&self, mut rng: Rng) -> Vec<f64> {
        let mut drawn = vec![0u32; self.entities];
        for _ in 0..self.entities {
            if let Some(n) = drawn.get_mut(rng.below(self.entities)) {
                *n += 1;
            }
        }
        let mean = |runs: &Vec<Column>, rng: &mut Rng| {
            let draws: Vec<usize> = runs.iter().map(|_| rng.below(runs.len())).collect();
            let aucs = draws.iter().filter_map(|r| runs.get(*r));
            aucs.map(|c| c.auc(&self.entity, &self.positive, Some(&drawn))).sum::<f64>() / runs.len() as f64
        };
        self.columns.iter().map(|runs| mean(runs, &mut rng)).collect()
    }

    fn differences(&self, methods: &[CtrMethod], resampling: &Resampling, threads: usize) -> Vec<CtrDifference> {
        let bootstrap = Bootstrap::of(self.columns.len(), resampling, threads, |rng| self.resample(rng));
        let auc = |runs: &Vec<Column>| {
            runs.iter().map(|c| c.auc(&self.entity, &self.positive, None)).sum::<f64>() / runs.len() as f64
        };
        let means: Vec<f64> = self.columns.iter().map(auc).collect();
        let first = means.first().copied().unwrap_or(f64::NAN);
        let others = methods.iter().zip(&means).enumerate().skip(1);
        others
            .map(|(m, (method, mean))| CtrDifference {
                versus: method.name.clone(),
                mean: first - mean,
                interval: bootstrap.difference(0, m),
            })
            .collect()
    }
}

fn logloss(logits: &[f32], positive: &[bool]) -> f64 {
    let loss = |(x, y): (&f32, &bool)| {
        let x = f64::from(*x);
        x.max(0.0) + (-x.abs()).exp().ln_1p() - if *y { x } else { 0.0 }
    };
    logits.iter().zip(positive).map(loss).sum::<f64>() / logits.len().max(1) as f64
}

fn calibration_error(logits: &[f32], positive: &[bool]) -> f64 {
    let mut bins = [(0.0f64, 0.0f64); BINS];
    for (x, y) in logits.iter().zip(positive) {
        let p = 1.0 / (1.0 + f64::from(-x).exp());
        if let Some((gap, _)) = bins.get_mut(((p * BINS as f64) as usize).min(BINS - 1)) {
            *gap += p - if *y { 1.0 } else { 0.0 };
        }
    }
    bins.iter().map(|(gap, _)| gap.abs()).sum::<f64>() / logits.len().max(1) as f64
}

/// Mean AUC and NDCG within entities.
fn within(column: &Column, part: &Part) -> (f64, f64) {
    let mut of: Vec<Vec<(f32, bool)>> = vec![Vec::new(); part.entities];
    for ((p, x), y) in part.entity.iter().zip(&column.logits).zip(&part.positive) {
        if let Some(own) = of.get_mut(*p as usize) {
            own.push((*x, *y));
        }
    }
    let (mut aucs, mut gains) = (Vec::new(), Vec::new());
    for own in &mut of {
        let single = Column::new(own.iter().map(|o| o.0).collect());
        let positive: Vec<bool> = own.iter().map(|o| o.1).collect();
        let auc = single.auc(&[], &positive, None);
        if !auc.is_nan() {
            aucs.push(auc);
        }
        let found = positive.iter().filter(|y| **y).count();
        if found == 0 {
            continue;
        }
        // Ties in favour of the negative outcome: an answer that tells nothing apart earns nothing.
        own.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
        let gain: f64 = own.iter().take(LIST).enumerate().filter(|(_, o)| o.1).map(|(r, _)| discount(r)).sum();
        gains.push(gain / (0..found.min(LIST)).map(discount).sum::<f64>());
    }
    // NaN where nobody has both outcomes, or a positive one: no figure is not a figure of 0.
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    (mean(&aucs), mean(&gains))
}

impl Ctr {
    /// Plain text: a line per method, the differences of AUC, then AUC by size of the support.
    pub fn table(&self) -> String {
        let mut text = format!("{} outcomes of {} people\n", self.targets, self.entities);
        let width = self.rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).max(10);
        // Writing into a String cannot fail.
        let _ = write!(text, "{:<width$}", "method");
        METRICS.iter().for_each(|m| {
            let _ = write!(text, "  {m:>10}");
        });
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "{:<width$}", row.name);
            row.metrics.iter().for_each(|(_, v)| {
                let _ = write!(text, "  {v:>10.4}");
            });
            text.push('\n');
        }
        let first = self.rows.first().map_or("", |r| r.name.as_str());
        for d in &self.differences {
            let _ = writeln!(text, "auc of {first} - {:<width$}  {:+.4}  {}", d.versus, d.mean, span(d.interval));
        }
        for b in &self.buckets {
            let _ = write!(text, "support {:<7} {:>7} outcomes  auc", b.support, b.targets);
            b.aucs.iter().for_each(|a| {
                let _ = write!(text, "  {a:.4}");
            });
            let gaps = b.differences.iter().map(|d| format!("{:+.4} {}", d.mean, span(d.interval)));
            let _ = writeln!(text, "  {first} - others: {}", gaps.collect::<Vec<_>>().join(", "));
        }
        text
    }

    /// The judgement as JSON.
    #[cfg(feature = "files")]
    pub fn json(&self) -> serde_json::Value {
        use serde_json::json;
        let gaps = |d: &[CtrDifference]| -> serde_json::Value {
            d.iter().map(|d| json!({"versus": d.versus, "auc": d.mean, "interval": d.interval})).collect()
        };
        let rows = self.rows.iter().map(|r| {
            let metrics: serde_json::Map<_, _> = r.metrics.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            json!({"name": r.name, "metrics": metrics, "auc_by_run": r.aucs})
        });
        let buckets = self.buckets.iter().map(|b| {
            let differences = gaps(&b.differences);
            json!({"support": b.support, "targets": b.targets, "auc": b.aucs, "logloss": b.losses, "differences": differences})
        });
        json!({
            "targets": self.targets,
            "people": self.entities,
            "rows": rows.collect::<Vec<_>>(),
            "differences": gaps(&self.differences),
            "by_support": buckets.collect::<Vec<_>>(),
        })
    }
}

fn span(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(|| "-".into(), |[low, high]| format!("[{low:+.4}, {high:+.4}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs_and_halves_ties() {
        let (labels, entities) = ([1.0, 0.0, 1.0, 0.0, f32::NAN], [0, 0, 1, 1, 1]);
        let auc = |x: [f32; 5]| ctr_metrics(&entities, &x, &labels)[0].1;
        assert_eq!(auc([2.0, 1.0, 4.0, 3.0, 9.0]), 0.75);
        assert_eq!(auc([1.0, 1.0, 1.0, 1.0, 9.0]), 0.5);
        assert_eq!(auc([2.0, 1.0, 2.0, 1.0, 0.0]), 1.0);
        let found = ctr_metrics(&entities, &[2.0, 1.0, 4.0, 3.0, 9.0], &labels);
        assert_eq!((found[1].1, found[4].1), (1.0, 1.0));
    }

    #[test]
    fn calibrated_answers_have_no_error_and_the_least_loss() {
        let mut rng = Rng::new(4);
        let logits: Vec<f32> = (0..40_000).map(|_| 1.5 * rng.normal() as f32).collect();
        let p = |x: &f32| 1.0 / (1.0 + f64::from(-*x).exp());
        let labels: Vec<f32> = logits.iter().map(|x| f32::from(u8::from(rng.uniform() < p(x)))).collect();
        let entities: Vec<u32> = (0..40_000).map(|q| q / 40).collect();
        let found = ctr_metrics(&entities, &logits, &labels);
        let bold: Vec<f32> = logits.iter().map(|x| 3.0 * x).collect();
        let other = ctr_metrics(&entities, &bold, &labels);
        assert!(found[3].1 < 0.01 && other[3].1 > 0.08, "{found:?} {other:?}");
        assert!(found[2].1 < other[2].1 && (found[0].1 - other[0].1).abs() < 1e-12);
    }
}
