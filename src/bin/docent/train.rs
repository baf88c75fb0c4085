//! `docent train`: from a dataset to a new generation.

use crate::command_line::{cores, positive, refused, typed, word};
use crate::output::{Output, metrics_text, note, size};
use crate::progress::Progress;
use crate::training::{self, Job, Workplace};
use crate::{INTERRUPTED, dataset, interrupt, outcomes};
use docent::data::{Dataset, Protocol, Questions, Split};
use docent::evaluate::peak_rss_bytes;
use docent::options::Device;
use docent::train::{TrainConfig, TrainFile, Trainer, defaults, forget_checkpoint};
use docent::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train a model on a dataset and publish it as a new generation of a store.
///
/// A checkpoint is kept in the store. After Ctrl-C, a crash or a power cut, --resume goes on from it to the same result,
/// to the bit, that an uninterrupted training gives.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent train --dataset dataset.toml --store shop.store --config train.toml")]
pub(crate) struct Arguments {
    /// The dataset's description.
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    dataset: Option<PathBuf>,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR", requires = "dataset")]
    data: Option<PathBuf>,
    #[command(flatten)]
    outcomes: outcomes::Source,
    /// The store; made if there is none.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Options of model and training (docs/train.md); keys that it leaves out are chosen for the data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of every random choice [default: the configuration's, or 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads [default: the configuration's, or one per core].
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// cpu, cuda or cuda:N [default: cpu].
    #[arg(long, value_parser = |s: &str| s.parse::<Device>().map(|_| s.to_owned()).map_err(refused))]
    device: Option<String>,
    /// Stop, and publish the best model so far, after this time.
    #[arg(long, value_name = "M", value_parser = minutes)]
    max_minutes: Option<f64>,
    /// How to split, such as leave-one-out or time-split:test=0.1,validation=0.1 [default: the dataset's, or
    /// leave-one-out].
    #[arg(long, value_name = "P", value_parser = |s: &str| Protocol::parse(s).map(|p| p.to_string()).map_err(refused))]
    protocol: Option<String>,
    /// Which questions validate: all, or those whose target begins a run of actions, token-starts:max_gap=SECONDS [default:
    /// all that the model can answer].
    #[arg(long, value_name = "Q", value_parser = |s: &str| Questions::parse(s).map(|q| q.to_string()).map_err(refused))]
    questions: Option<String>,
    /// Go on with the unfinished training of this store. Options that are not given are those that it began with.
    #[arg(long)]
    resume: bool,
}

pub(crate) fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(m) if m > 0.0 && m < 1e7 => Ok(m),
        _ => Err("give a number of minutes above 0".into()),
    }
}

/// What a training was asked for: kept beside its checkpoint, so that resuming needs the store alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    dataset: PathBuf,
    data: Option<PathBuf>,
    #[serde(default)]
    outcomes: Option<PathBuf>,
    /// The configuration with every key.
    config: String,
    device: String,
    protocol: String,
    #[serde(default)]
    questions: Option<String>,
}

const ASKED: &str = "asked.json";

