//! The state of each entity that was adapted to or observed, as records of the live file.
//!
//! An [`EntityStore`] reads, changes and forgets [`EntityState`]s. Changes of one entity come one after another, whichever process makes
//! them; a change is visible to all at once and acknowledged as [`Durability`] says.

use super::durable::Durability;
use super::failure::{Failure, corrupt};
use super::file::{CHANGING, LiveStore};
use super::frame::{HASH, RECORD_CAP, content, frame};
use super::places::{insert, place_of};
use super::schema::{ENTITY_COUNT, add_to_fact, fact};
use super::view::StateView;
use crate::error::{Error, Result, err};
use crate::store::records::EntityState;
use crate::store::wire::{codec, v1, v2};
use parking_lot::Mutex;
use rkyv::util::AlignedVec;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
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
/// Entities that a purge looks at in one transaction.
const PURGE_STEP: i64 = 4096;
/// A change is made anew so often where another process was faster; after that, the others wait for it.
const ATTEMPTS: usize = 3;

/// How an [`EntityStore`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityStoreOptions {
    /// When a change may be called acknowledged.
    pub durability: Durability,
    /// Bytes of states that are not on disk yet under [`Durability::Within`]. Whoever exceeds them waits until its change is.
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
    options: EntityStoreOptions,
    /// Held while this process changes the state of an entity, by the hash of its id.
    stripes: Box<[Mutex<()>]>,
    hasher: RandomState,
    syncing: Option<JoinHandle<()>>,
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
            std::mem::forget(self.syncing.take());
            return;
        }
        self.live.syncs.end();
        if let Some(syncing) = self.syncing.take() {
            // It has nothing to tell: who must know of a failure calls `flush` first.
            let _ = syncing.join();
        }
        self.live.has_entities.store(false, Ordering::Release);
    }
}

/// A state as it is stored.
struct Stored {
    place: i64,
    version: u32,
    archive: AlignedVec,
    /// The hash of the record: two states with the same are the same.
    hash: [u8; HASH],
}

/// What a change found in the file when it was to be written.
enum Written<T> {
    Here(T),
    /// Another state than the one that was changed.
    Overtaken,
}

