//! Trains, publishes, recommends and measures through the Rust API, on rows that the program makes itself.
//!
//! `cargo run --release --features cli --example train -- STORE`: the store is made if there is none.

use docent::Event;
use docent::data::{BuildOptions, DatasetBuilder, Declaration, EventRow, ItemRow};
use docent::options::{ModelOptions, TrainOptions};
use docent::pipeline::{self, EvaluateJob, Settings, TrainJob};
use docent::progress::{Cancel, ProgressEvent};
use docent::random::Rng;
use docent::serve::{Engine, EngineOptions, Filter, Query};
use docent::train::TrainConfig;

fn main() -> docent::Result<()> {
    let Some(store) = std::env::args().nth(1) else {
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

    // 2. Train on all but each person's last two events, and publish.
    let config = TrainConfig {
        model: ModelOptions { width: 32, hidden: 64, max_length: 32, ..ModelOptions::default() },
        train: TrainOptions { epochs: 8, learning_rate: 3e-3, threads: 2, ..TrainOptions::default() },
        ..TrainConfig::default()
    };
    let job = TrainJob { settings: Settings { config: Some(config), ..Settings::default() }, ..TrainJob::default() };
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Validation(v) = event {
            eprintln!("epoch {}: best NDCG@10 {:.4}", v.epoch, v.best);
        }
    };
    pipeline::train(&data, &store, &job, &mut watch, &Cancel::new())?;

    // 3. Open, recommend.
    let list = Engine::open(&store, &EngineOptions::default())?.recommend(
        &Query::items(&["s7e3", "s7e4"]),
        &Filter::default(),
        3,
    )?;
    println!("generation {}; after parts 3 and 4 of series 7:", list.generation);
    for item in list.items {
        println!("  {:>8.4}  {}", item.score, item.title.as_deref().unwrap_or(&item.id));
    }

    // 4. Measure it on the last event of each person, beside the baselines.
    let job = EvaluateJob { threads: 2, ..EvaluateJob::default() };
    let report = pipeline::evaluate(&data, &[&store], &job, &mut watch, &Cancel::new())?;
    print!("{}", report.lists().map(|lists| lists.table()).unwrap_or_default());
    Ok(())
}
