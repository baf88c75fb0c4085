//! What an item's vector is made of.

use super::published::Generation;
use crate::error::{Result, err};
use crate::kernels::retrieve::finite;
use crate::model::{Parts, Standing, Value, sections};

impl Generation {
    /// The parts of an item's vector that come from its ID embedding and from its metadata: their products with a user
    /// vector add up to the item's score. With a `standing` as they would be if so much were known of the item. `None` where
    /// the model has no item tower.
    ///
    /// # Errors
    /// `InvalidArgument` where there is no such row; `Corrupt` where a table is damaged.
    pub fn item_parts(&self, row: u32, standing: Option<Standing>) -> Result<Option<Parts>> {
        self.item_vector(row)?;
        let Some(tower) = self.inference().tower() else { return Ok(None) };
        let title = self.item_title(row)?.unwrap_or_default();
        if let Some(added) = self.overlay().item(row) {
            let values: Vec<Value<'_>> = added.fields.iter().map(|field| field.value()).collect();
            let standing = standing.unwrap_or_else(|| Standing::unseen(added.age));
            return tower.parts_of(self.weights()?, &tower.describe(title, &values), None, standing).map(Some);
        }
        let mut values = Vec::with_capacity(self.schema().item_fields.len());
        for field in 0..self.schema().item_fields.len() {
            values.push(self.item_column(field)?.value(row)?);
        }
        let damaged = || err!(Corrupt, "what is known of item row {row} is damaged; verify the store and roll back");
        let (at, d, snapshot) = (row as usize, self.width(), self.snapshot());
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
        let parts = tower.parts_of(self.weights()?, &tower.describe(title, &values), Some(id), standing)?;
        match finite(&parts.id) && finite(&parts.metadata) && parts.metadata_weight.is_finite() {
            true => Ok(Some(parts)),
            false => Err(damaged()),
        }
    }
}
