//! The items that were added and removed since a publication, as records of the live file.

use super::failure::corrupt;
use super::file::LiveStore;
use super::frame::{content, frame};
use super::schema::{ADDED_COUNT, ITEM_CHANGES, NEXT_ITEM, REMOVED_COUNT, add_to_fact, fact, record};
use crate::error::{Result, err};
use crate::store::records::StoredItem;
use crate::store::wire::{codec, v1};

/// Everything that was added and removed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredItems {
    /// In the order of their sequence numbers.
    pub added: Vec<StoredItem>,
    /// In ascending order.
    pub removed: Vec<String>,
    /// [`LiveStore::item_changes`] as of these.
    pub changes: u64,
}

/// An item that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedItem {
    /// Its sequence number.
    pub sequence: u64,
    /// [`LiveStore::item_changes`] as of this addition.
    pub changes: u64,
}

impl LiveStore {
    /// All items added and removed.
    ///
    /// # Errors
    /// `Corrupt` where the file is damaged; input and output errors.
    pub fn items(&self) -> Result<StoredItems> {
        self.read(|connection| {
            // One moment of both tables.
            let transaction = connection.unchecked_transaction()?;
            let mut items = StoredItems { changes: fact(connection, ITEM_CHANGES)? as u64, ..StoredItems::default() };
            self.each_record(&transaction, "SELECT id, record FROM added ORDER BY id", |id, record| {
                items.added.push(self.decode(id, record)?);
                Ok(())
            })?;
            self.each_record(&transaction, "SELECT id, record FROM removed ORDER BY id", |id, record| {
                content(self.path(), id, v1::VERSION, record)?;
                items.removed.push(id.to_owned());
                Ok(())
            })?;
            for (count, name) in [(items.added.len(), ADDED_COUNT), (items.removed.len(), REMOVED_COUNT)] {
                let expected = fact(connection, name)?;
                if expected != count as i64 {
                    let what = format_args!("{count} records of {expected} items are left");
                    return Err(corrupt(self.path(), what).into());
                }
            }
            items.added.sort_by_key(|item| item.sequence);
            Ok(items)
        })
    }

    /// How often items were added or removed, by any process: another number means another answer of [`LiveStore::items`].
    ///
    /// # Errors
    /// As [`LiveStore::items`].
    pub fn item_changes(&self) -> Result<u64> {
        self.read(|connection| Ok(fact(connection, ITEM_CHANGES)? as u64))
    }

    /// Adds an item durably, or replaces one that was added before, and takes back its removal.
    ///
    /// # Errors
    /// `InvalidArgument` where the record is too long; `Corrupt`, `Busy`, `NoSpace`, `Io` where the file cannot be written: nothing is
    /// changed then; `Poisoned` where it, or what came before, cannot be brought to disk: it may be there when the file is opened anew.
    pub fn add_item(&self, item: &StoredItem) -> Result<AddedItem> {
        self.write_durably(|transaction| {
            let before = record(transaction, "SELECT record FROM added WHERE id = ?1", &item.id)?;
            let before = before.map(|record| self.decode(&item.id, &record)).transpose()?.map(|item| item.sequence);
            let next = fact(transaction, NEXT_ITEM)?.max(0);
            let sequence = before.unwrap_or(next as u64 + 1);
            if before.is_none() {
                add_to_fact(transaction, NEXT_ITEM, 1)?;
                add_to_fact(transaction, ADDED_COUNT, 1)?;
            }
            let stored = v1::Item::from(StoredItem { sequence, ..item.clone() });
            let archive = codec::archive(&stored)
                .map_err(|e| err!(Internal, "cannot archive item {:?}: {e}; report it", item.id))?;
            let record = frame(&item.id, v1::VERSION, &archive)?;
            let sql = "INSERT OR REPLACE INTO added VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute((&item.id, &record))?;
            let restored = transaction.prepare_cached("DELETE FROM removed WHERE id = ?1")?.execute([&item.id])?;
            add_to_fact(transaction, REMOVED_COUNT, -(restored as i64))?;
            add_to_fact(transaction, ITEM_CHANGES, 1)?;
            let changes = fact(transaction, ITEM_CHANGES)? as u64;
            Ok((AddedItem { sequence, changes }, record.len()))
        })
    }

    /// Removes an item durably: its addition, if there was one, and whatever item of that id this generation or a later one
    /// has, until it is added again. Gives whether it was not removed before, and [`LiveStore::item_changes`] as of this one.
    ///
    /// # Errors
    /// As [`LiveStore::add_item`].
    pub fn remove_item(&self, id: &str) -> Result<(bool, u64)> {
        self.write_durably(|transaction| {
            let gone = transaction.prepare_cached("DELETE FROM added WHERE id = ?1")?.execute([id])?;
            add_to_fact(transaction, ADDED_COUNT, -(gone as i64))?;
            let before = record(transaction, "SELECT record FROM removed WHERE id = ?1", id)?.is_some();
            let record = frame(id, v1::VERSION, &[])?;
            let sql = "INSERT OR REPLACE INTO removed VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute((id, &record))?;
            add_to_fact(transaction, REMOVED_COUNT, i64::from(!before))?;
            add_to_fact(transaction, ITEM_CHANGES, 1)?;
            let changes = fact(transaction, ITEM_CHANGES)? as u64;
            Ok(((!before, changes), record.len()))
        })
    }

    /// Whether an item of this id was removed and not added again.
    ///
    /// # Errors
    /// As [`LiveStore::items`].
    pub fn is_removed(&self, id: &str) -> Result<bool> {
        self.read(|connection| Ok(record(connection, "SELECT record FROM removed WHERE id = ?1", id)?.is_some()))
    }

    /// Whether an item of this id was added and not removed again.
    ///
    /// # Errors
    /// As [`LiveStore::items`].
    pub fn is_added(&self, id: &str) -> Result<bool> {
        self.read(|connection| Ok(record(connection, "SELECT record FROM added WHERE id = ?1", id)?.is_some()))
    }

    fn decode(&self, id: &str, record: &[u8]) -> Result<StoredItem> {
        let item: v1::Item = codec::read(&codec::aligned(content(self.path(), id, v1::VERSION, record)?.1))
            .map_err(|e| corrupt(self.path(), format_args!("the record of {id:?} cannot be read ({e})")))?;
        match item.id == id {
            true => Ok(item.into()),
            false => Err(corrupt(self.path(), format_args!("{id:?} holds another item's record"))),
        }
    }
}
