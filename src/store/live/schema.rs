//! The tables of the live file. Records are framed ([`super::frame`]).

use super::failure::{Failure, corrupt};
use crate::error::err;
use rusqlite::{Connection, OptionalExtension, Transaction};
use std::path::Path;

/// "Docn": what `file` and SQLite's shell show of whose file this is.
const APPLICATION: i32 = 0x446f_636e;
/// The version of files that is written, and the newest that is read.
pub(super) const LAYOUT_VERSION: i32 = 3;

/// The number of the next addition of an item, in `facts`.
pub(super) const NEXT_ITEM: &str = "items.next";
/// How often items were added or removed, in `facts`.
pub(super) const ITEM_CHANGES: &str = "items.changes";
/// How many entities there are, and items that were added and removed, in `facts`.
pub(super) const ENTITY_COUNT: &str = "entities.count";
pub(super) const ADDED_COUNT: &str = "added.count";
pub(super) const REMOVED_COUNT: &str = "removed.count";

/// Numbers by name; items added and removed by id; states of entities by a hash of the id, which the index has by the id itself: what a damaged
/// page hides in one of the two trees, the other one tells. `touched` is null where events have no times.
const TABLES: [&str; 5] = [
    "CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL)",
    "CREATE TABLE added (id TEXT PRIMARY KEY NOT NULL, record BLOB NOT NULL)",
    "CREATE TABLE removed (id TEXT PRIMARY KEY NOT NULL, record BLOB NOT NULL)",
    "CREATE TABLE entities (place INTEGER PRIMARY KEY, id TEXT NOT NULL, touched INTEGER, record BLOB NOT NULL)",
    "CREATE UNIQUE INDEX entities_by_id ON entities (id)",
];

/// Makes the tables of an empty file; gives whether there were none.
///
/// # Errors
/// `Corrupt` where there are others; `UpgradeRequired` where a newer version wrote them; those of the file.
pub(super) fn prepare(path: &Path, transaction: &Transaction<'_>) -> Result<bool, Failure> {
    let application: i32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = statements(transaction)?;
    if application == 0 && version == 0 && found.is_empty() {
        TABLES.iter().try_for_each(|table| transaction.execute_batch(table))?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", LAYOUT_VERSION)?;
        return Ok(true);
    }
    is_ours(path, application, version, &found).map(|()| false)
}

/// Refuses a file that has not the tables of this version.
///
/// # Errors
/// As [`prepare`].
pub(super) fn check(path: &Path, connection: &Connection) -> Result<(), Failure> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    is_ours(path, application, version, &statements(connection)?)
}

fn is_ours(path: &Path, application: i32, version: i32, found: &[String]) -> Result<(), Failure> {
    if application == APPLICATION && version > LAYOUT_VERSION {
        return Err(Failure::Ours(err!(
            UpgradeRequired,
            "{} has version {version}, this build reads up to {LAYOUT_VERSION}; upgrade docent",
            path.display()
        )));
    }
    // Nothing but the tables: no view or trigger that a stranger left runs when a record is written.
    let sound = application == APPLICATION && version == LAYOUT_VERSION && found == TABLES;
    match sound {
        true => Ok(()),
        false => Err(Failure::Ours(corrupt(path, "its tables are not those of docent"))),
    }
}

fn statements(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// A number of the table `facts`; 0 where it is not there.
pub(super) fn fact(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Adds to a number of the table `facts`.
pub(super) fn add_to_fact(connection: &Connection, name: &str, by: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2";
    connection.prepare_cached(sql)?.execute((name, by)).map(drop)
}

/// The record that `sql` selects for an id.
pub(super) fn record(connection: &Connection, sql: &str, id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}
