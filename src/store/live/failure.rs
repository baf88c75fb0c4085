//! What goes wrong with the live file, in typed errors.

use crate::error::{Error, Result, err};
use rusqlite::ErrorCode;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a call waits for other processes that write.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What goes wrong inside a transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file.
    Storage(rusqlite::Error),
    /// Our own.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

impl Failure {
    /// The error of a failure with the file `path`.
    pub(super) fn typed(self, path: &Path) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Storage(error) => storage_error(path, &error),
        }
    }
}

/// The value, or the error of a failure with the file `path`.
pub(super) fn typed<T>(path: &Path, outcome: std::result::Result<T, impl Into<Failure>>) -> Result<T> {
    outcome.map_err(|failure| failure.into().typed(path))
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

fn storage_error(path: &Path, error: &rusqlite::Error) -> Error {
    let file = path.display();
    let Some(code) = error.sqlite_error_code() else {
        // A column of another type than the tables have.
        return corrupt(path, error);
    };
    match code {
        ErrorCode::DiskFull => Error::io("cannot write", path, io::Error::from(io::ErrorKind::StorageFull)),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => err!(
            Busy,
            "another process has been writing to {file} for more than {} seconds; try again, or end that process",
            PATIENCE.as_secs()
        ),
        ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
            Error::io("cannot write", path, io::Error::from(io::ErrorKind::PermissionDenied))
        }
        ErrorCode::TooBig => err!(InvalidArgument, "a record for {file} is too long; shorten it"),
        ErrorCode::OutOfMemory => err!(Io, "there is no memory to read or write {file}; free some"),
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed => {
            err!(Io, "cannot read or write {file}: {error}; check the disk, its rights and the limit of open files")
        }
        _ => corrupt(path, error),
    }
}
