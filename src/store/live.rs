//! What changes between two publications: one transactional file beside the generations, `live.redb`.
//!
//! redb keeps it: every commit is durable when it returns (one `fsync`), and after a crash at any point the file holds all
//! of a commit or nothing. This module opens the file, turns its failures into typed ones, and frames its records; what the
//! tables hold stands in modules of their own ([`super::live_items`], [`super::entities`]), and so does the rewriting of the
//! whole file ([`super::live_compact`]).
//!
//! redb checks its pages only after a crash, and parts of it panic on a page that makes no sense. So every record carries a
//! hash of its own, which is checked whenever it is read, and every call runs behind a guard that turns a panic into
//! `Corrupt` and ends the use of the file.

use super::directory::Store;
use crate::error::{Error, Result, err};
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    StorageError, TableDefinition, TableError,
};
use rkyv::util::AlignedVec;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file's name in the directory of a store.
pub(super) const LIVE: &str = "live.redb";
/// Where a compaction writes before the file gets its name. Not `.tmp`: publishers remove those.
pub(super) const FRESH: &str = "live.redb.new";

/// Facts about the file itself.
pub(super) const FACTS: TableDefinition<'static, &str, u64> = TableDefinition::new("facts");
/// The layout of the tables, in [`FACTS`].
const LAYOUT: &str = "layout";
/// The layout that this version writes, and the newest that it reads.
const LAYOUT_VERSION: u64 = 1;
/// Memory for pages of the file.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes of redb's magic number, and of the page that it stands in.
const MAGIC: usize = 9;
const HEADER_PAGE: usize = 4096;
/// A file is longer than this only when it has been in use.
const UNFINISHED_CAP: u64 = 4 << 20;
/// Bytes of the hash in front of each record.
const HASH: usize = 16;
/// Longest record, so that a slip of a caller does not fill a disk.
const RECORD_CAP: usize = 1 << 20;

/// The transactional file of a store, open for reading and writing. One process at a time has it open.
#[derive(Debug)]
pub struct LiveStore {
    pub(super) store: Store,
    path: PathBuf,
    /// Replaced by a compaction, which readers that are running do not wait for; taken out when it is closed.
    pub(super) database: RwLock<Option<Arc<Database>>>,
    /// Held by whoever writes, and by a compaction until its file has taken the place of the other.
    pub(super) writing: Mutex<()>,
    /// Set when redb panicked, or when it is not known which file the name means: nothing here can be relied on any more.
    pub(super) broken: AtomicBool,
    /// Whether the states of entities are in use: what is not written yet is known to one object alone.
    pub(super) has_entities: AtomicBool,
}

impl Drop for LiveStore {
    fn drop(&mut self) {
        close(self.database.get_mut().take());
    }
}

impl LiveStore {
    /// Opens the file of `store`, or makes it. With `full`, every page of it is checked; without, records are checked as they
    /// are read.
    ///
    /// # Errors
    /// `Locked` where another engine has it open; `Corrupt` where it is damaged; `UpgradeRequired` where a newer version
    /// wrote it; input and output errors.
    pub fn open(store: &Store, full: bool) -> Result<Self> {
        let path = store.path().join(LIVE);
        let is_new = !path.exists();
        let mut database = create(store, &path)?;
        let database = guarded(&path, move || {
            if full && !is_new {
                // Closed under the guard, too, should it fail.
                database.check_integrity().map_err(|e| database_error(&store.path().join(LIVE), e))?;
            }
            Ok(database)
        })?;
        let live = Self {
            store: store.clone(),
            path,
            database: RwLock::new(Some(Arc::new(database))),
            writing: Mutex::new(()),
            broken: AtomicBool::new(false),
            has_entities: AtomicBool::new(false),
        };
        live.check_layout()?;
        // What a compaction left that was interrupted. The lock on the file says that none is running.
        live.remove_fresh()?;
        // The file's name must be durable before the first record in it. Whoever made it, or wrote it anew, may have come to
        // an end before this.
        store.disk().sync_dir(store.path()).map_err(|e| Error::io("cannot sync", store.path(), e))?;
        Ok(live)
    }

