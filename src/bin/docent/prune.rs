//! `docent prune`: old generations are removed.

use crate::output::Output;
use docent::Result;
use docent::store::Store;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Remove all but the newest generations, never the current one. Processes that have one open keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent prune --store shop.store --keep 3")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// How many of the newest stay.
    #[arg(long, value_name = "K")]
    keep: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let store = Store::open(&arguments.store)?;
    let removed = store.prune(arguments.keep)?;
    let current = store.current()?.map(|g| g.0);
    let kept: Vec<u64> = store.generations()?.iter().map(|g| g.id.0).collect();
    let removed: Vec<u64> = removed.iter().map(|g| g.0).collect();
    output.result(
        || {
            let store = arguments.store.display().to_string();
            json!({"store": store, "generation": current, "removed": removed, "kept": kept})
        },
        || format!("removed {}, kept {}\n", list(&removed), list(&kept)),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn list(ids: &[u64]) -> String {
    match ids {
        [] => "none".into(),
        _ => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}
