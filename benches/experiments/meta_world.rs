//! Adaptation in the synthetic world, where people click by quirks that their histories do not show: foundation model and
//! ranker together and apart, a planted change of taste, and what the direct step costs; benches/README.md explains it.
//!
//! `cargo bench --bench meta_world --features cli`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
mod optimum;

use clap::Parser;
use common::{Result, origin, write_record};
use docent::data::{Protocol, Split, SyntheticOptions, Turn, World};
use docent::evaluate::{CtrMethod, PrequentialOptions, Resampling, ctr, prequential};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerOptions, RankerTrainOptions, TowerOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::random::Rng;
use docent::ranker::{DriftDetection, Ranker};
use docent::train::Trainer;
use docent::train::ranker::{Closeness, FoundationModel, Impressions, Plan, Predictor, RankerTrainer, TaskSet};
use optimum::optimum;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Instant;

/// Trains on the clicks of a synthetic world and judges on later ones.
#[derive(Debug, Parser)]
struct Arguments {
    /// People.
    #[arg(long, default_value_t = 2_000)]
    people: u32,
    /// Mean events of each; about as many outcomes.
    #[arg(long, default_value_t = 120.0)]
    events: f64,
    /// Items.
    #[arg(long, default_value_t = SyntheticOptions::default().items)]
    items: u32,
    /// One outcome in this many is known at all: people's histories then say more than their outcomes.
    #[arg(long, default_value_t = 1)]
    sparse: usize,
    /// How strongly clicks follow the taste that histories show.
    #[arg(long, default_value_t = SyntheticOptions::default().liking)]
    liking: f64,
    /// The deviation of what draws people in each category besides.
    #[arg(long, default_value_t = SyntheticOptions::default().quirks)]
    quirks: f64,
    /// Seeds of the rankers.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Epochs of the foundation model.
    #[arg(long, default_value_t = 6)]
    foundation_epochs: u32,
    /// Epochs of the rankers.
    #[arg(long, default_value_t = 6)]
    epochs: u32,
    /// People prefer one half of the categories by this much on the logit; 0 lets each category draw on its own.
    #[arg(long, default_value_t = 0.0)]
    poles: f64,
    /// How many outcomes an embedding stands for at most when it is moved.
    #[arg(long, default_value_t = 128)]
    memory: usize,
    /// Nats from which outcomes before a change of taste are forgotten.
    #[arg(long, default_value_t = 3.0)]
    evidence: f32,
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
    common::main("meta_world", || measure(&Arguments::parse()))
}

