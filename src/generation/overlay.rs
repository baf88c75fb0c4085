//! Items added to a generation while it is served, and items taken out of it: one immutable view, shared by whoever
//! answers from it.
//!
//! Rows of added items follow those of the generation. Vectors lie in blocks; a new view shares all blocks with the one before
//! but the last, so adding an item copies one block and a table of pointers, whatever was added before.

use crate::model::{MoreItems, Value};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Rows in a block.
const BLOCK_ROWS: usize = 128;
/// Parts of the index, each copied as a whole; a power of two.
const SHARDS: usize = 256;

/// The value of one field of an added item, coded by the generation's vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FieldCode {
    /// Categorical and multi-valued fields; empty is missing.
    Codes(Vec<u32>),
    /// Numeric fields; NaN is missing.
    Number(f32),
    /// Vector fields; empty is missing.
    Vector(Vec<f32>),
}

impl FieldCode {
    /// As the item tower reads it.
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Codes(codes) => Value::Codes(codes),
            Self::Number(number) => Value::Number(*number),
            Self::Vector(vector) => Value::Vector(vector),
        }
    }
}

/// What is known of an added item besides its vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AddedItem {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    /// Unix milliseconds; `i64::MIN` is unknown.
    pub(crate) released: i64,
    /// Days, as the item tower counts them.
    pub(crate) age: Option<f32>,
    /// One entry per item field of the schema.
    pub(crate) fields: Vec<FieldCode>,
}

/// Vectors and items of some rows.
#[derive(Debug, Clone, Default)]
struct Block {
    vectors: Vec<f32>,
    items: Vec<Arc<AddedItem>>,
}

/// One view of what was added and removed.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    width: usize,
    /// Items of the generation: the row of the first added one.
    base: usize,
    rows: usize,
    blocks: Vec<Arc<Block>>,
    /// Added rows by the hash of their id, in ascending order within a shard; empty before the first addition.
    shards: Vec<Arc<Vec<(u64, u32)>>>,
    hasher: RandomState,
    /// One bit per row of generation and additions that was removed; may be shorter than there are rows.
    removed: Arc<Vec<u64>>,
}

impl Overlay {
    /// Nothing added to a generation of `base` items, nothing removed.
    pub(crate) fn new(base: usize, width: usize) -> Self {
        Self {
            width,
            base,
            rows: 0,
            blocks: Vec::new(),
            shards: Vec::new(),
            hasher: RandomState::new(),
            removed: Arc::default(),
        }
    }

    /// How many rows were added, those removed again included.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The removed rows as bits.
    pub(crate) fn removed(&self) -> &[u64] {
        &self.removed
    }

    /// Whether a row was removed.
    pub(crate) fn is_removed(&self, row: u32) -> bool {
        self.removed.get(row as usize / 64).is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    /// The row that was added for `id`, removed since or not.
    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let shard = self.shards.get(hash as usize % SHARDS)?;
        let from = shard.partition_point(|(h, _)| *h < hash);
        let alike = shard.iter().skip(from).take_while(|(h, _)| *h == hash);
        alike.map(|(_, row)| *row).find(|row| self.item(*row).is_some_and(|item| item.id == id))
    }

    fn place(&self, row: u32) -> Option<(&Block, usize)> {
        let at = (row as usize).checked_sub(self.base)?;
        Some((self.blocks.get(at / BLOCK_ROWS)?, at % BLOCK_ROWS))
    }

    /// The added item of a row; `None` for rows of the generation and beyond the last.
    pub(crate) fn item(&self, row: u32) -> Option<&AddedItem> {
        let (block, at) = self.place(row)?;
        block.items.get(at).map(|item| &**item)
    }

    /// The vector of an added row.
    pub(crate) fn row_vector(&self, row: u32) -> Option<&[f32]> {
        let (block, at) = self.place(row)?;
        block.vectors.get(at.checked_mul(self.width)?..)?.get(..self.width)
    }

    /// The vectors of all added rows in their order, in pieces of whole rows.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.blocks.iter().map(|block| block.vectors.as_slice())
    }

    /// Added rows with their items, in the order of their rows.
    pub(crate) fn items(&self) -> impl Iterator<Item = (u32, &AddedItem)> {
        let items = self.blocks.iter().flat_map(|block| &block.items);
        items.enumerate().map(|(at, item)| ((self.base + at) as u32, &**item))
    }

    /// Adds an item, or replaces the one that was added under its id; it is not removed after that. Gives its row.
    pub(crate) fn add(&mut self, item: AddedItem, vector: &[f32]) -> u32 {
        let row = match self.find(&item.id) {
            Some(row) => {
                let at = row as usize - self.base;
                if let Some(block) = self.blocks.get_mut(at / BLOCK_ROWS).map(Arc::make_mut) {
                    let start = at % BLOCK_ROWS * self.width;
                    let place =
                        block.vectors.get_mut(start..start + self.width).zip(block.items.get_mut(at % BLOCK_ROWS));
                    if let Some((to, slot)) = place {
                        to.copy_from_slice(vector);
                        *slot = Arc::new(item);
                    }
                }
                row
            }
            None => self.append(item, vector),
        };
        self.restore(row);
        row
    }

    fn append(&mut self, item: AddedItem, vector: &[f32]) -> u32 {
        let row = (self.base + self.rows) as u32;
        let hash = self.hasher.hash_one(item.id.as_str());
        if self.shards.is_empty() {
            self.shards = (0..SHARDS).map(|_| Arc::default()).collect();
        }
        if let Some(shard) = self.shards.get_mut(hash as usize % SHARDS).map(Arc::make_mut) {
            let at = shard.partition_point(|entry| *entry < (hash, row));
            shard.insert(at, (hash, row));
        }
        if self.rows.is_multiple_of(BLOCK_ROWS) {
            self.blocks.push(Arc::default());
        }
        if let Some(block) = self.blocks.last_mut().map(Arc::make_mut) {
            block.vectors.extend_from_slice(vector);
            block.items.push(Arc::new(item));
        }
        self.rows += 1;
        row
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, row: u32) {
        let words = (self.base + self.rows).div_ceil(64);
        let removed = Arc::make_mut(&mut self.removed);
        removed.resize(words.max(removed.len()), 0);
        if let Some(word) = removed.get_mut(row as usize / 64) {
            *word |= 1 << (row % 64);
        }
    }

    /// Lets go of the rows of added items that were removed, once they are more than the others; the others may have other rows then.
    pub(crate) fn trim(&mut self) {
        let gone = (self.base..self.base + self.rows).filter(|row| self.is_removed(*row as u32)).count();
        if gone < BLOCK_ROWS || gone <= self.rows - gone {
            return;
        }
        let mut trimmed = Self::new(self.base, self.width);
        for (row, item) in self.blocks.iter().flat_map(|block| &block.items).enumerate() {
            let row = (self.base + row) as u32;
            if let Some(vector) = self.row_vector(row).filter(|_| !self.is_removed(row)) {
                trimmed.append(AddedItem::clone(item), vector);
            }
        }
        for row in (0..self.base as u32).filter(|row| self.is_removed(*row)) {
            trimmed.remove(row);
        }
        *self = trimmed;
    }

    /// Takes a removal back.
    pub(crate) fn restore(&mut self, row: u32) {
        if self.is_removed(row)
            && let Some(word) = Arc::make_mut(&mut self.removed).get_mut(row as usize / 64)
        {
            *word &= !(1 << (row % 64));
        }
    }
}

