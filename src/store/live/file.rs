//! The file itself: opened, read and written behind a guard that turns a panic of redb's on a damaged page into `Corrupt`, and
//! ends the use of the file.

use super::failure::{Failure, corrupt, database_error, guarded, storage_error};
use super::migrate::{Migration, migrate};
use crate::error::{Error, Result, err};
use crate::store::directory::{Process, Store};
use crate::store::format::{FRESH, LIVE};
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, StorageError,
    TableDefinition, TableError,
};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory for pages of the file.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes of redb's magic number, and of the page that it stands in.
const MAGIC: usize = 9;
const HEADER_PAGE: usize = 4096;
/// A file is longer than this only when it has been in use.
const UNFINISHED_CAP: u64 = 4 << 20;
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
    migrated: Option<Migration>,
    /// Who opened it. A child of a fork has the file descriptor, the lock and half of what is in memory: it must not touch the file, not even
    /// to close it.
    process: Process,
}

impl Drop for LiveStore {
    fn drop(&mut self) {
        match self.ours() {
            Ok(()) => close(self.database.get_mut().take()),
            Err(_) => std::mem::forget(self.database.get_mut().take()),
        }
    }
}

impl LiveStore {
    /// Opens the file of `store`, or makes it. With `full`, every page of it is checked; without, records are checked as they
    /// are read.
    ///
    /// # Errors
    /// `Locked` where another engine has it open; `Corrupt` where it is damaged; `UpgradeRequired` where a newer version
    /// wrote it; input and output errors. In the child of a fork
    /// whatever reads or writes gives `Forked`. A file of an earlier version is migrated in one transaction: where that fails, or the
    /// power with it, the file is as it was.
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
        let mut live = Self {
            store: store.clone(),
            path,
            database: RwLock::new(Some(Arc::new(database))),
            writing: Mutex::new(()),
            broken: AtomicBool::new(false),
            has_entities: AtomicBool::new(false),
            migrated: None,
            process: Process::this(),
        };
        live.migrated = live.write(|transaction| migrate(&live.path, transaction))?;
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

    /// Refuses to work in another process than the one that opened the file.
    ///
    /// # Errors
    /// `Forked`.
    pub(crate) fn ours(&self) -> Result<()> {
        match self.process.is_this() {
            true => Ok(()),
            false => {
                let path = self.path.display();
                Err(err!(Forked, "{path} was opened in the parent of a fork; open the engine in this process instead"))
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What opening did to a file of an earlier version; `None` where it was one of this.
    pub fn migrated(&self) -> Option<Migration> {
        self.migrated
    }

    /// Runs `work` in a transaction of its own and commits it durably; nothing is kept where it fails.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        self.ours()?;
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
        self.ours()?;
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
