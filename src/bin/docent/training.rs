//! A training into a store: locked against others, checkpointed, published, or left ready to be resumed.

use crate::command_line::word;
use crate::output::metrics_json;
use crate::progress::Progress;
use docent::data::{Dataset, Split};
use docent::evaluate::peak_rss_bytes;
use docent::model::{Inference, Weights};
use docent::options::{Device, RankerTrainOptions};
use docent::progress::Cancel;
use docent::store::{GenerationId, RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, RankerTrainer, TrainedRanker};
use docent::train::{
    RankerConfig, Stopped, TrainConfig, Trained, Trainer, forget_checkpoint, has_checkpoint, publish_ranked,
};
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a finished training waits for another publisher of the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store that one training works on: nobody else trains into it while this lives. Rolling back and pruning stay
/// possible.
#[derive(Debug)]
pub(crate) struct Workplace {
    store: Store,
    /// Where the checkpoint lies.
    directory: PathBuf,
    _lock: File,
}

impl Workplace {
    /// Takes the store in the directory `path`, made if there is none.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let store = Store::create(path)?;
        let directory = path.join("training");
        std::fs::create_dir_all(&directory).map_err(|e| Error::io("cannot make the folder", &directory, e))?;
        let file = directory.join("LOCK");
        let failed = |e| Error::io("cannot open", &file, e);
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&file).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { store, directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "another training is writing to store {}; wait for it, stop it, or name another store",
                    path.display()
                ),
            )),
            Err(TryLockError::Error(e)) => Err(Error::io("cannot lock", &file, e)),
        }
    }

    /// The folder of the checkpoint.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a training was left unfinished.
    pub(crate) fn unfinished(&self) -> bool {
        has_checkpoint(&self.directory)
    }
}

/// What is to be trained.
pub(crate) struct Job<'a> {
    pub(crate) data: &'a Dataset,
    pub(crate) split: &'a Split,
    /// What the ranker learns from; `None` trains none.
    pub(crate) outcomes: Option<&'a Impressions>,
    pub(crate) config: TrainConfig,
    pub(crate) device: Device,
    pub(crate) resume: bool,
    /// The command, for the run record.
    pub(crate) command: String,
}

/// A training that ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    store: PathBuf,
    protocol: String,
    /// Weights and how they came to be.
    pub(crate) trained: Trained,
    /// The ranker, where one was trained.
    pub(crate) ranker: Option<TrainedRanker>,
    /// The generation that was published; `None` where the training was interrupted.
    pub(crate) generation: Option<GenerationId>,
}

impl Outcome {
    /// The keys of the command line's contract.
    pub(crate) fn json(&self) -> Value {
        let t = &self.trained;
        json!({
            "generation": self.generation.map(|g| g.0),
            "store": self.store.display().to_string(),
            "protocol": self.protocol,
            "seconds": t.seconds,
            "epochs": t.epochs,
            "best_epoch": t.best_epoch + 1,
            "steps": t.steps,
            "tokens_per_second": t.tokens_per_second,
            "losses": metrics_json(&t.losses),
            "validation": metrics_json(&t.validation),
            "peak_rss_bytes": peak_rss_bytes(),
            "stopped": t.stopped.as_str(),
            "ranker": self.ranker.as_ref().map(|r| json!({
                "outcomes": r.outcomes,
                "seconds": r.seconds,
                "epochs": r.epochs,
                "best_epoch": r.best_epoch + 1,
                "validation": metrics_json(&r.validation),
                "stopped": r.stopped.as_str(),
            })),
        })
    }
}

/// Trains into `place` and publishes. An interrupted training is not published; its checkpoint stays.
pub(crate) fn run(place: &Workplace, job: Job<'_>, progress: &mut Progress, cancel: &Cancel) -> Result<Outcome> {
    let RankerConfig { enabled, model: shape, train: rules } = job.config.ranker;
    let rules = RankerTrainOptions { seed: job.config.train.seed, threads: job.config.train.threads, ..rules };
    let outcomes = job.outcomes.filter(|_| enabled);
    if outcomes.is_some() && job.config.tokenizer.is_on() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "a ranker reads plain events, and [tokenizer] merges them; leave one out (ranker.enabled = false, or no max_gap)",
        ));
    }
    if let Some(outcomes) = outcomes.filter(|_| shape.has_surface()) {
        // Before the foundation model is trained, not after.
        outcomes.surface(&shape.surface)?;
    }
    let trained = Trainer::new(job.data, job.split)
        .model(job.config.model)
        .options(job.config.train)
        .tokenizer(job.config.tokenizer)
        .device(job.device)
        .checkpoints(&place.directory, job.resume)
        .run(progress, cancel)?;
    progress.end();
    let mut outcome = Outcome {
        store: place.store.path().to_owned(),
        protocol: job.split.describe(),
        trained,
        ranker: None,
        generation: None,
    };
    if outcome.trained.stopped == Stopped::Interrupted {
        return Ok(outcome);
    }
    if let Some(outcomes) = outcomes {
        let trained = &outcome.trained;
        let inference = Inference::new(&job.data.schema, &trained.model)?;
        let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
        let features = FoundationModel { inference: &inference, weights };
        progress.say(format_args!(
            "the ranker learns from {} outcomes, those kept back for the test not counted",
            outcomes.kept_total()
        ));
        let (validation, threads) = (rules.validation, rules.threads as usize);
        let plan = Plan::new(job.data, outcomes, job.split, features, validation, rules.seed, threads)?;
        if rules.finetune > 0.0 {
            progress.say(format_args!("the foundation model learns along at {} of its rate", rules.finetune));
        }
        let trainer = RankerTrainer::new(&plan).model(shape).options(rules).foundation(trained, job.split);
        let mut ranker = trainer.run(progress, cancel)?;
        progress.end();
        if ranker.stopped == Stopped::Interrupted {
            outcome.trained.stopped = Stopped::Interrupted;
            return Ok(outcome);
        }
        // From here on the model is the one whose vectors the ranker reads.
        if let Some(tuned) = ranker.foundation.take() {
            outcome.trained = tuned;
        }
        outcome.ranker = Some(ranker);
    }
    let trained = &outcome.trained;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let record = RunRecord {
        created_ms: now,
        seconds: trained.seconds,
        tokens_per_second: trained.tokens_per_second,
        peak_rss_bytes: peak_rss_bytes(),
        command: job.command,
        device: match job.device {
            Device::Cpu => "cpu".into(),
            Device::Cuda(n) => format!("cuda:{n}"),
        },
    };
    let published = publisher(&place.store)
        .and_then(|mut p| publish_ranked(&mut p, job.data, job.split, trained, outcome.ranker.as_ref(), &record));
    let generation = published.map_err(|e| {
        let resume = format!("docent train --store {} --resume", word(place.store.path()));
        let message = format!("{}; the training is not lost: `{resume}` publishes it", e.message());
        Error::new(e.kind(), message)
    })?;
    forget_checkpoint(&place.directory)?;
    outcome.generation = Some(generation);
    Ok(outcome)
}

/// Takes the store for writing; one who holds it for a moment (a rollback, a prune) is waited for.
pub(crate) fn publisher(store: &Store) -> Result<docent::store::Publisher> {
    let start = Instant::now();
    loop {
        match store.publisher() {
            Err(e) if e.kind() == ErrorKind::Locked && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(200));
            }
            taken => return taken,
        }
    }
}
