//! The quality board: the plain defaults on every development set, beside the baselines; benches/README.md explains it.
//!
//! `cargo bench --bench board --features cli -- --data DIR`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
#[path = "common/tiny.rs"]
mod tiny;

use clap::Parser;
use common::{Result, origin, root, scratch, table, write_record};
use docent::data::{Dataset, DatasetFile, Protocol, SyntheticOptions, World};
use docent::evaluate::{Evaluation, RankMetric};
use docent::options::ModelOptions;
use docent::pipeline::{self, EvaluateJob, Measure, Settings, TrainJob, TrainReport};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::train::{TrainConfig, defaults};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Trains the plain defaults on every development set, with and without item metadata, and judges them beside the baselines.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder that holds one folder for each public set: ml-1m, ml-100k, ml-latest-small, amazon-toys, deskdrop.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// One seed instead of three.
    #[arg(long)]
    quick: bool,
    /// So many seeds.
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "quick")]
    seeds: u64,
    /// These sets alone. A record keeps what it has of other sets, where it is of models that this code trains.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Where trained stores are kept. Those of an earlier run are taken as they are: a board that was stopped goes on.
    #[arg(long, value_name = "DIR")]
    stores: Option<PathBuf>,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What a reader of the record should know of this run.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Train one store and end; what the board starts itself as, so that each training's memory is its own.
    #[arg(long, hide = true, num_args = 4)]
    side: Option<Vec<String>>,
    /// Print the hashes of the tiny trainings and end; in a process of its own, because these run on plain loops.
    #[arg(long, hide = true)]
    hashes: bool,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A development set: its name, the folder of its files, and the protocol where it is not the description's.
struct Set {
    name: &'static str,
    folder: &'static str,
    protocol: Option<&'static str>,
    /// Whether its figures may be printed in a record.
    public: bool,
}

const SETS: [Set; 7] = [
    Set { name: "ml-1m-a", folder: "ml-1m", protocol: None, public: true },
    Set { name: "ml-1m-b", folder: "ml-1m", protocol: None, public: true },
    Set { name: "ml-100k", folder: "ml-100k", protocol: Some("time-split:test=0.2,validation=0.1"), public: true },
    Set { name: "ml-latest-small", folder: "ml-latest-small", protocol: None, public: false },
    Set { name: "amazon-toys", folder: "amazon-toys", protocol: None, public: true },
    Set { name: "deskdrop", folder: "deskdrop", protocol: None, public: true },
    Set { name: "world", folder: "", protocol: None, public: true },
];

const COLUMNS: [&str; 5] = ["ndcg@10", "hr@10", "hr@200", "coverage@10", "head_share@10"];

fn main() -> ExitCode {
    common::main("board", || measure(&Arguments::parse()))
}

fn measure(arguments: &Arguments) -> Result<()> {
    if let Some([set, metadata, seed, store]) = arguments.side.as_deref().and_then(|s| s.first_chunk()) {
        return side(arguments, set, metadata == "with", seed.parse()?, Path::new(store));
    }
    if arguments.hashes {
        println!(
            "{}",
            serde_json::to_string(&tiny::hashes()?.into_iter().collect::<std::collections::BTreeMap<_, _>>())?
        );
        return Ok(());
    }
    if let Some(unknown) = arguments.only.iter().find(|name| SETS.iter().all(|s| s.name != **name)) {
        let names: Vec<&str> = SETS.iter().map(|s| s.name).collect();
        return Err(format!("there is no set {unknown:?}; choose of {}", names.join(", ")).into());
    }
    let stores = arguments.stores.clone().unwrap_or_else(|| scratch().join("board"));
    fs::create_dir_all(&stores)?;
    let seeds: Vec<u64> = if arguments.quick { vec![1] } else { (1..=arguments.seeds).collect() };
    let wanted = |set: &&Set| arguments.only.is_empty() || arguments.only.iter().any(|name| name == set.name);
    let mut results = Vec::new();
    for set in SETS.iter().filter(wanted) {
        let (page, result) = board(arguments, set, &seeds, &stores)?;
        print!("{page}");
        if set.public {
            results.push(result);
        }
    }
    let Some(name) = &arguments.record else { return Ok(()) };
    let hashes = Command::new(std::env::current_exe()?).args(["--hashes", "--bench", "--data", "."]).output()?;
    let hashes: Value = serde_json::from_slice(&hashes.stdout)?;
    for kept in kept(name, &hashes) {
        if results.iter().all(|new| new["set"] != kept["set"]) {
            results.push(kept);
        }
    }
    let place = |result: &Value| SETS.iter().position(|set| result["set"] == set.name);
    results.sort_by_key(place);
    let text: String = results.iter().filter_map(|result| result["page"].as_str()).collect();
    let facts: Vec<(String, String)> = arguments.note.iter().map(|note| ("note".to_owned(), note.clone())).collect();
    let result = json!({"hashes": hashes, "sets": results});
    write_record(name, "The quality board", &origin(&command(arguments, &[])), &facts, &text, &result)
}