/// The share of the events that test.
const TEST: f64 = 0.3;

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let threads = arguments.threads as usize;
    let options = SyntheticOptions {
        entities: arguments.people,
        events_per_entity: arguments.events,
        items: arguments.items,
        liking: arguments.liking,
        quirks: arguments.quirks,
        poles: arguments.poles,
        ..Default::default()
    };
    let world = World::new(&options, threads)?;
    let data = world.dataset()?;
    let mut split = Split::new(&data, &Protocol::TimeSplit { test: TEST, validation: 0.05 })?;
    // When the test begins.
    let first = |case: &docent::data::Case| data.events.time[data.range(case.entity).start + case.history.len()];
    let turn = split.test.iter().map(first).min().ok_or("the world has no test")?;
    for train in split.train.iter_mut().step_by(6) {
        *train = train.start..train.start;
    }
    let tower = Some(TowerOptions::default());
    let model = ModelOptions { width: 32, hidden: 64, max_length: 64, tower, ..ModelOptions::default() };
    let train =
        TrainOptions { epochs: arguments.foundation_epochs, threads: arguments.threads, ..TrainOptions::default() };
    let trained = Trainer::new(&data, &split).model(model).options(train).run(&mut Silent, &Cancel::new())?;
    eprintln!("foundation model after {:.0} s", begun.elapsed().as_secs_f64());
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let features = FoundationModel { inference: &inference, weights };
    let all = Impressions::from_log(&data, &world.impression_log()?)?;
    let optimum = optimum(&world, &data, &all)?;
    let (impressions, optimum) = sparse(&all, &optimum, arguments.sparse);
    let plan = Plan::new(&data, &impressions, &split, features, 0.15, 1, threads)?;
    let blind = plan.clone().without_vectors();
    let model = RankerOptions { prior_count: 8.0, rate_decay: 0.45, ..RankerOptions::default() };
    let steps = model.steps as usize;
    let closeness = Closeness::fit(&plan);
    let names = ["both", "meta alone", "global", "foundation alone", "optimum"];
    let parts = [
        (TaskSet::Known, "known people"),
        (TaskSet::Hidden, "hidden people"),
        (TaskSet::HiddenCuts, "hidden people, every cut"),
    ];
    let mut runs = vec![vec![Vec::new(); names.len()]; parts.len()];
    let mut rankers: Vec<Ranker> = Vec::new();
    for seed in 1..=arguments.seeds {
        let options = RankerTrainOptions {
            seed,
            epochs: arguments.epochs,
            batch: 128,
            learning_rate: 4e-3,
            first: 0.6,
            threads: arguments.threads,
            patience: arguments.epochs,
            ..RankerTrainOptions::default()
        };
        let still = RankerOptions { steps: 0, ..model.clone() };
        for (m, (plan, model)) in [(&plan, &model), (&blind, &model), (&plan, &still)].into_iter().enumerate() {
            let trainer = RankerTrainer::new(plan).model(model.clone()).options(options.clone());
            let ranker = trainer.run(&mut Silent, &Cancel::new())?.ranker;
            let [slope, intercept] = ranker.calibration[0];
            let predictor = Predictor::new(plan, &ranker, threads)?;
            for ((who, _), runs) in parts.iter().zip(&mut runs) {
                let found = predictor.predict(*who, &[model.steps as usize])?.swap_remove(0);
                runs[m].push(found.into_iter().map(|x| slope * x + intercept).collect());
            }
            if m == 0 {
                rankers.push(ranker);
            }
        }
        eprintln!("seed {seed}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    for ((who, _), runs) in parts.iter().zip(&mut runs) {
        runs[3].push(closeness.predict(&plan, *who));
        runs[4].push(plan.tasks(*who).flat_map(|t| &optimum[t.query.clone()]).copied().collect());
    }
    let resampling = Resampling { resamples: arguments.resamples, ..Resampling::default() };
    let (mut text, mut results) = (String::new(), Map::new());
    for ((who, title), runs) in parts.iter().zip(runs) {
        let methods: Vec<CtrMethod> =
            names.iter().zip(runs).map(|(name, runs)| CtrMethod { name: (*name).to_owned(), runs }).collect();
        let judged = ctr(&plan, *who, &methods, &resampling, threads)?;
        text += &format!("{title}: {}\n", judged.table());
        results.insert((*title).to_owned(), judged.json());
    }
    // The same world, in which everybody turns when the test begins, and in which nobody does.
    let turned = World::new(&SyntheticOptions { turn: Some(Turn { time: turn, share: 1.0 }), ..options }, threads)?;
    let after = Impressions::from_log(&data, &turned.impression_log()?)?;
    let (after, _) = sparse(&after, &vec![0.0; after.len()], arguments.sparse);
    let walk = PrequentialOptions {
        most: 60,
        memory: arguments.memory,
        drift: DriftDetection { evidence: arguments.evidence, ..DriftDetection::default() },
        threads,
        resampling,
        ..PrequentialOptions::default()
    };
    for (impressions, title) in [(&after, "taste turns at the first outcome"), (&impressions, "taste stays")] {
        let plan = Plan::new(&data, impressions, &split, features, 0.15, 1, threads)?;
        for (seed, ranker) in rankers.iter().enumerate() {
            let walked = prequential(&plan, features, ranker, TaskSet::Known, &walk)?;
            text += &format!("{title}, seed {}: {}\n", seed + 1, walked.table());
            results.insert(format!("{title}, seed {}", seed + 1), walked.json());
        }
    }
    let [whole, direct] = cost(&rankers[0], steps)?;
    text += &format!(
        "adaptation to {} outcomes, {steps} steps: {:.1} us; direct step with one outcome: {:.1} us, {:.1} times less\n",
        rankers[0].shape.options.support,
        whole * 1e6,
        direct * 1e6,
        whole / direct
    );
    results.insert("cost".into(), json!({"adaptation_seconds": whole, "direct_step_seconds": direct}));
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench meta_world --features cli -- --people {} --events {} --items {} --sparse {} --liking {} --quirks {} --seeds {} --foundation-epochs {} --epochs {} --poles {} \
             --memory {} --evidence {} --threads {} --record {name}",
            arguments.people,
            arguments.events,
            arguments.items,
            arguments.sparse,
            arguments.liking,
            arguments.quirks,
            arguments.seeds,
            arguments.foundation_epochs,
            arguments.epochs,
            arguments.poles,
            arguments.memory,
            arguments.evidence,
            arguments.threads
        );
        let facts = vec![
            ("outcomes".to_owned(), impressions.len().to_string()),
            ("ranker".to_owned(), format!("{model:?}")),
            ("duration".to_owned(), format!("{:.1} min", begun.elapsed().as_secs_f64() / 60.0)),
        ];
        let title = "Adaptation in the synthetic world: together, apart, and through a change of taste";
        write_record(name, title, &origin(&command), &facts, &text, &Value::Object(results))?;
    }
    Ok(())
}

