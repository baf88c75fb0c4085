//! What adaptation is worth on MovieLens-1M, beside what it must beat; benches/README.md explains it.
//!
//! `cargo bench --bench meta_learning --features cli -- --data DIR --store STORE`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, origin, write_record};
use docent::data::{Dataset, DatasetFile, Protocol, Split};
use docent::evaluate::{
    Ctr, CtrMethod, FewShotMethod, FewShotOptions, Machine, PrequentialOptions, Resampling, ctr, few_shot,
    peak_rss_bytes, prequential,
};
use docent::model::{Inference, Weights, sections};
use docent::options::{ItemKind, RankerOptions, RankerTrainOptions};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::random::Rng;
use docent::ranker::Ranker;
use docent::serve::Generation;
use docent::store::{OpenOptions, Store};
use docent::train::ranker::{
    Biases, Closeness, FactorizationMachine, FactorizationOptions, FoundationModel, Impressions, Plan, Predictor,
    RankerTrainer, TaskSet, TrainedRanker, search_inner_rate,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Epochs that baselines without inner steps may choose from.
const EPOCHS: [u32; 2] = [3, 10];
/// Learning rates and decays that the factorization machine may choose from.
const MACHINES: [(f32, f32); 4] = [(2e-3, 0.5), (2e-3, 0.1), (1e-2, 0.5), (1e-2, 0.1)];
/// Inner steps of the curve.
const CURVE: [usize; 5] = [0, 1, 2, 5, 10];
/// Rates that the baseline without meta learning may choose from.
const GRID: [f32; 9] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Trains the adapted ranker and its baselines on labelled outcomes, and judges them on known and on hidden people.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of the dataset's files.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Its description; it must declare a label.
    #[arg(long, value_name = "FILE", default_value = "examples/datasets/ml-1m-b.toml")]
    dataset: PathBuf,
    /// A store whose current generation was trained with `--protocol ctr` on these data.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// How many seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Which methods.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "meta,first-order,global,wide-and-deep,pre-trained,bias,fm,foundation,alone,shuffled"
    )]
    methods: Vec<String>,
    /// What the second meta block of methods `items` and `both` is adapted to: `item`, or `field:NAME`.
    #[arg(long, default_value = "item")]
    items: String,
    /// Resamples of the intervals.
    #[arg(long, default_value_t = 300)]
    resamples: u32,
    /// One hidden person in this many is walked.
    #[arg(long, default_value_t = 3)]
    walk_every: usize,
    /// Options of the ranker or its training over the defaults, such as `support=64`.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("meta_learning", || measure(&Arguments::parse()))
}

/// Answers by part and run.
#[derive(Default)]
struct Answers {
    name: String,
    parts: [Vec<Vec<f32>>; 3],
    /// Those of its runs that few-shot evaluation can ask.
    rankers: Vec<Ranker>,
}

