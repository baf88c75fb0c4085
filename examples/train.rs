//! Trains, publishes and evaluates through the Rust API, on rows that the program makes itself.
//!
//! `cargo run --release --features cli --example train -- STORE`: the store is made if there is none.

use docent::Event;
use docent::data::{BuildOptions, DatasetBuilder, Declaration, EventRow, ItemRow, Protocol, Split};
use docent::evaluate::{CountedEvents, EngineScorer, EvaluateOptions, Markov, Popularity, Scorer, evaluate};
use docent::options::{ModelOptions, TrainOptions};
use docent::progress::{Cancel, ProgressEvent};
use docent::random::Rng;
use docent::serve::{Engine, EngineOptions, Filter, Query};
use docent::store::{RunRecord, Store};
use docent::train::{Trainer, publish};

fn main() -> docent::Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: train STORE");
        std::process::exit(2);
    };

    // 1. Rows in. People watch a series in order and now and then change to another one.
    let mut declaration = Declaration::new("series").with_time();
    declaration.title = true;
    let mut builder = DatasetBuilder::new(declaration, BuildOptions::default())?;
    let mut rng = Rng::new(7);
    for series in 0..20 {
        for part in 0..10 {
            let (id, title) = (format!("s{series}e{part}"), format!("Series {series}, part {part}"));
            builder.push_item(&ItemRow { id: &id, title: Some(&title), ..ItemRow::default() })?;
        }
    }
    for person in 0..600 {
        let (mut series, mut part, mut time) = (rng.below(20), rng.below(10), 1_700_000_000_000);
        for _ in 0..20 + rng.below(20) {
            time += 3_600_000 * (1 + rng.below(48) as i64);
            let item = format!("s{series}e{part}");
            let event = Event { time: Some(time), ..Event::item(&item) };
            builder.push_event(&EventRow::new(&format!("person {person}"), event))?;
            part += 1;
            if part == 10 || rng.uniform() < 0.1 {
                (series, part) = (rng.below(20), 0);
            }
        }
    }
    let data = builder.build()?;

    // 2. Train on all but each person's last two events.
    let split = Split::new(&data, &Protocol::LeaveOneOut)?;
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Validation(v) = event {
            eprintln!("epoch {}: best NDCG@10 {:.4}", v.epoch, v.best);
        }
    };
    let trained = Trainer::new(&data, &split)
        .model(ModelOptions { width: 32, hidden: 64, max_length: 32, ..ModelOptions::default() })
        .options(TrainOptions { epochs: 8, learning_rate: 3e-3, threads: 2, ..TrainOptions::default() })
        .run(&mut watch, &Cancel::new())?;

    // 3. Publish, open, recommend.
    let mut publisher = Store::create(&path)?.publisher()?;
    let generation = publish(&mut publisher, &data, &split, &trained, &RunRecord::default())?;
    let engine = Engine::open(&path, &EngineOptions::default())?;
    println!("generation {generation}; after parts 3 and 4 of series 7:");
    for item in engine.recommend(&Query::items(&["s7e3", "s7e4"]), &Filter::default(), 3)?.items {
        println!("  {:>8.4}  {}", item.score, item.title.as_deref().unwrap_or(&item.id));
    }

    // 4. Judge it on the last event of each person, beside the baselines.
    let docent = EngineScorer::new(engine.current(), &data)?;
    let popularity = Popularity::fit(&data, &split, CountedEvents::default());
    let markov = Markov::fit(&data, &split, CountedEvents::default());
    let scorers: [&dyn Scorer; 3] = [&docent, &popularity, &markov];
    let options = EvaluateOptions { threads: 2, ..EvaluateOptions::default() };
    print!("{}", evaluate(&data, &split, &scorers, &options, &mut docent::progress::Silent, &Cancel::new())?.table());
    Ok(())
}