/// The command that prints some sets again; all where none is named.
fn command(arguments: &Arguments, only: &[&str]) -> String {
    let mut command = "cargo bench --bench board --features cli -- --data DIR".to_owned();
    match (arguments.quick, arguments.seeds) {
        (true, _) => command += " --quick",
        (false, 3) => {}
        (false, seeds) => command += &format!(" --seeds {seeds}"),
    }
    if !only.is_empty() {
        command += &format!(" --only {}", only.join(","));
    }
    command
}

/// The sets of a record that was made of models that this code trains.
fn kept(name: &str, hashes: &Value) -> Vec<Value> {
    let read = || -> Option<Value> {
        let record = fs::read(root().join("benches/records").join(format!("{name}.json"))).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        Some(record["result"].clone()).filter(|result| result["hashes"] == *hashes)
    };
    read().and_then(|result| result["sets"].as_array().cloned()).unwrap_or_default()
}

/// Trains what is missing of a set, and judges it.
fn board(arguments: &Arguments, set: &Set, seeds: &[u64], stores: &Path) -> Result<(String, Value)> {
    let (data, protocol, world) = read(arguments, set)?;
    let described = !data.schema.item_fields.is_empty() || data.titles.iter().any(|t| !t.is_empty());
    let mut trained = Vec::new();
    for metadata in ["with", "without"] {
        if metadata == "with" && !described {
            continue;
        }
        for seed in seeds {
            let store = stores.join(format!("{}-{metadata}-{seed}", set.name));
            let report = store.join("report.json");
            if !report.is_file() {
                eprintln!("{}: training {metadata} metadata, seed {seed}", set.name);
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--bench", "--threads", &arguments.threads.to_string(), "--data"]).arg(&arguments.data);
                command.args(["--side", set.name, metadata, &seed.to_string()]).arg(&store);
                if !command.status()?.success() {
                    return Err(format!("training {} on {} failed; its message is above", metadata, set.name).into());
                }
            }
            trained.push((metadata, store, serde_json::from_slice::<Value>(&fs::read(report)?)?));
        }
    }
    let of =
        |metadata: &str| -> Vec<PathBuf> { trained.iter().filter(|t| t.0 == metadata).map(|t| t.1.clone()).collect() };
    let (ours, versus) = if described { (of("with"), of("without")) } else { (of("without"), Vec::new()) };
    let job = EvaluateJob {
        measure: Measure::Lists(Some(protocol)),
        versus,
        threads: arguments.threads as usize,
        world: world.as_ref(),
        ..EvaluateJob::default()
    };
    eprintln!("{}: judging", set.name);
    let report = pipeline::evaluate(&data, &ours, &job, &mut Silent, &Cancel::new())?;
    let lists = report.lists().ok_or("lists were asked for")?;
    let page = page(set, lists, &trained, &command(arguments, &[set.name]));
    let result = result(set, lists, &trained, &page);
    Ok((page, result))
}

/// What a set's table calls a row.
fn called(name: &str) -> &str {
    match name {
        "versus" => "docent, without metadata",
        other => other,
    }
}