const PARTS: [(TaskSet, &str); 3] = [
    (TaskSet::Known, "known people"),
    (TaskSet::Hidden, "hidden people"),
    (TaskSet::HiddenCuts, "hidden people, every cut"),
];

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let data = DatasetFile::open(&common::root().join(&arguments.dataset), Some(&arguments.data))?
        .read(&mut Silent, &Cancel::new())?;
    let generation = Generation::new(Store::open(&arguments.store)?.snapshot(&OpenOptions::default())?)?;
    let manifest = generation.snapshot().manifest();
    let protocol = Protocol::parse(&manifest.training.protocol)?;
    if !matches!(protocol, Protocol::Ctr { .. }) || manifest.training.data_hash != data.hash {
        return Err(format!(
            "the store's generation was trained under `{protocol}`; train one on these data with --protocol ctr, so that it \
             has not seen the test"
        )
        .into());
    }
    let split = Split::new(&data, &protocol)?;
    let snapshot = generation.snapshot();
    let inference = Inference::new(generation.schema(), generation.model())?;
    let weights = Weights {
        items: snapshot.f32s(sections::ITEM_VECTORS)?,
        dense: snapshot.f32s(sections::WEIGHTS)?,
        features: snapshot.f32s(sections::FEATURES)?,
        more: &(),
    };
    let impressions = Impressions::from_labels(&data)?;
    let (model, train) = options(arguments)?;
    let threads = arguments.threads as usize;
    let features = FoundationModel { inference: &inference, weights };
    let plan = Plan::new(&data, &impressions, &split, features, train.validation, 1, threads)?;
    eprintln!(
        "{} outcomes, {} training tasks, {} + {} test tasks, vectors ready after {:.1} s",
        impressions.len(),
        plan.tasks(TaskSet::Train).len(),
        plan.tasks(TaskSet::Known).len(),
        plan.tasks(TaskSet::Hidden).len(),
        begun.elapsed().as_secs_f64()
    );
    let items = ItemKind::parse(&arguments.items)?;
    let blind = plan.clone().without_vectors();
    let bench = Bench { arguments, plan: &plan, blind: &blind, model, train, items, threads };
    let mut found = Vec::new();
    let mut curves = Vec::new();
    for name in &arguments.methods {
        found.push(bench.method(name, &mut curves)?);
    }
    let mut text = String::new();
    let mut results = serde_json::Map::new();
    for (p, (who, title)) in PARTS.iter().enumerate() {
        let methods: Vec<CtrMethod> =
            found.iter().map(|f| CtrMethod { name: f.name.clone(), runs: f.parts[p].clone() }).collect();
        let resampling = Resampling { resamples: arguments.resamples, ..Resampling::default() };
        let judged: Ctr = ctr(&plan, *who, &methods, &resampling, threads)?;
        text += &format!("{title}: {}\n", judged.table());
        results.insert((*title).into(), judged.json());
    }
    text += &curves_text(&curves);
    let asked: Vec<FewShotMethod<'_>> = found
        .iter()
        .filter(|f| !f.rankers.is_empty())
        .map(|f| FewShotMethod { name: f.name.clone(), runs: f.rankers.iter().collect() })
        .collect();
    if let Some(ranker) = asked.first().and_then(|m| m.runs.first()) {
        let resampling = Resampling { resamples: arguments.resamples, ..Resampling::default() };
        let options = FewShotOptions { threads, resampling: resampling.clone(), ..FewShotOptions::default() };
        let curve = few_shot(&plan, features, &asked, &options)?;
        text += &format!("\nfew-shot, hidden people: {}", curve.table());
        results.insert("few-shot".into(), curve.json());
        let options =
            PrequentialOptions { every: arguments.walk_every, threads, resampling, ..PrequentialOptions::default() };
        let walked = prequential(&plan, features, ranker, TaskSet::Hidden, &options)?;
        text += &format!("\nprequential, hidden people, seed 1: {}", walked.table());
        results.insert("prequential".into(), walked.json());
    }
    print!("{text}");
    if let Some(name) = &arguments.record {
        record(arguments, name, &data, &bench, &text, results, &curves, begun)?;
    }
    Ok(())
}

/// AUC of a method by inner steps, on one part.
struct Curve {
    method: String,
    part: &'static str,
    aucs: Vec<f64>,
}

fn curves_text(curves: &[Curve]) -> String {
    let mut rows = vec![
        ["auc after inner steps", "people"]
            .iter()
            .map(|s| (*s).to_owned())
            .chain(CURVE.iter().map(usize::to_string))
            .collect(),
    ];
    for c in curves {
        rows.push(
            [c.method.clone(), c.part.to_owned()].into_iter().chain(c.aucs.iter().map(|a| format!("{a:.4}"))).collect(),
        );
    }
    common::table(&rows)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan<'a>,
    /// The same without the foundation model.
    blind: &'a Plan<'a>,
    model: RankerOptions,
    train: RankerTrainOptions,
    items: ItemKind,
    threads: usize,
}