    pub(super) fn remove_fresh(&self) -> Result<()> {
        let fresh = self.store.path().join(FRESH);
        match self.store.disk().remove(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", &fresh, e)),
            _ => Ok(()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_layout(&self) -> Result<()> {
        self.write(|transaction| {
            let mut facts = transaction.open_table(FACTS)?;
            let found = facts.get(LAYOUT)?.map(|v| v.value());
            match found {
                None => facts.insert(LAYOUT, LAYOUT_VERSION).map(|_| ())?,
                Some(found) if found <= LAYOUT_VERSION && found > 0 => {}
                Some(found) => {
                    return Err(Failure::Ours(err!(
                        UpgradeRequired,
                        "{} has layout {found}, this version reads up to {LAYOUT_VERSION}; upgrade docent",
                        self.path.display()
                    )));
                }
            }
            Ok(())
        })
    }

    /// Runs `work` in a transaction of its own and commits it durably; nothing is kept where it fails.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let _alone = self.writing.lock();
        self.run(|database| {
            let transaction = database.begin_write()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Runs `work` on one consistent view of the tables.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> std::result::Result<T, Failure>) -> Result<T> {
        self.run(|database| work(&database.begin_read()?))
    }

    /// Calls `visit` with every record of a table in the order of the keys, content checked and all.
    pub(super) fn each_record(
        &self,
        transaction: &ReadTransaction,
        table: TableDefinition<'static, &str, &[u8]>,
        mut visit: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        let table = match transaction.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            other => other?,
        };
        let (expected, mut seen) = (table.len()?, 0u64);
        for entry in table.iter()? {
            let (key, value) = entry?;
            visit(key.value(), value.value())?;
            seen += 1;
        }
        match seen == expected {
            true => Ok(()),
            false => Err(Failure::Ours(corrupt(self.path(), format_args!("{seen} records of {expected} are left")))),
        }
    }

    pub(super) fn run<T>(&self, work: impl FnOnce(&Database) -> std::result::Result<T, Failure>) -> Result<T> {
        let ended = || {
            err!(Poisoned, "{} failed before and is not written any more; open the engine anew", self.path.display())
        };
        if self.broken.load(Ordering::Acquire) {
            return Err(ended());
        }
        let database = self.database.read().clone().ok_or_else(ended)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let outcome = work(&database);
            // After a compaction this may be the last hold of the file before, whose closing writes.
            drop(database);
            outcome
        }))
        .map_err(|_| {
            self.broken.store(true, Ordering::Release);
            corrupt(&self.path, "its pages make no sense")
        })?;
        outcome.map_err(|failure| match failure {
            Failure::Ours(error) => error,
            Failure::Storage(StorageError::PreviousIo) => ended(),
            Failure::Storage(error) => storage_error(&self.path, error),
        })
    }

    /// A record as it is stored under `key`: the start of a hash of key and content, then the content.
    ///
    /// # Errors
    /// `InvalidArgument` where it is too long.
    pub(super) fn frame(&self, key: &str, content: &[u8]) -> Result<Vec<u8>> {
        if content.len() > RECORD_CAP {
            let have = content.len();
            return Err(err!(
                InvalidArgument,
                "what is known of {key:?} takes {have} bytes; {RECORD_CAP} are the most"
            ));
        }
        let mut record = Vec::with_capacity(HASH + content.len());
        record.extend_from_slice(&hash(key, content));
        record.extend_from_slice(content);
        Ok(record)
    }

    /// The content of a stored record.
    ///
    /// # Errors
    /// `Corrupt` where it is not what was stored under `key`.
    pub(super) fn content<'a>(&self, key: &str, record: &'a [u8]) -> Result<&'a [u8]> {
        let parts = record.split_at_checked(HASH).filter(|(sum, content)| *sum == hash(key, content));
        let (_, content) =
            parts.ok_or_else(|| corrupt(&self.path, format_args!("the record of {key:?} is not what was written")))?;
        Ok(content)
    }

    /// The content of a stored record, aligned for an archive.
    ///
    /// # Errors
    /// As [`LiveStore::content`].
    pub(super) fn unframe(&self, key: &str, record: &[u8]) -> Result<AlignedVec<16>> {
        let content = self.content(key, record)?;
        let mut aligned = AlignedVec::with_capacity(content.len());
        aligned.extend_from_slice(content);
        Ok(aligned)
    }
}

/// Opens the database in the file `path` of a store, or makes it.
pub(super) fn create(store: &Store, path: &Path) -> Result<Database> {
    guarded(path, || {
        let backend = store.disk().database(path).map_err(|e| database_error(path, e))?;
        let failed = |e| Error::io("cannot read or write", path, e);
        if is_unfinished(&*backend).map_err(failed)? {
            backend.set_len(0).map_err(failed)?;
        }
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).create_with_backend(Backend(backend)).map_err(|e| database_error(path, e))
    })
}

/// Whether a crash came between the making of the file and the writing of its magic number, which redb writes after
/// everything else is on disk, and without which it opens no file that has any bytes.
fn is_unfinished(backend: &dyn StorageBackend) -> io::Result<bool> {
    let length = backend.len()?;
    if length == 0 || length > UNFINISHED_CAP {
        return Ok(false);
    }
    let mut bytes = vec![0; length as usize];
    backend.read(0, &mut bytes)?;
    let zeros = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    let content = bytes.get(HEADER_PAGE..).unwrap_or_default();
    Ok(zeros(bytes.get(..MAGIC).unwrap_or(&bytes)) && zeros(content))
}

/// Closes a database, which writes, and may meet the same damage as any other call.
pub(super) fn close<T>(database: T) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(database)));
}

/// A backend of any kind.
#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// What goes wrong inside a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file.
    Storage(StorageError),
    /// Our own.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => Self::Storage(error),
            other => Self::Storage(StorageError::Corrupted(other.to_string())),
        }
    }
}

