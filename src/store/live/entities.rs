//! The state of each entity that was adapted to or observed, as records of the live file.
//!
//! An [`EntityStore`] reads, changes and forgets [`EntityState`]s. Changes of one entity come one after another; a change is
//! visible at once and acknowledged as [`Durability`] says. Many changes share a transaction (`queue`), and what waits for its
//! transaction is bounded.

use super::failure::corrupt;
use super::file::LiveStore;
use super::frame::{ENTITIES, RECORD_CAP, content, frame};
use super::queue::{Change, Durability, Queue};
use super::view::StateView;
use crate::error::{Error, Result, err};
use crate::store::records::EntityState;
use crate::store::wire::{codec, v1};
use parking_lot::Mutex;
use redb::{ReadableTableMetadata, TableError};
use rkyv::util::AlignedVec;
use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Longest id of an entity, in bytes.
const ID_CAP: usize = 64 << 10;
/// Entities share so many locks.
const STRIPES: usize = 256;
/// Entities that a purge looks at in one view of the file.
const PURGE_STEP: usize = 4096;

/// How an [`EntityStore`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityStoreOptions {
    /// When a change may be called acknowledged.
    pub durability: Durability,
    /// Bytes of states that wait for the disk. Whoever exceeds them waits until its change is written, so that memory holds
    /// at most one more record (1 MiB) for each caller.
    pub pending_bytes: usize,
}

impl Default for EntityStoreOptions {
    fn default() -> Self {
        Self { durability: Durability::OnDisk, pending_bytes: 16 << 20 }
    }
}

/// Durable states of entities. All methods take `&self` and may be called from any number of threads.
///
/// ```no_run
/// use docent::store::{EntityStore, EntityStoreOptions, LiveStore, Store, StoredOutcome};
/// use std::sync::Arc;
/// let live = Arc::new(LiveStore::open(&Store::open("shop.store")?, false)?);
/// let entities = EntityStore::new(live, &EntityStoreOptions::default())?;
/// entities.update("u42", |state| {
///     state.outcomes.push(StoredOutcome { item: "i7".into(), in_history: true, ..StoredOutcome::default() });
///     state.seen += 1;
///     Ok(())
/// })?;
/// // When the update has returned, it is on disk.
/// assert_eq!(entities.get("u42")?.map(|state| state.seen), Some(1));
/// entities.forget("u42")?;
/// entities.compact()?;
/// # Ok::<(), docent::Error>(())
/// ```
#[derive(Debug)]
pub struct EntityStore {
    live: Arc<LiveStore>,
    queue: Arc<Queue>,
    /// Held while the state of an entity is changed, by the hash of its id.
    stripes: Box<[Mutex<()>]>,
    hasher: RandomState,
    writer: Option<JoinHandle<()>>,
}

thread_local! {
    /// Whether this thread is inside the closure of an update, from where another one could wait for itself.
    static CHANGING: Cell<bool> = const { Cell::new(false) };
}

/// Ends what [`CHANGING`] says, however the closure ends.
struct Changing;

impl Drop for Changing {
    fn drop(&mut self) {
        CHANGING.set(false);
    }
}

impl Drop for EntityStore {
    fn drop(&mut self) {
        if self.live.ours().is_err() {
            // Its thread and whoever holds its locks are in the parent.
            std::mem::forget(self.writer.take());
            return;
        }
        self.queue.end();
        if let Some(writer) = self.writer.take() {
            // It has nothing to tell: who must know of a failure calls `flush` first.
            let _ = writer.join();
        }
        self.live.has_entities.store(false, Ordering::Release);
    }
}

/// Whether an entity that was last touched at `touched` is idle since before `before`; one whose events have no times never is.
fn untouched(touched: i64, before: i64) -> bool {
    touched != 0 && touched < before
}