impl Bench<'_> {
    fn method(&self, name: &str, curves: &mut Vec<Curve>) -> Result<Answers> {
        let mut answers = Answers { name: name.to_owned(), ..Answers::default() };
        let still = RankerOptions { steps: 0, ..self.model.clone() };
        let first = RankerTrainOptions { exact: false, ..self.train.clone() };
        let seeds = if ["bias", "foundation"].contains(&name) { 1 } else { self.arguments.seeds };
        for seed in 1..=seeds {
            let steps = self.model.steps as usize;
            match name {
                "meta" => {
                    let trained = self.train(name, &self.model, &self.train, seed, None)?;
                    self.answer(&trained.ranker, steps, &mut answers, None)?;
                    self.curve(name, &trained.ranker, seed, curves)?;
                    answers.rankers.push(trained.ranker);
                }
                "alone" => {
                    let trained = self.train_on(self.blind, name, &self.model, &self.train, seed, None)?;
                    self.answer_on(self.blind, &trained.ranker, steps, &mut answers, None)?;
                }
                "foundation" => {
                    let closeness = Closeness::fit(self.plan);
                    for ((who, _), part) in PARTS.iter().zip(&mut answers.parts) {
                        part.push(closeness.predict(self.plan, *who));
                    }
                }
                // Item kind alone, and the sum of both.
                "items" | "both" => {
                    let model =
                        RankerOptions { person: name == "both", items: self.items.clone(), ..self.model.clone() };
                    let trained = self.train(name, &model, &self.train, seed, None)?;
                    self.answer(&trained.ranker, steps, &mut answers, None)?;
                }
                "first-order" => {
                    let trained = self.train(name, &self.model, &first, seed, None)?;
                    self.answer(&trained.ranker, steps, &mut answers, None)?;
                    self.curve(name, &trained.ranker, seed, curves)?;
                }
                "global" => {
                    let trained = self.still(name, &still, seed)?;
                    self.answer(&trained.ranker, 0, &mut answers, None)?;
                    answers.rankers.push(trained.ranker);
                }
                "wide-and-deep" => {
                    let still = RankerOptions { identity: true, ..still.clone() };
                    let trained = self.still(name, &still, seed)?;
                    self.answer(&trained.ranker, 0, &mut answers, None)?;
                }
                "meta-identity" => {
                    let named = RankerOptions { identity: true, ..self.model.clone() };
                    let trained = self.train(name, &named, &self.train, seed, None)?;
                    self.answer(&trained.ranker, steps, &mut answers, None)?;
                }
                "pre-trained" => {
                    let mut trained = self.still(name, &still, seed)?;
                    trained.ranker.shape.options.steps = self.model.steps;
                    let found = search_inner_rate(self.plan, &mut trained.ranker, &GRID, steps, self.threads)?;
                    eprintln!("pre-trained: inner rate {} of {:?}", found.rate, found.tried);
                    self.answer(&trained.ranker, steps, &mut answers, None)?;
                    self.curve(name, &trained.ranker, seed, curves)?;
                    answers.rankers.push(trained.ranker);
                }
                "shuffled" => {
                    let labels = self.shuffled(seed);
                    let trained = self.train(name, &self.model, &self.train, seed, Some(&labels))?;
                    self.answer(&trained.ranker, steps, &mut answers, Some(&labels))?;
                }
                "bias" => {
                    let biases = Biases::tuned(self.plan);
                    eprintln!("bias: ridges of people and items {:?}", biases.ridge());
                    for ((who, _), part) in PARTS.iter().zip(&mut answers.parts) {
                        part.push(biases.predict(self.plan, *who));
                    }
                }
                "fm" => {
                    let begun = Instant::now();
                    let mut best: Option<(f64, FactorizationMachine)> = None;
                    for (learning_rate, decay) in MACHINES {
                        let options =
                            FactorizationOptions { seed, learning_rate, decay, ..FactorizationOptions::default() };
                        let machine = FactorizationMachine::train(self.plan, &options, &Cancel::new())?;
                        let loss = self.validation(machine.predict(self.plan, TaskSet::Validation))?;
                        eprintln!("fm, seed {seed}: rate {learning_rate}, decay {decay}, logloss {loss:.4}");
                        if best.as_ref().is_none_or(|b| loss < b.0) {
                            best = Some((loss, machine));
                        }
                    }
                    let (_, machine) = best.ok_or("no factorization machine was trained")?;
                    eprintln!("fm, seed {seed}: {:.0} s", begun.elapsed().as_secs_f64());
                    for ((who, _), part) in PARTS.iter().zip(&mut answers.parts) {
                        part.push(machine.predict(self.plan, *who));
                    }
                }
                _ => return Err(format!("{name} is no method; --help names the default ones").into()),
            }
        }
        Ok(answers)
    }

    /// A ranker without inner steps, with as many epochs as validation likes best.
    fn still(&self, name: &str, model: &RankerOptions, seed: u64) -> Result<TrainedRanker> {
        let mut best: Option<(f64, TrainedRanker)> = None;
        for epochs in EPOCHS {
            let trained = self.train(name, model, &RankerTrainOptions { epochs, ..self.train.clone() }, seed, None)?;
            let loss = trained.validation.first().map_or(f64::NAN, |v| v.1);
            if best.as_ref().is_none_or(|b| loss < b.0) {
                best = Some((loss, trained));
            }
        }
        Ok(best.ok_or("no ranker was trained")?.1)
    }

    /// Log loss on the validation tasks.
    fn validation(&self, logits: Vec<f32>) -> Result<f64> {
        let method = CtrMethod { name: String::new(), runs: vec![logits] };
        let resampling = Resampling { resamples: 0, ..Resampling::default() };
        let found = ctr(self.plan, TaskSet::Validation, &[method], &resampling, self.threads)?;
        Ok(found.rows[0].metric("logloss").unwrap_or(f64::NAN))
    }

    fn train(
        &self,
        name: &str,
        model: &RankerOptions,
        train: &RankerTrainOptions,
        seed: u64,
        labels: Option<&[f32]>,
    ) -> Result<TrainedRanker> {
        self.train_on(self.plan, name, model, train, seed, labels)
    }

    fn train_on(
        &self,
        plan: &Plan<'_>,
        name: &str,
        model: &RankerOptions,
        train: &RankerTrainOptions,
        seed: u64,
        labels: Option<&[f32]>,
    ) -> Result<TrainedRanker> {
        let options = RankerTrainOptions { seed, threads: self.arguments.threads, ..train.clone() };
        let mut trainer = RankerTrainer::new(plan).model(model.clone()).options(options);
        if let Some(labels) = labels {
            trainer = trainer.adapting_to(labels);
        }
        let begun = Instant::now();
        let mut watch = |event: &ProgressEvent| {
            if let ProgressEvent::Validation(v) = event {
                let metrics: Vec<String> = v.metrics.iter().map(|(n, x)| format!("{n} {x:.4}")).collect();
                let seconds = begun.elapsed().as_secs_f64();
                eprintln!("{name}, seed {seed}: {seconds:.0} s, epoch {}, {}", v.epoch + 1, metrics.join(", "));
            }
        };
        Ok(trainer.run(&mut watch, &Cancel::new())?)
    }

    fn answer(&self, ranker: &Ranker, steps: usize, answers: &mut Answers, labels: Option<&[f32]>) -> Result<()> {
        self.answer_on(self.plan, ranker, steps, answers, labels)
    }

    fn answer_on(
        &self,
        plan: &Plan<'_>,
        ranker: &Ranker,
        steps: usize,
        answers: &mut Answers,
        labels: Option<&[f32]>,
    ) -> Result<()> {
        let mut predictor = Predictor::new(plan, ranker, self.threads)?;
        if let Some(labels) = labels {
            predictor = predictor.adapting_to(labels);
        }
        let [slope, intercept] = ranker.calibration[0];
        for ((who, _), part) in PARTS.iter().zip(&mut answers.parts) {
            let mut found = predictor.predict(*who, &[steps])?;
            part.push(found.swap_remove(0).into_iter().map(|x| slope * x + intercept).collect());
        }
        Ok(())
    }

    fn curve(&self, name: &str, ranker: &Ranker, seed: u64, curves: &mut Vec<Curve>) -> Result<()> {
        let predictor = Predictor::new(self.plan, ranker, self.threads)?;
        for (who, part) in &PARTS[..2] {
            let runs = predictor.predict(*who, &CURVE)?;
            let resampling = Resampling { resamples: 0, ..Resampling::default() };
            let aucs = runs
                .into_iter()
                .map(|run| {
                    let method = CtrMethod { name: String::new(), runs: vec![run] };
                    Ok(ctr(self.plan, *who, &[method], &resampling, 1)?.rows[0].metric("auc").unwrap_or(f64::NAN))
                })
                .collect::<Result<Vec<f64>>>()?;
            curves.push(Curve { method: format!("{name}, seed {seed}"), part, aucs });
        }
        Ok(())
    }

    /// All labels in another order: what entities are adapted to has nothing to do with them.
    fn shuffled(&self, seed: u64) -> Vec<f32> {
        let mut labels = self.plan.impressions.labels.clone();
        Rng::for_stream(seed, 51).shuffle(&mut labels);
        labels
    }
}

