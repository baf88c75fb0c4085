//! What it is worth to let the foundation model learn along with the ranker: the same trainings with its weights held and moved, judged
//! on outcomes and on retrieval; benches/README.md explains it.
//!
//! `cargo bench --bench meta_joint --features cli`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, origin, scratch, write_record};
use docent::data::{Dataset, DatasetFile, Protocol, Split, SyntheticOptions, World};
use docent::evaluate::{
    CtrMethod, EngineScorer, EvaluateOptions, Evaluation, RankMetric, Resampling, Scorer, ctr, evaluate,
};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerOptions, RankerTrainOptions};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::serve::Generation;
use docent::store::{OpenOptions, RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, Predictor, RankerTrainer, TaskSet, TrainedRanker};
use docent::train::{Trained, Trainer, defaults, publish};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Trains one foundation model, and over it rankers that leave it as it is or take it along.
#[derive(Debug, Parser)]
struct Arguments {
    /// A dataset's description; it must declare a label. The synthetic world unless given.
    #[arg(long, value_name = "FILE", requires = "data")]
    dataset: Option<PathBuf>,
    /// The folder of its files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How to split a dataset.
    #[arg(long, value_name = "P", default_value = "ctr")]
    protocol: String,
    /// People of the world.
    #[arg(long, default_value_t = 600)]
    people: u32,
    /// Mean events of each; about as many outcomes.
    #[arg(long, default_value_t = 80.0)]
    events: f64,
    /// Seeds of the rankers.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Epochs of the foundation model.
    #[arg(long, default_value_t = 6)]
    foundation_epochs: u32,
    /// Most epochs of the rankers; validation chooses.
    #[arg(long, default_value_t = 5)]
    epochs: u32,
    /// Peak learning rate of the rankers.
    #[arg(long, default_value_t = 4e-3)]
    learning_rate: f32,
    /// The foundation model's learning rates, as shares of the ranker's.
    #[arg(long, value_delimiter = ',', default_value = "0.1")]
    finetune: Vec<f32>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Resamples of the intervals.
    #[arg(long, default_value_t = 300)]
    resamples: u32,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("meta_joint", || measure(&Arguments::parse()))
}

/// The share of the world's events that test.
const TEST: f64 = 0.3;

/// What is learned from, and what is asked.
fn scene(arguments: &Arguments) -> Result<(Dataset, Impressions, Split)> {
    let Some(file) = &arguments.dataset else {
        let options =
            SyntheticOptions { entities: arguments.people, events_per_entity: arguments.events, ..Default::default() };
        let world = World::new(&options, arguments.threads as usize)?;
        let data = world.dataset()?;
        let outcomes = Impressions::from_log(&data, &world.impression_log()?)?;
        let mut split = Split::new(&data, &Protocol::TimeSplit { test: TEST, validation: 0.05 })?;
        for train in split.train.iter_mut().step_by(6) {
            *train = train.start..train.start;
        }
        return Ok((data, outcomes, split));
    };
    let data =
        DatasetFile::open(&common::root().join(file), arguments.data.as_deref())?.read(&mut Silent, &Cancel::new())?;
    let outcomes = Impressions::from_labels(&data)?;
    let split = Split::new(&data, &Protocol::parse(&arguments.protocol)?)?;
    Ok((data, outcomes, split))
}

fn weights(t: &Trained) -> Weights<'_> {
    Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() }
}

/// What tasks are made of, besides a foundation model.
struct Sight<'a> {
    data: &'a Dataset,
    outcomes: &'a Impressions,
    split: &'a Split,
    inference: &'a Inference,
    threads: usize,
}

impl Sight<'_> {
    fn plan<'p>(&'p self, t: &'p Trained) -> Result<Plan<'p>> {
        let features = FoundationModel { inference: self.inference, weights: weights(t) };
        Ok(Plan::new(self.data, self.outcomes, self.split, features, 0.15, 1, self.threads)?)
    }
}

