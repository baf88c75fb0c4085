//! A file of an earlier version, made one of this.

use super::failure::{Failure, corrupt};
use super::frame::{ADDED, ENTITIES, FACTS, LAYOUT, REMOVED, frame, unversioned};
use crate::error::err;
use crate::store::wire::codec::{self, Check};
use crate::store::wire::v1;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::fmt;
use std::ops::Bound;
use std::path::Path;

/// The version of files that is written, and the newest that is read. In version 1, records had no version of their own.
pub(super) const LAYOUT_VERSION: u64 = 2;
/// Bytes of records that are held in memory at once.
const CHUNK: usize = 16 << 20;

/// What the opening of a live file did to one of an earlier version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The version that the file had.
    pub from: u64,
    /// The version that it has now.
    pub to: u64,
    /// Items, added and removed.
    pub items: u64,
    /// Entities.
    pub entities: u64,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, items, entities } = self;
        write!(
            f,
            "live.redb was of version {from} and is of version {to} now: {items} items and {entities} entities were taken over"
        )
    }
}

/// Makes the file `path` one of this version within `transaction`; `None` where it is one, or new.
pub(super) fn migrate(path: &Path, transaction: &WriteTransaction) -> Result<Option<Migration>, Failure> {
    let mut facts = transaction.open_table(FACTS)?;
    let found = facts.get(LAYOUT)?.map(|v| v.value());
    let migration = match found {
        Some(LAYOUT_VERSION) => return Ok(None),
        None => None,
        Some(1) => Some(Migration {
            from: 1,
            to: LAYOUT_VERSION,
            items: reframe(path, transaction, ADDED, archived::<v1::ArchivedItem>)?
                + reframe(path, transaction, REMOVED, |_| Ok(()))?,
            entities: reframe(path, transaction, ENTITIES, archived::<v1::ArchivedState>)?,
        }),
        Some(found) => {
            return Err(Failure::Ours(err!(
                UpgradeRequired,
                "{} has version {found}, this build reads up to {LAYOUT_VERSION}; upgrade docent",
                path.display()
            )));
        }
    };
    facts.insert(LAYOUT, LAYOUT_VERSION)?;
    Ok(migration)
}

fn archived<T: Check>(archive: &[u8]) -> Result<(), String> {
    codec::view::<T>(&codec::aligned(archive)).map(|_| ())
}

/// Gives every record of a table its version; gives how many there are.
fn reframe(
    path: &Path,
    transaction: &WriteTransaction,
    table: TableDefinition<'static, &'static str, &'static [u8]>,
    check: fn(&[u8]) -> Result<(), String>,
) -> Result<u64, Failure> {
    let mut table = transaction.open_table(table)?;
    let (mut count, mut last) = (0, None::<String>);
    loop {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let after = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for entry in table.range::<&str>((after, Bound::Unbounded))? {
            let (key, record) = entry?;
            let (key, record) = (key.value(), record.value());
            let archive = unversioned(path, key, record)?;
            check(archive).map_err(|e| corrupt(path, format_args!("the record of {key:?} cannot be read ({e})")))?;
            chunk.push((key.to_owned(), frame(key, archive)?));
            bytes += record.len();
            if bytes >= CHUNK {
                break;
            }
        }
        let Some((key, _)) = chunk.last() else { return Ok(count) };
        last = Some(key.clone());
        count += chunk.len() as u64;
        for (key, record) in &chunk {
            table.insert(key.as_str(), record.as_slice())?;
        }
    }
}
