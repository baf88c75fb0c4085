//! Training throughput on the shape of MovieLens-1M, beside the same network in PyTorch; benches/README.md explains it.
//!
//! `cargo bench --bench training_throughput --features cli`

mod common;

use clap::Parser;
use common::{Result, Side, number, origin, python, rival, scratch, table, versions, write_record};
use docent::Event;
use docent::data::{
    BuildOptions, Dataset, DatasetBuilder, Declaration, EventFilter, EventRow, ItemRow, Protocol, Split,
};
use docent::evaluate::peak_rss_bytes;
use docent::options::{Loss, ModelOptions, Negatives, TrainOptions};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::random::Rng;
use docent::train::Trainer;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const PEOPLE: usize = 6_040;
const ITEMS: usize = 3_416;
const NEGATIVES: u32 = 256;
/// Steps of the comparison of losses, and the largest difference that passes. On one batch at this learning rate the losses
/// stay within some 1e-6 of each other for about 35 steps and drift apart later.
const CHECK_STEPS: u32 = 30;
const CHECK_TOLERANCE: f64 = 1e-4;
/// How glibc keeps large buffers instead of giving them back to the system after each step.
const KEEP: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "4294967296"), ("MALLOC_MMAP_THRESHOLD_", "4294967296")];

/// Measures how many tokens a second Docent and PyTorch train on, in turns.
#[derive(Debug, Parser)]
struct Arguments {
    /// Threads of each side.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Rounds; each side trains once in each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of one side's turn.
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Seconds that each side trains before the first round.
    #[arg(long, default_value_t = 5.0)]
    warmup: f64,
    /// Seconds that torch.compile may take.
    #[arg(long, default_value_t = 300.0)]
    compile_limit: f64,
    /// Leave torch.compile out.
    #[arg(long)]
    no_compile: bool,
    /// Seed of the data and of both sides.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be Docent's side, with this many negatives (0: softmax over all items).
    #[arg(long, hide = true)]
    side: Option<u32>,
}

fn main() -> ExitCode {
    common::main("training_throughput", || {
        let arguments = Arguments::parse();
        match arguments.side {
            Some(negatives) => docent_side(&arguments, negatives),
            None => measure(&arguments),
        }
    })
}

/// Histories with the lengths of MovieLens-1M (log-normal, mean 165, at least 18), of which the newest 200 events are read.
/// Items follow a long-tailed popularity; every third event follows from the one before it, so that there is something to
/// learn.
fn sequences(seed: u64, context: usize) -> Vec<Vec<u32>> {
    let mut rng = Rng::new(seed);
    let mut total = 0.0;
    let cumulative: Vec<f64> = (0..ITEMS)
        .map(|rank| {
            total += 1.0 / (rank as f64 + 20.0);
            total
        })
        .collect();
    let sigma: f64 = 1.04;
    let mu = 165f64.ln() - sigma * sigma / 2.0;
    let person = |_| {
        let length = (mu + sigma * rng.normal()).exp().round().clamp(18.0, context as f64) as usize;
        let mut items: Vec<u32> = Vec::with_capacity(length);
        for _ in 0..length {
            let draw = rng.uniform();
            let item = match items.last() {
                Some(last) if rng.uniform() < 1.0 / 3.0 => (*last as usize * 7 + 1) % ITEMS,
                _ => cumulative.partition_point(|c| *c < draw * total).min(ITEMS - 1),
            };
            items.push(item as u32);
        }
        items
    };
    (0..PEOPLE).map(person).collect()
}

fn dataset(sequences: &[Vec<u32>]) -> Result<(Dataset, Split)> {
    let options = BuildOptions {
        filter: EventFilter { keep_unused_items: true, ..EventFilter::default() },
        ..BuildOptions::default()
    };
    let mut builder = DatasetBuilder::new(Declaration::new("throughput"), options)?;
    let names: Vec<String> = (0..ITEMS).map(|i| i.to_string()).collect();
    for id in &names {
        builder.push_item(&ItemRow { id, ..ItemRow::default() })?;
    }
    for (person, items) in sequences.iter().enumerate() {
        let person = person.to_string();
        for item in items {
            builder.push_event(&EventRow::new(&person, Event::item(&names[*item as usize])))?;
        }
    }
    let data = builder.build()?;
    let mut split = Split::new(&data, &Protocol::Everything)?;
    split.validation.clear();
    Ok((data, split))
}

/// The default shape, with scores as PyTorch's tied output layers make them: products, not cosines.
fn model() -> ModelOptions {
    ModelOptions { normalized: false, temperature: 1.0, ..ModelOptions::default() }
}