/// The answers of one way of training, by part and seed, and the models that it gave.
struct Arm {
    name: String,
    parts: [Vec<Vec<f32>>; 3],
    models: Vec<Trained>,
    seconds: f64,
    losses: Vec<f64>,
}

const PARTS: [(TaskSet, &str); 3] = [
    (TaskSet::Known, "known people"),
    (TaskSet::Hidden, "hidden people"),
    (TaskSet::HiddenCuts, "hidden people, every cut"),
];

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let threads = arguments.threads as usize;
    let (data, outcomes, split) = scene(arguments)?;
    let rule = defaults(&data, &split)?;
    let (mut model, mut train) = (rule.model, rule.train);
    if arguments.dataset.is_none() {
        model = ModelOptions { width: 32, hidden: 64, max_length: 64, ..ModelOptions::default() };
    }
    (train.epochs, train.threads) = (arguments.foundation_epochs, arguments.threads);
    let foundation =
        Trainer::new(&data, &split).model(model.clone()).options(train.clone()).run(&mut Silent, &Cancel::new())?;
    eprintln!("foundation model after {:.0} s: {:?}", begun.elapsed().as_secs_f64(), foundation.validation);
    let inference = Inference::new(&data.schema, &foundation.model)?;
    let sight = Sight { data: &data, outcomes: &outcomes, split: &split, inference: &inference, threads };
    let plan = sight.plan(&foundation)?;
    let shape = RankerOptions::default();
    let options = RankerTrainOptions {
        epochs: arguments.epochs,
        batch: 128,
        learning_rate: arguments.learning_rate,
        threads: arguments.threads,
        patience: arguments.epochs,
        ..RankerTrainOptions::default()
    };
    let mut arms = Vec::new();
    for finetune in arguments.finetune.iter().copied().chain([0.0]) {
        let name = if finetune > 0.0 { format!("joint {finetune}") } else { "frozen".to_owned() };
        let (parts, models, losses) = (Default::default(), Vec::new(), Vec::new());
        let mut arm = Arm { name, parts, models, seconds: 0.0, losses };
        for seed in 1..=arguments.seeds {
            let options = RankerTrainOptions { seed, finetune, ..options.clone() };
            let trainer =
                RankerTrainer::new(&plan).model(shape.clone()).options(options).foundation(&foundation, &split);
            let mut watch = |event: &ProgressEvent| {
                if let ProgressEvent::Validation(v) = event {
                    let seconds = begun.elapsed().as_secs_f64();
                    eprintln!("{}, seed {seed}: {seconds:.0} s, epoch {}, {:?}", arm.name, v.epoch + 1, v.metrics);
                }
            };
            let TrainedRanker { ranker, foundation: tuned, seconds, validation, .. } =
                trainer.run(&mut watch, &Cancel::new())?;
            arm.seconds += seconds;
            arm.losses.push(validation.first().map_or(f64::NAN, |v| v.1));
            let own = tuned.as_ref().map(|t| sight.plan(t)).transpose()?;
            let predictor = Predictor::new(own.as_ref().unwrap_or(&plan), &ranker, threads)?;
            let [slope, intercept] = ranker.calibration[0];
            for ((who, _), part) in PARTS.iter().zip(&mut arm.parts) {
                let logits = predictor.predict(*who, &[shape.steps as usize])?.swap_remove(0);
                part.push(logits.into_iter().map(|x| slope * x + intercept).collect());
            }
            arm.models.extend(tuned);
        }
        arms.push(arm);
    }
    let resampling = Resampling { resamples: arguments.resamples, ..Resampling::default() };
    let (mut text, mut results) = (String::new(), Map::new());
    for (i, (who, title)) in PARTS.iter().enumerate() {
        if plan.tasks(*who).len() == 0 {
            continue;
        }
        let method = |arm: &Arm| CtrMethod { name: arm.name.clone(), runs: arm.parts[i].clone() };
        let methods: Vec<CtrMethod> = arms.iter().map(method).collect();
        let judged = ctr(&plan, *who, &methods, &resampling, threads)?;
        text += &format!("{title}: {}\n", judged.table());
        results.insert((*title).to_owned(), judged.json());
    }
    for arm in &arms {
        let seconds = arm.seconds / arguments.seeds.max(1) as f64;
        let losses: Vec<String> = arm.losses.iter().map(|l| format!("{l:.4}")).collect();
        text += &format!("{}: {seconds:.1} s a ranker, validation log loss {}\n", arm.name, losses.join(", "));
    }
    let runs: Vec<(&str, &Trained)> = arms
        .iter()
        .flat_map(|arm| arm.models.iter().map(|m| (arm.name.as_str(), m)))
        .chain([("frozen", &foundation)])
        .collect();
    let found = retrieval(&data, &split, &runs, &resampling, threads)?;
    text += &format!("\nretrieval by the foundation model: {} questions, all items ranked\n", found.targets);
    for row in &found.rows {
        text += &format!("{:<12} ndcg@10 {:.4}", row.name, row.metric("ndcg@10").unwrap_or(f64::NAN));
        if row.name != "frozen" {
            let d = found.compare(&row.name, &found, "frozen", RankMetric::Ndcg10, &resampling)?;
            let [low, high] = d.interval.unwrap_or([f64::NAN; 2]);
            text += &format!("  minus frozen {:+.4} [{low:+.4}, {high:+.4}]", d.mean);
            results
                .insert(format!("ndcg@10 of {} - frozen", row.name), json!({"mean": d.mean, "interval": d.interval}));
        }
        text += "\n";
    }
    print!("{text}");
    if let Some(name) = &arguments.record {
        let mut command = "cargo bench --bench meta_joint --features cli --".to_owned();
        match &arguments.dataset {
            Some(file) => {
                command += &format!(" --dataset {} --data DIR --protocol {}", file.display(), arguments.protocol)
            }
            None => command += &format!(" --people {} --events {}", arguments.people, arguments.events),
        }
        let shares: Vec<String> = arguments.finetune.iter().map(f32::to_string).collect();
        command += &format!(
            " --seeds {} --foundation-epochs {} --epochs {} --learning-rate {} --finetune {} --threads {} --record {name}",
            arguments.seeds,
            arguments.foundation_epochs,
            arguments.epochs,
            arguments.learning_rate,
            shares.join(","),
            arguments.threads
        );
        let facts = vec![
            ("dataset".to_owned(), data.schema.name.clone()),
            ("outcomes".to_owned(), outcomes.len().to_string()),
            ("foundation model".to_owned(), format!("{model:?}")),
            ("ranker".to_owned(), format!("{shape:?}")),
            ("duration".to_owned(), format!("{:.1} min, on a busy machine", begun.elapsed().as_secs_f64() / 60.0)),
        ];
        let title = "A foundation model that learns along with its ranker, beside one that is left as it is";
        write_record(name, title, &origin(&command), &facts, &text, &Value::Object(results))?;
    }
    Ok(())
}

/// Ranks the catalogue for every test question by the foundation models alone; runs of one name are seeds.
fn retrieval(
    data: &Dataset,
    split: &Split,
    runs: &[(&str, &Trained)],
    resampling: &Resampling,
    threads: usize,
) -> Result<Evaluation> {
    let folder = tempfile::tempdir_in(scratch())?;
    let mut scorers = Vec::new();
    for (i, (name, trained)) in runs.iter().enumerate() {
        let store = Store::create(folder.path().join(i.to_string()))?;
        publish(&mut store.publisher()?, data, split, trained, &RunRecord::default())?;
        let generation = Arc::new(Generation::new(store.snapshot(&OpenOptions::default())?)?);
        scorers.push(EngineScorer::new(generation, data)?.named(name));
    }
    let all: Vec<&dyn Scorer> = scorers.iter().map(|s| s as &dyn Scorer).collect();
    let options = EvaluateOptions { threads, resampling: resampling.clone(), cuts: false };
    Ok(evaluate(data, split, &all, &options, &mut Silent, &Cancel::new())?)
}
