//! `docent generations`: the list of a store.

use crate::command_line::refused;
use crate::output::{Output, columns, metrics_json, metrics_text, moment, note, size};
use docent::Result;
use docent::store::{GenerationId, GenerationInfo, Store};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// List the generations of a store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent generations --store shop.store")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

/// Reads the number of a generation.
pub(crate) fn number(text: &str) -> Result<GenerationId, String> {
    text.parse().map_err(refused)
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let store = Store::open(&arguments.store)?;
    let generations = store.generations()?;
    let current = store.current()?.map(|g| g.0);
    output.result(
        || json!({"current": current, "generations": generations.iter().map(line_json).collect::<Vec<_>>()}),
        || {
            let mut lines = vec![["generation", "created", "size", "validation"].map(String::from).to_vec()];
            lines.extend(generations.iter().map(line));
            columns(&lines)
        },
    )?;
    if generations.is_empty() {
        note(format_args!("store {} has no generation yet; `docent train` publishes one", arguments.store.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn line_json(g: &GenerationInfo) -> Value {
    json!({
        "id": g.id.0,
        "created": moment(g.created_ms),
        "bytes": g.bytes,
        "validation": metrics_json(&g.validation),
        "problem": g.problem,
    })
}

fn line(g: &GenerationInfo) -> Vec<String> {
    let id = format!("{}{}", g.id, if g.current { " *" } else { "" });
    let last = g.problem.as_ref().map_or_else(|| metrics_text(&g.validation), |p| format!("unreadable: {p}"));
    vec![id, moment(g.created_ms), size(g.bytes), last]
}
