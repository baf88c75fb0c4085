//! `docent synth`: the synthetic world as files.

use crate::command_line::{cores, word};
use crate::output::Output;
use docent::data::{SyntheticOptions, World};
use docent::{Error, ErrorKind, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a synthetic world as files with a dataset.toml: people who meet works, made up, with a known best recommender.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent synth --out world --entities 5000 --items 1000 --days 90 --seed 7")]
pub(crate) struct Arguments {
    /// The folder; made if there is none. Files of an earlier synthetic world are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// People.
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().entities)]
    entities: u32,
    /// Works.
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().items)]
    items: u32,
    /// Days.
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().days)]
    days: u32,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "N", default_value_t = SyntheticOptions::default().seed)]
    seed: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let out = &arguments.out;
    check_foreign(out)?;
    let options = SyntheticOptions {
        entities: arguments.entities,
        items: arguments.items,
        days: arguments.days,
        seed: arguments.seed,
        ..SyntheticOptions::default()
    };
    let world = World::new(&options, cores().get())?;
    world.write(out)?;
    let dataset = out.join("dataset.toml");
    output.say(format_args!(
        "train on it with: docent train --dataset {} --store {}",
        word(&dataset),
        word(&out.join("store"))
    ));
    output.result(
        || {
            json!({
                "out": out.display().to_string(),
                "dataset": dataset.display().to_string(),
                "entities": options.entities,
                "items": options.items,
                "events": world.events(),
                "impressions": world.impressions().len(),
                "days": options.days,
                "seed": options.seed,
            })
        },
        || {
            format!(
                "{}: {} people, {} works, {} events over {} days, {} impressions, seed {}\n",
                out.display(),
                options.entities,
                options.items,
                world.events(),
                options.days,
                world.impressions().len(),
                options.seed
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses to replace files that a synthetic world did not write.
fn check_foreign(out: &Path) -> Result<()> {
    let description = std::fs::read(out.join("dataset.toml")).unwrap_or_default();
    if description.starts_with(b"# A synthetic world:") {
        return Ok(());
    }
    let names = ["dataset.toml", "impressions.toml", "events.csv", "impressions.csv", "items.csv", "people.csv"];
    match names.iter().map(|name| out.join(name)).find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is there already and is not of a synthetic world; name another folder", path.display()),
        )),
    }
}
