//! A training into a store: locked against others, checkpointed, published, or left ready to be resumed.

#[cfg(feature = "files")]
use super::asked::Asked;
use super::ranker::{Ranked, RankerReport, Warnings, is_trainable, train_ranker};
use super::settings::Settings;
use super::source::{Source, held_out, with_seen};
use super::workplace::{Workplace, publisher, run_record};
use crate::data::{Protocol, Questions, Split};
use crate::error::{Error, Result};
use crate::evaluate::peak_rss_bytes;
use crate::options::{Device, Seen};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::store::GenerationId;
use crate::train::{Stopped, TrainConfig, Trainer, forget_checkpoint, publish_ranked};
use std::path::{Path, PathBuf};

/// How to train.
#[derive(Debug, Clone, Default)]
pub struct TrainJob {
    /// The options.
    pub settings: Settings,
    /// How to split; `None` is what the dataset's description says, or leave-one-out.
    pub protocol: Option<Protocol>,
    /// Which questions validate and test; `None` is all that the model can answer.
    pub questions: Option<Questions>,
    /// Whether lists may hold seen items, in training and in what is published; `None` is what the dataset's description says, or
    /// measured ([`COMES_BACK`](crate::data::COMES_BACK)).
    pub seen: Option<Seen>,
    /// Where to train; `None` is the CPU.
    pub device: Option<Device>,
    /// Go on with the unfinished training of the store. What is `None`, and settings that leave all to the rule, are those that
    /// it began with, if it was trained from files; from memory they must be given again.
    pub resume: bool,
    /// The command, for the record of the run.
    pub command: String,
}

/// What came of a training. The weights are in the store.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TrainReport {
    /// The generation that was published; `None` where the training was interrupted.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::published"))]
    pub generation: Option<GenerationId>,
    /// The store.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::path"))]
    pub store: PathBuf,
    /// The protocol with its questions.
    pub protocol: String,
    /// Whether lists may hold seen items: the rule that is published.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::display"))]
    pub seen: Seen,
    /// The share of the training events that repeat an earlier item of their entity, by which the rule is measured.
    pub repeated: f64,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// Epochs begun.
    pub epochs: u32,
    /// The epoch of the best validation, from 1.
    pub best_epoch: u32,
    /// Steps done.
    pub steps: u64,
    /// Tokens per second since the last start, validation excluded.
    pub tokens_per_second: f64,
    /// Mean training loss of each objective before the best validation.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::metrics"))]
    pub losses: Vec<(String, f64)>,
    /// Metrics of the best validation.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::metrics"))]
    pub validation: Vec<(String, f64)>,
    /// The most memory that the process has held so far.
    pub peak_rss_bytes: u64,
    /// Why it ended.
    #[cfg_attr(feature = "files", serde(serialize_with = "super::report::stopped"))]
    pub stopped: Stopped,
    /// The ranker, where one was trained.
    pub ranker: Option<RankerReport>,
    /// What a person should know of the result, such as why there is no ranker.
    pub warnings: Vec<String>,
}

/// What an unfinished training began with.
#[derive(Default)]
struct Begun {
    config: Option<TrainConfig>,
    protocol: Option<Protocol>,
    questions: Option<Questions>,
    seen: Option<Seen>,
    device: Option<Device>,
}

