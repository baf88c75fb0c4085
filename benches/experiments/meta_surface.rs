//! People on surfaces as a kind of entity, in a synthetic world whose people click otherwise on each device, and in one whose
//! people do not; benches/README.md explains it.
//!
//! `cargo bench --bench meta_surface --features cli`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
mod optimum;

use clap::Parser;
use common::{Result, origin, write_record};
use docent::data::{Protocol, Split, SyntheticOptions, World};
use docent::evaluate::{CtrMethod, Resampling, ctr};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerOptions, RankerTrainOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::train::Trainer;
use docent::train::ranker::{FoundationModel, Impressions, Plan, Predictor, RankerTrainer, TaskSet};
use optimum::optimum;
use serde_json::{Map, Value};
use std::process::ExitCode;
use std::time::Instant;

/// Trains rankers of people, of people on surfaces and of both on the clicks of synthetic worlds, and judges them on later clicks.
#[derive(Debug, Parser)]
struct Arguments {
    /// People.
    #[arg(long, default_value_t = 400)]
    people: u32,
    /// Mean events of each; about as many outcomes.
    #[arg(long, default_value_t = 80.0)]
    events: f64,
    /// Seeds of the rankers.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Epochs of the foundation model.
    #[arg(long, default_value_t = 3)]
    foundation_epochs: u32,
    /// Epochs of the rankers.
    #[arg(long, default_value_t = 6)]
    epochs: u32,
    /// People prefer one half of the categories by this much on the logit, everywhere.
    #[arg(long, default_value_t = 2.0)]
    poles: f64,
    /// What is planted: by so much they prefer one half or the other on each device besides.
    #[arg(long, default_value_t = 1.0)]
    surface: f64,
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
    common::main("meta_surface", || measure(&Arguments::parse()))
}

/// The share of the events that test.
const TEST: f64 = 0.3;
/// The rankers, the one that is compared with the others first; then what the world knows.
const NAMES: [&str; 4] = ["person + surface", "person", "surface", "optimum"];

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let threads = arguments.threads as usize;
    let world = |surface: f64| SyntheticOptions {
        entities: arguments.people,
        events_per_entity: arguments.events,
        poles: arguments.poles,
        surface,
        ..Default::default()
    };
    // Both worlds have the same people, who do the same; they click otherwise.
    let (planted, plain) = (World::new(&world(arguments.surface), threads)?, World::new(&world(0.0), threads)?);
    let data = planted.dataset()?;
    let mut split = Split::new(&data, &Protocol::TimeSplit { test: TEST, validation: 0.05 })?;
    for train in split.train.iter_mut().step_by(6) {
        *train = train.start..train.start;
    }
    let model = ModelOptions { width: 32, hidden: 64, max_length: 64, ..ModelOptions::default() };
    let train =
        TrainOptions { epochs: arguments.foundation_epochs, threads: arguments.threads, ..TrainOptions::default() };
    let trained = Trainer::new(&data, &split).model(model).options(train).run(&mut Silent, &Cancel::new())?;
    eprintln!("foundation model after {:.0} s", begun.elapsed().as_secs_f64());
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let features = FoundationModel { inference: &inference, weights };
    let model = RankerOptions { prior_count: 8.0, rate_decay: 0.45, ..RankerOptions::default() };
    let resampling = Resampling { resamples: arguments.resamples, ..Resampling::default() };
    let (mut text, mut results, mut outcomes) = (String::new(), Map::new(), Vec::new());
    for (world, title) in [(&planted, "taste differs by device"), (&plain, "taste is the same on all devices")] {
        let impressions = Impressions::from_log(&data, &world.impression_log()?)?;
        outcomes.push(impressions.len().to_string());
        let optimum = optimum(world, &data, &impressions)?;
        let plan = Plan::new(&data, &impressions, &split, features, 0.15, 1, threads)?;
        let parts = [(TaskSet::Known, "known people"), (TaskSet::Hidden, "hidden people")];
        let mut runs = vec![vec![Vec::new(); NAMES.len()]; parts.len()];
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
            for (m, (person, surface)) in [(true, "device"), (true, ""), (false, "device")].into_iter().enumerate() {
                let model = RankerOptions { person, surface: surface.into(), ..model.clone() };
                let trainer = RankerTrainer::new(&plan).model(model.clone()).options(options.clone());
                let trained = trainer.run(&mut Silent, &Cancel::new())?;
                let [slope, intercept] = trained.ranker.calibration[0];
                let predictor = Predictor::new(&plan, &trained.ranker, threads)?;
                for ((who, _), runs) in parts.iter().zip(&mut runs) {
                    let found = predictor.predict(*who, &[model.steps as usize])?.swap_remove(0);
                    runs[m].push(found.into_iter().map(|x| slope * x + intercept).collect());
                }
                let seconds = begun.elapsed().as_secs_f64();
                eprintln!("{title}, seed {seed}, {}: {:?}, {seconds:.0} s", NAMES[m], trained.validation);
            }
        }
        for ((who, part), mut runs) in parts.iter().zip(runs) {
            runs[3].push(plan.tasks(*who).flat_map(|t| &optimum[t.query.clone()]).copied().collect());
            let methods: Vec<CtrMethod> =
                NAMES.iter().zip(runs).map(|(name, runs)| CtrMethod { name: (*name).to_owned(), runs }).collect();
            let judged = ctr(&plan, *who, &methods, &resampling, threads)?;
            text += &format!("{title}, {part}: {}\n", judged.table());
            results.insert(format!("{title}, {part}"), judged.json());
        }
    }
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench meta_surface --features cli -- --people {} --events {} --seeds {} --foundation-epochs {} --epochs {} --poles {} \
             --surface {} --threads {} --record {name}",
            arguments.people,
            arguments.events,
            arguments.seeds,
            arguments.foundation_epochs,
            arguments.epochs,
            arguments.poles,
            arguments.surface,
            arguments.threads
        );
        let facts = vec![
            ("outcomes".to_owned(), outcomes.join(" and ")),
            ("ranker".to_owned(), format!("{model:?}")),
            ("duration".to_owned(), format!("{:.1} min", begun.elapsed().as_secs_f64() / 60.0)),
        ];
        let title = "People on surfaces as a kind of entity: planted and not";
        write_record(name, title, &origin(&command), &facts, &text, &Value::Object(results))?;
    }
    Ok(())
}
