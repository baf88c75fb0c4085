//! What earlier versions kept in `live.redb`, taken over into the live file.

use super::before::Before;
use super::failure::Failure;
use super::frame::{content, frame, unversioned};
use super::places::insert;
use super::schema::{ADDED_COUNT, LAYOUT_VERSION, NEXT_ITEM, REMOVED_COUNT, add_to_fact};
use crate::error::{Error, Result, err};
use crate::store::directory::Store;
use crate::store::format::{LIVE, LIVE_BEFORE};
use crate::store::wire::{codec, v1};
use rusqlite::Transaction;
use std::fmt;
use std::io;

/// Names the file whose content was taken over, in `facts`.
pub(super) const TAKEN: &str = "live.redb";

/// What the opening of a live file took over from one of an earlier version.
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
            "live.redb, of version {from}, is live.db of version {to} now: {items} items and {entities} entities were taken over"
        )?;
        match damaged {
            0 => Ok(()),
            _ => write!(f, ", {damaged} damaged records stay as they are; verify the store"),
        }
    }
}

/// Writes an id, when it was touched, and its record.
type Put<'a> = &'a mut dyn FnMut(&str, Option<i64>, &[u8]) -> Result<(), Failure>;

/// Writes into an empty file what an earlier version kept beside it; `None` where it kept nothing.
pub(super) fn take_over(store: &Store, transaction: &Transaction<'_>) -> Result<Option<Migration>, Failure> {
    let path = store.path().join(LIVE_BEFORE[0]);
    let Some(before) = Before::open(store, &path)? else { return Ok(None) };
    let mut version = None;
    before.each("facts", |name, value| {
        if name == "layout" {
            version = value.first_chunk().map(|v| u64::from_le_bytes(*v));
        }
        Ok(())
    })?;
    let from = match version {
        // Its maker ended before the first record.
        None => {
            add_to_fact(transaction, TAKEN, name_of(&before))?;
            return Ok(None);
        }
        Some(version @ (1 | 2)) => version,
        Some(version) => {
            return Err(Failure::Ours(err!(
                UpgradeRequired,
                "{} has version {version}, which this build does not read; upgrade docent",
                path.display()
            )));
        }
    };
    let mut migration = Migration { from, to: LAYOUT_VERSION as u64, items: 0, entities: 0, damaged: 0 };
    // Calls `put` with every record of a table, framed as of this version where it is sound.
    let mut each =
        |table: &str, sound: fn(&[u8]) -> Result<Option<i64>, String>, put: Put<'_>| -> Result<u64, Failure> {
            let (mut count, mut failed) = (0, None);
            let read = before.each(table, |id, record| {
                // In version 1 records had no version of their own.
                let framed = match from {
                    1 => unversioned(&path, id, record).and_then(|archive| frame(id, v1::VERSION, archive)),
                    _ => content(&path, id, v1::VERSION, record).map(|_| record.to_vec()),
                };
                let framed = framed.ok().and_then(|framed| {
                    let touched = sound(content(&path, id, v1::VERSION, &framed).ok()?.1).ok()?;
                    Some((framed, touched))
                });
                let (record, touched) = framed.unwrap_or_else(|| {
                    migration.damaged += 1;
                    (record.to_vec(), None)
                });
                count += 1;
                put(id, touched, &record).map_err(|failure| {
                    failed = Some(failure);
                    err!(Internal, "the record of {id:?} cannot be written; this message is never seen")
                })
            });
            read.map_err(|error| failed.unwrap_or(Failure::Ours(error)))?;
            Ok(count)
        };
    let item = |archive: &[u8]| codec::view::<v1::ArchivedItem>(&codec::aligned(archive)).map(|_| None);
    let state = |archive: &[u8]| {
        let archive = codec::aligned(archive);
        let touched = codec::view::<v1::ArchivedState>(&archive)?.touched.to_native();
        Ok((touched != 0).then_some(touched))
    };
    let into = |sql: &'static str| {
        move |id: &str, _: Option<i64>, record: &[u8]| {
            Ok(transaction.prepare_cached(sql)?.execute((id, record)).map(drop)?)
        }
    };
    let added = each("items.added", item, &mut into("INSERT INTO added VALUES (?1, ?2)"))?;
    let removed = each("items.removed", |_| Ok(None), &mut into("INSERT INTO removed VALUES (?1, ?2)"))?;
    let entities = each("entities", state, &mut |id, touched, record| insert(transaction, id, touched, record))?;
    (migration.items, migration.entities) = (added + removed, entities);
    add_to_fact(transaction, ADDED_COUNT, added as i64)?;
    add_to_fact(transaction, REMOVED_COUNT, removed as i64)?;
    let mut next = 1;
    before.each("counters", |name, value| {
        if name == "items.next" {
            next = value.first_chunk().map_or(1, |v| u64::from_le_bytes(*v));
        }
        Ok(())
    })?;
    add_to_fact(transaction, NEXT_ITEM, next.saturating_sub(1) as i64)?;
    add_to_fact(transaction, TAKEN, name_of(&before))?;
    Ok(Some(migration))
}

/// Tells two files apart: all that a file of redb's holds goes into the checksums of its header.
fn name_of(before: &Before) -> i64 {
    let hash = blake3::hash(&before.header);
    hash.as_bytes().first_chunk().map_or(0, |b| i64::from_le_bytes(*b))
}

/// Removes the file that was taken over, once its content is on disk in the other; `taken` gives what [`TAKEN`] says there.
///
/// # Errors
/// `InvalidArgument` where there is another file of an earlier version; what `taken` gives; input and output errors.
pub(super) fn remove(store: &Store, taken: impl FnOnce() -> Result<i64>) -> Result<()> {
    let path = store.path().join(LIVE_BEFORE[0]);
    if let Some(before) = Before::open(store, &path)?
        && taken()? != name_of(&before)
    {
        return Err(err!(
            InvalidArgument,
            "{} is of an earlier version, and not the one whose content is in {}; move away the one that is not to be used",
            path.display(),
            store.path().join(LIVE).display()
        ));
    }
    for name in LIVE_BEFORE {
        let path = store.path().join(name);
        match store.disk().remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("cannot remove", &path, e)),
            _ => {}
        }
    }
    Ok(())
}
