//! What is popular among people like somebody of whom no event is known.

use super::generation::Generation;
use crate::error::{Result, err};
use crate::model::{Value, sections};
use crate::schema::FieldKind;
use std::collections::BTreeMap;

/// Events that the popularity before it weighs as much as, when a profile value's own is mixed in: values of few events say
/// little, those of many speak for themselves.
const PRIOR_EVENTS: f32 = 100.0;

/// Popularity for a profile: `p <- (n p_value + 100 p) / (n + 100)` for each value in the order of its field's declaration,
/// beginning with the popularity among all; `n` the recent events of the people with the value, `p_value` their shares.
#[derive(Debug, Default)]
pub(super) struct Blend {
    /// What is left of the share among all people.
    rest: f32,
    /// What the profile's values add, by item row.
    more: BTreeMap<u32, f32>,
}

impl Blend {
    /// The rows that the profile's values speak for, ascending.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.more.keys().copied()
    }

    /// Whether the profile's values speak for a row.
    pub(super) fn names(&self, row: u32) -> bool {
        self.more.contains_key(&row)
    }

    /// The blended share of a published row, whose shares among all are `shares`.
    pub(super) fn share(&self, row: u32, shares: &[f32]) -> Result<f32> {
        let share = shares.get(row as usize).map(|s| self.rest * s + self.more.get(&row).copied().unwrap_or(0.0));
        share
            .filter(|share| share.is_finite())
            .ok_or_else(|| err!(Corrupt, "popularity is damaged at item row {row}; verify the store and roll back"))
    }
}

impl Generation {
    /// Adds the codes of an entity's stored profile field to `to`.
    pub(super) fn stored_profile(&self, field: usize, entity: u32, to: &mut Vec<(usize, u32)>) -> Result<()> {
        let Some(kind) = self.schema().entity_fields.get(field).map(|f| &f.kind) else { return Ok(()) };
        match self.entity_column(field)?.value(entity)? {
            Value::Codes(codes) => to.extend(codes.iter().map(|code| (field, *code))),
            Value::Number(number) => to.push((field, kind.bucket(number))),
            Value::Vector(_) => {}
        }
        Ok(())
    }

    /// The popularity for the values of a profile: entity field and code of each, in the order of fields.
    pub(super) fn profile_blend(&self, profile: &[(usize, u32)]) -> Result<Blend> {
        let mut blend = Blend { rest: 1.0, more: BTreeMap::new() };
        for (field, code) in profile {
            let vector = |f: &crate::schema::Field| matches!(f.kind, FieldKind::Vector(_));
            if self.schema().entity_fields.get(*field).is_none_or(vector) {
                continue;
            }
            let damaged = || {
                err!(
                    Corrupt,
                    "the popularity of profile field {field} is damaged at code {code}; verify the store and roll back"
                )
            };
            let name = |part: &str| format!("{}.{field}.{part}", sections::PROFILE_POPULARITY);
            let code = *code as usize;
            let weight = *self.snapshot().f32s(&name("weights"))?.get(code).ok_or_else(damaged)?;
            let offsets = self.snapshot().u32s(&name("offsets"))?;
            let (Some(start), Some(end)) = (offsets.get(code), offsets.get(code + 1)) else { return Err(damaged()) };
            let range = *start as usize..*end as usize;
            let rows = self.snapshot().u32s(&name("rows"))?.get(range.clone()).ok_or_else(damaged)?;
            let shares = self.snapshot().f32s(&name("shares"))?.get(range).ok_or_else(damaged)?;
            if !weight.is_finite() || weight < 0.0 || shares.iter().any(|s| !(0.0..=1.001).contains(s)) {
                return Err(damaged());
            }
            let before = PRIOR_EVENTS / (weight + PRIOR_EVENTS);
            blend.rest *= before;
            blend.more.values_mut().for_each(|share| *share *= before);
            for (row, share) in rows.iter().zip(shares) {
                if *row as usize >= self.published_items() {
                    return Err(damaged());
                }
                *blend.more.entry(*row).or_default() += (1.0 - before) * share;
            }
        }
        Ok(blend)
    }
}
