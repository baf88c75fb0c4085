//! What a training step costs by the size of the catalogue: softmax over all items, and over a hundredth of them; benches/README.md explains
//! it.
//!
//! `cargo bench --bench step_cost --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, origin, table, write_record};
use docent::Event;
use docent::data::{
    BuildOptions, Dataset, DatasetBuilder, Declaration, EventFilter, EventRow, ItemRow, Protocol, Split,
};
use docent::options::{Loss, ModelOptions, Negatives, TrainOptions};
use docent::progress::{Cancel, ProgressEvent};
use docent::random::Rng;
use docent::train::Trainer;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// People, and events of each: two hundred batches of the usual size.
const PEOPLE: usize = 6_400;
const EVENTS: usize = 50;

/// Measures how many steps a second training makes, by the number of items.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sizes of the catalogue.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    items: Vec<usize>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Rounds; each loss trains once in each, and the fastest counts.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that a loss trains in a round, at least two steps.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("step_cost", || measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let mut lines =
        vec![["items", "full, steps/s", "negatives", "sampled, steps/s", "times as fast"].map(str::to_owned).to_vec()];
    let mut rows = Vec::new();
    for &items in &arguments.items {
        let (data, split) = dataset(items)?;
        let negatives = items.div_ceil(100) as u32;
        let (mut full, mut sampled) = (0.0, 0.0);
        for _ in 0..arguments.rounds {
            full = f64::max(full, steps_per_second(arguments, &data, &split, Loss::Full)?);
            let loss = Loss::Sampled(Negatives::uniform(negatives));
            sampled = f64::max(sampled, steps_per_second(arguments, &data, &split, loss)?);
        }
        eprintln!("{items} items: {full:.3} and {sampled:.3} steps a second");
        let cells = [items.to_string(), format!("{full:.3}"), negatives.to_string(), format!("{sampled:.3}")];
        lines.push(cells.into_iter().chain([format!("{:.1}", sampled / full)]).collect());
        rows.push(json!({"items": items, "negatives": negatives, "full": full, "sampled": sampled}));
    }
    let text = format!(
        "steps of 32 people with {EVENTS} events each, width 64, 2 blocks; {} threads, the fastest of {} rounds\n\n{}",
        arguments.threads,
        arguments.rounds,
        table(&lines)
    );
    print!("{text}");
    let Some(name) = &arguments.record else { return Ok(()) };
    let items: Vec<String> = arguments.items.iter().map(usize::to_string).collect();
    let command = format!(
        "cargo bench --bench step_cost --features cli -- --items {} --threads {} --rounds {} --seconds {} --record {name}",
        items.join(","),
        arguments.threads,
        arguments.rounds,
        arguments.seconds
    );
    write_record(name, "What a training step costs", &origin(&command), &[], &text, &json!(rows))
}

/// People who choose items at random. Steps take as long as those of people who do not.
fn dataset(items: usize) -> Result<(Dataset, Split)> {
    let filter = EventFilter { keep_unused_items: true, ..EventFilter::default() };
    let mut builder =
        DatasetBuilder::new(Declaration::new("steps"), BuildOptions { filter, ..BuildOptions::default() })?;
    let names: Vec<String> = (0..items).map(|i| i.to_string()).collect();
    for id in &names {
        builder.push_item(&ItemRow { id, ..ItemRow::default() })?;
    }
    let mut rng = Rng::new(1);
    for person in 0..PEOPLE {
        let person = person.to_string();
        for _ in 0..EVENTS {
            builder.push_event(&EventRow::new(&person, Event::item(&names[rng.below(items)])))?;
        }
    }
    let data = builder.build()?;
    let mut split = Split::new(&data, &Protocol::Everything)?;
    split.validation.clear();
    Ok((data, split))
}

/// Trains for so long; the first step, which pays for what is set up once, does not count.
fn steps_per_second(arguments: &Arguments, data: &Dataset, split: &Split, loss: Loss) -> Result<f64> {
    let model = ModelOptions { max_length: EVENTS as u32, ..ModelOptions::default() };
    let options = TrainOptions { threads: arguments.threads, loss: Some(loss), ema: 0.0, ..TrainOptions::default() };
    let cancel = Cancel::new();
    let (mut first, mut found) = (None, 0.0);
    let mut watch = |event: &ProgressEvent| {
        let ProgressEvent::Step(step) = event else { return };
        let begun = *first.get_or_insert_with(Instant::now);
        let seconds = begun.elapsed().as_secs_f64();
        if step.step >= 3 && seconds >= arguments.seconds {
            found = (step.step - 1) as f64 / seconds;
            cancel.cancel();
        }
    };
    let trainer = Trainer::new(data, split).model(model).options(options);
    trainer.run(&mut watch, &cancel)?;
    Ok(found)
}
