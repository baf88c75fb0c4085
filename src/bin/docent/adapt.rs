//! `docent adapt`: the published ranker, fitted to every person's outcomes.

use crate::command_line::{cores, positive, typed, word};
use crate::output::{Output, note};
use crate::progress::Progress;
use crate::{INTERRUPTED, dataset, interrupt, outcomes, training};
use docent::adapt::{BatchAdapted, BatchAdapter};
use docent::data::Dataset;
use docent::evaluate::peak_rss_bytes;
use docent::progress::Cancel;
use docent::serve::{Engine, EngineOptions, Generation};
use docent::store::{GenerationId, RunRecord, Store};
use docent::train::ranker::Impressions;
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What an interrupted run leaves in the store.
const PARTIAL: &str = "adapt.partial";

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
    outcomes: outcomes::Source,
    /// Threads [default: one per core]; the result does not depend on them.
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
}

/// A batch adaptation that was published.
pub(crate) struct Outcome {
    /// The new generation.
    pub(crate) generation: GenerationId,
    adapted: BatchAdapted,
    outcomes: usize,
    entities: usize,
    seconds: f64,
}

impl Outcome {
    /// The keys of the command line's contract.
    pub(crate) fn json(&self) -> Value {
        let a = &self.adapted;
        json!({
            "generation": self.generation.0,
            "entities": self.entities,
            "adapted": a.adapted,
            "refused": a.refused,
            "without_outcomes": a.unlabelled,
            "resumed": a.resumed,
            "outcomes": self.outcomes,
            "seconds": self.seconds,
            "entities_per_second": (self.entities as f64 - a.resumed as f64) / self.seconds.max(1e-9),
            "peak_rss_bytes": peak_rss_bytes(),
        })
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let store = Store::open(&arguments.store)?;
    let generation = Engine::open(&arguments.store, &EngineOptions::default())?.current();
    let (data, _) = dataset::read(&arguments.dataset, arguments.data.as_deref(), &mut progress, &cancel)?;
    let found = outcomes::read(&arguments.outcomes, arguments.data.as_deref(), &data, &mut progress, &cancel)?;
    let Some(found) = found else {
        return Err(Error::new(
            ErrorKind::InvalidData,
            format!(
                "dataset {} has no labelled events to adapt to; declare `label` in [events], or bring a log with --outcomes",
                data.schema.name
            ),
        ));
    };
    let threads = arguments.threads.unwrap_or(cores().get());
    let Some(outcome) = adapt(&store, generation, &data, &found, threads, &mut progress, &cancel)? else {
        let path = word(&arguments.store);
        note(format_args!("interrupted; what is done is kept in {path}, the same command goes on from it"));
        return Ok(ExitCode::from(INTERRUPTED));
    };
    output.result(
        || outcome.json(),
        || {
            let a = &outcome.adapted;
            format!(
                "generation {} of {}\nadapted      {} of {} entities to {} outcomes in {:.1} s ({:.0} a second); {} have no \
                 outcome, {} fitted no better and stay as learned\n",
                outcome.generation,
                arguments.store.display(),
                a.adapted,
                outcome.entities,
                outcome.outcomes,
                outcome.seconds,
                (outcome.entities as f64 - a.resumed as f64) / outcome.seconds.max(1e-9),
                a.unlabelled,
                a.refused
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Adapts everybody and publishes; `None` where it was interrupted.
pub(crate) fn adapt(
    store: &Store,
    generation: Arc<Generation>,
    data: &Dataset,
    outcomes: &Impressions,
    threads: usize,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Option<Outcome>> {
    let begun = Instant::now();
    let entities = generation.entities();
    let partial = partial(store.path());
    let adapter = BatchAdapter::new(generation, data, outcomes)?.threads(threads).partial(&partial);
    let adapted = adapter.run(progress, cancel)?;
    progress.end();
    let Some(adapted) = adapted else { return Ok(None) };
    let seconds = begun.elapsed().as_secs_f64();
    let record = RunRecord {
        created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
        seconds,
        peak_rss_bytes: peak_rss_bytes(),
        command: typed(),
        device: "cpu".into(),
        ..RunRecord::default()
    };
    let generation = adapter.publish(&mut training::publisher(store)?, &adapted, &record)?;
    Ok(Some(Outcome { generation, adapted, outcomes: outcomes.len(), entities, seconds }))
}

/// Where an interrupted run keeps what it has done: beside the checkpoints of trainings.
fn partial(store: &Path) -> PathBuf {
    let folder = store.join("training");
    match std::fs::create_dir_all(&folder) {
        Ok(()) => folder.join(PARTIAL),
        // The error comes when it is written.
        Err(_) => store.join(PARTIAL),
    }
}
