//! Runs a protocol: every test question under every method, with intervals, differences and cuts.

use super::cuts::groups;
use super::judge::{Judged, judge};
use super::known::{CountedEvents, counts};
use super::machine::peak_rss_bytes;
use super::metrics::{RankMetric, RankMetrics, coverage, head_share};
use super::scorer::Scorer;
use super::served::Method;
use crate::bootstrap::{Bootstrap, Resampling};
use crate::data::{Case, Dataset, Split, target_hash};
use crate::error::{Result, err};
use crate::options::Seen;
use crate::progress::{Cancel, ProgressSink};
use std::time::Instant;

/// How an evaluation is run.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluateOptions {
    /// Threads to use; the result does not depend on how many.
    pub threads: usize,
    /// The bootstrap over people.
    pub resampling: Resampling,
    /// Whether to report groups of questions as well.
    pub cuts: bool,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { threads: 1, resampling: Resampling::default(), cuts: true }
    }
}

/// The metrics of a method's lists.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ListMetrics {
    /// Where the targets rank.
    pub ranks: RankMetrics,
    /// The share of the catalogue that is among the first 10 of some list; `None` for a group of questions.
    pub coverage: Option<f64>,
    /// The share of what is among the first 10 that falls on the most popular tenth of the items; `None` for a group of
    /// questions.
    pub head_share: Option<f64>,
}

impl ListMetrics {
    fn of(ranks: &[f64]) -> Self {
        Self { ranks: RankMetrics::of(ranks), ..Self::default() }
    }

    /// All of them by the keys of reports.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        let lists = [("coverage@10", self.coverage), ("head_share@10", self.head_share)];
        self.ranks.entries().chain(lists.into_iter().filter_map(|(key, value)| Some((key, value?))))
    }
}

#[cfg(feature = "files")]
impl serde::Serialize for ListMetrics {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.entries())
    }
}

#[cfg(feature = "files")]
fn intervals<S: serde::Serializer>(of: &Option<RankMetrics<[f64; 2]>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(of.iter().flat_map(RankMetrics::entries))
}

#[cfg(feature = "files")]
fn word<S: serde::Serializer>(seen: &Seen, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(seen.as_str())
}

#[cfg(feature = "files")]
fn is_single(runs: &[ListMetrics]) -> bool {
    runs.len() < 2
}

/// What one method reached.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Row {
    /// The method.
    pub name: String,
    /// Its metrics; with several runs, their mean.
    pub metrics: ListMetrics,
    /// The bootstrap interval of each rank metric; `None` without resamples.
    #[cfg_attr(feature = "files", serde(serialize_with = "intervals"))]
    pub interval: Option<RankMetrics<[f64; 2]>>,
    /// The metrics of each run, in the order that the scorers were given; one where there was one.
    #[cfg_attr(feature = "files", serde(skip_serializing_if = "is_single"))]
    pub runs: Vec<ListMetrics>,
    /// The target's rank per run and question, for comparisons with another evaluation of the same questions.
    #[cfg_attr(feature = "files", serde(skip))]
    pub ranks: Vec<Vec<f64>>,
}

impl Row {
    /// The value of a metric by its key in reports.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.entries().find(|m| m.0 == key).map(|m| m.1)
    }
}

/// How much better one method is than another on the same questions.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Difference {
    /// The method.
    pub name: String,
    /// The one it is compared with.
    pub versus: String,
    /// The metric.
    pub metric: RankMetric,
    /// `name` minus `versus`.
    pub mean: f64,
    /// Its paired bootstrap interval; `None` without resamples.
    pub interval: Option<[f64; 2]>,
}

/// The rows of a group of questions.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Cut {
    /// What the questions are grouped by: `history`, `popularity`, `age`, `repeat`, or `candidates`.
    pub by: String,
    /// The group.
    pub bucket: String,
    /// How many questions it has.
    pub targets: usize,
    /// One row per method; coverage and head share are measured over all questions only.
    pub rows: Vec<Row>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Evaluation {
    /// The protocol with its parameters, as [`crate::data::Protocol::parse`] reads it.
    pub protocol: String,
    /// How many questions were asked.
    pub targets: usize,
    /// Whether seen items compete with all others, for every method, or are left out for every one.
    #[cfg_attr(feature = "files", serde(serialize_with = "word"))]
    pub seen: Seen,
    /// How many of the protocol's questions ask for an item that the entity had before.
    pub repeats: usize,
    /// How many of the protocol's questions were not asked: those repeats, where seen items are left out.
    pub not_asked: usize,
    /// The hash of the questions, hexadecimal: equal hashes mean equal questions.
    pub target_hash: String,
    /// How many items were ranked for each question.
    pub catalogue: usize,
    /// Wall time, seconds.
    pub seconds: f64,
    /// The most memory that the process has held so far, bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// One row per method, in the order that the scorers were given.
    pub rows: Vec<Row>,
    /// The first method against every other.
    pub differences: Vec<Difference>,
    /// Groups of questions.
    pub cuts: Vec<Cut>,
    /// Whose question each one is, for comparisons.
    #[cfg_attr(feature = "files", serde(skip))]
    pub people: Vec<u32>,
}