impl MoreItems for Overlay {
    fn count(&self) -> usize {
        self.rows
    }

    fn vector(&self, at: usize) -> Option<&[f32]> {
        self.row_vector(u32::try_from(self.base.checked_add(at)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_and_go_take_no_room() {
        let mut overlay = Overlay::new(70, 1);
        overlay.remove(3);
        overlay.add(item("stays"), &[-1.0]);
        for n in 0..5000u32 {
            let row = overlay.add(item(&format!("new-{n}")), &[n as f32]);
            overlay.remove(row);
            overlay.trim();
        }
        overlay.add(item("last"), &[7.0]);
        assert!(overlay.rows() < 2 * BLOCK_ROWS, "{}", overlay.rows());
        let stays = overlay.find("stays").unwrap();
        assert_eq!((overlay.row_vector(stays).unwrap(), overlay.is_removed(stays)), (&[-1.0][..], false));
        let last = overlay.find("last").unwrap();
        assert_eq!((overlay.row_vector(last).unwrap(), overlay.is_removed(last)), (&[7.0][..], false));
        assert!(overlay.is_removed(3) && !overlay.is_removed(4));
        let left: Vec<&str> =
            overlay.items().filter(|(row, _)| !overlay.is_removed(*row)).map(|(_, i)| &*i.id).collect();
        assert_eq!(left, ["stays", "last"]);
    }

    fn item(id: &str) -> AddedItem {
        AddedItem { id: id.into(), title: None, released: i64::MIN, age: None, fields: vec![] }
    }

    #[test]
    fn views_share_what_they_have_in_common_and_do_not_change() {
        let mut overlay = Overlay::new(1000, 2);
        let mut views = vec![overlay.clone()];
        for n in 0..1000u32 {
            assert_eq!(overlay.add(item(&format!("new-{n}")), &[n as f32, -1.0]), 1000 + n);
            views.push(overlay.clone());
        }
        for (n, view) in views.iter().enumerate() {
            assert_eq!(view.rows(), n);
            assert_eq!(view.vectors().map(<[f32]>::len).sum::<usize>(), 2 * n);
            for at in [0, n / 2, n.saturating_sub(1)].into_iter().filter(|at| *at < n) {
                let id = format!("new-{at}");
                assert_eq!(view.find(&id), Some(1000 + at as u32));
                assert_eq!(view.row_vector(1000 + at as u32).unwrap(), [at as f32, -1.0]);
                assert_eq!(view.item(1000 + at as u32).unwrap().id, id);
            }
            assert_eq!(view.find(&format!("new-{n}")), None);
            assert!(view.row_vector(1000 + n as u32).is_none() && view.item(999).is_none());
        }
        assert!(Arc::ptr_eq(&views[999].blocks[0], &views[1000].blocks[0]));
        assert!(views[999].shards.iter().zip(&views[1000].shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count() == 1);
    }

    #[test]
    fn items_are_replaced_removed_and_come_back_in_their_row() {
        let mut overlay = Overlay::new(70, 1);
        for id in ["a", "b", "c"] {
            overlay.add(item(id), &[1.0]);
        }
        let before = overlay.clone();
        overlay.remove(71);
        overlay.remove(3);
        assert!(overlay.is_removed(71) && overlay.is_removed(3) && !overlay.is_removed(70));
        assert!(!before.is_removed(71) && before.removed().is_empty());
        overlay.add(item("d"), &[4.0]);
        assert!(overlay.is_removed(71) && !overlay.is_removed(73));
        assert_eq!(overlay.add(item("b"), &[9.0]), 71);
        assert_eq!((overlay.row_vector(71).unwrap(), before.row_vector(71).unwrap()), (&[9.0][..], &[1.0][..]));
        assert!(!overlay.is_removed(71));
        overlay.restore(3);
        assert!(!overlay.is_removed(3));
        assert_eq!(
            overlay.items().map(|(row, item)| (row, item.id.as_str())).collect::<Vec<_>>(),
            [(70, "a"), (71, "b"), (72, "c"), (73, "d")]
        );
    }
}