impl EntityStore {
    /// The states in the file `live`.
    ///
    /// # Errors
    /// `InvalidArgument` where [`Durability::Within`] is given no time; `Busy` where the file has an entity store already;
    /// `Io` where the thread cannot be started.
    pub fn new(live: Arc<LiveStore>, options: &EntityStoreOptions) -> Result<Self> {
        if options.durability == Durability::Within(Duration::ZERO) {
            return Err(err!(InvalidArgument, "Durability::Within is given no time; give some, or take OnDisk"));
        }
        live.ours()?;
        if live.has_entities.swap(true, Ordering::AcqRel) {
            let file = live.path().display();
            return Err(err!(Busy, "the states of entities in {file} are in use already; share that entity store"));
        }
        let queue = Arc::new(Queue::new(Arc::clone(&live), options.durability, options.pending_bytes));
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        let mut store = Self { live, queue, stripes, hasher: RandomState::new(), writer: None };
        if let Durability::Within(time) = options.durability {
            let queue = Arc::clone(&store.queue);
            let thread = std::thread::Builder::new().name("docent-entities".into()).spawn(move || queue.run(time));
            store.writer = Some(thread.map_err(|e| Error::io("cannot start a thread for", store.live.path(), e))?);
        }
        Ok(store)
    }

    /// The state of an entity, with every change that an update has returned from or is waiting to have on disk; `None` where
    /// nothing is stored of it, as of an id that nothing can be stored of (empty, or longer than 64 KiB).
    ///
    /// # Errors
    /// `Corrupt` where its record is damaged; `Poisoned` after a failure to write; input errors.
    pub fn get(&self, id: &str) -> Result<Option<EntityState>> {
        self.live.ours()?;
        if check_id(id).is_err() {
            return Ok(None);
        }
        self.archive(id)?.map(|archive| self.decode(id, &archive)).transpose()
    }

    /// As [`EntityStore::get`], without a copy of every text and list: `look` sees the state in place.
    ///
    /// # Errors
    /// As [`EntityStore::get`]; what `look` gives.
    pub fn read<R>(&self, id: &str, look: impl FnOnce(StateView<'_>) -> Result<R>) -> Result<Option<R>> {
        self.live.ours()?;
        if check_id(id).is_err() {
            return Ok(None);
        }
        let Some(archive) = self.archive(id)? else { return Ok(None) };
        look(StateView::stored(self.view(id, &archive)?)).map(Some)
    }

    /// Changes the state of an entity, from the default where nothing is stored of it, and acknowledges it as
    /// [`EntityStoreOptions::durability`] says. Changes of one entity come one after another. Where `change` fails, nothing
    /// is changed.
    ///
    /// # Errors
    /// What `change` gives; `InvalidArgument` where the id is empty or longer than 64 KiB, a number of the new state is not
    /// finite, a label not between 0 and 1, a time outside the years 0 to 9999, or the whole longer than 1 MiB; `Busy` where it
    /// is called from within `change`; `NoSpace`, `Io`, `Corrupt` where the state cannot be written: it may then be there or not when the file is opened
    /// again, and every later call gives `Poisoned`.
    pub fn update<T>(&self, id: &str, change: impl FnOnce(&mut EntityState) -> Result<T>) -> Result<T> {
        self.live.ours()?;
        check_id(id)?;
        let (value, batch) = {
            let _alone = self.alone(id)?;
            let mut state = self.get(id)?.unwrap_or_default();
            CHANGING.set(true);
            let changing = Changing;
            let value = change(&mut state)?;
            drop(changing);
            (value, self.queue.push(id, encode(id, state)?)?)
        };
        self.queue.acknowledge(batch)?;
        Ok(value)
    }

    /// Stores a state in the place of whatever there is.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn put(&self, id: &str, state: &EntityState) -> Result<()> {
        self.live.ours()?;
        check_id(id)?;
        let batch = {
            let _alone = self.alone(id)?;
            self.queue.push(id, encode(id, state.clone())?)?
        };
        self.queue.acknowledge(batch)
    }

    /// Drops the oldest outcomes of a state until its record is no longer than 1 MiB; the newest stays in any case. Gives how many
    /// are gone.
    ///
    /// # Errors
    /// `Internal` where the state cannot be encoded.
    pub(crate) fn shorten(id: &str, state: &mut EntityState) -> Result<usize> {
        let before = state.outcomes.len();
        // Most states are so far from the limit that nobody has to encode them twice.
        while state.roughly() > RECORD_CAP && state.outcomes.len() > 1 && archive(id, state.clone())?.len() > RECORD_CAP
        {
            state.outcomes.drain(..(state.outcomes.len() / 16).max(1));
        }
        Ok(before - state.outcomes.len())
    }