fn page(set: &Set, lists: &Evaluation, trained: &[(&str, PathBuf, Value)], command: &str) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(COLUMNS.iter().map(|c| (*c).to_owned()));
    rows[0].extend(["ndcg@10 interval", "first row minus this", "seconds", "MiB"].map(str::to_owned));
    // No set has outcomes, so no ranker: the lists that are served are those that are retrieved.
    for row in lists.rows.iter().filter(|row| row.name != "retrieval") {
        let mut line = vec![called(&row.name).to_owned()];
        line.extend(COLUMNS.iter().map(|c| row.metric(c).map_or_else(|| "-".into(), |v| format!("{v:.4}"))));
        let span = |[low, high]: [f64; 2]| format!("{low:+.4} to {high:+.4}");
        line.push(row.interval.map_or_else(|| "-".into(), |i| span(i.ndcg_10)));
        let ahead = lists.differences.iter().find(|d| d.versus == row.name && d.metric == RankMetric::Ndcg10);
        line.push(ahead.and_then(|d| d.interval).map_or_else(|| "-".into(), span));
        let metadata = match &*row.name {
            "docent" if trained.iter().any(|t| t.0 == "with") => Some("with"),
            "docent" | "versus" => Some("without"),
            _ => None,
        };
        let mean = |key: &str, unit: f64| {
            let values: Vec<f64> =
                trained.iter().filter(|t| Some(t.0) == metadata).filter_map(|t| t.2[key].as_f64()).collect();
            let sum: f64 = values.iter().sum();
            if values.is_empty() { "-".into() } else { format!("{:.0}", sum / values.len() as f64 / unit) }
        };
        line.extend([mean("seconds", 1.0), mean("peak_rss_bytes", 1048576.0)]);
        rows.push(line);
    }
    let seeds = trained.len() / if trained.iter().any(|t| t.0 == "with") { 2 } else { 1 };
    let title = format!(
        "{}: {}, {} questions over {} items, {seeds} seed{}\nseen items {}: {} questions ask for one, {} are not asked",
        set.name,
        lists.protocol,
        lists.targets,
        lists.catalogue,
        if seeds == 1 { "" } else { "s" },
        lists.seen,
        lists.repeats,
        lists.not_asked
    );
    format!("{title}\n{command}\n\n{}\n", table(&rows))
}

fn result(set: &Set, lists: &Evaluation, trained: &[(&str, PathBuf, Value)], page: &str) -> Value {
    // Where a store stood is of no use to a reader.
    let report = |report: &Value| {
        let mut report = report.clone();
        report.as_object_mut().map(|report| report.remove("store"));
        report
    };
    let trained: Vec<Value> =
        trained.iter().map(|(metadata, _, own)| json!({"metadata": metadata, "train": report(own)})).collect();
    json!({"set": set.name, "evaluation": lists, "trained": trained, "page": page})
}

/// The data of a set, its protocol, and the world that it comes from.
fn read(arguments: &Arguments, set: &Set) -> Result<(Dataset, Protocol, Option<World>)> {
    let given = set.protocol.map(Protocol::parse).transpose()?;
    if set.folder.is_empty() {
        let world = World::new(&SyntheticOptions::default(), arguments.threads as usize)?;
        return Ok((world.dataset()?, given.unwrap_or(Protocol::LeaveOneOut), Some(world)));
    }
    let description = root().join("examples/datasets").join(format!("{}.toml", set.name));
    let file = DatasetFile::open(&description, Some(&arguments.data.join(set.folder)))?;
    let protocol = given.or(file.protocol().cloned()).unwrap_or(Protocol::LeaveOneOut);
    Ok((file.read(&mut Silent, &Cancel::new())?, protocol, None))
}

/// One training of the plain defaults, without metadata if asked; its report is left in the store.
fn side(arguments: &Arguments, name: &str, metadata: bool, seed: u64, store: &Path) -> Result<()> {
    let set = SETS.iter().find(|s| s.name == name).ok_or("no such set")?;
    let (data, protocol, _) = read(arguments, set)?;
    let config = match metadata {
        true => None,
        false => {
            let split = docent::data::Split::new(&data, &protocol)?;
            let chosen = defaults(&data, &split)?;
            let model = ModelOptions { tower: None, ..chosen.model };
            Some(TrainConfig { model, train: chosen.train, ..TrainConfig::default() })
        }
    };
    let settings = Settings {
        config,
        seed: Some(seed),
        threads: Some(arguments.threads),
        granted: arguments.threads,
        ..Settings::default()
    };
    let job = TrainJob { settings, protocol: Some(protocol), ..TrainJob::default() };
    // What a stopped board left of it.
    if store.exists() {
        fs::remove_dir_all(store)?;
    }
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Validation(v) = event {
            eprintln!("{name}: epoch {}, best NDCG@10 {:.4}", v.epoch + 1, v.best);
        }
    };
    let report: TrainReport = pipeline::train(&data, store, &job, &mut watch, &Cancel::new())?;
    fs::write(store.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}
