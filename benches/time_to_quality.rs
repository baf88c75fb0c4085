//! Time to quality on MovieLens-1M, beside RecTools; benches/README.md explains it.
//!
//! `cargo bench --bench time_to_quality --features cli -- --data DIR`

mod common;

use clap::Parser;
use common::{Result, Side, number, origin, python, rival, scratch, table, versions, write_record};
use docent::data::{Dataset, DatasetFile, Protocol, Split};
use docent::evaluate::{EngineScorer, EvaluateOptions, Resampling, evaluate, peak_rss_bytes};
use docent::options::TrainOptions;
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::serve::{Engine, EngineOptions};
use docent::store::{RunRecord, Store};
use docent::train::{Trained, Trainer, defaults, publish};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The NDCG@10 whose times are compared.
const LEVELS: [f64; 3] = [0.165, 0.175, 0.185];

/// Measures how long Docent and RecTools train until their lists are this good.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of the dataset's files (examples/datasets/ml-1m-a.toml says which).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Longest training of each side.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Threads of each side.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Seed of each side.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which of RecTools' models: esasrec, esasrec-softmax, sasrec, sasrec-sampled.
    #[arg(long, value_delimiter = ',', default_value = "esasrec,esasrec-softmax,sasrec")]
    rivals: Vec<String>,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("time_to_quality", || measure(&Arguments::parse()))
}

/// How good a side was after an epoch: the model of that epoch on the validation items, and the model chosen by validation
/// so far on the test items.
struct Point {
    seconds: f64,
    epoch: u32,
    validation: f64,
    test: f64,
    test_hr: f64,
}

/// What was found about one side.
struct Found {
    name: String,
    points: Vec<Point>,
    epochs: u32,
    seconds: f64,
    stopped: String,
    parameters: u64,
    peak_memory: f64,
    /// How it was configured.
    settings: String,
    versions: Value,
}

impl Found {
    fn first(&self, value: impl Fn(&Point) -> f64, level: f64) -> Option<f64> {
        self.points.iter().find(|p| value(p) >= level).map(|p| p.seconds)
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let python = python()?;
    let description = common::root().join("examples/datasets/ml-1m-a.toml");
    let data = DatasetFile::open(&description, Some(&arguments.data))?.read(&mut Silent, &Cancel::new())?;
    let split = Split::new(&data, &Protocol::LeaveOneOut)?;
    let folder = tempfile::tempdir_in(scratch())?;
    let file = folder.path().join("sequences");
    let people = 0..data.entities.len() as u32;
    let sequences: Vec<Vec<u32>> = people.map(|e| data.history(e).to_vec()).collect();
    common::write_sequences(&file, data.items.len(), &sequences)?;

    let mut found = vec![docent(arguments, &data, &split, folder.path())?];
    for name in &arguments.rivals {
        found.push(rectools(arguments, &python, name, &file, split.test.len())?);
        eprint!("{}", report(arguments, &data, &split, &found));
    }
    let text = report(arguments, &data, &split, &found);
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench time_to_quality --features cli -- --data ML-1M-FOLDER --minutes {} --threads {} --seed {} \
             --rivals {} --record {name}",
            arguments.minutes,
            arguments.threads,
            arguments.seed,
            arguments.rivals.join(",")
        );
        let hex = |hash: &[u8]| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut facts = vec![
            ("dataset".to_owned(), format!("{} (BLAKE3 {})", data.schema.name, hex(&data.hash))),
            ("questions".to_owned(), format!("{} (hash {})", split.test.len(), hex(&split.target_hash))),
            ("duration".to_owned(), format!("{:.1} min", begun.elapsed().as_secs_f64() / 60.0)),
        ];
        if let Some(last) = found.last().filter(|_| found.len() > 1) {
            facts.push(("versions".to_owned(), versions(&last.versions)));
        }
        facts.extend(found.iter().map(|f| (f.name.clone(), f.settings.clone())));
        let sides: Vec<Value> = found.iter().map(values).collect();
        let result = json!({"levels": LEVELS, "minutes": arguments.minutes, "sides": sides});
        write_record(
            name,
            "Time to quality on MovieLens-1M beside RecTools",
            &origin(&command),
            &facts,
            &text,
            &result,
        )?;
    }
    Ok(())
}

