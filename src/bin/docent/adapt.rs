//! `docent adapt`: the published ranker, fitted to every person's outcomes.

use crate::command_line::{Outcomes, cores, positive, typed};
use crate::interrupt;
use crate::output::{Output, to_json};
use crate::progress::Progress;
use docent::Result;
use docent::pipeline::{self, AdaptJob, Files};
use std::path::PathBuf;
use std::process::ExitCode;

/// Fit the published ranker to the outcomes of every person, and publish their meta embeddings as a new generation.
///
/// The new generation shares all else with the one that it was made of. After Ctrl-C or a crash, the same command goes on where it
/// was. People whom the generation does not know are adapted while serving.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  docent adapt --store shop.store --dataset dataset.toml --outcomes impressions.toml"
)]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The dataset's description: that of the training, with what has happened since.
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    outcomes: Outcomes,
    /// Threads [default: one per core]; the result does not depend on them.
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let job = AdaptJob { threads: arguments.threads.unwrap_or(cores().get()), command: typed() };
    let Arguments { dataset, data, outcomes, .. } = arguments;
    let files = Files { dataset: dataset.clone(), folder: data.clone(), outcomes: outcomes.outcomes.clone() };
    let report = pipeline::adapt(files, &arguments.store, &job, &mut progress, &cancel);
    progress.end();
    let r = report?;
    output.result(
        || to_json(&r),
        || {
            format!(
                "generation {} of {}\nadapted      {} of {} entities to {} outcomes in {:.1} s ({:.0} a second); {} have no \
                 outcome, {} fitted no better and stay as learned\n",
                r.generation,
                arguments.store.display(),
                r.adapted,
                r.entities,
                r.outcomes,
                r.seconds,
                r.entities_per_second,
                r.without_outcomes,
                r.refused
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
