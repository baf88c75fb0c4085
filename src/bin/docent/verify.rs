//! `docent verify`: every byte of a generation.

use crate::output::{Output, size};
use docent::Result;
use docent::store::{GenerationId, Store};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check every byte of a generation against its checksums. Exits 1 where something is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent verify --store shop.store")]
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
    let report = Store::open(&arguments.store)?.verify(arguments.generation)?;
    let id = report.generation.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    output.result(
        || {
            json!({
                "ok": report.ok,
                "generation": report.generation.map(|g| g.0),
                "bytes": report.bytes,
                "sections": report.sections,
                "problems": report.problems,
            })
        },
        || {
            let verdict = if report.ok { "ok" } else { "damaged" };
            let mut text =
                format!("generation {id}: {verdict}, {} sections, {}\n", report.sections, size(report.bytes));
            for problem in &report.problems {
                text += &format!("- {problem}\n");
            }
            text
        },
    )?;
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    let (kind, store) = (docent::ErrorKind::Corrupt, crate::command_line::word(&arguments.store));
    Err(docent::Error::new(
        kind,
        format!(
            "generation {id} of {store} has {} problems; restore the files, or go back with `docent rollback --store \
             {store}`",
            report.problems.len()
        ),
    ))
}
