//! `docent evaluate`: a published model beside simple baselines, on the questions that its training kept back.

use crate::command_line::{cores, positive, refused, typed};
use crate::output::{Output, hex};
use crate::progress::Progress;
use crate::{dataset, interrupt, outcomes};
use docent::data::{Dataset, Protocol, Questions, Split, World};
use docent::evaluate::{
    CountedEvents, EngineScorer, EvaluateOptions, Evaluation, HeadResult, ItemKnn, KnnOptions, Markov, Optimum,
    Popularity, RecentPopularity, Record, Scorer, evaluate, evaluate_heads,
};
use docent::progress::Cancel;
use docent::serve::{Engine, EngineOptions, Generation};
use docent::store::Verify;
use docent::train::TrainConfig;
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Half-life, in days, of the baseline that counts recent events.
const RECENT_DAYS: f64 = 30.0;

/// Measure a published model beside simple baselines.
///
/// The whole catalogue is ranked for every question that the training kept back. The baselines are popularity, a
/// first-order Markov chain and item-kNN, and, where events have times, popularity with a half-life of 30 days. Several stores are several runs of one
/// model (seeds): their mean is reported, and each run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent evaluate --store shop.store --dataset dataset.toml --json > result.json")]
pub(crate) struct Arguments {
    /// The store; may be repeated, one for each seed of a model.
    #[arg(long, value_name = "DIR", required = true)]
    store: Vec<PathBuf>,
    /// A store of another model to compare with, on the same questions; may be repeated, one for each seed. Its row is
    /// `versus`.
    #[arg(long, value_name = "DIR")]
    versus: Vec<PathBuf>,
    /// The dataset's description.
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The split that must have kept the questions back from training [default: the one that the model was trained
    /// under]. `stale` asks a model of a time-split for lists that are served late; `per-head` judges the heads beside the
    /// item head alone. On labelled outcomes that training kept back, `ctr` judges the ranker, `few-shot` by how many outcomes of a person
    /// whom no training saw it is adapted to, `prequential` as it learns from one outcome after another.
    #[arg(long, value_name = "P", value_parser = asked)]
    protocol: Option<Asked>,
    #[command(flatten)]
    outcomes: outcomes::Source,
    /// Which questions are asked: all, or those whose target begins a run of actions, token-starts:max_gap=SECONDS, which a
    /// model of merged events and one of plain events can both answer.
    #[arg(long, value_name = "Q", default_value = "all", value_parser = |s: &str| Questions::parse(s).map_err(refused))]
    questions: Questions,
    /// Threads [default: one per core]; the result does not depend on them.
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// Write the result with all that repeats it to FILE.md and FILE.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// What is to be measured.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    /// Lists, on the questions of a protocol.
    Lists(Protocol),
    /// The heads beside the item head.
    Heads,
    /// The ranker.
    Outcomes(outcomes::Kind),
}

fn asked(text: &str) -> std::result::Result<Asked, String> {
    match text {
        "per-head" => Ok(Asked::Heads),
        "ctr" => Ok(Asked::Outcomes(outcomes::Kind::Ctr)),
        "few-shot" => Ok(Asked::Outcomes(outcomes::Kind::FewShot)),
        "prequential" => Ok(Asked::Outcomes(outcomes::Kind::Prequential)),
        _ => Protocol::parse(text).map(Asked::Lists).map_err(refused),
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let record = arguments.record.as_deref().map(record_place).transpose()?;
    let open = |stores: &[PathBuf]| -> Result<Vec<Arc<Generation>>> {
        // Figures are kept and compared: every byte they come from is checked first.
        let options = EngineOptions { verify: Verify::Full, ..EngineOptions::default() };
        stores.iter().map(|store| Ok(Engine::open(store, &options)?.current())).collect()
    };
    if record.is_some() && matches!(arguments.protocol, Some(Asked::Outcomes(_) | Asked::Heads)) {
        let message = "--record writes judgements of lists; keep this one with --json";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let (generations, versus) = (open(&arguments.store)?, open(&arguments.versus)?);
    let all: Vec<Arc<Generation>> = generations.iter().chain(&versus).cloned().collect();
    let stores: Vec<&PathBuf> = arguments.store.iter().chain(&arguments.versus).collect();
    let lists = match &arguments.protocol {
        Some(Asked::Lists(protocol)) => Some(protocol),
        _ => None,
    };
    let protocol = protocol_of(&all, &stores, lists)?;
    let (data, _) = dataset::read(&arguments.dataset, arguments.data.as_deref(), &mut progress, &cancel)?;
    for (generation, store) in all.iter().zip(&stores) {
        let trained_on = generation.snapshot().manifest().training.data_hash;
        if trained_on != data.hash {
            progress.warn(format_args!(
                "generation {} of {} was trained on other data than dataset {} holds now ({} and {}): items are matched by \
                 id, and some questions may have been trained on",
                generation.id(),
                store.display(),
                data.schema.name,
                short(&trained_on),
                short(&data.hash)
            ));
        }
    }
    let split = Split::new(&data, &protocol)?.only(&data, &arguments.questions)?;
    let threads = arguments.threads.unwrap_or(cores().get());
    if let Some(Asked::Outcomes(kind)) = arguments.protocol {
        let generation = all.first().filter(|_| all.len() == 1).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the ranker of one store is judged; leave the others out")
        })?;
        let (source, folder) = (&arguments.outcomes, arguments.data.as_deref());
        let found = outcomes::held_back(source, folder, generation, &data, &mut progress, &cancel)?;
        let (json, text) = outcomes::judge(kind, generation, &data, &found, &split, threads)?;
        progress.end();
        output.result(|| json, || text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let heads = heads(&generations, &data, &split)?;
    if arguments.protocol == Some(Asked::Heads) {
        progress.end();
        if heads.iter().all(Vec::is_empty) {
            let message = "no generation has a head beside the item head; train one with [objectives]";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        output.result(|| heads_report(&generations, &split, &heads), || heads_table(&generations, &heads))?;
        return Ok(ExitCode::SUCCESS);
    }
    let evaluation = judge([&generations, &versus], &data, &split, None, threads, &mut progress, &cancel)?;
    progress.end();
    if let Some((folder, name)) = &record {
        write_record(folder, name, [&generations, &versus], &data, &evaluation, &heads)?;
        output.say(format_args!("record written to {}", folder.join(format!("{name}.md")).display()));
    }
    let json = || {
        let mut report = report(&evaluation, &generations, &arguments.store);
        if let (Some(report), false) = (report.as_object_mut(), heads.iter().all(Vec::is_empty)) {
            report.insert("heads".into(), heads.iter().map(|h| heads_json(h)).collect());
        }
        report
    };
    output.result(json, || table(&evaluation, &generations) + &heads_table(&generations, &heads))?;
    Ok(ExitCode::SUCCESS)
}

/// What the heads of each generation reach.
fn heads(generations: &[Arc<Generation>], data: &Dataset, split: &Split) -> Result<Vec<Vec<HeadResult>>> {
    let judged = |g: &Arc<Generation>| evaluate_heads(&EngineScorer::new(Arc::clone(g), data)?, data, split);
    generations.iter().map(judged).collect()
}

fn heads_json(heads: &[HeadResult]) -> Value {
    let metrics = |h: &HeadResult| -> Value { h.metrics.iter().map(|(k, v)| (k.clone(), json!(v))).collect() };
    let head = |h: &HeadResult| json!({"name": h.name, "questions": h.questions, "metrics": metrics(h)});
    heads.iter().map(head).collect()
}

fn heads_report(generations: &[Arc<Generation>], split: &Split, heads: &[Vec<HeadResult>]) -> Value {
    json!({
        "generation": generations.first().map(|g| g.id().0),
        "protocol": "per-head",
        "split": split.describe(),
        "target_hash": hex(&split.target_hash),
        "heads": heads.iter().map(|h| heads_json(h)).collect::<Vec<Value>>(),
    })
}

fn heads_table(generations: &[Arc<Generation>], heads: &[Vec<HeadResult>]) -> String {
    let mut text = String::new();
    for (generation, heads) in generations.iter().zip(heads).filter(|(_, heads)| !heads.is_empty()) {
        text += &format!("\nheads of generation {}\n", generation.id());
        for head in heads {
            let metrics: Vec<String> = head.metrics.iter().map(|(k, v)| format!("{k} {v:.4}")).collect();
            text += &format!("  {:<16} {} ({} questions)\n", head.name, metrics.join("  "), head.questions);
        }
    }
    text
}

/// Judges generations (runs of one model) beside those of another one, if any, the baselines, and the optimum where the world
/// is known.
pub(crate) fn judge(
    [generations, versus]: [&[Arc<Generation>]; 2],
    data: &Dataset,
    split: &Split,
    world: Option<&World>,
    threads: usize,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Evaluation> {
    let ours = generations.iter().map(|g| EngineScorer::new(Arc::clone(g), data)).collect::<Result<Vec<_>>>()?;
    let others = versus.iter().map(|g| Ok(EngineScorer::new(Arc::clone(g), data)?.named("versus")));
    let others = others.collect::<Result<Vec<_>>>()?;
    let known = CountedEvents::BeforeTest;
    let popularity = Popularity::fit(data, split, known);
    let markov = Markov::fit(data, split, known);
    let knn = ItemKnn::fit(data, split, known, &KnnOptions::default(), threads);
    let recent = match data.schema.has_time {
        true => Some(RecentPopularity::fit(data, split, known, RECENT_DAYS)?),
        false => None,
    };
    let optimum = world.map(|world| Optimum::new(world, data)).transpose()?;
    let mut scorers: Vec<&dyn Scorer> = ours.iter().chain(&others).map(|s| s as &dyn Scorer).collect();
    scorers.extend([&popularity as &dyn Scorer, &markov, &knn]);
    scorers.extend(recent.as_ref().map(|s| s as &dyn Scorer));
    scorers.extend(optimum.as_ref().map(|s| s as &dyn Scorer));
    let options = EvaluateOptions { threads, ..EvaluateOptions::default() };
    evaluate(data, split, &scorers, &options, progress, cancel)
}

/// The evaluation with the keys of the command line's contract. With several stores `generation` is that of the first.
pub(crate) fn report(evaluation: &Evaluation, generations: &[Arc<Generation>], stores: &[PathBuf]) -> Value {
    let mut report = evaluation.json("");
    let first = generations.first().map(|g| g.id().0);
    if let Some(report) = report.as_object_mut() {
        report.insert("generation".into(), first.into());
        let runs = generations.iter().zip(stores);
        let runs = runs.map(|(g, s)| json!({"store": s.display().to_string(), "generation": g.id().0}));
        report.insert("stores".into(), runs.collect());
    }
    report
}

/// The evaluation as text.
pub(crate) fn table(evaluation: &Evaluation, generations: &[Arc<Generation>]) -> String {
    let ids: Vec<String> = generations.iter().map(|g| g.id().to_string()).collect();
    let word = if ids.len() == 1 { "generation" } else { "generations" };
    format!("{word} {}, {}", ids.join(", "), evaluation.table())
}

/// The protocol that all generations were trained under; any other one would ask what was trained on.
fn protocol_of(generations: &[Arc<Generation>], stores: &[&PathBuf], asked: Option<&Protocol>) -> Result<Protocol> {
    let mut common: Option<Protocol> = asked.cloned();
    for (generation, store) in generations.iter().zip(stores) {
        let trained = Protocol::parse(&generation.snapshot().manifest().training.protocol).map_err(|e| {
            let (id, store) = (generation.id(), store.display());
            let message = format!("generation {id} of {store} does not say how its data was split: {}", e.message());
            Error::new(ErrorKind::StateMismatch, message)
        })?;
        if trained == Protocol::Everything {
            return Err(Error::new(
                ErrorKind::StateMismatch,
                format!(
                    "generation {} of {} was trained on everything, so that nothing is left to measure it with; train \
                     with --protocol leave-one-out",
                    generation.id(),
                    store.display()
                ),
            ));
        }
        match &common {
            Some(asked) if *asked != trained && asked.trained_as() != trained => {
                return Err(Error::new(
                    ErrorKind::StateMismatch,
                    format!(
                        "generation {} of {} was trained under protocol {trained}, so questions of {asked} may have been \
                         trained on; train with --protocol {} to measure that",
                        generation.id(),
                        store.display(),
                        asked.trained_as()
                    ),
                ));
            }
            Some(_) => {}
            None => common = Some(trained),
        }
    }
    common.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "there is no store to evaluate; name one with --store"))
}

fn short(hash: &[u8; 32]) -> String {
    hash.first_chunk::<6>().map(|h| hex(h)).unwrap_or_default()
}

/// Folder and name of a record.
fn record_place(path: &Path) -> Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|n| n.to_str()).map(|n| {
        let stem = n.strip_suffix(".md").or_else(|| n.strip_suffix(".json"));
        stem.unwrap_or(n).to_owned()
    });
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match name.filter(|n| !n.is_empty() && !n.starts_with('.')) {
        Some(name) => Ok((folder.to_owned(), name)),
        None => {
            let message = format!("{} does not name a record; write for example records/shop.md", path.display());
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

fn write_record(
    folder: &Path,
    name: &str,
    [generations, versus]: [&[Arc<Generation>]; 2],
    data: &Dataset,
    evaluation: &Evaluation,
    heads: &[Vec<HeadResult>],
) -> Result<()> {
    let title = format!("docent on {}, {}", data.schema.name, evaluation.protocol);
    let ids: Vec<String> = generations.iter().map(|g| g.id().to_string()).collect();
    let mut record = Record::new(&title, &typed(), &ids.join(", "), data, evaluation.clone());
    for (generation, of) in generations.iter().map(|g| (g, "")).chain(versus.iter().map(|g| (g, "versus, "))) {
        let (manifest, run) = (generation.snapshot().manifest(), generation.snapshot().run());
        let seed = manifest.training.options.seed;
        let (t, minutes) = (&manifest.training, run.seconds / 60.0);
        record.figures.push((
            format!("training, {of}seed {seed}"),
            format!(
                "{minutes:.1} min, {} epochs (best {}), {} steps, {:.0} tokens/s on {}, peak memory {} MiB, stopped by {}",
                t.epochs,
                t.best_epoch + 1,
                t.steps,
                run.tokens_per_second,
                run.device,
                run.peak_rss_bytes >> 20,
                t.stopped
            ),
        ));
        record.figures.push((format!("validation, {of}seed {seed}"), crate::output::metrics_text(&t.validation)));
        record.figures.push((format!("losses, {of}seed {seed}"), crate::output::metrics_text(&t.losses)));
        record.figures.push((format!("trained by, {of}seed {seed}"), format!("`{}`", run.command)));
    }
    for (generation, heads) in generations.iter().zip(heads) {
        let seed = generation.snapshot().manifest().training.options.seed;
        for head in heads {
            let metrics = crate::output::metrics_text(&head.metrics);
            record.figures.push((
                format!("head {}, seed {seed}", head.name),
                format!("{metrics} ({} questions)", head.questions),
            ));
        }
    }
    if let Some(first) = generations.first() {
        let manifest = first.snapshot().manifest();
        let config = TrainConfig::of(manifest);
        record.configuration = config.entries()?;
        record.configuration.push(("parameters".into(), manifest.training.parameters.to_string()));
    }
    if data.schema.has_time {
        record.configuration.push(("recent-popularity.half_life_days".into(), RECENT_DAYS.to_string()));
    }
    record.write(folder, name)
}