/// Trains a foundation model, and a ranker where there are labelled outcomes, and publishes them as a new generation of the
/// store in the directory `store`, which is made if there is none. A checkpoint is kept in the store: an interrupted training
/// is not published, and one that resumes it gives the same bytes as one that was never interrupted.
///
/// # Errors
/// `Locked` where another training works on the store; `InvalidConfig` for options that are out of range or do not go together;
/// what reading, training ([`Trainer::run`]) and publishing cause. What can be checked is checked before long work.
pub fn train<'a>(
    source: impl Into<Source<'a>>,
    store: impl AsRef<Path>,
    job: &TrainJob,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<TrainReport> {
    let (source, path) = (source.into(), store.as_ref());
    let early = Workplace::take_existing(path)?;
    let (source, begun) = match &early {
        Some(place) if job.resume => begun(source, place)?,
        _ => (source, Begun::default()),
    };
    #[cfg(feature = "files")]
    let source = match source {
        Source::Files(files) => Source::Files(files.absolute()?),
        memory => memory,
    };
    let (data, declared) = source.dataset(progress, cancel)?;
    let protocol = job.protocol.clone().or(begun.protocol).or(declared.protocol).unwrap_or(Protocol::LeaveOneOut);
    let questions = job.questions.clone().or(begun.questions);
    let seen = job.seen.or(begun.seen).or(declared.seen);
    let split = Split::new(&data, &protocol)?.only(&data, &questions.clone().unwrap_or_default())?;
    let targets: String = split.target_hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    let note = format!("split {}: {} questions ({targets})", split.describe(), split.test.len());
    progress.on_event(&ProgressEvent::Note(note));
    let config = match begun.config.filter(|_| job.settings.is_rule()) {
        Some(config) => job.settings.over(config),
        None => job.settings.resolve(&data, &split, progress)?,
    };
    let split = with_seen(split, &data, &config.tokenizer, seen, progress)?;
    let device = job.device.or(begun.device).unwrap_or_default();
    let trainer = Trainer::new(&data, &split)
        .model(config.model.clone())
        .options(config.train.clone())
        .tokenizer(config.tokenizer.clone())
        .device(device);
    config.check()?;
    trainer.check()?;
    let place = early.map_or_else(|| Workplace::take(path), Ok)?;
    let outcomes = match config.ranker.enabled {
        true => source.outcomes(&data, held_out(&protocol), progress, cancel)?,
        false => None,
    };
    let mut warnings = Warnings { progress, said: Vec::new() };
    let outcomes = match outcomes.as_deref() {
        Some(outcomes) if is_trainable(&data, &split, outcomes, &config, &mut warnings)? => Some(outcomes),
        _ => None,
    };
    place.begin(job.resume, warnings.progress)?;
    #[cfg(feature = "files")]
    match &source {
        Source::Files(files) => Asked {
            files: files.clone(),
            config: config.text()?,
            device: device.to_string(),
            protocol: protocol.to_string(),
            questions: questions.map(|q| q.to_string()),
            seen: seen.map(|seen| seen.to_string()),
        }
        .write(&place.directory)?,
        Source::Memory { .. } => Asked::forget(&place.directory),
    }

    let mut trained = trainer.checkpoints(&place.directory, job.resume).run(&mut *warnings.progress, cancel)?;
    let mut ranker = None;
    if let (Some(outcomes), true) = (outcomes, trained.stopped != Stopped::Interrupted) {
        let mut found = train_ranker(&data, &split, outcomes, &config, &trained, &mut warnings, cancel)?;
        if found.trained.stopped == Stopped::Interrupted {
            trained.stopped = Stopped::Interrupted;
        } else {
            if found.published
                && let Some(tuned) = found.trained.foundation.take()
            {
                // From here on the model is the one whose vectors the ranker reads.
                trained = tuned;
            }
            ranker = Some(found);
        }
    }
    let mut generation = None;
    if trained.stopped != Stopped::Interrupted {
        let mut record = run_record(&job.command, trained.seconds, device.to_string());
        record.tokens_per_second = trained.tokens_per_second;
        let in_generation = ranker.as_ref().filter(|r| r.published).map(|r| &r.trained);
        let published = publisher(&place.store)
            .and_then(|mut p| publish_ranked(&mut p, &data, &split, &trained, in_generation, &record));
        generation = Some(published.map_err(|e| {
            let message = format!("{}; the training is not lost: resume it to publish it", e.message());
            Error::new(e.kind(), message)
        })?);
        forget_checkpoint(&place.directory)?;
        #[cfg(feature = "files")]
        Asked::forget(&place.directory);
    }
    Ok(TrainReport {
        generation,
        store: path.to_owned(),
        protocol: split.describe(),
        seen: split.seen,
        repeated: split.repeated,
        seconds: trained.seconds,
        epochs: trained.epochs,
        best_epoch: trained.best_epoch + 1,
        steps: trained.steps,
        tokens_per_second: trained.tokens_per_second,
        losses: trained.losses,
        validation: trained.validation,
        peak_rss_bytes: peak_rss_bytes(),
        stopped: trained.stopped,
        ranker: ranker.map(Ranked::report),
        warnings: warnings.said,
    })
}

/// What the unfinished training of a store began with; its outcomes where `source` names none.
#[cfg(feature = "files")]
fn begun<'a>(source: Source<'a>, place: &Workplace) -> Result<(Source<'a>, Begun)> {
    let Source::Files(mut files) = source else { return Ok((source, Begun::default())) };
    let Some(asked) = Asked::read(&place.directory)? else { return Ok((files.into(), Begun::default())) };
    files.outcomes = files.outcomes.or(asked.files.outcomes);
    let begun = Begun {
        config: Some(TrainConfig::parse_written(&asked.config)?),
        protocol: Some(Protocol::parse(&asked.protocol)?),
        questions: asked.questions.as_deref().map(Questions::parse).transpose()?,
        seen: asked.seen.as_deref().map(str::parse).transpose()?,
        device: Some(asked.device.parse()?),
    };
    Ok((files.into(), begun))
}

#[cfg(not(feature = "files"))]
fn begun<'a>(source: Source<'a>, _: &Workplace) -> Result<(Source<'a>, Begun)> {
    Ok((source, Begun::default()))
}
