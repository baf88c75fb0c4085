//! `docent similar`: the items most like an item.

use crate::command_line::{id, positive};
use crate::output::{Output, items_json, items_text};
use docent::Result;
use docent::serve::{Engine, EngineOptions, Filter};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// The items most like an item, by the cosine of their vectors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent similar --store shop.store --item i17 -k 5")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The item.
    #[arg(long, value_name = "ID", value_parser = id, allow_hyphen_values = true)]
    item: String,
    /// How many items.
    #[arg(short, long = "count", value_name = "K", default_value = "10", value_parser = positive)]
    k: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let engine = Engine::open(&arguments.store, &EngineOptions::default())?;
    let list = engine.similar(&arguments.item, &Filter::default(), arguments.k)?;
    output.result(
        || json!({"generation": list.generation.0, "item": arguments.item, "items": items_json(&list.items)}),
        || items_text(&list.items),
    )?;
    Ok(ExitCode::SUCCESS)
}
