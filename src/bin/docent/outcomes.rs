//! The labelled outcomes that a ranker learns from and is adapted to.

use crate::dataset;
use crate::output::hex;
use crate::progress::Progress;
use docent::data::{Dataset, Protocol, Split};
use docent::evaluate::{OutcomePart, Resampling, evaluate_outcomes};
use docent::observe::Cancel;
use docent::serve::Generation;
use docent::train::meta::Impressions;
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
        progress.say(format_args!("outcomes: {} of {} entities", found.len(), found.entities()));
    }
    Ok(found)
}

/// Judges the ranker of a generation on the outcomes that its training kept back.
#[expect(clippy::too_many_arguments, reason = "two call sites; a struct would only name them twice")]
pub(crate) fn judge(
    source: &Source,
    folder: Option<&Path>,
    generation: &Arc<Generation>,
    data: &Dataset,
    split: &Split,
    threads: usize,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Vec<OutcomePart>> {
    let found = read(source, folder, data, progress, cancel)?.ok_or_else(|| {
        let name = &data.schema.name;
        let message = format!("dataset {name} has no labelled events; declare `label`, or bring a log with --outcomes");
        Error::new(ErrorKind::InvalidData, message)
    })?;
    let held_out = generation.ranker().map_or(0.0, |r| r.held_out);
    evaluate_outcomes(generation, data, &found.holding_out(held_out)?, split, &Resampling::default(), threads)
}

/// The judgement with the keys of the command line's contract.
pub(crate) fn report(generation: &Generation, split: &Split, parts: &[OutcomePart]) -> Value {
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
pub(crate) fn table(generation: &Generation, parts: &[OutcomePart]) -> String {
    let mut text = format!("generation {}, outcomes kept back from training\n", generation.id());
    for part in parts {
        text += &format!("\n{} people: {}", part.entities, part.judged.table());
        let curve: Vec<String> = part.curve.iter().map(|(k, auc)| format!("{k}: {auc:.4}")).collect();
        text += &format!("auc after inner steps  {}\n", curve.join("  "));
    }
    text
}