impl Evaluation {
    /// The row of a method.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|r| r.name == name)
    }

    /// Compares method `name` of this evaluation with method `versus` of `other` (which may be this one), paired by
    /// question.
    ///
    /// # Errors
    /// `StateMismatch` if the questions differ; `NotFound` if there is no such method.
    pub fn compare(
        &self,
        name: &str,
        other: &Self,
        versus: &str,
        metric: RankMetric,
        resampling: &Resampling,
    ) -> Result<Difference> {
        if self.target_hash != other.target_hash || self.people != other.people || self.catalogue != other.catalogue {
            return Err(err!(
                StateMismatch,
                "the evaluations answer different questions (target hashes {} and {}); evaluate both under one protocol",
                self.target_hash,
                other.target_hash
            ));
        }
        let row = |evaluation: &Self, name: &str| {
            evaluation.row(name).cloned().ok_or_else(|| {
                let names: Vec<&str> = evaluation.rows.iter().map(|r| r.name.as_str()).collect();
                err!(NotFound, "there is no row {name:?}; choose one of {}", names.join(", "))
            })
        };
        let (a, b) = (row(self, name)?, row(other, versus)?);
        let (a, b) = (values(&a.ranks, metric), values(&b.ranks, metric));
        let bootstrap = Bootstrap::new(&self.people, &[&a, &b], resampling, 1);
        Ok(Difference {
            name: name.to_owned(),
            versus: versus.to_owned(),
            metric,
            mean: mean(&a) - mean(&b),
            interval: bootstrap.difference(0, 1),
        })
    }
}

