//! `docent rollback`: an older generation is served again.

use crate::output::Output;
use docent::Result;
use docent::store::{GenerationId, Store};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Serve an older generation again. It is checked in full first; engines go over to it when they reload.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent rollback --store shop.store --to 3")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The generation [default: the one before the current one].
    #[arg(long, value_name = "GENERATION", value_parser = crate::generations::number)]
    to: Option<GenerationId>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let generation = Store::open(&arguments.store)?.rollback(arguments.to)?;
    let store = arguments.store.display();
    output.result(
        || json!({"store": store.to_string(), "generation": generation.0}),
        || format!("generation {generation} of {store} is current\n"),
    )?;
    Ok(ExitCode::SUCCESS)
}