fn options(arguments: &Arguments) -> Result<(RankerOptions, RankerTrainOptions)> {
    let (mut model, mut train) = (RankerOptions::default(), RankerTrainOptions::default());
    for set in &arguments.set {
        let (name, value) = set.split_once('=').ok_or_else(|| format!("`{set}` sets nothing; write NAME=VALUE"))?;
        match name {
            "embedding" => model.embedding = value.parse()?,
            "hidden" => model.hidden = value.split('+').map(str::parse).collect::<std::result::Result<_, _>>()?,
            "trunk" => model.trunk = value.parse()?,
            "gate" => model.gate = value.parse()?,
            "item_width" => model.item_width = value.parse()?,
            "steps" => model.steps = value.parse()?,
            "support" => model.support = value.parse()?,
            "rate_decay" => model.rate_decay = value.parse()?,
            "prior_count" => model.prior_count = value.parse()?,
            "epochs" => train.epochs = value.parse()?,
            "batch" => train.batch = value.parse()?,
            "learning_rate" => train.learning_rate = value.parse()?,
            "weight_decay" => train.weight_decay = value.parse()?,
            "vector_decay" => train.vector_decay = value.parse()?,
            "inner_rate" => train.inner_rate = value.parse()?,
            "unadapted" => train.unadapted = value.parse()?,
            "first" => train.first = value.parse()?,
            "cold" => train.cold = value.parse()?,
            "cold_items" => train.cold_items = value.parse()?,
            "patience" => train.patience = value.parse()?,
            _ => return Err(format!("`{name}` is no option of the ranker or its training").into()),
        }
    }
    Ok((model, train))
}

