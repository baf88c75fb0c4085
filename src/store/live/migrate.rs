//! A file of an earlier version, made one of this.

use super::failure::Failure;
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
    /// Records that were damaged before. They stay as they are: whoever reads one is told, and the others are not held up.
    pub damaged: u64,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, items, entities, damaged } = self;
        write!(
            f,
            "live.redb was of version {from} and is of version {to} now: {items} items and {entities} entities were taken over"
        )?;
        match damaged {
            0 => Ok(()),
            _ => write!(f, ", {damaged} damaged records stay as they are; verify the store"),
        }
    }
}

/// Makes the file `path` one of this version within `transaction`; `None` where it is one, or new.
pub(super) fn migrate(path: &Path, transaction: &WriteTransaction) -> Result<Option<Migration>, Failure> {
    let mut facts = transaction.open_table(FACTS)?;
    let found = facts.get(LAYOUT)?.map(|v| v.value());
    let migration = match found {
        Some(LAYOUT_VERSION) => return Ok(None),
        None => None,
        Some(1) => {
            let mut damaged = 0;
            Some(Migration {
                from: 1,
                to: LAYOUT_VERSION,
                items: reframe(path, transaction, ADDED, archived::<v1::ArchivedItem>, &mut damaged)?
                    + reframe(path, transaction, REMOVED, |_| Ok(()), &mut damaged)?,
                entities: reframe(path, transaction, ENTITIES, archived::<v1::ArchivedState>, &mut damaged)?,
                damaged,
            })
        }
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

/// Gives every sound record of a table its version; gives how many there are, and adds those that are not to `damaged`.
fn reframe(
    path: &Path,
    transaction: &WriteTransaction,
    table: TableDefinition<'static, &'static str, &'static [u8]>,
    check: fn(&[u8]) -> Result<(), String>,
    damaged: &mut u64,
) -> Result<u64, Failure> {
    let mut table = transaction.open_table(table)?;
    let (mut count, mut last) = (0, None::<String>);
    loop {
        let (mut chunk, mut bytes, mut last_key) = (Vec::new(), 0, None);
        let after = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for entry in table.range::<&str>((after, Bound::Unbounded))? {
            let (key, record) = entry?;
            let (key, record) = (key.value(), record.value());
            last_key = Some(key.to_owned());
            match unversioned(path, key, record).ok().filter(|archive| check(archive).is_ok()) {
                Some(archive) => chunk.push((key.to_owned(), frame(key, archive)?)),
                None => *damaged += 1,
            }
            bytes += record.len();
            if bytes >= CHUNK {
                break;
            }
        }
        if last_key.is_none() {
            return Ok(count);
        }
        last = last_key;
        count += chunk.len() as u64;
        for (key, record) in &chunk {
            table.insert(key.as_str(), record.as_slice())?;
        }
    }
}
