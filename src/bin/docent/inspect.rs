//! `docent inspect`: what is in a generation.

use crate::output::{Output, columns, hex, metrics_json, metrics_text, moment, size};
use docent::schema::TokenVocabulary;
use docent::store::{FORMAT_VERSION, GenerationId, OpenOptions, RankerRecord, SectionInfo, Snapshot, Store};
use docent::train::TrainConfig;
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is in a generation: schema, model, training, sections.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent inspect --store shop.store")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The generation [default: the current one].
    #[arg(long, value_name = "N", value_parser = crate::generations::number)]
    generation: Option<GenerationId>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let store = Store::open(&arguments.store)?;
    let options = OpenOptions { generation: arguments.generation, ..OpenOptions::default() };
    let snapshot = store.snapshot(&options)?;
    let manifest = snapshot.manifest();
    let config = TrainConfig::of(manifest);
    if output.json {
        let report = report(arguments, &snapshot, &config)?;
        output.result(|| report, String::new)?;
    } else {
        let text = text(arguments, &snapshot, &config)?;
        output.result(|| Value::Null, || text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(arguments: &Arguments, snapshot: &Snapshot, config: &TrainConfig) -> Result<Value> {
    let (manifest, run) = (snapshot.manifest(), snapshot.run());
    let options: Value = toml::from_str(&config.text()?)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot show the options: {e}; please report it")))?;
    let section = |s: &SectionInfo| -> Result<Value> {
        Ok(json!({
            "name": s.name,
            "dtype": s.dtype.to_string(),
            "shape": s.shape,
            "bytes": s.bytes,
            "sha256": hex(&snapshot.section_sha256(&s.name)?),
            "segment": hex(&s.hash),
        }))
    };
    let training = &manifest.training;
    Ok(json!({
        "store": arguments.store.display().to_string(),
        "generation": snapshot.generation().0,
        "format_version": FORMAT_VERSION,
        "created": moment(run.created_ms),
        "dataset": manifest.schema.name,
        "items": manifest.items,
        "entities": manifest.entities,
        "events": manifest.events,
        "bytes": snapshot.total_bytes(),
        "manifest_sha256": hex(&snapshot.manifest_sha256()),
        "seen": manifest.serve.seen.as_str(),
        "model": options.get("model"),
        "tokenizer": manifest.tokenizer.as_ref().map(|t| tokenizer(t, &options)),
        "ranker": manifest.ranker.as_ref().map(|r| json!({
            "heads": r.heads,
            "order": {"head": r.heads.get(r.order.head as usize), "weight": r.order.weight},
            "impression": r.impression.iter().map(|f| &f.name).collect::<Vec<_>>(),
            "outcomes": r.outcomes,
            "held_out": r.held_out,
            "adapted": r.adapted,
            "validation": metrics_json(&r.validation),
            "epochs": r.epochs,
            "best_epoch": r.best_epoch + 1,
            "options": options.get("ranker"),
        })),
        "sections": snapshot.sections().map(section).collect::<Result<Vec<_>>>()?,
        "training": {
            "options": options.get("train"),
            "data_hash": hex(&training.data_hash),
            "protocol": training.protocol,
            "target_hash": hex(&training.target_hash),
            "losses": metrics_json(&training.losses),
            "validation": metrics_json(&training.validation),
            "epochs": training.epochs,
            "best_epoch": training.best_epoch + 1,
            "steps": training.steps,
            "tokens": training.tokens,
            "parameters": training.parameters,
            "stopped": training.stopped,
            "version": training.version,
            "seconds": run.seconds,
            "tokens_per_second": run.tokens_per_second,
            "peak_rss_bytes": run.peak_rss_bytes,
            "command": run.command,
            "device": run.device,
        },
    }))
}

/// Options of the tokenizer, its version, and how much it learned.
fn tokenizer(learned: &TokenVocabulary, options: &Value) -> Value {
    json!({"version": learned.version, "merges": learned.merges.len(), "options": options.get("tokenizer")})
}

/// What lists are ordered by.
fn order(ranker: &RankerRecord) -> String {
    let head = ranker.heads.get(ranker.order.head as usize).map_or("", String::as_str);
    match ranker.order.weight {
        None => format!("p({head})"),
        Some(weight) => format!("score + {weight} log p({head})"),
    }
}

fn text(arguments: &Arguments, snapshot: &Snapshot, config: &TrainConfig) -> Result<String> {
    let (manifest, run) = (snapshot.manifest(), snapshot.run());
    let (schema, training) = (&manifest.schema, &manifest.training);
    let mut text = String::new();
    let names = |fields: &mut dyn Iterator<Item = &String>| fields.cloned().collect::<Vec<_>>().join(", ");
    let facts = [
        ("store", arguments.store.display().to_string()),
        ("generation", format!("{}, format {FORMAT_VERSION}, {}", snapshot.generation(), moment(run.created_ms))),
        ("size", format!("{} in {} sections", size(snapshot.total_bytes()), snapshot.sections().len())),
        ("dataset", format!("{} ({})", schema.name, hex(&training.data_hash))),
        ("catalogue", format!("{} items, {} entities, {} events", manifest.items, manifest.entities, manifest.events)),
        ("item fields", names(&mut schema.item_fields.iter().map(|f| &f.name))),
        ("entity fields", names(&mut schema.entity_fields.iter().map(|f| &f.name))),
        ("event fields", names(&mut schema.event_fields.iter().map(|f| &f.field.name))),
        ("actions", names(&mut schema.actions.iter())),
        (
            "tokenizer",
            manifest
                .tokenizer
                .as_ref()
                .map_or_else(String::new, |t| format!("version {}, {} learned merges", t.version, t.merges.len())),
        ),
        ("seen items", manifest.serve.seen.to_string()),
        ("split", format!("{} ({})", training.protocol, hex(&training.target_hash))),
        ("losses", metrics_text(&training.losses)),
        ("validation", metrics_text(&training.validation)),
        (
            "training",
            format!(
                "{} epochs (best {}), {} steps, {:.1} s, {:.0} tokens/s on {}, peak memory {}, stopped by {}",
                training.epochs,
                training.best_epoch + 1,
                training.steps,
                run.seconds,
                run.tokens_per_second,
                run.device,
                size(run.peak_rss_bytes),
                training.stopped
            ),
        ),
        (
            "ranker",
            manifest.ranker.as_ref().map_or_else(String::new, |r| {
                let (heads, metrics) = (r.heads.join(", "), metrics_text(&r.validation));
                format!("{heads}: {} outcomes, {metrics}, {} entities adapted", r.outcomes, r.adapted)
            }),
        ),
        ("order", manifest.ranker.as_ref().map_or_else(String::new, order)),
        ("parameters", training.parameters.to_string()),
        ("command", run.command.clone()),
        ("trained by", format!("docent {}", training.version)),
    ];
    for (key, value) in facts.iter().filter(|f| !f.1.is_empty()) {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{key:<14} {value}");
    }
    text.push('\n');
    for (key, value) in config.entries()? {
        let _ = writeln!(text, "{key:<24} {value}");
    }
    text.push('\n');
    let mut lines = vec![["section", "type", "shape", "bytes"].map(String::from).to_vec()];
    lines.extend(snapshot.sections().map(|s| {
        let shape: Vec<String> = s.shape.iter().map(u64::to_string).collect();
        vec![s.name.clone(), s.dtype.to_string(), shape.join(" x "), s.bytes.to_string()]
    }));
    text += &columns(&lines);
    Ok(text)
}
