//! The items that were added and removed since a publication, as records of the live file.

use super::failure::corrupt;
use super::file::LiveStore;
use super::frame::{ADDED, COUNTERS, REMOVED, content, frame};
use crate::error::{Result, err};
use crate::store::records::StoredItem;
use crate::store::wire::{codec, v1};
use redb::{ReadableTable, TableDefinition, TableError};

/// The number of the next addition, in [`COUNTERS`].
const NEXT: &str = "items.next";

/// Everything that was added and removed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredItems {
    /// In the order of their sequence numbers.
    pub added: Vec<StoredItem>,
    /// In ascending order.
    pub removed: Vec<String>,
}

impl LiveStore {
    /// All items added and removed.
    ///
    /// # Errors
    /// `Corrupt` where the file is damaged; input and output errors.
    pub fn items(&self) -> Result<StoredItems> {
        self.read(|transaction| {
            let mut items = StoredItems::default();
            self.each_record(transaction, ADDED, |id, record| {
                items.added.push(self.decode(id, record)?);
                Ok(())
            })?;
            self.each_record(transaction, REMOVED, |id, record| {
                content(self.path(), id, record)?;
                items.removed.push(id.to_owned());
                Ok(())
            })?;
            items.added.sort_by_key(|item| item.sequence);
            Ok(items)
        })
    }

    /// Adds an item durably, or replaces one that was added before, and takes back its removal. Gives its sequence number.
    ///
    /// # Errors
    /// `InvalidArgument` where the record is too long; `Corrupt`, `Poisoned`, `NoSpace`, `Io` where the file fails: the item
    /// may then be there or not when the file is opened again.
    pub fn add_item(&self, item: &StoredItem) -> Result<u64> {
        self.write(|transaction| {
            let mut added = transaction.open_table(ADDED)?;
            let before = match added.get(item.id.as_str())? {
                Some(record) => Some(self.decode(&item.id, record.value())?.sequence),
                None => None,
            };
            let mut counters = transaction.open_table(COUNTERS)?;
            let next = counters.get(NEXT)?.map_or(1, |v| v.value());
            let sequence = before.unwrap_or(next);
            if before.is_none() {
                counters.insert(NEXT, next.saturating_add(1))?;
            }
            let record = v1::Item::from(StoredItem { sequence, ..item.clone() });
            let archive = codec::archive(&record)
                .map_err(|e| err!(Internal, "cannot archive item {:?}: {e}; report it", item.id))?;
            added.insert(item.id.as_str(), frame(&item.id, &archive)?.as_slice())?;
            transaction.open_table(REMOVED)?.remove(item.id.as_str())?;
            Ok(sequence)
        })
    }

    /// Removes an item durably: its addition, if there was one, and whatever item of that id this generation or a later one
    /// has, until it is added again. Gives whether it was not removed before.
    ///
    /// # Errors
    /// As [`LiveStore::add_item`].
    pub fn remove_item(&self, id: &str) -> Result<bool> {
        self.write(|transaction| {
            transaction.open_table(ADDED)?.remove(id)?;
            let before = transaction.open_table(REMOVED)?.insert(id, frame(id, &[])?.as_slice())?.is_some();
            Ok(!before)
        })
    }

    /// Whether an item of this id was removed and not added again.
    ///
    /// # Errors
    /// As [`LiveStore::items`].
    pub fn is_removed(&self, id: &str) -> Result<bool> {
        self.has(REMOVED, id)
    }

    /// Whether an item of this id was added and not removed again.
    ///
    /// # Errors
    /// As [`LiveStore::items`].
    pub fn is_added(&self, id: &str) -> Result<bool> {
        self.has(ADDED, id)
    }

    fn has(&self, table: TableDefinition<'static, &str, &[u8]>, id: &str) -> Result<bool> {
        self.read(|transaction| match transaction.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => Ok(false),
            table => Ok(table?.get(id)?.is_some()),
        })
    }

    fn decode(&self, id: &str, record: &[u8]) -> Result<StoredItem> {
        let item: v1::Item = codec::read(&codec::aligned(content(self.path(), id, record)?))
            .map_err(|e| corrupt(self.path(), format_args!("the record of {id:?} cannot be read ({e})")))?;
        match item.id == id {
            true => Ok(item.into()),
            false => Err(corrupt(self.path(), format_args!("{id:?} holds another item's record"))),
        }
    }
}
