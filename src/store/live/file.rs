//! The file itself: opened, read and written by any number of processes of a host.

use super::durable::Syncs;
use super::failure::{Failure, PATIENCE, corrupt, typed};
use super::migrate::{self, Migration};
use super::schema::{self, fact};
use crate::error::{Error, Result, err};
use crate::store::directory::{Process, Store};
use crate::store::format::{LIVE, LIVE_BEFORE, LIVE_JOURNAL, LIVE_SIDES};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Memory for pages of the file, in KiB, of the connection that writes and of each that reads. The system has the others in its own.
const CACHE: [i32; 2] = [4096, 512];
/// Connections that are kept for reading.
const READERS: usize = 16;
/// The write-ahead log is cut back to so many bytes.
const LOG_BYTES: i64 = 16 << 20;
/// Bytes of a page of the file.
const PAGE: u64 = 4096;
/// Longest text or record that is read or written: above that of every record and id of ours.
const LENGTH: i32 = 4 << 20;

/// The transactional file of a store, open for reading and writing. Any number of processes of one host may have it open.
#[derive(Debug)]
pub struct LiveStore {
    path: PathBuf,
    /// Taken out when it is closed.
    writer: Mutex<Option<Connection>>,
    /// Idle ones.
    readers: Mutex<Vec<Connection>>,
    pub(super) syncs: Syncs,
    /// Whether the states of entities are in use by an object of this process.
    pub(super) has_entities: AtomicBool,
    migrated: Option<Migration>,
    /// Who opened it. A child of a fork has file descriptors and half of what is in memory: it must not touch the file, not even to close it.
    process: Process,
    /// The last to go.
    _counted: Counted,
}

thread_local! {
    /// Whether this thread is inside the closure of a change, from where another change could wait for itself.
    pub(super) static CHANGING: Cell<bool> = const { Cell::new(false) };
}

/// Which process has files open, in the upper half, and how many. What SQLite knows of open files and their locks is copied by a fork, and
/// nothing takes it back: it would take the parent's locks for the child's own.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Counts an open file, as long as it lives.
#[derive(Debug)]
struct Counted(Process);

