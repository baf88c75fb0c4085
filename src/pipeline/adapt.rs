//! The published ranker, adapted to every entity's outcomes.

use super::source::Source;
use super::workplace::{publisher, run_record, training_folder};
use crate::adapt::BatchAdapter;
use crate::error::{Result, err};
use crate::evaluate::peak_rss_bytes;
use crate::progress::{Cancel, ProgressSink};
use crate::serve::{Engine, EngineOptions};
use crate::store::{GenerationId, Store};
use std::path::Path;
use std::time::Instant;

/// What an interrupted run leaves in the store.
const PARTIAL: &str = "adapt.partial";

/// How to adapt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptJob {
    /// Threads to use; they do not change the result.
    pub threads: usize,
    /// The command, for the record of the run.
    pub command: String,
}

impl Default for AdaptJob {
    fn default() -> Self {
        Self { threads: 1, command: String::new() }
    }
}

/// What came of a batch adaptation.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
#[non_exhaustive]
pub struct AdaptReport {
    /// The new generation.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::generation"))]
    pub generation: GenerationId,
    /// Entities of the generation.
    pub entities: usize,
    /// Those that were adapted.
    pub adapted: u64,
    /// Those whose adaptation fitted no better, and which stay as learned.
    pub refused: u64,
    /// Those without an outcome.
    pub without_outcomes: u64,
    /// Those that an interrupted run had done already.
    pub resumed: u64,
    /// Outcomes in the data.
    pub outcomes: usize,
    /// Seconds of this run.
    pub seconds: f64,
    /// Entities per second of this run.
    pub entities_per_second: f64,
    /// The most memory that the process has held so far.
    pub peak_rss_bytes: u64,
}

/// Adapts the current generation's ranker to the outcomes of each entity that it knows, and publishes the meta embeddings as a
/// new generation, which shares all else with it. An interrupted run is taken up by the next one with the same data.
///
/// # Errors
/// `InvalidConfig` where the generation has no ranker; `InvalidData` where there are no outcomes; `Cancelled`, where what is
/// done is kept; what reading, [`BatchAdapter`] and publishing cause.
pub fn adapt<'a>(
    source: impl Into<Source<'a>>,
    store: impl AsRef<Path>,
    job: &AdaptJob,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<AdaptReport> {
    let (source, path) = (source.into(), store.as_ref());
    let store = Store::open(path)?;
    let generation = Engine::open(path, &EngineOptions::default())?.current();
    let (data, _) = source.dataset(progress, cancel)?;
    let Some(outcomes) = source.outcomes(&data, 0.0, progress, cancel)? else {
        return Err(err!(
            InvalidData,
            "dataset {} has no labelled events to adapt to; declare `label` in [events], or bring a log of outcomes",
            data.schema.name
        ));
    };
    let begun = Instant::now();
    let entities = generation.entities();
    let folder = training_folder(path);
    let partial = match std::fs::create_dir_all(&folder) {
        Ok(()) => folder.join(PARTIAL),
        // The error comes when it is written.
        Err(_) => path.join(PARTIAL),
    };
    let adapter = BatchAdapter::new(generation, &data, &outcomes)?.threads(job.threads).partial(&partial);
    let Some(adapted) = adapter.run(progress, cancel)? else {
        return Err(err!(
            Cancelled,
            "what is done of the adaptation is kept in store {}; run it again to go on from there",
            path.display()
        ));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let record = run_record(&job.command, seconds, "cpu".into());
    let generation = adapter.publish(&mut publisher(&store)?, &adapted, &record)?;
    Ok(AdaptReport {
        generation,
        entities,
        adapted: adapted.adapted,
        refused: adapted.refused,
        without_outcomes: adapted.unlabelled,
        resumed: adapted.resumed,
        outcomes: outcomes.len(),
        seconds,
        entities_per_second: (entities as f64 - adapted.resumed as f64) / seconds.max(1e-9),
        peak_rss_bytes: peak_rss_bytes(),
    })
}