impl From<redb::TableError> for Failure {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => Self::Storage(error),
            other => Self::Storage(StorageError::Corrupted(other.to_string())),
        }
    }
}

impl From<redb::CommitError> for Failure {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(error) => Self::Storage(error),
            other => Self::Storage(StorageError::Corrupted(other.to_string())),
        }
    }
}

fn hash(key: &str, content: &[u8]) -> [u8; HASH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes()).update(content);
    let mut start = [0; HASH];
    hasher.finalize_xof().fill(&mut start);
    start
}

fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(corrupt(path, "its pages make no sense")))
}

/// That the file is damaged, with the remedy.
pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Error {
    let file = path.display();
    err!(
        Corrupt,
        "{file} is damaged: {what}; restore it from a copy, or move it away and add again what was added since the last \
         publication (the generations do not depend on it)"
    )
}

pub(super) fn storage_error(path: &Path, error: StorageError) -> Error {
    match error {
        StorageError::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => corrupt(path, e),
        StorageError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => corrupt(path, "it ends too early"),
        StorageError::Io(e) => Error::io("cannot read or write", path, e),
        StorageError::ValueTooLarge(bytes) => {
            err!(InvalidArgument, "a record of {bytes} bytes is too long; shorten it")
        }
        other => corrupt(path, other),
    }
}

fn database_error(path: &Path, error: DatabaseError) -> Error {
    let file = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            err!(Locked, "{file} is open in another engine; close that one, or open this one without live items")
        }
        DatabaseError::UpgradeRequired(version) => {
            err!(
                UpgradeRequired,
                "{file} has the file version {version}, which this version does not read; upgrade docent"
            )
        }
        DatabaseError::Storage(error) => storage_error(path, error),
        other => corrupt(path, other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoredItem, StoredValue};
    use super::*;
    use crate::error::ErrorKind;

    fn item(id: &str) -> StoredItem {
        let fields =
            vec![("price".into(), StoredValue::Number(2.5)), ("tags".into(), StoredValue::Texts(vec!["a".into()]))];
        StoredItem { id: id.into(), title: Some("One".into()), added: Some(7), fields, ..StoredItem::default() }
    }

    fn raw(store: &Store, write: impl FnOnce(&redb::WriteTransaction)) {
        let database = Database::open(store.path().join(LIVE)).unwrap();
        let transaction = database.begin_write().unwrap();
        write(&transaction);
        transaction.commit().unwrap();
    }

    #[test]
    fn records_are_kept_in_their_order_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("store")).unwrap();
        let live = LiveStore::open(&store, false).unwrap();
        assert_eq!(live.items().unwrap(), Default::default());
        for (n, id) in ["z", "a", "m", "a"].into_iter().enumerate() {
            assert_eq!(live.add_item(&item(id)).unwrap(), [1, 2, 3, 2][n]);
        }
        assert!(live.remove_item("z").unwrap() && live.remove_item("never added").unwrap());
        assert!(!live.remove_item("z").unwrap());
        assert_eq!(LiveStore::open(&store, false).unwrap_err().kind(), ErrorKind::Locked);
        drop(live);
        let live = LiveStore::open(&store, true).unwrap();
        let items = live.items().unwrap();
        let added: Vec<_> = items.added.iter().map(|i| (i.sequence, i.id.as_str())).collect();
        assert_eq!((added, items.removed), (vec![(2, "a"), (3, "m")], vec!["never added".to_owned(), "z".into()]));
        assert_eq!(items.added[0], StoredItem { sequence: 2, ..item("a") });
        assert!(live.is_removed("z").unwrap() && !live.is_removed("a").unwrap() && live.is_added("a").unwrap());
        live.add_item(&item("z")).unwrap();
        assert!(!live.is_removed("z").unwrap());
        let long = StoredItem { title: Some("x".repeat(2 << 20)), ..item("long") };
        assert_eq!(live.add_item(&long).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(live.items().unwrap().added.len(), 3);
    }

    #[test]
    fn newer_layouts_and_changed_records_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("store")).unwrap();
        let live = LiveStore::open(&store, false).unwrap();
        live.add_item(&item("a")).unwrap();
        let framed = live.frame("b", b"not an archive").unwrap();
        drop(live);
        let table = TableDefinition::<&str, &[u8]>::new("items.added");
        for record in [&b"short"[..], &[0; 64], &framed] {
            raw(&store, |t| {
                t.open_table(table).unwrap().insert("b", record).unwrap();
            });
            let error = LiveStore::open(&store, false).unwrap().items().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().contains("live.redb") && error.message().contains("\"b\""), "{error}");
        }
        raw(&store, |t| {
            t.open_table(FACTS).unwrap().insert(LAYOUT, LAYOUT_VERSION + 1).unwrap();
        });
        assert_eq!(LiveStore::open(&store, false).unwrap_err().kind(), ErrorKind::UpgradeRequired);
    }
}