#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only name them twice")]
fn record(
    arguments: &Arguments,
    name: &str,
    data: &Dataset,
    bench: &Bench<'_>,
    text: &str,
    mut results: serde_json::Map<String, Value>,
    curves: &[Curve],
    begun: Instant,
) -> Result<()> {
    let sets: String = arguments.set.iter().map(|s| format!(" --set {s}")).collect();
    let command = format!(
        "cargo bench --bench meta_learning --features cli -- --data FOLDER --store STORE --seeds {} --threads {} --methods {} --items \
         {}{sets} --record {name}",
        arguments.seeds,
        arguments.threads,
        arguments.methods.join(","),
        arguments.items
    );
    let hex = |hash: &[u8]| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let facts = vec![
        ("dataset".to_owned(), format!("{} (BLAKE3 {})", data.schema.name, hex(&data.hash))),
        ("ranker".to_owned(), format!("{:?}", bench.model)),
        ("training".to_owned(), format!("{:?}", bench.train)),
        ("cores".to_owned(), Machine::here().cores.to_string()),
        ("duration".to_owned(), format!("{:.1} min", begun.elapsed().as_secs_f64() / 60.0)),
        ("peak memory".to_owned(), format!("{} MiB", peak_rss_bytes() >> 20)),
    ];
    let curves: Vec<Value> =
        curves.iter().map(|c| json!({"method": c.method, "people": c.part, "steps": CURVE, "auc": c.aucs})).collect();
    results.insert("curves".into(), curves.into());
    let title = format!("Adaptation on {} beside its baselines", data.schema.name);
    write_record(name, &title, &origin(&command), &facts, text, &Value::Object(results))
}
