//! What is popular among people of a profile, in place.

use super::columns::expect_length;
use crate::error::{Result, err};
use crate::model::sections;
use crate::schema::Schema;
use crate::store::Snapshot;

/// The sections of each profile field.
#[derive(Debug)]
pub(super) struct Profiles {
    /// Weights, offsets, rows and shares; `None` for fields without codes.
    fields: Vec<Option<[String; 4]>>,
    items: usize,
}

/// The recent events of the people with one value of a profile field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProfileShares<'a> {
    /// How many they are.
    pub weight: f32,
    /// Published item rows.
    pub rows: &'a [u32],
    /// The share of each.
    pub shares: &'a [f32],
}

impl Profiles {
    /// Checks the sections; they name nothing that the schema does not.
    pub(super) fn open(snapshot: &Snapshot, schema: &Schema, items: usize) -> Result<Self> {
        let mut fields = Vec::with_capacity(schema.entity_fields.len());
        for (i, field) in schema.entity_fields.iter().enumerate() {
            let codes = field.kind.codes();
            if codes == 0 {
                fields.push(None);
                continue;
            }
            let names =
                ["weights", "offsets", "rows", "shares"].map(|p| format!("{}.{i}.{p}", sections::PROFILE_POPULARITY));
            let [weights, offsets, rows, shares] = &names;
            expect_length(weights, snapshot.f32s(weights)?.len(), codes)?;
            expect_length(offsets, snapshot.u32s(offsets)?.len(), codes + 1)?;
            expect_length(shares, snapshot.f32s(shares)?.len(), snapshot.u32s(rows)?.len())?;
            fields.push(Some(names));
        }
        Ok(Self { fields, items })
    }

    /// What the people with value `code` of profile field `field` did; `None` for vectors, which name nothing.
    pub(super) fn shares<'a>(
        &self,
        snapshot: &'a Snapshot,
        field: usize,
        code: u32,
    ) -> Result<Option<ProfileShares<'a>>> {
        let Some(Some([weights, offsets, rows, shares])) = self.fields.get(field) else { return Ok(None) };
        let damaged = || {
            err!(
                Corrupt,
                "the popularity of profile field {field} is damaged at code {code}; verify the store and roll back"
            )
        };
        let code = code as usize;
        let weight = *snapshot.f32s(weights)?.get(code).ok_or_else(damaged)?;
        let offsets = snapshot.u32s(offsets)?;
        let (Some(start), Some(end)) = (offsets.get(code), offsets.get(code + 1)) else { return Err(damaged()) };
        let range = *start as usize..*end as usize;
        let rows = snapshot.u32s(rows)?.get(range.clone()).ok_or_else(damaged)?;
        let shares = snapshot.f32s(shares)?.get(range).ok_or_else(damaged)?;
        let sound = weight.is_finite()
            && weight >= 0.0
            && shares.iter().all(|s| (0.0..=1.001).contains(s))
            && rows.iter().all(|row| (*row as usize) < self.items);
        match sound {
            true => Ok(Some(ProfileShares { weight, rows, shares })),
            false => Err(damaged()),
        }
    }
}