    /// Whether [`EntityStore::put`] would take a state.
    ///
    /// # Errors
    /// `InvalidArgument`, as [`EntityStore::update`].
    pub fn check(id: &str, state: &EntityState) -> Result<()> {
        check_id(id)?;
        encode(id, state.clone()).map(drop)
    }

    /// Removes what is stored of an entity, durably when it returns, and gives whether there was anything. Until the pages of
    /// the file are used again its bytes may still be found in them; [`EntityStore::compact`] leaves none.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn forget(&self, id: &str) -> Result<bool> {
        self.live.ours()?;
        check_id(id)?;
        let batch = {
            let _alone = self.alone(id)?;
            match self.archive(id)? {
                Some(_) => Some(self.queue.push(id, None)?),
                None => None,
            }
        };
        match batch {
            Some(batch) => self.queue.settle(batch)?,
            // Another call may have removed it and still wait for the disk.
            None => self.queue.flush()?,
        }
        Ok(batch.is_some())
    }

    /// Returns when every change so far is on disk.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn flush(&self) -> Result<()> {
        self.live.ours()?;
        self.queue.flush()
    }

    /// Writes the whole live file anew, after which no byte of what was forgotten is left in it; see [`LiveStore::compact`].
    /// Updates wait until it has ended, whatever the durability; reads go on.
    ///
    /// # Errors
    /// As [`EntityStore::flush`] and [`LiveStore::compact`].
    pub fn compact(&self) -> Result<()> {
        self.live.ours()?;
        self.queue.beside(|| self.live.rewrite())
    }

    /// Removes entities that nothing has happened to since `before`, Unix milliseconds: those with
    /// [`EntityState::touched`] below it. Durable when it returns; gives how many.
    ///
    /// # Errors
    /// As [`EntityStore::forget`]; those purged before stay so.
    pub fn purge_idle(&self, before: i64) -> Result<u64> {
        self.flush()?;
        let (mut purged, mut from) = (0, String::new());
        loop {
            let (idle, next) = self.idle_after(&from, before)?;
            for id in idle {
                let batch = {
                    let _alone = self.alone(&id)?;
                    // It may have been touched or forgotten meanwhile.
                    let Some(archive) = self.archive(&id)? else { continue };
                    if !untouched(self.view(&id, &archive)?.touched.to_native(), before) {
                        continue;
                    }
                    self.queue.push(&id, None)?
                };
                self.queue.pace(batch)?;
                purged += 1;
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.flush()?;
        Ok(purged)
    }

    /// Some of the entities after `from` that the file says are idle, and where to go on, if there are more.
    fn idle_after(&self, from: &str, before: i64) -> Result<(Vec<String>, Option<String>)> {
        self.live.read(|transaction| {
            let table = match transaction.open_table(ENTITIES) {
                Err(TableError::TableDoesNotExist(_)) => return Ok((Vec::new(), None)),
                other => other?,
            };
            let mut idle = Vec::new();
            let bounds = (std::ops::Bound::Excluded(from), std::ops::Bound::Unbounded);
            for (n, entry) in table.range::<&str>(bounds)?.enumerate() {
                let (id, record) = entry?;
                let id = id.value();
                if untouched(self.view(id, &self.unframe(id, record.value())?)?.touched.to_native(), before) {
                    idle.push(id.to_owned());
                }
                if n + 1 == PURGE_STEP {
                    return Ok((idle, Some(id.to_owned())));
                }
            }
            Ok((idle, None))
        })
    }

    /// Calls `visit` with every entity in the order of the ids, as they stood at one moment after this was called. Space that
    /// is freed meanwhile is used again only when it has ended.
    ///
    /// # Errors
    /// What `visit` gives, which ends it; `Corrupt` where a record is damaged or missing; as [`EntityStore::flush`].
    pub fn each(&self, mut visit: impl FnMut(&str, &EntityState) -> Result<()>) -> Result<()> {
        self.flush()?;
        let mut panicked = None;
        let outcome = self.live.read(|transaction| {
            self.live.each_record(transaction, ENTITIES, |id, record| {
                let state = self.decode(id, &self.unframe(id, record)?)?;
                // A panic of the caller's is no sign of a damaged file.
                catch_unwind(AssertUnwindSafe(|| visit(id, &state))).unwrap_or_else(|payload| {
                    panicked = Some(payload);
                    Err(err!(Internal, "the visit of entity {id:?} panicked; this message is never seen"))
                })
            })
        });
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
        outcome
    }

    /// How many entities there are, after committing what waits for it.
    ///
    /// # Errors
    /// As [`EntityStore::flush`].
    pub fn len(&self) -> Result<u64> {
        self.flush()?;
        self.live.read(|transaction| match transaction.open_table(ENTITIES) {
            Err(TableError::TableDoesNotExist(_)) => Ok(0),
            table => Ok(table?.len()?),
        })
    }

    /// Whether there is none; see [`EntityStore::len`].
    ///
    /// # Errors
    /// As [`EntityStore::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Nobody else changes the entity `id` while the guard lives.
    fn alone(&self, id: &str) -> Result<parking_lot::MutexGuard<'_, ()>> {
        if CHANGING.get() {
            return Err(err!(
                Busy,
                "entity {id:?} cannot be changed from within the change of an entity; return from that first"
            ));
        }
        let stripe = self.hasher.hash_one(id) as usize % STRIPES;
        let lock = self.stripes.get(stripe).ok_or_else(|| err!(Internal, "there is no lock {stripe}; report it"))?;
        Ok(lock.lock())
    }

    /// The archive of an entity's state: the one that waits for the disk before the one in the file.
    fn archive(&self, id: &str) -> Result<Option<AlignedVec>> {
        match self.queue.find(id)? {
            Some(change) => change.map(|record| self.unframe(id, &record)).transpose(),
            None => self.stored(id),
        }
    }

    fn stored(&self, id: &str) -> Result<Option<AlignedVec>> {
        self.live.read(|transaction| {
            let table = match transaction.open_table(ENTITIES) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                other => other?,
            };
            if let Some(record) = table.get(id)? {
                return Ok(Some(self.unframe(id, record.value())?));
            }
            // A damaged page on the way may have led to another place, where the neighbours are not those of `id`.
            let (before, after) = (table.range(..id)?.next_back().transpose()?, table.range(id..)?.next().transpose()?);
            let astray =
                before.is_some_and(|(key, _)| key.value() >= id) || after.is_some_and(|(key, _)| key.value() <= id);
            match astray {
                true => Err(corrupt(self.live.path(), "its records are out of order").into()),
                false => Ok(None),
            }
        })
    }

    fn unframe(&self, id: &str, record: &[u8]) -> Result<AlignedVec> {
        Ok(codec::aligned(content(self.live.path(), id, record)?))
    }

    fn view<'a>(&self, id: &str, archive: &'a AlignedVec) -> Result<&'a v1::ArchivedState> {
        codec::view(archive).map_err(|e| self.unreadable(id, &e))
    }

    fn decode(&self, id: &str, archive: &AlignedVec) -> Result<EntityState> {
        codec::read::<v1::State>(archive).map(Into::into).map_err(|e| self.unreadable(id, &e))
    }

    fn unreadable(&self, id: &str, why: &str) -> Error {
        corrupt(self.live.path(), format_args!("the record of {id:?} cannot be read ({why})"))
    }
}

fn encode(id: &str, state: EntityState) -> Result<Change> {
    state.check(id)?;
    Ok(Some(frame(id, &archive(id, state)?)?.into()))
}

fn archive(id: &str, state: EntityState) -> Result<AlignedVec> {
    codec::archive(&v1::State::from(state)).map_err(|e| err!(Internal, "cannot archive entity {id:?}: {e}; report it"))
}

/// Checks an id.
///
/// # Errors
/// `InvalidArgument` where it is empty or too long.
fn check_id(id: &str) -> Result<()> {
    match id.len() {
        0 => Err(err!(InvalidArgument, "the entity's id is empty; name it")),
        1..=ID_CAP => Ok(()),
        n => Err(err!(InvalidArgument, "the entity's id has {n} bytes; {ID_CAP} are the most")),
    }
}
