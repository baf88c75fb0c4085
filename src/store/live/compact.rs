//! The live file written anew: what was removed or replaced leaves its pages when the file is another one.
//!
//! redb gives a page that is not needed any more to whatever comes next, and leaves its bytes until then. Where something must
//! not be found in the file again ([`super::EntityStore::forget`]), or much of the file is free, all tables are copied into a
//! new file, which takes the place of the other in one rename. A crash at any point leaves the one or the other.

use super::failure::{Failure, corrupt, storage_error};
use super::file::{LiveStore, close, create};
use super::frame::{ADDED, COUNTERS, ENTITIES, FACTS, REMOVED, content};
use crate::error::{Error, Result, err};
use crate::store::format::FRESH;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    TableHandle, Value,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of records that are copied in one transaction.
const CHUNK: usize = 16 << 20;

impl LiveStore {
    /// Writes the file anew without what is not in it any more: afterwards it has no byte left of what was removed or replaced
    /// before the call. Needs as much free disk as the content takes. Readers go on, writers wait; a crash at any point leaves
    /// the old file or the new one.
    ///
    /// # Errors
    /// `Busy` where an [`super::EntityStore`] is in use, which must know of it: call [`super::EntityStore::compact`];
    /// `Corrupt` where a record is damaged, `UpgradeRequired` where there is a table of a newer version; `NoSpace` and other
    /// output errors: the old file stays in use then. `Poisoned` after the new one could not be made durable under its name.
    pub fn compact(&self) -> Result<()> {
        self.ours()?;
        if self.has_entities.load(Ordering::Acquire) {
            let file = self.path().display();
            return Err(err!(Busy, "the states of entities in {file} are in use; compact through their entity store"));
        }
        self.rewrite()
    }

    pub(super) fn rewrite(&self) -> Result<()> {
        let _alone = self.writing.lock();
        let fresh = self.store.path().join(FRESH);
        self.remove_fresh()?;
        let database = create(&self.store, &fresh)?;
        let renamed = self.copy_into(&database, &fresh).and_then(|()| {
            let renamed = self.store.disk().rename(&fresh, self.path());
            renamed.map_err(|e| Error::io("cannot rename to", self.path(), e))
        });
        if let Err(error) = renamed {
            close(database);
            // What cannot be removed now goes when the file is opened next.
            let _ = self.remove_fresh();
            return Err(error);
        }
        let before = self.database.write().replace(Arc::new(database));
        close(before);
        let directory = self.store.path();
        self.store.disk().sync_dir(directory).map_err(|e| {
            self.broken.store(true, Ordering::Release);
            Error::io("cannot sync", directory, e)
        })
    }

    fn copy_into(&self, database: &Database, fresh: &Path) -> Result<()> {
        self.read(|from| {
            let known = [FACTS.name(), COUNTERS.name(), ADDED.name(), REMOVED.name(), ENTITIES.name()];
            if let Some(other) = from.list_tables()?.find(|table| !known.contains(&table.name())) {
                return Err(Failure::Ours(err!(
                    UpgradeRequired,
                    "{} has a table {:?}, which this version does not know; upgrade docent",
                    self.path().display(),
                    other.name()
                )));
            }
            let into = |what: Failure| match what {
                Failure::Storage(e) => Failure::Ours(storage_error(fresh, e)),
                ours => ours,
            };
            let numbers = |_: &str, _: &u64| Ok(());
            let records = |key: &str, record: &&[u8]| content(self.path(), key, record).map(|_| ());
            self.copy(from, database, FACTS, numbers, into)?;
            self.copy(from, database, COUNTERS, numbers, into)?;
            for table in [ADDED, REMOVED, ENTITIES] {
                self.copy(from, database, table, records, into)?;
            }
            Ok(())
        })
    }

    /// Copies a table, some records in each transaction. `check` sees every record; `into` is for failures of the new file.
    fn copy<V: Value + 'static>(
        &self,
        from: &ReadTransaction,
        to: &Database,
        table: TableDefinition<'static, &'static str, V>,
        check: impl Fn(&str, &V::SelfType<'_>) -> Result<()>,
        into: impl Fn(Failure) -> Failure,
    ) -> std::result::Result<(), Failure> {
        let source = match from.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            other => other?,
        };
        let (mut last, mut more) = (None::<String>, true);
        let mut entries = source.iter()?;
        while more {
            let transaction = to.begin_write().map_err(|e| into(e.into()))?;
            {
                let mut target = transaction.open_table(table).map_err(|e| into(e.into()))?;
                let mut bytes = 0;
                more = false;
                for entry in entries.by_ref() {
                    let (key, value) = entry?;
                    let (key, value) = (key.value(), value.value());
                    check(key, &value)?;
                    if last.as_deref().is_some_and(|last| last >= key) {
                        return Err(Failure::Ours(corrupt(self.path(), "its records are out of order")));
                    }
                    last = Some(key.to_owned());
                    bytes += key.len() + V::as_bytes(&value).as_ref().len();
                    target.insert(key, value).map_err(|e| into(e.into()))?;
                    if bytes >= CHUNK {
                        more = true;
                        break;
                    }
                }
            }
            transaction.commit().map_err(|e| into(e.into()))?;
        }
        let copied = to.begin_read().map_err(|e| into(e.into()))?.open_table(table).map_err(|e| into(e.into()))?.len();
        let (copied, expected) = (copied.map_err(|e| into(e.into()))?, source.len()?);
        match copied == expected {
            true => Ok(()),
            false => Err(Failure::Ours(corrupt(self.path(), format_args!("{copied} records of {expected} are left")))),
        }
    }
}