/// Ranks the whole catalogue for every test question of `split` under every scorer. Where the split excludes seen items, they are
/// left out for every scorer, and a question that asks for one is not asked; where it allows them, they compete like all others.
///
/// Scorers that share a name are runs of one method and share a row: its metrics are their mean, its interval covers
/// people and runs. The first scorer's method is compared with every other one.
///
/// # Errors
/// `InvalidArgument` without scorers or for a split of another dataset; `InvalidData` if nothing tests; `Diverged` for a
/// NaN score; `Cancelled`; and what a scorer returns.
pub fn evaluate(
    data: &Dataset,
    split: &Split,
    scorers: &[&dyn Scorer],
    options: &EvaluateOptions,
    observer: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Evaluation> {
    let methods: Vec<Method<'_>> = scorers.iter().map(|scorer| Method::Scores(*scorer)).collect();
    evaluate_methods(data, split, &methods, options, observer, cancel)
}

/// As [`evaluate`], with methods that serve lists among those that score every item.
///
/// # Errors
/// As there, and what an engine's answer causes.
pub fn evaluate_methods(
    data: &Dataset,
    split: &Split,
    methods: &[Method<'_>],
    options: &EvaluateOptions,
    observer: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Evaluation> {
    let start = Instant::now();
    if methods.is_empty() {
        return Err(err!(InvalidArgument, "there is no method to evaluate; pass at least one"));
    }
    let protocol = split.describe();
    let name = &data.schema.name;
    if split.test.is_empty() {
        return Err(err!(
            InvalidData,
            "protocol {protocol} leaves no test question in {name:?}; choose another protocol or weaker filters"
        ));
    }
    let repeats = split.test.iter().filter(|case| case.is_repeat(data)).count();
    let asked: Vec<Case> = split.test.iter().filter(|case| split.asks(data, case)).cloned().collect();
    if asked.is_empty() {
        return Err(err!(
            InvalidData,
            "all {repeats} test questions of {name:?} ask for an item that its entity had before, and seen items are excluded: allow \
             them ([split] seen = \"allowed\" in the dataset's description) and train again"
        ));
    }
    let judged = judge(data, &asked, split, methods, options.threads, observer, cancel)?;
    let mut named: Vec<Named> = Vec::new();
    for (method, judged) in methods.iter().zip(judged) {
        match named.iter_mut().find(|m| m.name == method.name()) {
            Some(named) => named.runs.push(judged),
            None => named.push(Named { name: method.name().to_owned(), runs: vec![judged] }),
        }
    }
    let methods = named;
    let popularity = counts(data, split, CountedEvents::BeforeTest);
    let people: Vec<u32> = asked.iter().map(|c| c.entity).collect();
    let ranks: Vec<Ranked> =
        methods.iter().map(|m| (&*m.name, m.runs.iter().map(|r| r.ranks.clone()).collect())).collect();
    let (mut rows, differences) = rows(&people, ranks, options);
    for (row, method) in rows.iter_mut().zip(&methods) {
        let mut sums = [0.0; 2];
        for (metrics, run) in row.runs.iter_mut().zip(&method.runs) {
            let found = [coverage(&run.recommended), head_share(&run.recommended, &popularity)];
            sums.iter_mut().zip(found).for_each(|(s, v)| *s += v / method.runs.len() as f64);
            [metrics.coverage, metrics.head_share] = found.map(Some);
        }
        [row.metrics.coverage, row.metrics.head_share] = sums.map(Some);
    }
    let mut cuts = Vec::new();
    if options.cuts {
        for group in groups(data, &asked, &popularity, split.seen) {
            cuts.push(cut(group.by, group.bucket, &people, &group.questions, &methods, |j| &j.ranks, options));
        }
        if let Some(first) = methods.first().and_then(|m| m.runs.first()) {
            let cold: Vec<usize> =
                (0..).zip(&first.hidden_ranks).filter(|(_, r)| !r.is_nan()).map(|(q, _)| q).collect();
            if !cold.is_empty() {
                cuts.push(cut("candidates", "hidden", &people, &cold, &methods, |j| &j.hidden_ranks, options));
            }
        }
    }
    Ok(Evaluation {
        protocol,
        targets: asked.len(),
        seen: split.seen,
        repeats,
        not_asked: split.test.len() - asked.len(),
        target_hash: target_hash(data, &asked).iter().map(|b| format!("{b:02x}")).collect(),
        catalogue: data.items.len(),
        seconds: start.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
        rows,
        differences,
        cuts,
        people,
    })
}

/// The runs of a method.
struct Named {
    name: String,
    runs: Vec<Judged>,
}

/// A method's name and its ranks per run and question.
type Ranked<'a> = (&'a str, Vec<Vec<f64>>);

fn cut(
    by: &str,
    bucket: &str,
    people: &[u32],
    questions: &[usize],
    methods: &[Named],
    ranks: impl Fn(&Judged) -> &Vec<f64>,
    options: &EvaluateOptions,
) -> Cut {
    let pick = |run: &Judged| questions.iter().filter_map(|q| ranks(run).get(*q).copied()).collect();
    let own: Vec<u32> = questions.iter().filter_map(|q| people.get(*q).copied()).collect();
    let ranked = methods.iter().map(|m| (&*m.name, m.runs.iter().map(pick).collect())).collect();
    Cut { by: by.to_owned(), bucket: bucket.to_owned(), targets: own.len(), rows: rows(&own, ranked, options).0 }
}

/// The rows of some methods on the same questions, and the differences of the first to the others.
fn rows(people: &[u32], methods: Vec<Ranked>, options: &EvaluateOptions) -> (Vec<Row>, Vec<Difference>) {
    let mut rows: Vec<Row> = methods
        .into_iter()
        .map(|(name, ranks)| {
            let all: Vec<f64> = ranks.iter().flatten().copied().collect();
            Row {
                name: name.to_owned(),
                metrics: ListMetrics::of(&all),
                interval: (options.resampling.resamples > 0).then(RankMetrics::default),
                runs: ranks.iter().map(|r| ListMetrics::of(r)).collect(),
                ranks,
            }
        })
        .collect();
    let mut differences = Vec::new();
    for metric in RankMetric::ALL {
        let per_row: Vec<Vec<Vec<f64>>> = rows.iter().map(|r| values(&r.ranks, metric)).collect();
        let borrowed: Vec<&[Vec<f64>]> = per_row.iter().map(Vec::as_slice).collect();
        let bootstrap = Bootstrap::new(people, &borrowed, &options.resampling, options.threads);
        for (m, row) in rows.iter_mut().enumerate() {
            if let Some((all, own)) = row.interval.as_mut().zip(bootstrap.interval(m)) {
                *all.get_mut(metric) = own;
            }
        }
        let mut others = rows.iter().zip(&per_row).enumerate();
        if let Some((_, (first, own))) = others.next() {
            differences.extend(others.map(|(m, (other, theirs))| Difference {
                name: first.name.clone(),
                versus: other.name.clone(),
                metric,
                mean: mean(own) - mean(theirs),
                interval: bootstrap.difference(0, m),
            }));
        }
    }
    (rows, differences)
}

fn values(ranks: &[Vec<f64>], metric: RankMetric) -> Vec<Vec<f64>> {
    ranks.iter().map(|run| run.iter().map(|rank| metric.value(*rank)).collect()).collect()
}

fn mean(runs: &[Vec<f64>]) -> f64 {
    let n: usize = runs.iter().map(Vec::len).sum();
    runs.iter().flatten().sum::<f64>() / n.max(1) as f64
}
