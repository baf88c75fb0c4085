//! A store that a long run works on: locked against others, and published into.

use crate::error::{Error, Result, err};
use crate::evaluate::peak_rss_bytes;
use crate::store::{Publisher, RunRecord, Store};
use crate::train::{forget_checkpoint, has_checkpoint};
use crate::{ErrorKind, progress};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a finished run waits for another publisher of the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store that one training works on: nobody else trains into it while this lives. Rolling back and pruning stay
/// possible.
#[derive(Debug)]
pub(super) struct Workplace {
    pub(super) store: Store,
    /// Where the checkpoint lies.
    pub(super) directory: PathBuf,
    _lock: File,
}

impl Workplace {
    /// Takes the store in the directory `path`, made if there is none.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let store = Store::create(path)?;
        let directory = training_folder(path);
        std::fs::create_dir_all(&directory).map_err(|e| Error::io("cannot make the folder", &directory, e))?;
        let file = directory.join("LOCK");
        let failed = |e| Error::io("cannot open", &file, e);
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&file).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { store, directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(err!(
                Locked,
                "another training is writing to store {}; wait for it, stop it, or name another store",
                path.display()
            )),
            Err(TryLockError::Error(e)) => Err(Error::io("cannot lock", &file, e)),
        }
    }

    /// Takes a store that exists, so that a second training fails before it reads anything; one that does not is made only
    /// when all is ready.
    pub(super) fn take_existing(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            true => Self::take(path).map(Some),
            false => Ok(None),
        }
    }

    /// Keeps the checkpoint of an unfinished training for one that resumes, and forgets it for one that does not.
    pub(super) fn begin(&self, resume: bool, progress: &mut dyn progress::ProgressSink) -> Result<()> {
        let path = self.store.path().display();
        let mut warn = |what: String| progress.on_event(&progress::ProgressEvent::Warning(what));
        match (has_checkpoint(&self.directory), resume) {
            (true, false) => warn(format!("the unfinished training of store {path} is being replaced, not resumed")),
            (false, true) => warn(format!("store {path} has no unfinished training; starting anew")),
            _ => {}
        }
        if resume { Ok(()) } else { forget_checkpoint(&self.directory) }
    }
}

/// Where checkpoints of trainings and adaptations lie.
pub(super) fn training_folder(store: &Path) -> PathBuf {
    store.join("training")
}

/// Takes the store for writing; one who holds it for a moment (a rollback, a prune) is waited for.
pub(super) fn publisher(store: &Store) -> Result<Publisher> {
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

/// The record of a run that ends now.
pub(super) fn run_record(command: &str, seconds: f64, device: String) -> RunRecord {
    RunRecord {
        created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
        seconds,
        peak_rss_bytes: peak_rss_bytes(),
        command: command.to_owned(),
        device,
        ..RunRecord::default()
    }
}
