//! The labelled outcomes that a ranker learns from and is adapted to.

use crate::dataset;
use crate::output::hex;
use crate::progress::Progress;
use docent::data::{Dataset, Protocol, Split};
use docent::evaluate::{
    FewShotOptions, OutcomePart, PrequentialOptions, Resampling, evaluate_few_shot, evaluate_outcomes,
    evaluate_prequential,
};
use docent::progress::Cancel;
use docent::serve::Generation;
use docent::train::ranker::Impressions;
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The share of each person's outcomes that a training leaves for `docent evaluate --protocol ctr`.
pub(crate) const HELD_OUT: f32 = 0.2;

/// What a training under `protocol` leaves: protocols that keep labelled events back need no more, and one that keeps nothing
/// back keeps none.
pub(crate) fn held_out(protocol: &Protocol) -> f32 {
    match protocol {
        Protocol::Everything | Protocol::Ctr { .. } => 0.0,
        _ => HELD_OUT,
    }
}

/// Where outcomes come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Source {
    /// The description of a log of labelled outcomes, such as what was shown and whether it was clicked; its people and items are
    /// matched by id, its times say what was known before [default: the labelled events of the dataset].
    #[arg(long, value_name = "FILE")]
    pub(crate) outcomes: Option<PathBuf>,
}

/// Reads the outcomes of `source` beside `data`; `None` where there are none.
pub(crate) fn read(
    source: &Source,
    folder: Option<&Path>,
    data: &Dataset,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Option<Impressions>> {
    let found = match &source.outcomes {
        Some(file) => {
            let (log, _) = dataset::read(file, folder, progress, cancel)?;
            Some(Impressions::from_log(data, &log)?)
        }
        None if data.events.label.iter().any(|l| !l.is_nan()) => Some(Impressions::from_labels(data)?),
        None => None,
    };
    if let Some(found) = &found {
        // Before hours of training, not after them.
        found.check(data)?;
        progress.say(format_args!("outcomes: {} of {} entities", found.len(), found.entities()));
    }
    Ok(found)
}

/// What is asked of the ranker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What training kept back.
    Ctr,
    /// Hidden people, by how many of their outcomes are known.
    FewShot,
    /// One outcome after another.
    Prequential,
}

/// The outcomes of `source`, those held out that the training of the generation held out.
pub(crate) fn held_back(
    source: &Source,
    folder: Option<&Path>,
    generation: &Generation,
    data: &Dataset,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Impressions> {
    let found = read(source, folder, data, progress, cancel)?.ok_or_else(|| {
        let name = &data.schema.name;
        let message = format!("dataset {name} has no labelled events; declare `label`, or bring a log with --outcomes");
        Error::new(ErrorKind::InvalidData, message)
    })?;
    found.holding_out(generation.ranker().map_or(0.0, |r| r.held_out))
}

/// Judges the ranker of a generation: as JSON and as text.
pub(crate) fn judge(
    kind: Kind,
    generation: &Arc<Generation>,
    data: &Dataset,
    found: &Impressions,
    split: &Split,
    threads: usize,
) -> Result<(Value, String)> {
    let whole = |protocol: &str, judged: Value| {
        json!({
            "generation": generation.id().0,
            "protocol": protocol,
            "split": split.describe(),
            "target_hash": hex(&split.target_hash),
            "result": judged,
        })
    };
    let id = generation.id();
    Ok(match kind {
        Kind::Ctr => {
            let parts = evaluate_outcomes(generation, data, found, split, &Resampling::default(), threads)?;
            (report(generation, split, &parts), table(generation, &parts))
        }
        Kind::FewShot => {
            let options = FewShotOptions { threads, ..FewShotOptions::default() };
            let judged = evaluate_few_shot(generation, data, found, split, &options)?;
            (whole("few-shot", judged.json()), format!("generation {id}, hidden people\n{}", judged.table()))
        }
        Kind::Prequential => {
            let options = PrequentialOptions { threads, ..PrequentialOptions::default() };
            let judged = evaluate_prequential(generation, data, found, split, &options)?;
            (whole("prequential", judged.json()), format!("generation {id}, outcome by outcome\n{}", judged.table()))
        }
    })
}

/// The judgement with the keys of the command line's contract.
fn report(generation: &Generation, split: &Split, parts: &[OutcomePart]) -> Value {
    let part = |p: &OutcomePart| {
        let mut judged = p.judged.json();
        if let Some(judged) = judged.as_object_mut() {
            let curve = p.curve.iter().map(|(k, auc)| json!({"steps": k, "auc": auc}));
            judged.insert("by_steps".into(), curve.collect());
        }
        (p.entities.to_owned(), judged)
    };
    json!({
        "generation": generation.id().0,
        "protocol": "ctr",
        "split": split.describe(),
        "target_hash": hex(&split.target_hash),
        "targets": parts.iter().map(|p| p.judged.targets).sum::<usize>(),
        "rows": parts.first().and_then(|p| p.judged.json().get("rows").cloned()),
        "parts": parts.iter().map(part).collect::<serde_json::Map<_, _>>(),
    })
}

/// The judgement as text.
fn table(generation: &Generation, parts: &[OutcomePart]) -> String {
    let mut text = format!("generation {}, outcomes kept back from training\n", generation.id());
    for part in parts {
        text += &format!("\n{} people: {}", part.entities, part.judged.table());
        let curve: Vec<String> = part.curve.iter().map(|(k, auc)| format!("{k}: {auc:.4}")).collect();
        text += &format!("auc after inner steps  {}\n", curve.join("  "));
    }
    text
}
