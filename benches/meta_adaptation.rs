//! How fast people are adapted, beside `torch.func.vmap(grad)`; benches/README.md explains it.
//!
//! `cargo bench --bench meta_adaptation --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, Side, number, origin, python, rival, scratch, table, versions, write_record};
use docent::options::RankerOptions;
use docent::random::Rng;
use docent::ranker::{Ranker, RankerShape};
use serde_json::json;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Outcomes of each person.
const OUTCOMES: usize = 20;
/// Inner steps.
const STEPS: usize = 5;
/// Width of the foundation model's vectors.
const STATE: usize = 64;
/// Width of the meta block's input: 6,224 weights with the block's default layers.
const INPUTS: usize = 96;

/// Measures the adaptation of one person and of many, and PyTorch on the same people and weights.
#[derive(Debug, Parser)]
struct Arguments {
    /// People in the batch.
    #[arg(long, default_value_t = 10_000)]
    people: usize,
    /// Threads of each side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Rounds; the sides take turns, and the best round of each counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave PyTorch out.
    #[arg(long)]
    alone: bool,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("meta_adaptation", || measure(&Arguments::parse()))
}

/// People to be adapted to: inputs, candidates and labels, one person after another.
struct People {
    inputs: Vec<f32>,
    candidates: Vec<f32>,
    labels: Vec<f32>,
}

/// What one side found in its best round.
struct Found {
    name: String,
    /// Seconds for one person, median and 99th percentile.
    single: [f64; 2],
    people_per_second: f64,
}

fn measure(arguments: &Arguments) -> Result<()> {
    let options = RankerOptions { steps: STEPS as u32, ..RankerOptions::default() };
    let shape = RankerShape::new(&options, INPUTS, STATE, 1, 1, 0.5)?;
    let mut rng = Rng::new(7);
    let dense = shape.layout.start(&mut rng);
    let width = options.item_width as usize;
    let ranker = Ranker { dense, items: vec![0.0; width], entities: Vec::new(), calibration: vec![[1.0, 0.0]], shape };
    // Many enough to leave the caches, few enough for memory; the batch goes round.
    let distinct = arguments.people.min(2_000);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let people = People {
        inputs: normal(distinct * INPUTS),
        candidates: normal(distinct * OUTCOMES * ranker.shape.candidate()),
        labels: normal(distinct * OUTCOMES).iter().map(|x| f32::from(u8::from(*x > -0.2))).collect(),
    };
    let folder = tempfile::tempdir_in(scratch())?;
    let mut side = match arguments.alone {
        true => None,
        false => {
            write_people(folder.path(), &ranker, &people)?;
            let mut command = Command::new(python()?);
            command.arg(rival("meta_adaptation.py")).arg(folder.path());
            command.args([arguments.people.to_string(), arguments.threads.to_string(), arguments.rounds.to_string()]);
            Some(Side::start("pytorch", &mut command)?)
        }
    };
    let mut best: Option<Found> = None;
    let (mut rivals, mut of) = (Vec::new(), serde_json::Value::Null);
    for round in 0..arguments.rounds {
        let found = docent(arguments, &ranker, &people, distinct)?;
        eprintln!(
            "round {}: {:.1} us a person, {:.0} people/s",
            round + 1,
            found.single[0] * 1e6,
            found.people_per_second
        );
        best = Some(match best {
            Some(b) => Found {
                single: [b.single[0].min(found.single[0]), b.single[1].min(found.single[1])],
                people_per_second: b.people_per_second.max(found.people_per_second),
                ..found
            },
            None => found,
        });
    }
    let ours = best.ok_or("measure at least one round")?;
    if let Some(side) = &mut side {
        while let Some(answer) = side.next(Duration::from_secs(1800))? {
            let name = answer["name"].as_str().unwrap_or("pytorch").to_owned();
            of = answer["versions"].clone();
            let apart = number(&answer, "apart")?;
            if apart > 1e-3 {
                return Err(
                    format!("{name} gives other embeddings, {apart} apart: it does not do the same work").into()
                );
            }
            rivals.push(Found {
                name,
                single: [number(&answer, "single_p50")?, number(&answer, "single_p99")?],
                people_per_second: number(&answer, "people_per_second")?,
            });
        }
    }
    let text = report(&ours, &rivals);
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench meta_adaptation --features cli -- --people {} --threads {} --rounds {} --record {name}",
            arguments.people, arguments.threads, arguments.rounds
        );
        let facts = vec![
            ("work".to_owned(), format!("{STEPS} inner steps on {OUTCOMES} outcomes, the tower over them included")),
            ("meta block".to_owned(), format!("{} weights", ranker.shape.meta_weights())),
            ("versions".to_owned(), versions(&of)),
        ];
        let side = |f: &Found| {
            json!({"name": f.name, "single_p50": f.single[0], "single_p99": f.single[1],
                   "people_per_second": f.people_per_second})
        };
        let all: Vec<_> = std::iter::once(&ours).chain(&rivals).map(side).collect();
        let title = "Adaptation of people beside PyTorch";
        write_record(name, title, &origin(&command), &facts, &text, &json!({"sides": all}))?;
    }
    Ok(())
}

