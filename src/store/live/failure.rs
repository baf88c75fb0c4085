//! What goes wrong with the live file, in typed errors.

use crate::error::{Error, Result, err};
use redb::{DatabaseError, StorageError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

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

/// Runs `work`; a panic of redb's means that the file is damaged.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
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

pub(super) fn database_error(path: &Path, error: DatabaseError) -> Error {
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