impl Counted {
    /// # Errors
    /// `Forked` where the parent of this process had files open when it forked.
    fn new(path: &Path) -> Result<Self> {
        let process = Process::this();
        let own = u64::from(process.id()) << 32;
        let count = |open: u64| match (open >> 32 == own >> 32, open as u32) {
            (true, _) => Some(open + 1),
            (false, 0) => Some(own + 1),
            (false, _) => None,
        };
        match OPEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, count) {
            Ok(_) => Ok(Self(process)),
            Err(_) => Err(err!(
                Forked,
                "{} cannot be opened here: this process was forked from one that had live items or states of entities open; open them after the \
                 fork, in each process, or start processes instead of forking",
                path.display()
            )),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.is_this() {
            OPEN.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for LiveStore {
    fn drop(&mut self) {
        if self.ours().is_err() {
            std::mem::forget((self.writer.get_mut().take(), std::mem::take(self.readers.get_mut())));
        }
    }
}

impl LiveStore {
    /// Opens the file of `store`, or makes it. With `full`, every page of it is checked; without, records are checked as they
    /// are read.
    ///
    /// # Errors
    /// `Corrupt` where it is damaged; `UpgradeRequired` where a newer version wrote it; `Busy` where another process writes for too long;
    /// input and output errors. In the child of a fork whatever reads or writes gives `Forked`, and so does opening where the parent had live files
    /// open. What an earlier version kept in
    /// another file is taken over in one transaction: where that fails, or the power with it, everything is as it was.
    pub fn open(store: &Store, full: bool) -> Result<Self> {
        let path = store.path().join(LIVE);
        let counted = Counted::new(&path)?;
        check_length(store, &path)?;
        let mut writer = typed(&path, connect(&path, CACHE[0]))?;
        let migrated = typed(&path, prepare(store, &path, &mut writer))?;
        let log = store.path().join(LIVE_SIDES[0]);
        let live = Self {
            syncs: Syncs::new(store, log)?,
            path,
            writer: Mutex::new(Some(writer)),
            readers: Mutex::default(),
            has_entities: AtomicBool::new(false),
            migrated,
            process: Process::this(),
            _counted: counted,
        };
        if full {
            live.check()?;
        }
        // The names of file and log must be durable before the first record in them. Whoever made them may have come to an end before this.
        store.disk().sync_dir(store.path()).map_err(|e| Error::io("cannot sync", store.path(), e))?;
        // Whoever took it over may not have come to this, or is another process that has not yet.
        if store.path().join(LIVE_BEFORE[0]).exists() {
            live.settle()?;
        }
        migrate::remove(store, || live.read(|connection| Ok(fact(connection, migrate::TAKEN)?)))?;
        Ok(live)
    }

    /// How many entities the file of `store` has; 0 where there is none. Makes and changes nothing, and needs no right to: not for a file of an earlier
    /// version either, which is not counted.
    ///
    /// # Errors
    /// `Corrupt`, `UpgradeRequired`; `PermissionDenied` where the file is in use and its log cannot be read; input errors.
    pub fn count_entities(store: &Store) -> Result<u64> {
        let path = store.path().join(LIVE);
        let exists = path.try_exists().map_err(|e| Error::io("cannot read", &path, e))?;
        if !exists {
            return Ok(0);
        }
        let _counted = Counted::new(&path)?;
        check_length(store, &path)?;
        let count = || {
            let log = store.path().join(LIVE_SIDES[0]);
            let in_use = log.metadata().is_ok_and(|m| m.len() > 0);
            // Without a log nobody has it open, and all is in the file.
            let name = format!("file:{}?{}", escaped(&path), if in_use { "mode=ro" } else { "immutable=1" });
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(name, flags)?;
            connection.busy_timeout(PATIENCE)?;
            schema::check(&path, &connection)?;
            Ok::<_, Failure>(fact(&connection, schema::ENTITY_COUNT)?.max(0) as u64)
        };
        typed(&path, count())
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

    /// Refuses to write from within a change, which may hold what the write would wait for.
    ///
    /// # Errors
    /// `Busy`; `Forked`.
    fn writable(&self) -> Result<()> {
        self.ours()?;
        match CHANGING.get() {
            true => {
                let path = self.path.display();
                Err(err!(Busy, "{path} cannot be written from within the change of an entity; return from that first"))
            }
            false => Ok(()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What opening took over from a file of an earlier version; `None` where there was none.
    pub fn migrated(&self) -> Option<Migration> {
        self.migrated
    }

    /// Checks every page of the file.
    fn check(&self) -> Result<()> {
        self.read(|connection| {
            let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            match found.as_str() {
                "ok" => Ok(()),
                // "*** in database main ***", and what was found on the next line.
                other => Err(Failure::Ours(corrupt(&self.path, other.lines().last().unwrap_or_default()))),
            }
        })
    }

    /// Runs `work` in a transaction of its own, and commits it where it succeeds; nothing is kept where it fails. `work` gives the bytes of
    /// what it wrote. Gives the number of the commit, which [`Syncs`] brings to disk.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> std::result::Result<(T, usize), Failure>,
    ) -> Result<(T, u64)> {
        self.writable()?;
        self.syncs.usable()?;
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(|| err!(Internal, "the connection is closed; report it"))?;
        let outcome = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Failure::from);
        let outcome = outcome.and_then(|transaction| {
            let (value, bytes) = work(&transaction)?;
            transaction.commit()?;
            Ok((value, self.syncs.committed(bytes)))
        });
        typed(&self.path, outcome)
    }

    /// As [`LiveStore::write`], durably.
    pub(super) fn write_durably<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> std::result::Result<(T, usize), Failure>,
    ) -> Result<T> {
        let (value, commit) = self.write(work)?;
        self.syncs.wait(commit)?;
        Ok(value)
    }

    /// Runs `work` on a connection for reading.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> std::result::Result<T, Failure>) -> Result<T> {
        self.ours()?;
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => typed(&self.path, connect(&self.path, CACHE[1]))?,
        };
        let outcome = work(&connection);
        let mut readers = self.readers.lock();
        if readers.len() < READERS {
            readers.push(connection);
        }
        drop(readers);
        typed(&self.path, outcome)
    }

    /// Calls `visit` with every id and record that `sql` selects, whose ids must ascend.
    pub(super) fn each_record(
        &self,
        connection: &Connection,
        sql: &str,
        mut visit: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        let mut statement = connection.prepare_cached(sql)?;
        let (mut rows, mut last) = (statement.query([])?, None::<String>);
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            let record = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            if last.as_deref().is_some_and(|last| last >= id) {
                return Err(Failure::Ours(corrupt(&self.path, "its records are out of order")));
            }
            visit(id, record)?;
            let last = last.get_or_insert_default();
            last.clear();
            last.push_str(id);
        }
        Ok(())
    }

    /// Brings everything that was committed to disk and into the file itself, and writes the file anew, so that nothing is left of what was
    /// removed or replaced before the call. Needs as much free disk as the content takes twice, and once more where the system keeps temporary
    /// files (`SQLITE_TMPDIR`, `TMPDIR`). Readers go on, writers wait; a crash at any point
    /// leaves the content as it is.
    ///
    /// # Errors
    /// `Busy` where another process reads or writes for too long; `Corrupt` where a page is damaged; `NoSpace` and other output errors.
    pub fn compact(&self) -> Result<()> {
        self.writable()?;
        self.syncs.flush()?;
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(|| err!(Internal, "the connection is closed; report it"))?;
        typed(&self.path, writer.execute_batch("VACUUM"))?;
        let begun = Instant::now();
        loop {
            let left: i64 =
                typed(&self.path, writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)))?;
            if left == 0 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let file = self.path.display();
                return Err(err!(
                    Busy,
                    "another process has been reading {file} for more than {} seconds, so its log still holds what was removed; \
                     compact again when it has ended",
                    PATIENCE.as_secs()
                ));
            }
        }
    }

    fn settle(&self) -> Result<()> {
        self.write_durably(|_| Ok(((), 0)))
    }
}