impl Asked {
    fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(ASKED);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read", &path, e)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                let path = path.display();
                let message =
                    format!("{path} does not say what was trained ({e}); delete it and train without --resume");
                Error::new(ErrorKind::Corrupt, message)
            }),
        }
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let (path, draft) = (directory.join(ASKED), directory.join("asked.json.tmp"));
        let text = serde_json::to_vec_pretty(self).map_err(|e| {
            Error::new(ErrorKind::InvalidArgument, format!("cannot keep the options: {e}; use paths that are UTF-8"))
        })?;
        std::fs::write(&draft, text).map_err(|e| Error::io("cannot write", &draft, e))?;
        std::fs::rename(&draft, &path).map_err(|e| Error::io("cannot rename to", &path, e))
    }

    fn forget(directory: &Path) {
        // Without its checkpoint it means nothing, and the next training replaces it.
        let _ = std::fs::remove_file(directory.join(ASKED));
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    // A store that exists is taken at once, so that a second training fails before it reads anything; one that does not
    // is made only when the dataset was read.
    let exists = std::fs::read_dir(&arguments.store).is_ok_and(|mut entries| entries.next().is_some());
    let early = if exists { Some(Workplace::take(&arguments.store)?) } else { None };
    let before = match (&early, arguments.resume) {
        (Some(place), true) => Asked::read(place.directory())?,
        _ => None,
    };
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io("cannot find", path, e));
    let (description, folder) = match (&arguments.dataset, &before) {
        (Some(dataset), _) => (absolute(dataset)?, arguments.data.as_deref().map(absolute).transpose()?),
        (None, Some(before)) => (before.dataset.clone(), before.data.clone()),
        (None, None) => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "store {} has no unfinished training to resume; start one with --dataset",
                    arguments.store.display()
                ),
            ));
        }
    };
    let file = arguments.config.as_deref().map(TrainFile::read).transpose()?;
    let device = arguments.device.clone().or_else(|| before.as_ref().map(|b| b.device.clone()));
    let device = device.unwrap_or_else(|| "cpu".into());
    let (data, declared) = dataset::read(&description, folder.as_deref(), &mut progress, &cancel)?;
    let given = arguments.protocol.as_deref().or(before.as_ref().map(|b| b.protocol.as_str()));
    let protocol = match given {
        Some(text) => Protocol::parse(text)?,
        None => declared.unwrap_or(Protocol::LeaveOneOut),
    };
    let source = arguments.outcomes.outcomes.as_deref().map(absolute).transpose()?;
    let source = outcomes::Source { outcomes: source.or_else(|| before.as_ref().and_then(|b| b.outcomes.clone())) };
    let questions = arguments.questions.clone().or_else(|| before.as_ref().and_then(|b| b.questions.clone()));
    let asked_for = questions.as_deref().map(Questions::parse).transpose()?.unwrap_or_default();
    let split = Split::new(&data, &protocol)?.only(&data, &asked_for)?;
    let targets = split.target_hash.first_chunk::<6>().map(|h| crate::output::hex(h)).unwrap_or_default();
    progress.say(format_args!("split {}: {} questions ({targets})", split.describe(), split.test.len()));

    let config = match (&file, &before) {
        (None, Some(before)) => TrainConfig::default().parse(&before.config)?,
        (file, _) => ruled(&data, &split, file.as_ref(), &progress)?,
    };
    let config = flags(arguments, config);
    let (model, options) = (config.model.clone(), config.train.clone());
    let trainer = Trainer::new(&data, &split).model(model).options(options).tokenizer(config.tokenizer.clone());
    trainer.device(device.parse()?).check()?;
    let place = match early {
        Some(place) => place,
        None => Workplace::take(&arguments.store)?,
    };
    match (place.unfinished(), arguments.resume) {
        (true, false) => {
            note(format_args!("an unfinished training of this store is being replaced; --resume would continue it"))
        }
        (false, true) => note(format_args!("there is no unfinished training in this store; starting anew")),
        _ => {}
    }
    let asked = Asked {
        dataset: description,
        data: folder.clone(),
        outcomes: source.outcomes.clone(),
        config: config.text()?,
        device: device.clone(),
        protocol: protocol.to_string(),
        questions,
    };
    let found = match config.ranker.enabled {
        true => outcomes::read(&source, folder.as_deref(), &data, &mut progress, &cancel)?,
        false => None,
    };
    let found = found.map(|found| found.holding_out(outcomes::held_out(&protocol))).transpose()?;
    let job = Job {
        data: &data,
        split: &split,
        outcomes: found.as_ref(),
        config,
        device: device.parse()?,
        resume: arguments.resume,
        command: typed(),
    };
    if !arguments.resume {
        forget_checkpoint(place.directory())?;
    }
    asked.write(place.directory())?;
    let outcome = training::run(&place, job, &mut progress, &cancel)?;
    let t = &outcome.trained;
    let Some(generation) = outcome.generation else {
        let resume = format!("docent train --store {} --resume", word(&arguments.store));
        note(format_args!("interrupted after step {}; the checkpoint is written. Go on with: {resume}", t.steps));
        if output.json {
            output.result(|| outcome.json(), String::new)?;
        }
        return Ok(ExitCode::from(INTERRUPTED));
    };
    Asked::forget(place.directory());
    output.result(
        || outcome.json(),
        || {
            format!(
                "generation {generation} of {}\nvalidation   {}\ntraining     {} epochs, {:.1} s, {:.0} tokens/s, stopped by {}, \
                 peak memory {}\n{}",
                arguments.store.display(),
                metrics_text(&t.validation),
                t.epochs,
                t.seconds,
                t.tokens_per_second,
                t.stopped.as_str(),
                size(peak_rss_bytes()),
                outcome.ranker.as_ref().map_or_else(String::new, |r| format!(
                    "ranker       {}, {} epochs, {:.1} s\n",
                    metrics_text(&r.validation),
                    r.epochs,
                    r.seconds
                ))
            )
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What the rule of [`defaults`] chooses for the data, on every core, under the file.
pub(crate) fn ruled(
    data: &Dataset,
    split: &Split,
    file: Option<&TrainFile>,
    progress: &Progress,
) -> Result<TrainConfig> {
    let rule = defaults(data, split)?;
    progress.say(format_args!("defaults: {rule}"));
    let mut config = TrainConfig { model: rule.model, train: rule.train, ..TrainConfig::default() };
    config.train.threads = u32::try_from(cores().get()).unwrap_or(u32::MAX);
    match file {
        Some(file) => file.over(config),
        None => Ok(config),
    }
}

/// The flags over the options.
fn flags(arguments: &Arguments, mut config: TrainConfig) -> TrainConfig {
    if let Some(seed) = arguments.seed {
        config.train.seed = seed;
    }
    if let Some(threads) = arguments.threads {
        config.train.threads = u32::try_from(threads).unwrap_or(u32::MAX);
    }
    if let Some(minutes) = arguments.max_minutes {
        config.train.max_seconds = (minutes * 60.0).ceil() as u64;
    }
    config
}