/// Trains as `docent train` does. The model that validation had chosen by each epoch is kept as a copy of the checkpoint,
/// and published and evaluated after the training, off its clock.
fn docent(arguments: &Arguments, data: &Dataset, split: &Split, folder: &Path) -> Result<Found> {
    let chosen = defaults(data, split)?;
    let options = TrainOptions {
        seed: arguments.seed,
        threads: arguments.threads,
        max_seconds: (arguments.minutes * 60.0).ceil() as u64,
        ..chosen.train
    };
    let trainer = || Trainer::new(data, split).model(chosen.model.clone()).options(options.clone());
    let checkpoints = folder.join("checkpoints");
    fs::create_dir_all(&checkpoints)?;
    let mut points = Vec::new();
    let mut kept: Vec<Option<PathBuf>> = Vec::new();
    let mut failed = None;
    let begun = Instant::now();
    let mut watch = |event: &ProgressEvent| match event {
        ProgressEvent::Validation(v) => {
            let metric = |name: &str| v.metrics.iter().find(|m| m.0 == name).map_or(0.0, |m| m.1);
            let (seconds, validation) = (begun.elapsed().as_secs_f64(), metric("ndcg@10"));
            eprintln!("docent: {seconds:.0} s, epoch {}, validation ndcg@10 {validation:.4}", v.epoch + 1);
            points.push(Point { seconds, epoch: v.epoch + 1, validation, test: 0.0, test_hr: 0.0 });
            kept.push(v.improved.then(|| folder.join(format!("epoch-{}", v.epoch + 1))));
        }
        ProgressEvent::Checkpoint { .. } => {
            if let Some(Some(to)) = kept.last()
                && !to.exists()
            {
                failed = copy(&checkpoints, to).err().or(failed.take());
            }
        }
        _ => {}
    };
    let trained = trainer().checkpoints(&checkpoints, false).run(&mut watch, &Cancel::new())?;
    let peak_memory = peak_rss_bytes() as f64;
    if let Some(e) = failed {
        return Err(e);
    }
    eprintln!("docent: stopped by {}; evaluating the models that validation chose", trained.stopped.as_str());
    // A training that is resumed and stopped at once gives the model that was best at its checkpoint.
    let stop = Cancel::new();
    stop.cancel();
    let mut current = (0.0, 0.0);
    for (point, kept) in points.iter_mut().zip(&kept) {
        if let Some(kept) = kept {
            let chosen = match kept.exists() {
                true => trainer().checkpoints(kept, true).run(&mut Silent, &stop)?,
                // A training that ran out of time ends without another checkpoint.
                false => trained.clone(),
            };
            current = test(arguments, data, split, &chosen)?;
        }
        (point.test, point.test_hr) = current;
        eprintln!("docent: epoch {}, test ndcg@10 {:.4}  hr@10 {:.4}", point.epoch, point.test, point.test_hr);
    }
    Ok(Found {
        name: "docent".into(),
        points,
        epochs: trained.epochs,
        seconds: trained.seconds,
        stopped: trained.stopped.as_str().into(),
        parameters: (trained.items.len() + trained.dense.len() + trained.features.len()) as u64,
        peak_memory,
        settings: "the defaults of `docent train`".into(),
        versions: Value::Null,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Test NDCG@10 and HR@10 of what publishing `trained` serves.
fn test(arguments: &Arguments, data: &Dataset, split: &Split, trained: &Trained) -> Result<(f64, f64)> {
    let store = tempfile::tempdir_in(scratch())?;
    let mut publisher = Store::create(store.path())?.publisher()?;
    publish(&mut publisher, data, split, trained, &RunRecord::default())?;
    let engine = Engine::open(store.path(), &EngineOptions::default())?;
    let scorer = EngineScorer::new(engine.current(), data)?;
    let options = EvaluateOptions {
        threads: arguments.threads as usize,
        resampling: Resampling { resamples: 0, ..Resampling::default() },
        cuts: false,
    };
    let evaluation = evaluate(data, split, &[&scorer], &options, &mut Silent, &Cancel::new())?;
    let row = evaluation.rows.first().ok_or("an evaluation without a row")?;
    let metric = |key: &str| row.metric(key).ok_or_else(|| format!("an evaluation without {key}"));
    Ok((metric("ndcg@10")?, metric("hr@10")?))
}

fn rectools(arguments: &Arguments, python: &Path, model: &str, file: &Path, questions: usize) -> Result<Found> {
    let name = format!("rectools {model}");
    let limit = arguments.minutes * 60.0;
    let top = LEVELS.into_iter().fold(0.0, f64::max);
    let mut command = Command::new(python);
    command.arg(rival("time_to_quality.py")).arg("--data").arg(file).args(["--model", model]);
    command.args(["--seconds", &limit.to_string(), "--level", &top.to_string()]);
    command.args(["--threads", &arguments.threads.to_string(), "--seed", &arguments.seed.to_string()]);
    command.env("OMP_NUM_THREADS", arguments.threads.to_string());
    // Large buffers are kept instead of given back to the system after each step: faster for PyTorch.
    command.env("MALLOC_TRIM_THRESHOLD_", "4294967296").env("MALLOC_MMAP_THRESHOLD_", "4294967296");
    let mut side = Side::start(&name, &mut command)?;
    // One step past the limit, one evaluation, and the start of Python.
    let patience = Duration::from_secs_f64(limit + 900.0);
    let ready = side.answer(patience)?;
    if ready["questions"].as_u64() != Some(questions as u64) {
        return Err(
            format!("{name} answers {} questions, docent {questions}; the splits differ", ready["questions"]).into()
        );
    }
    let mut found = Found {
        name: name.clone(),
        points: Vec::new(),
        epochs: 0,
        seconds: 0.0,
        stopped: String::new(),
        parameters: 0,
        peak_memory: 0.0,
        settings: ready["settings"].to_string(),
        versions: ready["versions"].clone(),
    };
    let (mut best, mut chosen) = (f64::MIN, (0.0, 0.0));
    while let Some(answer) = side.next(patience)? {
        if let Some(stopped) = answer["stopped"].as_str() {
            found.stopped = stopped.to_owned();
            found.epochs = number(&answer, "epochs")? as u32;
            found.parameters = number(&answer, "parameters")? as u64;
            found.peak_memory = number(&answer, "peak_memory")?;
            continue;
        }
        let validation = number(&answer["validation"], "ndcg@10")?;
        if validation > best {
            best = validation;
            chosen = (number(&answer["test"], "ndcg@10")?, number(&answer["test"], "hr@10")?);
        }
        let (seconds, epoch) = (number(&answer, "seconds")?, number(&answer, "epoch")? as u32);
        let (test, test_hr) = chosen;
        let part = if answer["whole"] == json!(false) { " (unfinished)" } else { "" };
        eprintln!(
            "{name}: {seconds:.0} s, epoch {epoch}{part}, validation ndcg@10 {validation:.4}, test ndcg@10 {:.4}",
            number(&answer["test"], "ndcg@10")?
        );
        found.seconds = seconds;
        found.points.push(Point { seconds, epoch, validation, test, test_hr });
    }
    if found.stopped.is_empty() {
        return Err(format!("{name} ended without saying why; its message is above").into());
    }
    Ok(found)
}

fn report(arguments: &Arguments, data: &Dataset, split: &Split, found: &[Found]) -> String {
    let mut text = format!(
        "time to quality: {}, leave-one-out, {} questions over {} items, {} threads, at most {} min a side\n",
        data.schema.name,
        split.test.len(),
        data.items.len(),
        arguments.threads,
        arguments.minutes
    );
    let test: fn(&Point) -> f64 = |p| p.test;
    for (what, value) in [("test (model chosen by validation)", test), ("validation", |p| p.validation)] {
        let mut rows = vec![vec![format!("seconds to ndcg@10, {what}")]];
        rows[0].extend(LEVELS.map(|l| l.to_string()));
        for f in found {
            let mut row = vec![f.name.clone()];
            for level in LEVELS {
                row.push(match (f.first(value, level), found[0].first(value, level)) {
                    (Some(s), Some(ours)) => format!("{s:.0} ({:.2}x)", s / ours),
                    (Some(s), None) => format!("{s:.0}"),
                    (None, Some(ours)) => format!("not in {:.0} (> {:.2}x)", f.seconds, f.seconds / ours),
                    (None, None) => format!("not in {:.0}", f.seconds),
                });
            }
            rows.push(row);
        }
        text += &format!("\n{}", table(&rows));
    }
    let headers =
        ["side", "epochs", "s", "s/epoch", "stopped by", "parameters", "peak memory", "test ndcg@10", "test hr@10"];
    let mut rows = vec![headers.map(str::to_owned).to_vec()];
    for f in found {
        let (test, hr) = f.points.last().map_or((0.0, 0.0), |p| (p.test, p.test_hr));
        rows.push(vec![
            f.name.clone(),
            f.epochs.to_string(),
            format!("{:.0}", f.seconds),
            format!("{:.1}", f.seconds / f64::from(f.epochs.max(1))),
            f.stopped.clone(),
            f.parameters.to_string(),
            format!("{:.0} MiB", f.peak_memory / f64::from(1 << 20)),
            format!("{test:.4}"),
            format!("{hr:.4}"),
        ]);
    }
    text += &format!("\n{}", table(&rows));
    text +=
        "x: of docent's time. Docent's validations are in its time; the evaluations of the rivals are not in theirs.\n";
    text
}

fn values(f: &Found) -> Value {
    let point = |p: &Point| {
        json!({
            "seconds": p.seconds, "epoch": p.epoch, "validation_ndcg@10": p.validation, "test_ndcg@10": p.test,
            "test_hr@10": p.test_hr,
        })
    };
    json!({
        "name": f.name,
        "settings": f.settings,
        "epochs": f.epochs,
        "seconds": f.seconds,
        "stopped": f.stopped,
        "parameters": f.parameters,
        "peak_memory": f.peak_memory,
        "seconds_to_test": LEVELS.map(|l| f.first(|p| p.test, l)),
        "seconds_to_validation": LEVELS.map(|l| f.first(|p| p.validation, l)),
        "points": f.points.iter().map(point).collect::<Vec<_>>(),
    })
}