/// Refuses a file that is shorter than its first page, which SQLite would take for an empty one. Whoever makes it has a journal beside it until
/// the page is whole.
///
/// # Errors
/// `Corrupt`; input errors.
fn check_length(store: &Store, path: &Path) -> Result<()> {
    let length = |path: &Path| match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|m| Some(m.len())).map_err(|e| Error::io("cannot read", path, e)),
    };
    let [journal, log] = [LIVE_JOURNAL, LIVE_SIDES[0]].map(|name| store.path().join(name));
    let Some(before) = length(path)? else { return Ok(()) };
    let torn = match before {
        // The first page is written before there is a log.
        0 => length(&log)?.is_some_and(|n| n > 0),
        n => n < PAGE,
    };
    if torn && !journal.exists() && length(path)? == Some(before) {
        return Err(corrupt(path, format_args!("it has {before} bytes, less than its first page")));
    }
    Ok(())
}

/// A path as a URI has it.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let escape = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
    Path::new(".").join(path).as_os_str().as_bytes().iter().map(escape).collect()
}

/// Opens the file for reading and writing.
fn connect(path: &Path, cache: i32) -> std::result::Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // SQLite takes a name that begins with "file:" for a URI.
    let name = Path::new(".").join(path);
    let connection = Connection::open_with_flags(name, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LENGTH)?;
    // What a damaged or a stranger's file says is data, nothing that runs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "page_size", PAGE as i64)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "cache_size", -cache)?;
    connection.pragma_update(None, "secure_delete", true)?;
    let begun = Instant::now();
    loop {
        // The first of several processes that make the file switches it over; the others' wait for that is not SQLite's.
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => break,
            Ok(_) => {
                return Err(Failure::Ours(err!(
                    Io,
                    "{} is on a file system that processes cannot share memory on; move the store to a local disk",
                    path.display()
                )));
            }
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e.into()),
        }
    }
    // The log is synced by us, for everybody who waits at once, and by SQLite before its content goes into the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// Makes the tables where there are none, and takes over what an earlier version kept.
fn prepare(store: &Store, path: &Path, writer: &mut Connection) -> std::result::Result<Option<Migration>, Failure> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let is_new = schema::prepare(path, &transaction)?;
    let migrated = if is_new { migrate::take_over(store, &transaction)? } else { None };
    transaction.commit()?;
    Ok(migrated)
}
