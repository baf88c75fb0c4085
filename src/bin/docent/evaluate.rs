//! `docent evaluate`: a published model beside simple baselines, on the questions that its training kept back.

use crate::command_line::{Data, Ids, Outcomes, cores, positive, refused, typed};
use crate::interrupt;
use crate::output::{Output, to_json};
use crate::progress::Progress;
use docent::Result;
use docent::data::Questions;
use docent::evaluate::{HeadResult, OutcomePart};
use docent::pipeline::{self, EvaluateJob, EvaluateReport, Judgement, Measure, Run};
use docent::serve::{Engine, EngineOptions, Filter};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measure a published model beside simple baselines.
///
/// Every question that the training kept back is asked as a caller would, as of its time: the row `docent` is what is served, with the
/// ranker where there is one; `retrieval` is the foundation model alone. The baselines are popularity, a first-order Markov chain,
/// item-kNN, EASE (up to 20,000 items) and iALS, and, where events have times, popularity with a half-life of 30 days. Several
/// stores are several runs of one model (seeds): their mean is reported, and each run.
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
    #[command(flatten)]
    data: Data,
    /// The split that must have kept the questions back from training [default: the one that the model was trained
    /// under]. `stale` asks a model of a time-split for lists that are served late; `per-head` judges the heads beside the
    /// item head alone. On labelled outcomes that training kept back, `ctr` judges the ranker, `few-shot` by how many outcomes of a person
    /// whom no training saw it is adapted to, `prequential` as it learns from one outcome after another.
    #[arg(long, value_name = "P", value_parser = |s: &str| s.parse::<Measure>().map_err(refused))]
    protocol: Option<Measure>,
    #[command(flatten)]
    outcomes: Outcomes,
    /// Which questions are asked: all, or those whose target begins a run of actions, token-starts:max_gap=SECONDS, which a
    /// model of merged events and one of plain events can both answer.
    #[arg(long, value_name = "Q", default_value = "all", value_parser = |s: &str| Questions::parse(s).map_err(refused))]
    questions: Questions,
    /// Ask with the items that were added since the publication, and without those that were removed.
    #[arg(long)]
    live: bool,
    /// Leave these items out of what is served. Repeat it for further ones. An id that holds a comma stands alone, or in a JSON array such
    /// as ["a,b","c"].
    #[arg(long, value_name = "ID,ID,...", allow_hyphen_values = true)]
    deny: Vec<Ids>,
    /// Serve only these items; written as for --deny.
    #[arg(long, value_name = "ID,ID,...", allow_hyphen_values = true)]
    allow: Option<Vec<Ids>>,
    /// Leave the baselines out: EASE takes minutes from some ten thousand items on.
    #[arg(long)]
    no_baselines: bool,
    /// Threads [default: one per core]; the result does not depend on them.
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// Write the result with all that repeats it to FILE.md and FILE.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// The ids that `--deny` and `--allow` name, by the first store's catalogue.
fn named(arguments: &Arguments) -> Result<(Vec<String>, Option<Vec<String>>)> {
    let Some(store) = arguments.store.first().filter(|_| !arguments.deny.is_empty() || arguments.allow.is_some())
    else {
        return Ok((Vec::new(), None));
    };
    let generation =
        Engine::open(store, &EngineOptions { live: arguments.live, ..EngineOptions::default() })?.current();
    let allow = arguments.allow.as_ref().map(|flags| Ids::of(flags, &generation)).transpose()?;
    Ok((Ids::denied(&arguments.deny, &generation)?, allow))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let (denied, allowed) = named(arguments)?;
    let deny: Vec<&str> = denied.iter().map(String::as_str).collect();
    let allow: Option<Vec<&str>> = allowed.as_ref().map(|ids| ids.iter().map(String::as_str).collect());
    let job = EvaluateJob {
        live: arguments.live,
        filter: Filter { deny: &deny, allow: allow.as_deref(), ..Filter::default() },
        measure: arguments.protocol.clone().unwrap_or_default(),
        baselines: !arguments.no_baselines,
        versus: arguments.versus.clone(),
        questions: arguments.questions.clone(),
        threads: arguments.threads.unwrap_or(cores().get()),
        record: arguments.record.clone(),
        command: typed(),
        ..EvaluateJob::default()
    };
    let files = arguments.data.files(Some(&arguments.outcomes));
    let report = pipeline::evaluate(files, &arguments.store, &job, &mut progress, &cancel);
    progress.end();
    let report = report?;
    output.result(|| json(&report), || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// The report with the keys of the command line's contract. With several stores `generation` is that of the first.
pub(crate) fn json(report: &EvaluateReport) -> Value {
    let generation = report.runs.first().map(|r| r.generation.0);
    let object = |protocol: &str, key: &str, value: Value| {
        json!({
            "generation": generation,
            "protocol": protocol,
            "split": report.split,
            "target_hash": report.target_hash,
            key: value,
        })
    };
    match &report.judgement {
        Judgement::Lists { evaluation, heads } => {
            let mut found = evaluation.json("");
            let run = |r: &Run| json!({"store": r.store.display().to_string(), "generation": r.generation.0});
            insert(&mut found, "generation", json!(generation));
            insert(&mut found, "stores", report.runs.iter().map(run).collect());
            if heads.iter().any(|heads| !heads.is_empty()) {
                insert(&mut found, "heads", to_json(heads));
            }
            found
        }
        Judgement::Heads(heads) => object("per-head", "heads", to_json(heads)),
        Judgement::Ctr(parts) => {
            let mut found = object("ctr", "parts", parts.iter().map(part_json).collect::<Map<_, _>>().into());
            insert(&mut found, "targets", json!(parts.iter().map(|p| p.judged.targets).sum::<usize>()));
            insert(&mut found, "rows", json!(parts.first().and_then(|p| p.judged.json().get("rows").cloned())));
            found
        }
        Judgement::FewShot(judged) => object("few-shot", "result", judged.json()),
        Judgement::Prequential(judged) => object("prequential", "result", judged.json()),
        _ => Value::Null,
    }
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn part_json(part: &OutcomePart) -> (String, Value) {
    let mut judged = part.judged.json();
    let curve = part.curve.iter().map(|(k, auc)| json!({"steps": k, "auc": auc}));
    insert(&mut judged, "by_steps", curve.collect());
    (part.entities.to_owned(), judged)
}

/// The report as text.
pub(crate) fn text(report: &EvaluateReport) -> String {
    let ids: Vec<String> = report.runs.iter().map(|r| r.generation.to_string()).collect();
    let word = if ids.len() == 1 { "generation" } else { "generations" };
    let name = format!("{word} {}", ids.join(", "));
    match &report.judgement {
        Judgement::Lists { evaluation, heads } => format!("{name}, {}", evaluation.table()) + &heads_text(&ids, heads),
        Judgement::Heads(heads) => heads_text(&ids, heads),
        Judgement::Ctr(parts) => {
            let mut text = format!("{name}, outcomes kept back from training\n");
            for part in parts {
                let curve: Vec<String> = part.curve.iter().map(|(k, auc)| format!("{k}: {auc:.4}")).collect();
                text += &format!("\n{} people: {}", part.entities, part.judged.table());
                text += &format!("auc after inner steps  {}\n", curve.join("  "));
            }
            text
        }
        Judgement::FewShot(judged) => format!("{name}, hidden people\n{}", judged.table()),
        Judgement::Prequential(judged) => format!("{name}, outcome by outcome\n{}", judged.table()),
        _ => String::new(),
    }
}

fn heads_text(ids: &[String], heads: &[Vec<HeadResult>]) -> String {
    let mut text = String::new();
    for (id, heads) in ids.iter().zip(heads).filter(|(_, heads)| !heads.is_empty()) {
        text += &format!("\nheads of generation {id}\n");
        for head in heads {
            let metrics: Vec<String> = head.metrics.entries().map(|(k, v)| format!("{k} {v:.4}")).collect();
            text += &format!("  {:<16} {} ({} questions)\n", head.name, metrics.join("  "), head.questions);
        }
    }
    text
}