fn train_options(arguments: &Arguments, negatives: u32) -> TrainOptions {
    TrainOptions {
        seed: arguments.seed,
        threads: arguments.threads,
        loss: Some(if negatives == 0 { Loss::Full } else { Loss::Sampled(Negatives::uniform(negatives)) }),
        final_rate: 1.0,
        cooldown: 0.0,
        ema: 0.0,
        ..TrainOptions::default()
    }
}

/// Trains, and answers each number of seconds on stdin with what was done in that time.
fn docent_side(arguments: &Arguments, negatives: u32) -> Result<()> {
    let model = model();
    let (data, split) = dataset(&sequences(arguments.seed, model.max_length as usize))?;
    let cancel = Cancel::new();
    let mut lines = std::io::stdin().lock().lines();
    let mut losses: Vec<f64> = Vec::new();
    let mut turn: Option<(Instant, Duration, u64)> = None;
    let mut watch = |event: &ProgressEvent| {
        let ProgressEvent::Step(step) = event else { return };
        losses.push(step.loss);
        match turn {
            None => println!("{}", json!({"first_loss": step.loss})),
            Some((begun, length, _)) if begun.elapsed() < length => return,
            Some((begun, _, before)) => {
                let later = losses.get(80..100).map(|l| l.iter().sum::<f64>() / l.len() as f64);
                let answer = json!({
                    "tokens": step.tokens - before,
                    "seconds": begun.elapsed().as_secs_f64(),
                    "steps": step.step,
                    "later_loss": later,
                    "peak_memory": peak_rss_bytes(),
                });
                println!("{answer}");
            }
        }
        match lines.next().and_then(std::result::Result::ok).and_then(|l| l.trim().parse().ok()) {
            Some(seconds) => turn = Some((Instant::now(), Duration::from_secs_f64(seconds), step.tokens)),
            None => cancel.cancel(),
        }
    };
    let options = TrainOptions { epochs: 1_000_000, ..train_options(arguments, negatives) };
    Trainer::new(&data, &split).model(model).options(options).run(&mut watch, &cancel)?;
    Ok(())
}

/// The middle of some numbers.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Lets a side train for so long.
fn ask(side: &mut Side, seconds: f64) -> Result<()> {
    let input = side.input.as_mut().ok_or("a child has no input")?;
    writeln!(input, "{seconds}").and_then(|()| input.flush()).map_err(|e| format!("a side does not listen: {e}").into())
}

/// What was found about one side under one loss.
struct Found {
    name: &'static str,
    rates: Vec<f64>,
    memory: f64,
    first_loss: f64,
    later_loss: Option<f64>,
    versions: Value,
}

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let python = python()?;
    let model = model();
    let sequences = sequences(arguments.seed, model.max_length as usize);
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let folder = tempfile::tempdir_in(scratch())?;
    let (data, weights) = (folder.path().join("sequences"), folder.path().join("weights"));
    common::write_sequences(&data, ITEMS, &sequences)?;
    let checked = check(arguments, &python, folder.path(), &sequences[..32], &weights)?;
    eprintln!("{}", checked["text"].as_str().unwrap_or_default());

    let mut text = format!(
        "training throughput: {PEOPLE} people, {tokens} tokens an epoch, {ITEMS} items; {} threads, {} rounds of {} s\n{}\n",
        arguments.threads,
        arguments.rounds,
        arguments.seconds,
        checked["text"].as_str().unwrap_or_default()
    );
    let mut result = json!({"check": checked, "tokens_per_epoch": tokens});
    let mut all_versions = Value::Null;
    for (loss, negatives) in [("softmax over all items", 0), ("256 shared negatives", NEGATIVES)] {
        let (found, failures) = compare(arguments, &python, &data, &weights, negatives)?;
        let (part, values) = report(loss, &found, &failures)?;
        eprint!("{part}");
        text += &format!("\n{part}");
        result[if negatives == 0 { "full" } else { "sampled" }] = values;
        all_versions = found.last().map_or(Value::Null, |f| f.versions.clone());
    }
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench training_throughput --features cli -- --threads {} --rounds {} --seconds {} --warmup {} --seed \
             {} --record {name}",
            arguments.threads, arguments.rounds, arguments.seconds, arguments.warmup, arguments.seed
        );
        let facts = [
            ("versions".to_owned(), versions(&all_versions)),
            ("duration".to_owned(), format!("{:.0} s", begun.elapsed().as_secs_f64())),
        ];
        write_record(name, "Training throughput beside PyTorch", &origin(&command), &facts, &text, &result)?;
    }
    Ok(())
}

