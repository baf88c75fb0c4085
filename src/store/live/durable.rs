//! When what was committed is on disk: one `fsync` for any number of callers that wait for it.
//!
//! A commit puts its pages into the write-ahead log, where every process of the host sees them at once, and a crash of the process
//! loses none of them. Whoever must wait until they are on disk, and finds nobody syncing the log, syncs it for everybody who committed
//! before; the others wait for that. No thread is needed.

use crate::error::{Error, Result, err};
use crate::store::directory::Store;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// When a change may be called acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// An update returns when it is on disk. Takes no thread: callers who wait at the same time share one `fsync`, which one
    /// of them asks for.
    #[default]
    OnDisk,
    /// An update returns at once and is on disk at the latest this much later; what a crash of the machine takes is what came in this
    /// time; a crash of the process takes nothing. Where the disk falls behind, updates wait for it. Takes one thread, named
    /// `docent-entities`, which ends after a last sync when the store is dropped.
    Within(Duration),
}

#[derive(Debug, Default)]
struct State {
    /// Commits so far, and how many of them are on disk.
    committed: u64,
    durable: u64,
    /// Bytes of records in commits that are not.
    bytes: usize,
    /// When the first of those came.
    since: Option<Instant>,
    syncing: bool,
    /// Why the log could not be synced. It will not be any more: what the system has dropped since is not known.
    failed: Option<String>,
    /// Set when nobody will commit any more.
    ended: bool,
}

/// What is known of the write-ahead log.
#[derive(Debug)]
pub(super) struct Syncs {
    store: Store,
    /// The log, beside the file.
    log: PathBuf,
    file: File,
    state: Mutex<State>,
    /// The log was synced, or could not be.
    settled: Condvar,
    /// A commit came when all before were on disk, or none will come any more.
    begun: Condvar,
}

impl Syncs {
    /// Of the log, which lives as long as anybody has the file beside it open. It is opened now: the system tells an error of writing back to
    /// whoever had it open by then.
    ///
    /// # Errors
    /// Input errors.
    pub(super) fn new(store: &Store, log: PathBuf) -> Result<Self> {
        let file = store.disk().open(&log).map_err(|e| Error::io("cannot open", &log, e))?;
        let state = Mutex::default();
        Ok(Self { store: store.clone(), log, file, state, settled: Condvar::new(), begun: Condvar::new() })
    }

    /// Notes a commit of so many bytes, and gives its number. To be called before anything else is committed.
    pub(super) fn committed(&self, bytes: usize) -> u64 {
        let mut state = self.state.lock();
        state.committed += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.begun.notify_one();
        }
        state.committed
    }

    /// Refuses where the log could not be synced before.
    ///
    /// # Errors
    /// `Poisoned`.
    pub(super) fn usable(&self) -> Result<()> {
        Self::sound(&self.state.lock())
    }

    fn sound(state: &State) -> Result<()> {
        match &state.failed {
            None => Ok(()),
            Some(message) => Err(err!(
                Poisoned,
                "what was written could not be brought to disk ({message}), so nothing more is written; open the engine anew, and look \
                 whether it is there"
            )),
        }
    }

    /// Returns when commit `number` is on disk.
    ///
    /// # Errors
    /// `Poisoned` where the log cannot be synced: what was committed may be on disk or not.
    pub(super) fn wait(&self, number: u64) -> Result<()> {
        self.wait_for(self.state.lock(), number)
    }

    /// Returns when all commits so far are on disk.
    ///
    /// # Errors
    /// As [`Syncs::wait`].
    pub(super) fn flush(&self) -> Result<()> {
        let state = self.state.lock();
        Self::sound(&state)?;
        let number = state.committed;
        self.wait_for(state, number)
    }

    /// Returns at once, or when commit `number` is on disk where an older one is late or too much waits.
    ///
    /// # Errors
    /// As [`Syncs::wait`].
    pub(super) fn pace(&self, number: u64, time: Duration, bytes: usize) -> Result<()> {
        let state = self.state.lock();
        // Nothing is promised while an older promise is not kept.
        let late = state.since.is_some_and(|since| since.elapsed() > time);
        match late || state.bytes > bytes {
            true => self.wait_for(state, number),
            false => Self::sound(&state),
        }
    }

    fn wait_for(&self, mut state: MutexGuard<'_, State>, number: u64) -> Result<()> {
        while state.durable < number {
            Self::sound(&state)?;
            match state.syncing {
                true => self.settled.wait(&mut state),
                false => self.sync(&mut state),
            }
        }
        Ok(())
    }

    /// Syncs the log while the lock is released. Nobody else may be syncing.
    fn sync(&self, state: &mut MutexGuard<'_, State>) {
        let (upto, bytes, began) = (state.committed, state.bytes, Instant::now());
        state.syncing = true;
        let synced = MutexGuard::unlocked(state, || self.sync_log());
        state.syncing = false;
        match synced {
            Ok(()) => {
                state.durable = upto;
                state.bytes = state.bytes.saturating_sub(bytes);
                // Whatever came since came after this began.
                state.since = (state.committed > upto).then_some(began);
            }
            Err(e) => state.failed = Some(e.message().to_owned()),
        }
        self.settled.notify_all();
    }

    fn sync_log(&self) -> Result<()> {
        self.store.disk().sync_data(&self.file).map_err(|e| Error::io("cannot sync", &self.log, e))
    }

    /// Syncs so early that each commit is on disk `time` after it came, until [`Syncs::end`].
    pub(super) fn run(&self, time: Duration) {
        let mut state = self.state.lock();
        while state.failed.is_none() {
            let due = state.since.map(|since| since + time / 2);
            match due {
                _ if state.syncing => self.settled.wait(&mut state),
                None if state.ended => return,
                None => self.begun.wait(&mut state),
                Some(due) if !state.ended && Instant::now() < due => {
                    self.begun.wait_until(&mut state, due);
                }
                Some(_) => self.sync(&mut state),
            }
        }
    }

    /// Lets [`Syncs::run`] end after a last sync.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.begun.notify_all();
    }

    /// Lets another [`Syncs::run`] begin.
    pub(super) fn restart(&self) {
        self.state.lock().ended = false;
    }

    /// Bytes that wait for the disk.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.state.lock().bytes
    }
}
