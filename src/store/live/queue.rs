//! Group commit: changes gather while the disk is busy with those before, and go to it in one transaction.
//!
//! Whoever must wait for its change, and finds nobody writing, writes everything that has gathered; the others wait for it. So
//! any number of callers share one `fsync`, one caller alone has it to itself, and no thread is needed.

use super::file::LiveStore;
use super::frame::ENTITIES;
use crate::error::{Error, ErrorKind, Result, err};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry takes beside its id and its record, roughly.
const ENTRY_BYTES: usize = 128;

/// When a change may be called acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// An update returns when it is on disk. Takes no thread: callers who wait at the same time share one `fsync`, which one
    /// of them asks for.
    #[default]
    OnDisk,
    /// An update returns at once and is on disk at the latest this much later; what a crash of the machine or the process
    /// takes is what came in this time. Where the disk falls behind, and during a compaction, updates wait for it. Takes one thread, named
    /// `docent-entities`, which ends after a last commit when the store is dropped.
    Within(Duration),
}

/// What becomes of an entity: a framed record, or nothing.
pub(super) type Change = Option<Arc<[u8]>>;

/// Changes that go to disk together.
#[derive(Debug, Default)]
struct Batch {
    /// By id, in which order they are written.
    changes: BTreeMap<Box<str>, Change>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    gathering: Batch,
    /// The number of the batch that gathers; batches are written in the order of their numbers.
    number: u64,
    writing: Option<Arc<Batch>>,
    /// All batches before this number are on disk.
    durable: u64,
    /// Why a batch could not be written. None will be any more.
    failed: Option<(ErrorKind, String)>,
    /// How many compactions run, or are about to, for whose length nothing can be written.
    compactions: usize,
    /// Set when the store is dropped.
    ended: bool,
}

impl State {
    fn bytes(&self) -> usize {
        self.gathering.bytes + self.writing.as_ref().map_or(0, |batch| batch.bytes)
    }

    fn oldest(&self) -> Option<Instant> {
        self.writing.as_ref().map_or(self.gathering.since, |batch| batch.since)
    }
}

/// Changes on their way to the file.
#[derive(Debug)]
pub(super) struct Queue {
    live: Arc<LiveStore>,
    durability: Durability,
    pending_bytes: usize,
    state: Mutex<State>,
    /// A batch was written, or failed.
    settled: Condvar,
    /// The first change came to an empty batch, or the store is dropped.
    begun: Condvar,
}

impl Queue {
    pub(super) fn new(live: Arc<LiveStore>, durability: Durability, pending_bytes: usize) -> Self {
        let state = Mutex::new(State::default());
        Self { live, durability, pending_bytes, state, settled: Condvar::new(), begun: Condvar::new() }
    }

    /// What becomes of the entity `id`; `None` where nothing is on its way, so that the file has the last word.
    ///
    /// # Errors
    /// `Poisoned` after a batch could not be written.
    pub(super) fn find(&self, id: &str) -> Result<Option<Change>> {
        let state = self.state.lock();
        self.usable(&state)?;
        let waiting = state.gathering.changes.get(id);
        Ok(waiting.or_else(|| state.writing.as_ref().and_then(|batch| batch.changes.get(id))).cloned())
    }

    /// Takes a change, visible from now on, and gives the number of its batch.
    ///
    /// # Errors
    /// `Poisoned` after a batch could not be written.
    pub(super) fn push(&self, id: &str, change: Change) -> Result<u64> {
        let mut state = self.state.lock();
        self.usable(&state)?;
        let size = |change: &Change| id.len() + ENTRY_BYTES + change.as_ref().map_or(0, |record| record.len());
        let batch = &mut state.gathering;
        batch.bytes += size(&change);
        if let Some(before) = batch.changes.insert(id.into(), change) {
            batch.bytes = batch.bytes.saturating_sub(size(&before));
        }
        if batch.since.is_none() {
            batch.since = Some(Instant::now());
            self.begun.notify_one();
        }
        Ok(state.number)
    }