/// Trains both sides on one batch from the same weights without dropout: their losses must agree at every step.
fn check(arguments: &Arguments, python: &Path, folder: &Path, batch: &[Vec<u32>], weights: &Path) -> Result<Value> {
    let (data, split) = dataset(batch)?;
    let common = TrainOptions { dropout: 0.0, warmup: 1, ..train_options(arguments, 0) };
    let still = TrainOptions { learning_rate: 0.0, epochs: 1, ..common.clone() };
    let start = Trainer::new(&data, &split).model(model()).options(still).run(&mut Silent, &Cancel::new())?;
    let flat = start.items.iter().chain(&start.dense);
    common::write_words(weights, flat.map(|v| v.to_le_bytes()))?;
    let ours_count = (ITEMS * start.model.width as usize + start.dense.len()) as f64;

    let mut ours = Vec::new();
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Step(step) = event {
            ours.push(step.loss);
        }
    };
    let options = TrainOptions { epochs: CHECK_STEPS, ..common };
    Trainer::new(&data, &split).model(model()).options(options).run(&mut watch, &Cancel::new())?;

    let file = folder.join("check");
    common::write_sequences(&file, ITEMS, batch)?;
    let mut command = rival_command(arguments, python, &file, weights, 0);
    command.args(["--dropout", "0", "--warmup", "1", "--check", &CHECK_STEPS.to_string()]);
    let answer = Side::start("pytorch (check)", &mut command)?.answer(Duration::from_secs(300))?;
    let theirs: Vec<f64> = answer["losses"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (first, last) = (ours.first().copied().unwrap_or(f64::NAN), ours.last().copied().unwrap_or(f64::NAN));
    let theirs_last = theirs.last().copied().unwrap_or(f64::NAN);
    let theirs_count = number(&answer, "parameters")?;
    if theirs.len() != ours.len() || difference.is_nan() || difference > CHECK_TOLERANCE || ours_count != theirs_count {
        return Err(format!(
            "the two sides do not train the same network: {ours_count} and {theirs_count} parameters, loss {last} and \
             {theirs_last} after {CHECK_STEPS} steps on one batch, largest difference {difference}; make \
             benches/rivals/training_throughput.py follow src/model/network.rs again"
        )
        .into());
    }
    let text = format!(
        "same computation: {ours_count} parameters each; {CHECK_STEPS} steps on one batch take the loss from {first:.4} to \
         {last:.4} and {theirs_last:.4}, at no step more than {difference:.1e} apart"
    );
    Ok(
        json!({"text": text, "parameters": ours_count, "first": first, "last": [last, theirs_last], "difference": difference}),
    )
}

fn rival_command(arguments: &Arguments, python: &Path, data: &Path, weights: &Path, negatives: u32) -> Command {
    let mut command = Command::new(python);
    command.arg(rival("training_throughput.py")).arg("--data").arg(data).arg("--weights").arg(weights);
    command.args(["--negatives", &negatives.to_string(), "--threads", &arguments.threads.to_string()]);
    command.args(["--seed", &arguments.seed.to_string()]);
    command.env("OMP_NUM_THREADS", arguments.threads.to_string());
    command.env("TORCHINDUCTOR_CACHE_DIR", scratch().join("inductor"));
    command
}

