//! What each mechanism is worth: the same training with and without it, several seeds, paired intervals; benches/README.md
//! and docs/mechanisms.md explain it.
//!
//! `cargo bench --bench mechanisms --features cli -- stale`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, origin, scratch, table, write_record};
use docent::Event;
use docent::data::{
    BuildOptions, Dataset, DatasetBuilder, DatasetFile, Declaration, EventRow, Protocol, Split, SyntheticOptions, World,
};
use docent::evaluate::{Bootstrap, EngineScorer, EvaluateOptions, Evaluation, Resampling, evaluate, evaluate_heads};
use docent::model::Standing;
use docent::options::{Auxiliary, Loss, ModelOptions, Negatives, Objective, TowerOptions, TrainOptions, Utility};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::random::Rng;
use docent::serve::{Engine, EngineOptions, Generation};
use docent::store::{RunRecord, Store};
use docent::train::{Trainer, defaults, publish};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Trains with and without a mechanism and compares.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which mechanism: stale, utility, weekly, time, cold, masking, warm, heads, feedback, sampled.
    mechanism: String,
    /// The dataset's description; the synthetic world unless given. `weekly` makes its own.
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// The folder of its files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seeds, from 1.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Most epochs, where the rule's are too many.
    #[arg(long)]
    epochs: Option<u32>,
    /// Events that `stale` looks ahead to.
    #[arg(long, default_value_t = 8)]
    window: u32,
    /// Its half-life in days.
    #[arg(long, default_value_t = 2.0)]
    half_life: f32,
    /// Whether `stale` trains without the time of the request, which a late list misjudges.
    #[arg(long)]
    timeless: bool,
    /// Whether the synthetic world is one of long series, of which busy people meet many parts in two days.
    #[arg(long)]
    series: bool,
    /// Items of the synthetic world, with ten times as many events on them.
    #[arg(long)]
    items: Option<u32>,
    /// The weight of the heads.
    #[arg(long, default_value_t = 0.1)]
    weight: f32,
    /// The field that heads predict.
    #[arg(long, default_value = "category")]
    field: String,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("mechanisms", || measure(&Arguments::parse()))
}

/// One way of training.
struct Arm {
    name: String,
    runs: Vec<Arc<Generation>>,
    evaluation: Evaluation,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    folder: tempfile::TempDir,
    arms: usize,
    text: String,
    rows: Vec<Value>,
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir_in(scratch())?;
    let mut bench = Bench { arguments, folder, arms: 0, text: String::new(), rows: Vec::new() };
    let data = || match &arguments.dataset {
        Some(file) => Ok(DatasetFile::open(file, arguments.data.as_deref())?.read(&mut Silent, &Cancel::new())?),
        None => Ok::<Dataset, Box<dyn std::error::Error>>(World::new(&world(arguments), 2)?.dataset()?),
    };
    match arguments.mechanism.as_str() {
        "stale" => bench.stale(&data()?)?,
        "utility" => bench.utility(&data()?)?,
        "weekly" => bench.weekly()?,
        "time" => bench.time(data()?)?,
        "cold" => bench.cold(&data()?)?,
        "masking" => bench.masking(&data()?)?,
        "warm" => bench.warm(&data()?)?,
        "heads" => bench.heads(&data()?)?,
        "feedback" => bench.feedback(&data()?)?,
        "sampled" => {
            let file = arguments.dataset.as_ref().map(|file| DatasetFile::open(file, arguments.data.as_deref()));
            let protocol = file.transpose()?.and_then(|file| file.protocol().cloned());
            bench.sampled(&data()?, &protocol.unwrap_or(Protocol::LeaveOneOut))?;
        }
        other => return Err(format!("{other:?} is no mechanism that is measured here; --help lists them").into()),
    }
    print!("{}", bench.text);
    if let Some(name) = &arguments.record {
        let mut command = format!("cargo bench --bench mechanisms --features cli -- {}", arguments.mechanism);
        if let Some(file) = &arguments.dataset {
            command += &format!(" --dataset {} --data DIR", file.display());
        }
        command += &format!(" --seeds {}", arguments.seeds);
        command += &arguments.epochs.map_or_else(String::new, |e| format!(" --epochs {e}"));
        command += if arguments.series { " --series" } else { "" };
        command += &arguments.items.map_or_else(String::new, |n| format!(" --items {n}"));
        if arguments.mechanism == "heads" {
            command += &format!(" --field {} --weight {}", arguments.field, arguments.weight);
        }
        if arguments.mechanism == "stale" {
            command += &format!(" --window {} --half-life {}", arguments.window, arguments.half_life);
            command += if arguments.timeless { " --timeless" } else { "" };
        }
        command += &format!(" --record {name}");
        let title = format!("mechanism: {}", arguments.mechanism);
        write_record(name, &title, &origin(&command), &[], &bench.text, &json!(bench.rows))?;
    }
    Ok(())
}