impl EntityStore {
    /// The states in the file `live`.
    ///
    /// # Errors
    /// `InvalidArgument` where [`Durability::Within`] is given no time; `Busy` where this object of the file has an entity store already;
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
        live.syncs.restart();
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        let mut store = Self { live, options: *options, stripes, hasher: RandomState::new(), syncing: None };
        if let Durability::Within(time) = options.durability {
            let live = Arc::clone(&store.live);
            let thread = std::thread::Builder::new().name("docent-entities".into()).spawn(move || live.syncs.run(time));
            store.syncing = Some(thread.map_err(|e| Error::io("cannot start a thread for", store.live.path(), e))?);
        }
        Ok(store)
    }

    /// The state of an entity, with every change that any process has committed; `None` where
    /// nothing is stored of it, as of an id that nothing can be stored of (empty, or longer than 64 KiB).
    ///
    /// # Errors
    /// `Corrupt` where its record is damaged; input errors.
    pub fn get(&self, id: &str) -> Result<Option<EntityState>> {
        self.live.ours()?;
        if check_id(id).is_err() {
            return Ok(None);
        }
        self.stored(id)?.map(|stored| self.decode(id, stored.version, &stored.archive)).transpose()
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
        let Some(stored) = self.stored(id)? else { return Ok(None) };
        match stored.version {
            v2::VERSION => look(StateView::stored(self.view(id, &stored.archive)?)).map(Some),
            before => look(StateView::from(&self.decode(id, before, &stored.archive)?)).map(Some),
        }
    }

    /// Changes the state of an entity, from the default where nothing is stored of it, and acknowledges it as
    /// [`EntityStoreOptions::durability`] says. Changes of one entity come one after another. `change` is called again, with what is stored by
    /// then, where another process changed the entity meanwhile. Where it fails, nothing is changed.
    ///
    /// # Errors
    /// What `change` gives; `InvalidArgument` where the id is empty or longer than 64 KiB, a number of the new state is not
    /// finite, a label not between 0 and 1, a time outside the years 0 to 9999, or the whole longer than 1 MiB; `Busy` where it
    /// is called from within `change`, or another process writes for too long; `NoSpace`, `Io`, `Corrupt` where the state cannot be written:
    /// nothing is changed then; `Poisoned` where what was written, now or
    /// before, cannot be brought to disk: it may be there when the file is opened anew.
    pub fn update<T>(&self, id: &str, mut change: impl FnMut(&mut EntityState) -> Result<T>) -> Result<T> {
        self.live.ours()?;
        check_id(id)?;
        let (value, commit) = {
            let _alone = self.alone(id)?;
            let mut change = |stored: Option<&Stored>| -> Result<(T, Record)> {
                let before = stored.map(|stored| self.decode(id, stored.version, &stored.archive));
                let mut state = before.transpose()?.unwrap_or_default();
                CHANGING.set(true);
                let changing = Changing;
                let value = change(&mut state)?;
                drop(changing);
                Ok((value, encode(id, state)?))
            };
            self.changed(id, &mut change)?
        };
        self.acknowledge(commit)?;
        Ok(value)
    }

    /// Writes what `change` makes of the state of an entity; gives the number of the commit.
    fn changed<T>(
        &self,
        id: &str,
        change: &mut impl FnMut(Option<&Stored>) -> Result<(T, Record)>,
    ) -> Result<(T, u64)> {
        for _ in 0..ATTEMPTS {
            // The change may take its time: nobody waits for it.
            let before = self.stored(id)?;
            let (value, new) = change(before.as_ref())?;
            let (written, commit) = self.live.write(|transaction| {
                let now = self.hash_of(transaction, id)?;
                if now.map(|(_, hash)| hash) != before.as_ref().map(|stored| stored.hash) {
                    return Ok((Written::Overtaken, 0));
                }
                replace(transaction, id, &new, now.map(|(place, _)| place))?;
                Ok((Written::Here(value), new.bytes.len()))
            })?;
            if let Written::Here(value) = written {
                return Ok((value, commit));
            }
        }
        self.live.write(|transaction| {
            let before = self.stored_in(transaction, id)?;
            let (value, new) = change(before.as_ref())?;
            replace(transaction, id, &new, before.map(|stored| stored.place))?;
            Ok((value, new.bytes.len()))
        })
    }

    /// Stores a state in the place of whatever there is.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn put(&self, id: &str, state: &EntityState) -> Result<()> {
        self.live.ours()?;
        check_id(id)?;
        let new = encode(id, state.clone())?;
        let commit = {
            let _alone = self.alone(id)?;
            self.live.write(|transaction| {
                // What is there may be damaged: it goes.
                replace(transaction, id, &new, self.place(transaction, id)?)?;
                Ok(((), new.bytes.len()))
            })?
        };
        self.acknowledge(commit.1)
    }

    /// Stores many states, each in the place of whatever there is: all of them, or none where one fails. Durable when it returns; gives how many.
    ///
    /// # Errors
    /// The first that `states` gives; as [`EntityStore::update`].
    pub fn put_all(&self, states: impl IntoIterator<Item = Result<(String, EntityState)>>) -> Result<u64> {
        self.live.ours()?;
        self.live.write_durably(|transaction| {
            let (mut count, mut bytes) = (0, 0);
            for state in states {
                let (id, state) = state?;
                check_id(&id)?;
                let new = encode(&id, state)?;
                replace(transaction, &id, &new, self.place(transaction, &id)?)?;
                (count, bytes) = (count + 1, bytes + new.bytes.len());
            }
            Ok((count, bytes))
        })
    }

    fn acknowledge(&self, commit: u64) -> Result<()> {
        match self.options.durability {
            Durability::OnDisk => self.live.syncs.wait(commit),
            Durability::Within(time) => self.live.syncs.pace(commit, time, self.options.pending_bytes),
        }
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
            state.leave_out_first((state.outcomes.len() / 16).max(1));
            state.forget_items(usize::MAX);
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

    /// Removes what is stored of an entity, durably when it returns, and gives whether there was anything. Older versions of it may
    /// still be found in the file's log for a while; [`EntityStore::compact`] leaves none.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn forget(&self, id: &str) -> Result<bool> {
        self.live.ours()?;
        check_id(id)?;
        let (was_there, commit) = {
            let _alone = self.alone(id)?;
            self.live.write(|transaction| {
                let place = self.place(transaction, id)?;
                let removed = transaction.prepare_cached("DELETE FROM entities WHERE place = ?1")?.execute([place])?;
                add_to_fact(transaction, ENTITY_COUNT, -(removed as i64))?;
                Ok((removed > 0, 0))
            })?
        };
        self.live.syncs.wait(commit)?;
        Ok(was_there)
    }

    /// Returns when every change of this process so far is on disk.
    ///
    /// # Errors
    /// As [`EntityStore::update`].
    pub fn flush(&self) -> Result<()> {
        self.live.ours()?;
        self.live.syncs.flush()
    }

    /// Writes the whole live file anew, after which no byte of what was forgotten is left in it; see [`LiveStore::compact`].
    ///
    /// # Errors
    /// As [`LiveStore::compact`].
    pub fn compact(&self) -> Result<()> {
        self.live.compact()
    }

    /// Removes entities that nothing has happened to since `before`, Unix milliseconds: those with
    /// [`EntityState::touched`] below it. Those without a time stay. Durable when it returns; gives how many.
    ///
    /// # Errors
    /// As [`EntityStore::forget`]; those purged before stay so.
    pub fn purge_idle(&self, before: i64) -> Result<u64> {
        let (mut purged, mut from) = (0, Some(i64::MIN));
        while let Some(first) = from {
            (purged, from) = self.live.write_durably(|transaction| {
                let sql = "SELECT place FROM entities WHERE place >= ?1 ORDER BY place LIMIT 1 OFFSET ?2";
                let next =
                    transaction.prepare_cached(sql)?.query_row((first, PURGE_STEP), |row| row.get(0)).optional()?;
                let sql = "DELETE FROM entities WHERE place >= ?1 AND place < ?2 AND touched < ?3";
                let removed = transaction.prepare_cached(sql)?.execute((first, next.unwrap_or(i64::MAX), before))?;
                add_to_fact(transaction, ENTITY_COUNT, -(removed as i64))?;
                Ok(((purged + removed as u64, next), 0))
            })?;
        }
        Ok(purged)
    }

    /// Calls `visit` with every entity in the order of the ids, as they stood at one moment after this was called.
    ///
    /// # Errors
    /// What `visit` gives, which ends it; `Corrupt` where a record is damaged or missing; input errors.
    pub fn each(&self, mut visit: impl FnMut(&str, &EntityState) -> Result<()>) -> Result<()> {
        self.live.read(|connection| {
            // One moment of the states and of their number.
            let transaction = connection.unchecked_transaction()?;
            let mut seen = 0;
            self.live.each_record(&transaction, "SELECT id, record FROM entities ORDER BY id", |id, record| {
                seen += 1;
                let (version, archive) = content(self.live.path(), id, v2::VERSION, record)?;
                visit(id, &self.decode(id, version, &codec::aligned(archive))?)
            })?;
            match fact(&transaction, ENTITY_COUNT)? {
                expected if expected == seen => Ok(()),
                expected => {
                    Err(corrupt(self.live.path(), format_args!("{seen} records of {expected} are left")).into())
                }
            }
        })
    }

    /// How many entities there are.
    ///
    /// # Errors
    /// Input errors.
    pub fn len(&self) -> Result<u64> {
        self.live.read(|connection| Ok(fact(connection, ENTITY_COUNT)?.max(0) as u64))
    }

    /// Whether there is none; see [`EntityStore::len`].
    ///
    /// # Errors
    /// As [`EntityStore::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Nobody else of this process changes the entity `id` while the guard lives.
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

    fn stored(&self, id: &str) -> Result<Option<Stored>> {
        // One moment of the place and of the record there.
        self.live.read(|connection| self.stored_in(&*connection.unchecked_transaction()?, id))
    }

    fn stored_in(&self, connection: &Connection, id: &str) -> std::result::Result<Option<Stored>, Failure> {
        let Some(place) = self.place(connection, id)? else { return Ok(None) };
        let mut statement = connection.prepare_cached("SELECT record FROM entities WHERE place = ?1")?;
        let found = statement.query_row([place], |row| {
            let record = row.get_ref(0)?.as_blob()?;
            let content = content(self.live.path(), id, v2::VERSION, record);
            // The length was checked with the content.
            Ok(content.map(|(version, archive)| Stored {
                place,
                version,
                archive: codec::aligned(archive),
                hash: record.first_chunk().copied().unwrap_or_default(),
            }))
        });
        Ok(Some(found??))
    }

    /// Where an entity is in the table.
    fn place(&self, connection: &Connection, id: &str) -> std::result::Result<Option<i64>, Failure> {
        let first = place_of(id);
        let mut statement = connection.prepare_cached("SELECT 1 FROM entities WHERE place = ?1 AND id = ?2")?;
        if statement.exists((first, id))? {
            return Ok(Some(first));
        }
        // The index has the last word of who is not there: a damaged page on the way may have led to another place.
        let mut statement =
            connection.prepare_cached("SELECT place FROM entities INDEXED BY entities_by_id WHERE id = ?1")?;
        match statement.query_row([id], |row| row.get(0)).optional()? {
            Some(place) if place == first => Err(corrupt(self.live.path(), "its records are out of order").into()),
            other => Ok(other),
        }
    }

    /// The hash of the record of an entity; `None` where there is none.
    fn hash_of(
        &self,
        transaction: &Transaction<'_>,
        id: &str,
    ) -> std::result::Result<Option<(i64, [u8; HASH])>, Failure> {
        Ok(self.stored_in(transaction, id)?.map(|stored| (stored.place, stored.hash)))
    }

    fn view<'a>(&self, id: &str, archive: &'a AlignedVec) -> Result<&'a v2::ArchivedState> {
        codec::view(archive).map_err(|e| self.unreadable(id, &e))
    }

    fn decode(&self, id: &str, version: u32, archive: &AlignedVec) -> Result<EntityState> {
        let state = match version {
            v1::VERSION => codec::read::<v1::State>(archive).map(v2::State::from),
            _ => codec::read::<v2::State>(archive),
        };
        state.map(Into::into).map_err(|e| self.unreadable(id, &e))
    }

    fn unreadable(&self, id: &str, why: &str) -> Error {
        corrupt(self.live.path(), format_args!("the record of {id:?} cannot be read ({why})"))
    }
}

/// What is written of a state.
struct Record {
    touched: Option<i64>,
    bytes: Vec<u8>,
}

/// Puts a record in the place of the one before, or in a new one.
///
/// # Errors
/// Those of the file; `Internal` where too many ids have one hash.
fn replace(
    transaction: &Transaction<'_>,
    id: &str,
    new: &Record,
    place: Option<i64>,
) -> std::result::Result<(), Failure> {
    if let Some(place) = place {
        let sql = "UPDATE entities SET touched = ?2, record = ?3 WHERE place = ?1";
        transaction.prepare_cached(sql)?.execute((place, new.touched, &new.bytes))?;
        return Ok(());
    }
    insert(transaction, id, new.touched, &new.bytes)
}

fn encode(id: &str, state: EntityState) -> Result<Record> {
    state.check(id)?;
    let touched = state.touched;
    Ok(Record { touched, bytes: frame(id, v2::VERSION, &archive(id, state)?)? })
}

fn archive(id: &str, state: EntityState) -> Result<AlignedVec> {
    codec::archive(&v2::State::from(state)).map_err(|e| err!(Internal, "cannot archive entity {id:?}: {e}; report it"))
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