/// Starts all sides and lets them train in turns. Gives what was found, Docent first, and which variants failed.
fn compare(
    arguments: &Arguments,
    python: &Path,
    data: &Path,
    weights: &Path,
    negatives: u32,
) -> Result<(Vec<Found>, Vec<String>)> {
    let wait = Duration::from_secs(300);
    let turn = wait + Duration::from_secs_f64(arguments.seconds.max(arguments.warmup));
    let mut own = Command::new(std::env::current_exe()?);
    own.args(["--side", &negatives.to_string(), "--threads", &arguments.threads.to_string()]);
    own.args(["--seed", &arguments.seed.to_string()]);
    let mut starts = vec![("docent", own, false)];
    let variants: [(&str, bool, &[&str]); 5] = [
        ("pytorch", false, &[]),
        ("pytorch, tuned malloc", true, &[]),
        ("pytorch, packed", true, &["--packed"]),
        ("pytorch, compiled", true, &["--compile"]),
        ("pytorch, compiled, packed", true, &["--compile", "--packed"]),
    ];
    for (name, tuned, flags) in variants {
        let compiled = flags.contains(&"--compile");
        if compiled && arguments.no_compile {
            continue;
        }
        let mut command = rival_command(arguments, python, data, weights, negatives);
        command.args(flags);
        if tuned {
            command.envs(KEEP);
        }
        starts.push((name, command, compiled));
    }
    let mut sides = Vec::new();
    let mut failures = Vec::new();
    for (name, mut command, compiled) in starts {
        eprintln!("{name}: starting and warming up");
        let limit = if compiled { Duration::from_secs_f64(arguments.compile_limit) } else { wait };
        let begun = Instant::now();
        let prepared = Side::start(name, &mut command).and_then(|mut side| {
            let ready = side.answer(limit)?;
            ask(&mut side, arguments.warmup)?;
            let warm =
                side.answer(limit.saturating_sub(begun.elapsed()) + Duration::from_secs_f64(arguments.warmup))?;
            Ok((side, ready, warm))
        });
        match prepared {
            Ok((side, ready, _)) => {
                let found = Found {
                    name,
                    rates: Vec::new(),
                    memory: 0.0,
                    first_loss: number(&ready, "first_loss")?,
                    later_loss: None,
                    versions: ready["versions"].clone(),
                };
                sides.push((side, found));
            }
            // Whether torch.compile works depends on the machine's C++ compiler; every other side must work.
            Err(e) if compiled => {
                eprintln!("{e}");
                failures.push(format!("{name}: left out ({e})"));
            }
            Err(e) => return Err(e),
        }
    }
    for round in 1..=arguments.rounds {
        for (side, found) in &mut sides {
            ask(side, arguments.seconds)?;
            let answer = side.answer(turn)?;
            let rate = number(&answer, "tokens")? / number(&answer, "seconds")?;
            eprintln!("round {round}: {}: {rate:.0} tokens/s", found.name);
            found.rates.push(rate);
            found.memory = number(&answer, "peak_memory")?;
            found.later_loss = answer["later_loss"].as_f64();
        }
    }
    Ok((sides.into_iter().map(|(_, found)| found).collect(), failures))
}

/// The result under one loss as text and as JSON.
fn report(loss: &str, found: &[Found], failures: &[String]) -> Result<(String, Value)> {
    let (ours, rivals) = found.split_first().ok_or("no side was measured")?;
    let best =
        rivals.iter().max_by(|a, b| median(&a.rates).total_cmp(&median(&b.rates))).ok_or("no rival was measured")?;
    let ratios: Vec<f64> = ours.rates.iter().zip(&best.rates).map(|(a, b)| a / b).collect();
    let headers = [loss, "tokens/s", "least", "most", "docent is", "peak memory", "loss, step 1", "steps 81-100"];
    let mut rows = vec![headers.map(str::to_owned).to_vec()];
    for f in found {
        let (least, most) =
            (f.rates.iter().copied().fold(f64::MAX, f64::min), f.rates.iter().copied().fold(0.0, f64::max));
        rows.push(vec![
            f.name.to_owned(),
            format!("{:.0}", median(&f.rates)),
            format!("{least:.0}"),
            format!("{most:.0}"),
            format!("{:.2}x", median(&ours.rates) / median(&f.rates)),
            format!("{:.0} MiB", f.memory / f64::from(1 << 20)),
            format!("{:.4}", f.first_loss),
            f.later_loss.map_or_else(|| "-".into(), |l| format!("{l:.4}")),
        ]);
    }
    let ratio = median(&ratios);
    let memory = ours.memory / best.memory;
    let least = rivals.iter().map(|f| f.memory).fold(f64::MAX, f64::min);
    let mut text = table(&rows);
    for failure in failures {
        text += &format!("{failure}\n");
    }
    let each: Vec<String> = ratios.iter().map(|r| format!("{r:.2}")).collect();
    text += &format!(
        "docent / {} (the fastest rival): {ratio:.2}x tokens/s (rounds: {}), {memory:.2}x peak memory ({:.2}x of the \
         smallest)\n",
        best.name,
        each.join(", "),
        ours.memory / least
    );
    let side = |f: &Found| {
        json!({
            "name": f.name, "tokens_per_second": f.rates, "median": median(&f.rates), "peak_memory": f.memory,
            "first_loss": f.first_loss, "later_loss": f.later_loss,
        })
    };
    let values = json!({
        "sides": found.iter().map(side).collect::<Vec<_>>(),
        "left_out": failures,
        "best_rival": best.name,
        "ratios": ratios,
        "ratio": ratio,
        "memory_ratio": memory,
        "memory_ratio_smallest": ours.memory / least,
    });
    Ok((text, values))
}