/// The synthetic world: the default, one of more items, or one of long series that busy people watch part after part.
fn world(arguments: &Arguments) -> SyntheticOptions {
    let default = SyntheticOptions::default();
    match (arguments.series, arguments.items) {
        (false, None) => default,
        (false, Some(items)) => {
            let entities = (f64::from(items) * 10.0 / default.events_per_entity) as u32;
            SyntheticOptions { items, entities, ..default }
        }
        (true, _) => SyntheticOptions {
            entities: 800,
            items: 1500,
            days: 60,
            events_per_entity: 200.0,
            longest_series: 24,
            sequel: 10.0,
            ..default
        },
    }
}

/// What the rule takes at least, docs/train.md.
const RULE_NEGATIVES: u32 = 256;

/// A rank's metric.
type Metric = (&'static str, fn(f64) -> f64);

const NDCG: Metric = ("ndcg@10", |r| if r < 10.0 { 1.0 / (r + 2.0).log2() } else { 0.0 });
const HR: Metric = ("hr@10", |r| f64::from(r < 10.0));
const MRR: Metric = ("mrr", |r| 1.0 / (r + 1.0));

impl Bench<'_> {
    /// Trains every seed of one way and judges all on the test questions of `split`.
    fn arm(
        &mut self,
        name: &str,
        data: &Dataset,
        split: &Split,
        change: impl Fn(&mut ModelOptions, &mut TrainOptions),
    ) -> Result<Arm> {
        let mut runs = Vec::new();
        for seed in 1..=self.arguments.seeds {
            let rule = defaults(data, split)?;
            let (mut model, mut train) = (rule.model, rule.train);
            (train.seed, train.threads) = (seed, self.arguments.threads);
            train.epochs = self.arguments.epochs.unwrap_or(train.epochs);
            model.tower = None;
            change(&mut model, &mut train);
            let mut last = String::new();
            let mut watch = |event: &ProgressEvent| {
                if let ProgressEvent::Validation(v) = event {
                    last = format!("epoch {}, validation {:.4}", v.epoch + 1, v.best);
                }
            };
            let trained = Trainer::new(data, split).model(model).options(train).run(&mut watch, &Cancel::new())?;
            eprintln!("{name}, seed {seed}: {:.0} s, {last}", trained.seconds);
            self.arms += 1;
            let store = self.folder.path().join(self.arms.to_string());
            let mut publisher = Store::create(&store)?.publisher()?;
            publish(&mut publisher, data, split, &trained, &RunRecord::default())?;
            runs.push(Engine::open(&store, &EngineOptions::default())?.current());
        }
        let evaluation = self.judge(data, split, &runs)?;
        Ok(Arm { name: name.to_owned(), runs, evaluation })
    }

    fn judge(&self, data: &Dataset, split: &Split, runs: &[Arc<Generation>]) -> Result<Evaluation> {
        let scorers: Vec<EngineScorer> =
            runs.iter().map(|g| EngineScorer::new(Arc::clone(g), data)).collect::<docent::Result<_>>()?;
        let scorers: Vec<&dyn docent::evaluate::Scorer> = scorers.iter().map(|s| s as _).collect();
        let threads = self.arguments.threads as usize;
        let options =
            EvaluateOptions { threads, resampling: Resampling { resamples: 0, ..Resampling::default() }, cuts: true };
        Ok(evaluate(data, split, &scorers, &options, &mut Silent, &Cancel::new())?)
    }

    /// The ranks of each run on the questions that `keep` chooses.
    fn ranks(evaluation: &Evaluation, keep: &dyn Fn(usize) -> bool) -> Vec<Vec<f64>> {
        let of_run = |ranks: &Vec<f64>| (0..).zip(ranks).filter(|(q, _)| keep(*q)).map(|(_, r)| *r).collect();
        evaluation.rows[0].ranks.iter().map(of_run).collect()
    }

    /// Compares arms with the first of them, and writes a line each.
    fn compare(&mut self, what: &str, arms: &[(&str, &Evaluation)], metric: Metric, keep: &dyn Fn(usize) -> bool) {
        let people: Vec<u32> = {
            let all = &arms[0].1.people;
            (0..).zip(all).filter(|(q, _)| keep(*q)).map(|(_, p)| *p).collect()
        };
        let values: Vec<Vec<Vec<f64>>> = arms
            .iter()
            .map(|(_, e)| Self::ranks(e, keep).into_iter().map(|r| r.into_iter().map(metric.1).collect()).collect())
            .collect();
        let borrowed: Vec<&[Vec<f64>]> = values.iter().map(Vec::as_slice).collect();
        let bootstrap = Bootstrap::new(&people, &borrowed, &Resampling::default(), self.arguments.threads as usize);
        let mean = |runs: &[Vec<f64>]| {
            let n: usize = runs.iter().map(Vec::len).sum();
            runs.iter().flatten().sum::<f64>() / n.max(1) as f64
        };
        let base = mean(&values[0]);
        let mut lines = vec![["", metric.0, "change", "interval", "relative", "per seed"].map(str::to_owned).to_vec()];
        for (i, ((name, _), runs)) in arms.iter().zip(&values).enumerate() {
            let own = mean(runs);
            let seeds: Vec<f64> = runs.iter().map(|r| mean(std::slice::from_ref(r))).collect();
            let listed = seeds.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
            let mut line = vec![(*name).to_owned(), format!("{own:.4}")];
            let interval = if i == 0 { None } else { bootstrap.difference(i, 0) };
            line.extend(match interval {
                None => [String::new(), String::new(), String::new()],
                Some([low, high]) => [
                    format!("{:+.4}", own - base),
                    format!("{low:+.4} to {high:+.4}"),
                    format!("{:+.1} %", 100.0 * (own / base - 1.0)),
                ],
            });
            line.push(listed);
            lines.push(line);
            self.rows.push(json!({
                "what": what, "arm": name, "metric": metric.0, "questions": people.len(), "mean": own, "seeds": seeds,
                "difference": own - base, "interval": interval,
            }));
        }
        self.text += &format!("{what}, {} questions\n{}\n", people.len(), table(&lines));
    }

    fn say(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    /// Lists that are served 48 hours late, by what training looked ahead to.
    fn stale(&mut self, data: &Dataset) -> Result<()> {
        let late = Split::new(data, &Protocol::parse("stale:hours=48")?)?;
        let timeless = self.arguments.timeless;
        let ahead = |window, half_life| {
            move |m: &mut ModelOptions, t: &mut TrainOptions| {
                m.time_input &= !timeless;
                t.objective = Objective { window, half_life, ..Objective::default() };
            }
        };
        let next = self.arm("next event", data, &late, ahead(1, 0.0))?;
        let (window, days) = (self.arguments.window, self.arguments.half_life);
        let name = format!("window {window}, half-life {days} days");
        let several = self.arm(&name, data, &late, ahead(window, days * 86_400.0))?;
        let arms = [(next.name.as_str(), &next.evaluation), (several.name.as_str(), &several.evaluation)];
        self.compare("lists served 48 hours late", &arms, MRR, &|_| true);
        self.compare("lists served 48 hours late", &arms, NDCG, &|_| true);
        let apart: Vec<usize> = late.test.iter().map(|c| c.target - c.history.end).collect();
        for (low, high) in [(0, 0), (1, 3), (4, 9), (10, usize::MAX)] {
            let between = |q: usize| (low..=high).contains(&apart[q]);
            if (0..apart.len()).any(between) {
                let what = format!("of these, with at least {low} unknown events before the target");
                self.compare(&what, &arms, MRR, &between);
            }
        }
        let fresh = Split::new(data, &Protocol::parse("time-split")?)?;
        let (a, b) = (self.judge(data, &fresh, &next.runs)?, self.judge(data, &fresh, &several.runs)?);
        self.compare("the same models, lists served at once", &[(&next.name, &a), (&several.name, &b)], MRR, &|_| true);
        Ok(())
    }

    /// Targets of high value, by whether value weighs in training.
    fn utility(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::LeaveOneOut)?;
        let equal = self.arm("equal weights", data, &split, |_, _| {})?;
        let value = self.arm("weights by value", data, &split, |_, t| t.objective.utility = Utility::Value)?;
        let worth: Vec<f32> = split.test.iter().map(|c| data.events.value[c.target]).collect();
        let mut known: Vec<f32> = worth.iter().copied().filter(|v| !v.is_nan()).collect();
        known.sort_by(f32::total_cmp);
        let median = known[known.len() / 2];
        let arms = [(equal.name.as_str(), &equal.evaluation), (value.name.as_str(), &value.evaluation)];
        self.compare("targets of at least the median value", &arms, MRR, &|q| worth[q] >= median);
        self.compare("all targets", &arms, MRR, &|_| true);
        Ok(())
    }

    /// A habit of the weekday, with and without the time of the request.
    fn weekly(&mut self) -> Result<()> {
        let data = weekly()?;
        let split = Split::new(&data, &Protocol::LeaveOneOut)?;
        let time = |on: bool| move |m: &mut ModelOptions, _: &mut TrainOptions| (m.time_input, m.time_bias) = (on, on);
        let without = self.arm("without time", &data, &split, time(false))?;
        let with = self.arm("with time", &data, &split, time(true))?;
        let arms = [(without.name.as_str(), &without.evaluation), (with.name.as_str(), &with.evaluation)];
        self.compare("the weekday decides: optimum 1, chance 1/7", &arms, HR, &|_| true);
        Ok(())
    }

    /// Real times, and the same gaps in another order.
    fn time(&mut self, data: Dataset) -> Result<()> {
        let mut shuffled = data.clone();
        let mut rng = Rng::new(1);
        for entity in 0..data.entities.len() as u32 {
            let times = &mut shuffled.events.time[data.range(entity)];
            let mut gaps: Vec<i64> = times.windows(2).map(|w| w[1] - w[0]).collect();
            rng.shuffle(&mut gaps);
            for i in 1..times.len() {
                times[i] = times[i - 1] + gaps[i - 1];
            }
        }
        let time = |on: bool| move |m: &mut ModelOptions, _: &mut TrainOptions| (m.time_input, m.time_bias) = (on, on);
        for (what, data) in [("real times", &data), ("gaps permuted within each person", &shuffled)] {
            let split = Split::new(data, &Protocol::LeaveTwoOut)?;
            let without = self.arm(&format!("{what}, not read"), data, &split, time(false))?;
            let with = self.arm(&format!("{what}, read"), data, &split, time(true))?;
            let arms = [(without.name.as_str(), &without.evaluation), (with.name.as_str(), &with.evaluation)];
            self.compare(what, &arms, NDCG, &|_| true);
        }
        Ok(())
    }

    /// Items that are hidden from training.
    fn cold(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::parse("cold-items")?)?;
        let id = self.arm("ID alone", data, &split, |_, _| {})?;
        let tower = self.arm("tower", data, &split, |m, _| m.tower = Some(TowerOptions::default()))?;
        let arms = [(id.name.as_str(), &id.evaluation), (tower.name.as_str(), &tower.evaluation)];
        self.compare("hidden items in the full catalogue", &arms, HR, &|_| true);
        self.hidden(&[&id, &tower], split.hidden.iter().filter(|h| **h).count());
        self.validation(&[&id, &tower]);
        self.gate(data, &tower)?;
        Ok(())
    }

    /// How hidden items rank among themselves.
    fn hidden(&mut self, arms: &[&Arm], hidden: usize) {
        for arm in arms {
            let cut = arm.evaluation.cuts.iter().find(|c| c.by == "candidates");
            let value = cut.and_then(|c| c.rows[0].metric("hr@10")).unwrap_or(f64::NAN);
            let chance = 10.0 / hidden as f64;
            let runs: Vec<f64> = cut.iter().flat_map(|c| &c.rows[0].runs).map(|run| run.ranks.hr_10).collect();
            self.say(&format!(
                "among the {hidden} hidden items: {} hr@10 {value:.4}, {:.1} times {chance:.4} at random, per seed {runs:.4?}",
                arm.name,
                value / chance
            ));
            self.rows.push(
                json!({"what": "among hidden items", "arm": arm.name, "hr@10": value, "random": chance, "seeds": runs}),
            );
        }
    }

    /// What the same models reach on validation questions, whose items training knows.
    fn validation(&mut self, arms: &[&Arm]) {
        let mut means = Vec::new();
        for arm in arms {
            let of = |g: &Arc<Generation>| {
                let all = &g.snapshot().manifest().training.validation;
                all.iter().find(|m| m.0 == NDCG.0).map_or(f64::NAN, |m| m.1)
            };
            let seeds: Vec<f64> = arm.runs.iter().map(of).collect();
            let mean = seeds.iter().sum::<f64>() / seeds.len() as f64;
            means.push(mean);
            let change = 100.0 * (mean / means[0] - 1.0);
            self.say(&format!(
                "warm items (validation): {} {} {mean:.4}, {change:+.1} %, per seed {seeds:.4?}",
                arm.name, NDCG.0
            ));
            self.rows
                .push(json!({"what": "warm items", "arm": arm.name, "metric": NDCG.0, "mean": mean, "seeds": seeds}));
        }
    }

    /// The gate's mean weight of metadata by evidence and age.
    fn gate(&mut self, data: &Dataset, arm: &Arm) -> Result<()> {
        let generation = &arm.runs[0];
        let items: Vec<u32> = (0..generation.items() as u32).step_by(generation.items().div_ceil(200)).collect();
        let ages: &[Option<f32>] =
            if data.schema.has_time { &[Some(1.0), Some(30.0), Some(365.0), Some(3650.0)] } else { &[None] };
        for age in ages {
            let mut weights = Vec::new();
            for evidence in [0, 1, 3, 10, 30, 100, 300, 1000] {
                let standing = Standing { age: *age, evidence, known: evidence > 0 };
                let mut sum = 0.0;
                for item in &items {
                    sum += generation.item_parts(*item, Some(standing))?.map_or(f32::NAN, |p| p.metadata_weight);
                }
                weights.push((evidence, sum / items.len() as f32));
            }
            let age = age.map_or_else(|| "of unknown age".to_owned(), |a| format!("{a} days old"));
            let listed = weights.iter().map(|(e, w)| format!("{e}: {w:.3}")).collect::<Vec<_>>().join("  ");
            self.say(&format!("weight of metadata by events seen, items {age}: {listed}"));
            self.rows.push(json!({"what": "weight of metadata", "age": age, "by_evidence": weights}));
        }
        Ok(())
    }

    /// Masked ID embeddings against none masked.
    fn masking(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::parse("cold-items")?)?;
        let masking = |o: TowerOptions| move |m: &mut ModelOptions, _: &mut TrainOptions| m.tower = Some(o);
        let none = TowerOptions { masking: Some(0.0), masking_young: [0.0; 2], ..TowerOptions::default() };
        let without = self.arm("no masking", data, &split, masking(none))?;
        let with = self.arm("masking", data, &split, masking(TowerOptions::default()))?;
        let arms = [(without.name.as_str(), &without.evaluation), (with.name.as_str(), &with.evaluation)];
        self.compare("hidden items in the full catalogue", &arms, HR, &|_| true);
        self.hidden(&[&without, &with], split.hidden.iter().filter(|h| **h).count());
        Ok(())
    }

    /// Items that training knows: what the tower costs or brings.
    fn warm(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::LeaveOneOut)?;
        let id = self.arm("ID alone", data, &split, |_, _| {})?;
        let tower = self.arm("tower", data, &split, |m, _| m.tower = Some(TowerOptions::default()))?;
        let arms = [(id.name.as_str(), &id.evaluation), (tower.name.as_str(), &tower.evaluation)];
        self.compare("leave one out", &arms, NDCG, &|_| true);
        self.compare("leave one out", &arms, HR, &|_| true);
        Ok(())
    }

    /// Auxiliary heads, flat and hierarchical.
    fn heads(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::LeaveOneOut)?;
        let (field, weight) = (self.arguments.field.clone(), self.arguments.weight);
        let head = |weight, hierarchical| {
            let head = Auxiliary { field: field.clone(), weight, hierarchical };
            move |m: &mut ModelOptions, _: &mut TrainOptions| m.auxiliary = vec![head.clone()]
        };
        let none = self.arm("no head", data, &split, |_, _| {})?;
        let flat = self.arm("flat head", data, &split, head(weight, false))?;
        let pooled = self.arm("hierarchical head", data, &split, head(weight, true))?;
        let arms = [&none, &flat, &pooled].map(|a| (a.name.as_str(), &a.evaluation));
        self.compare("leave one out", &arms, NDCG, &|_| true);
        self.head_metrics(data, &split, &[&flat, &pooled])
    }

    /// The softmax over sampled items beside that over all: as many as a hundredth of the catalogue, and as many as the rule takes.
    fn sampled(&mut self, data: &Dataset, protocol: &Protocol) -> Result<()> {
        let split = Split::new(data, protocol)?;
        let with = |loss| move |_: &mut ModelOptions, t: &mut TrainOptions| t.loss = Some(loss);
        let hundredth = data.items.len().div_ceil(100) as u32;
        let counts = [hundredth, hundredth.max(RULE_NEGATIVES)];
        let mut arms = vec![self.arm("full softmax", data, &split, with(Loss::Full))?];
        for (i, count) in counts.iter().enumerate() {
            if !counts[..i].contains(count) {
                let name = format!("{count} sampled of {}", data.items.len());
                arms.push(self.arm(&name, data, &split, with(Loss::Sampled(Negatives::mixed(*count))))?);
            }
        }
        let arms: Vec<_> = arms.iter().map(|a| (a.name.as_str(), &a.evaluation)).collect();
        self.compare(&protocol.to_string(), &arms, NDCG, &|_| true);
        self.compare(&protocol.to_string(), &arms, HR, &|_| true);
        Ok(())
    }

    /// The feedback head: labels beside items.
    fn feedback(&mut self, data: &Dataset) -> Result<()> {
        let split = Split::new(data, &Protocol::LeaveOneOut)?;
        let none = self.arm("no head", data, &split, |_, _| {})?;
        let with = self.arm("feedback head", data, &split, |m, _| m.feedback = 0.3)?;
        let arms = [&none, &with].map(|a| (a.name.as_str(), &a.evaluation));
        self.compare("leave one out", &arms, NDCG, &|_| true);
        self.head_metrics(data, &split, &[&with])
    }

    fn head_metrics(&mut self, data: &Dataset, split: &Split, arms: &[&Arm]) -> Result<()> {
        for arm in arms {
            for (seed, generation) in (1..).zip(&arm.runs) {
                for head in evaluate_heads(&EngineScorer::new(Arc::clone(generation), data)?, data, split)? {
                    let metrics: Vec<String> = head.metrics.entries().map(|(k, v)| format!("{k} {v:.4}")).collect();
                    self.say(&format!("{}, seed {seed}: {} {}", arm.name, head.name, metrics.join("  ")));
                    let metrics: Value = head.metrics.entries().map(|(k, v)| (k.to_owned(), json!(v))).collect();
                    self.rows.push(
                        json!({"what": "head", "arm": arm.name, "seed": seed, "name": head.name, "metrics": metrics}),
                    );
                }
            }
        }
        Ok(())
    }
}

/// People whose every event is on an item of the group of its weekday, at times whose gaps say nothing: 70 items, ten a day.
fn weekly() -> Result<Dataset> {
    let declaration = Declaration { time: true, ..Declaration::new("weekly") };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions::default())?;
    let mut rng = Rng::new(7);
    for person in 0..1500 {
        let mut time = 1_700_000_000_000i64 + rng.below(30 * 86_400) as i64 * 1000;
        for _ in 0..8 {
            time += rng.below(21 * 86_400) as i64 * 1000 + 86_400_000;
            let day = (time.div_euclid(86_400_000) + 3).rem_euclid(7);
            let item = format!("i{}", day * 10 + rng.below(10) as i64);
            let event = Event { time: Some(time), ..Event::item(&item) };
            builder.push_event(&EventRow::new(&format!("p{person}"), event))?;
        }
    }
    Ok(builder.build()?)
}