    /// Returns when a change in batch `number` may be called acknowledged.
    ///
    /// # Errors
    /// The failure of the batch.
    pub(super) fn acknowledge(&self, number: u64) -> Result<()> {
        let state = self.state.lock();
        let wait = match self.durability {
            Durability::OnDisk => true,
            // Nothing is promised while an older promise is not kept.
            Durability::Within(time) => {
                let late = state.oldest().is_some_and(|since| since.elapsed() > time);
                late || state.bytes() > self.pending_bytes || state.compactions > 0
            }
        };
        match wait {
            true => self.wait_for(state, number),
            false => Ok(()),
        }
    }

    /// Returns at once, or when batch `number` is on disk if too much waits for that.
    ///
    /// # Errors
    /// The failure of the batch.
    pub(super) fn pace(&self, number: u64) -> Result<()> {
        let state = self.state.lock();
        match state.bytes() > self.pending_bytes {
            true => self.wait_for(state, number),
            false => Ok(()),
        }
    }

    /// Returns when batch `number` is on disk.
    ///
    /// # Errors
    /// The failure of the batch.
    pub(super) fn settle(&self, number: u64) -> Result<()> {
        self.wait_for(self.state.lock(), number)
    }

    /// Returns when everything pushed before is on disk.
    ///
    /// # Errors
    /// `Poisoned` after a batch could not be written; otherwise the failure of one of the batches.
    pub(super) fn flush(&self) -> Result<()> {
        let state = self.state.lock();
        self.usable(&state)?;
        match (state.gathering.changes.is_empty(), state.number) {
            (false, number) => self.wait_for(state, number),
            (true, 0) => Ok(()),
            (true, number) => self.wait_for(state, number - 1),
        }
    }

    /// Runs a compaction. Every change that was acknowledged before is on disk when it begins, and none is acknowledged until
    /// it is written after it.
    ///
    /// # Errors
    /// As [`Queue::flush`]; what `compact` gives.
    pub(super) fn beside(&self, compact: impl FnOnce() -> Result<()>) -> Result<()> {
        self.state.lock().compactions += 1;
        let outcome = self.flush().and_then(|()| compact());
        self.state.lock().compactions -= 1;
        outcome
    }

    fn wait_for(&self, mut state: MutexGuard<'_, State>, number: u64) -> Result<()> {
        while state.durable <= number {
            if let Some((kind, message)) = &state.failed {
                return Err(Error::new(*kind, message.clone()));
            }
            match state.writing {
                Some(_) => self.settled.wait(&mut state),
                None => self.write(&mut state),
            }
        }
        Ok(())
    }

    /// Writes the batch that has gathered while the lock is released. Nobody else may be writing.
    fn write(&self, state: &mut MutexGuard<'_, State>) {
        let batch = Arc::new(std::mem::take(&mut state.gathering));
        state.number += 1;
        state.writing = Some(Arc::clone(&batch));
        let written = MutexGuard::unlocked(state, || {
            self.live.write(|transaction| {
                let mut table = transaction.open_table(ENTITIES)?;
                for (id, change) in &batch.changes {
                    match change {
                        Some(record) => table.insert(&**id, &**record)?,
                        None => table.remove(&**id)?,
                    };
                }
                Ok(())
            })
        });
        state.writing = None;
        match written {
            Ok(()) => state.durable += 1,
            Err(e) => state.failed = Some((e.kind(), e.message().to_owned())),
        }
        self.settled.notify_all();
    }

    /// Writes each batch so early that it is on disk `time` after its first change came, until the store is dropped.
    pub(super) fn run(&self, time: Duration) {
        let mut state = self.state.lock();
        while state.failed.is_none() {
            let due = state.gathering.since.map(|since| since + time / 2);
            match due {
                _ if state.writing.is_some() => self.settled.wait(&mut state),
                None if state.ended => return,
                None => self.begun.wait(&mut state),
                Some(due) if !state.ended && Instant::now() < due => {
                    self.begun.wait_until(&mut state, due);
                }
                Some(_) => self.write(&mut state),
            }
        }
    }

    /// Lets [`Queue::run`] end after a last batch.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.begun.notify_all();
    }

    /// Bytes that wait for the disk.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.state.lock().bytes()
    }

    fn usable(&self, state: &State) -> Result<()> {
        match &state.failed {
            None => Ok(()),
            Some((_, message)) => Err(err!(
                Poisoned,
                "the states of entities could not be written before ({message}), so what is on disk is not known; open the \
                 engine anew"
            )),
        }
    }
}
