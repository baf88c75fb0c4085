//! What an item's vector is made of.

use super::generation::{Generation, ItemColumn};
use crate::error::{Result, err};
use crate::model::{Parts, Standing, Value, sections};

impl Generation {
    /// The parts of a published item's vector that come from its ID embedding and from its metadata: their products with a user
    /// vector add up to the item's score. With a `standing` as they would be if so much were known of the item. `None` where
    /// the model has no item tower.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where a table is damaged.
    pub fn item_parts(&self, row: u32, standing: Option<Standing>) -> Result<Option<Parts>> {
        self.item_vector(row)?;
        let Some(tower) = self.inference().tower() else { return Ok(None) };
        let damaged = || err!(Corrupt, "metadata of item row {row} is damaged; verify the store and roll back");
        let (at, d) = (row as usize, self.width());
        let mut values = Vec::with_capacity(self.schema().item_fields.len());
        for field in 0..self.schema().item_fields.len() {
            let value = match self.item_column(field)? {
                ItemColumn::Codes(codes) => codes.get(at..at.saturating_add(1)).map(Value::Codes),
                ItemColumn::Lists { offsets, codes } => match (offsets.get(at), offsets.get(at.saturating_add(1))) {
                    (Some(a), Some(z)) => codes.get(*a as usize..*z as usize).map(Value::Codes),
                    _ => None,
                },
                ItemColumn::Numbers(numbers) => numbers.get(at).map(|n| Value::Number(*n)),
                ItemColumn::Vectors { dim, values } => {
                    values.get(at.saturating_mul(dim)..at.saturating_add(1).saturating_mul(dim)).map(Value::Vector)
                }
            };
            values.push(value.ok_or_else(damaged)?);
        }
        let snapshot = self.snapshot();
        let standing = match standing {
            Some(standing) => standing,
            None => {
                let evidence = *snapshot.u32s(sections::ITEM_EVIDENCE)?.get(at).ok_or_else(damaged)?;
                let age = *snapshot.f32s(sections::ITEM_AGE)?.get(at).ok_or_else(damaged)?;
                Standing { age: (!age.is_nan()).then_some(age), evidence, known: evidence > 0 }
            }
        };
        let ids = snapshot.f32s(sections::ITEM_EMBEDDINGS)?;
        let id = ids.get(at.saturating_mul(d)..at.saturating_add(1).saturating_mul(d)).ok_or_else(damaged)?;
        let metadata = tower.describe(self.item_title(row)?.unwrap_or_default(), &values);
        Ok(Some(tower.parts_of(self.weights()?, &metadata, Some(id), standing)?))
    }
}