/// One outcome in `every` of each person, and what goes with them.
fn sparse(all: &Impressions, beside: &[f32], every: usize) -> (Impressions, Vec<f32>) {
    let (c, h) = (all.impression_fields.len(), all.heads.len());
    let mut kept = Impressions {
        offsets: vec![0],
        heads: all.heads.clone(),
        impression_fields: all.impression_fields.clone(),
        ..Impressions::default()
    };
    let mut values = Vec::new();
    for entity in 0..all.offsets.len() as u32 - 1 {
        // Neighbours are of one slate: every place of it comes in turn.
        for i in all.range(entity).skip(entity as usize % every).step_by(every) {
            kept.item.push(all.item[i]);
            kept.before.push(all.before[i]);
            kept.labels.extend_from_slice(&all.labels[i * h..(i + 1) * h]);
            kept.impression.extend_from_slice(&all.impression[i * c..(i + 1) * c]);
            kept.time.push(all.time[i]);
            values.push(beside[i]);
        }
        kept.offsets.push(kept.item.len());
    }
    (kept, values)
}

/// Median seconds of an adaptation to as many outcomes as the ranker reads, and of a direct step with one.
fn cost(ranker: &Ranker, steps: usize) -> Result<[f64; 2]> {
    let shape = &ranker.shape;
    let mut rng = Rng::new(3);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let n = shape.options.support as usize;
    let (input, rows) = (normal(shape.inputs), normal(n * shape.candidate()));
    let labels: Vec<f32> = normal(n).iter().map(|x| f32::from(u8::from(*x > 0.0))).collect();
    let mut adapter = ranker.adapter()?;
    let mut embedding = adapter.adapt(&input, None, &rows, &labels, steps)?.embedding.to_vec();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..300 {
        let begun = Instant::now();
        let found = adapter.adapt(&input, None, &rows, &labels, steps)?.embedding[0];
        times[0].push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let moved = adapter.first_order(&input, None, &embedding, &rows[..shape.candidate()], &labels[..1], n)?;
        let next = moved[0];
        times[1].push(begun.elapsed().as_secs_f64());
        embedding[0] = 0.5 * (found + next);
    }
    let median = |mut t: Vec<f64>| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    };
    Ok(times.map(median))
}
