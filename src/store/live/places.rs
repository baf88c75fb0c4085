//! Where the state of an entity is in the table of states: at a hash of its id.

use super::failure::Failure;
use super::schema::{ENTITY_COUNT, add_to_fact};
use crate::error::err;
use rusqlite::Transaction;

/// Entities whose ids have the same hash have places behind one another, at most so many.
const PLACES: i64 = 16;

/// Where an entity is, unless others with the same hash were there first. Never the greatest number.
pub(super) fn place_of(id: &str) -> i64 {
    let hash = blake3::hash(id.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |b| i64::from_le_bytes(*b)).min(i64::MAX - 1 - PLACES)
}

/// Puts the record of an entity that has none into a place.
///
/// # Errors
/// Those of the file; `Internal` where too many ids have one hash.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    id: &str,
    touched: Option<i64>,
    record: &[u8],
) -> Result<(), Failure> {
    let first = place_of(id);
    let mut taken = transaction.prepare_cached("SELECT 1 FROM entities WHERE place = ?1")?;
    for place in first..first + PLACES {
        if !taken.exists([place])? {
            let sql = "INSERT INTO entities VALUES (?1, ?2, ?3, ?4)";
            transaction.prepare_cached(sql)?.execute((place, id, touched, record))?;
            return Ok(add_to_fact(transaction, ENTITY_COUNT, 1)?);
        }
    }
    Err(err!(Internal, "there is no place for entity {id:?}; report it").into())
}