/// One round: each person alone, then all of them on the granted threads.
fn docent(arguments: &Arguments, ranker: &Ranker, people: &People, distinct: usize) -> Result<Found> {
    let (c, e) = (OUTCOMES * ranker.shape.candidate(), ranker.shape.options.embedding as usize);
    let one = |adapter: &mut docent::ranker::Adapter<'_>, p: usize, out: &mut [f32]| -> Result<()> {
        let p = p % distinct;
        let adapted = adapter.adapt(
            &people.inputs[p * INPUTS..(p + 1) * INPUTS],
            None,
            &people.candidates[p * c..(p + 1) * c],
            &people.labels[p * OUTCOMES..(p + 1) * OUTCOMES],
            STEPS,
        )?;
        out.copy_from_slice(adapted.embedding);
        Ok(())
    };
    let mut adapter = ranker.adapter()?;
    let mut embeddings = vec![0.0; distinct * e];
    let mut seconds = Vec::with_capacity(distinct);
    for (p, out) in embeddings.chunks_exact_mut(e).enumerate() {
        let begun = Instant::now();
        one(&mut adapter, p, out)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize];
    let mut out = vec![0.0; arguments.people * e];
    let share = arguments.people.div_ceil(arguments.threads.max(1));
    let begun = Instant::now();
    let done = std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = out
            .chunks_mut(share * e)
            .enumerate()
            .map(|(t, part)| {
                scope.spawn(move || -> std::result::Result<(), String> {
                    let mut adapter = ranker.adapter().map_err(|e| e.to_string())?;
                    for (i, out) in part.chunks_exact_mut(e).enumerate() {
                        one(&mut adapter, t * share + i, out).map_err(|e| e.to_string())?;
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok(())
    });
    let batch = begun.elapsed().as_secs_f64();
    done?;
    for (p, own) in out.chunks_exact(e).enumerate() {
        if own != &embeddings[p % distinct * e..(p % distinct + 1) * e] {
            return Err(format!("person {p} differs between the batch and alone").into());
        }
    }
    Ok(Found { name: "docent".into(), single: [at(0.5), at(0.99)], people_per_second: arguments.people as f64 / batch })
}

/// Writes what PyTorch reads: the named weights and the people, and the embeddings to compare with.
fn write_people(folder: &Path, ranker: &Ranker, people: &People) -> Result<()> {
    let weights = ranker.shape.layout.weights.iter();
    let names: Vec<_> = weights
        .map(|w| json!({"name": w.name, "shape": w.shape, "start": w.range.start, "end": w.range.end}))
        .collect();
    let shape = json!({
        "weights": names, "inputs": INPUTS, "outcomes": OUTCOMES, "steps": STEPS, "candidate": ranker.shape.candidate(),
        "gate": ranker.shape.options.gate, "embedding": ranker.shape.options.embedding, "prior_count": ranker.shape.options.prior_count,
        "rate_decay": ranker.shape.options.rate_decay,
    });
    std::fs::write(folder.join("shape.json"), shape.to_string())?;
    let c = OUTCOMES * ranker.shape.candidate();
    let mut adapter = ranker.adapter()?;
    let mut wanted = Vec::new();
    for p in 0..people.inputs.len() / INPUTS {
        adapter.adapt(
            &people.inputs[p * INPUTS..(p + 1) * INPUTS],
            None,
            &people.candidates[p * c..(p + 1) * c],
            &people.labels[p * OUTCOMES..(p + 1) * OUTCOMES],
            STEPS,
        )?;
        wanted.extend_from_slice(adapter.embedding_after(STEPS));
    }
    let files = [
        ("dense", &ranker.dense),
        ("inputs", &people.inputs),
        ("candidates", &people.candidates),
        ("labels", &people.labels),
        ("embeddings", &wanted),
    ];
    for (name, values) in files {
        common::write_words(&folder.join(name), values.iter().map(|x| x.to_le_bytes()))?;
    }
    Ok(())
}

fn report(ours: &Found, rivals: &[Found]) -> String {
    let head = ["side", "one person p50 us", "p99 us", "people/s", "docent, single", "docent, batch"];
    let mut rows = vec![head.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()];
    for f in std::iter::once(ours).chain(rivals) {
        rows.push(vec![
            f.name.clone(),
            format!("{:.1}", f.single[0] * 1e6),
            format!("{:.1}", f.single[1] * 1e6),
            format!("{:.0}", f.people_per_second),
            format!("{:.1}x", f.single[0] / ours.single[0]),
            format!("{:.1}x", ours.people_per_second / f.people_per_second),
        ]);
    }
    table(&rows)
}
