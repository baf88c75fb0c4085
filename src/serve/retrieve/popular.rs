//! The popular list: what is asked for by somebody of whom no event is known.

use super::super::request::{Conditions, Mask};
use crate::error::{Result, err};
use crate::generation::Generation;
use crate::kernels::retrieve::TopK;
use std::collections::BTreeMap;

/// Events that the popularity before it weighs as much as, when a profile value's own is mixed in: values of few events say
/// little, those of many speak for themselves.
const PRIOR_EVENTS: f32 = 100.0;

/// Popularity for a profile: `p <- (n p_value + 100 p) / (n + 100)` for each value in the order of its field's declaration,
/// beginning with the popularity among all; `n` the recent events of the people with the value, `p_value` their shares.
#[derive(Debug)]
pub(in crate::serve) struct Blend<'a> {
    generation: &'a Generation,
    /// Shares among all people.
    shares: &'a [f32],
    /// What is left of them.
    rest: f32,
    /// What the profile's values add, by item row.
    more: BTreeMap<u32, f32>,
}

impl<'a> Blend<'a> {
    /// The popularity for the values of a profile: entity field and code of each, in the order of fields.
    pub(in crate::serve) fn new(generation: &'a Generation, profile: &[(usize, u32)]) -> Result<Self> {
        let (mut rest, mut more) = (1.0, BTreeMap::<u32, f32>::new());
        for (field, code) in profile {
            let Some(value) = generation.profile_shares(*field, *code)? else { continue };
            let before = PRIOR_EVENTS / (value.weight + PRIOR_EVENTS);
            rest *= before;
            more.values_mut().for_each(|share| *share *= before);
            for (row, share) in value.rows.iter().zip(value.shares) {
                *more.entry(*row).or_default() += (1.0 - before) * share;
            }
        }
        Ok(Self { generation, shares: generation.popularity()?, rest, more })
    }

    /// The blended share of a published row.
    pub(in crate::serve) fn share(&self, row: u32) -> Result<f32> {
        let share = self.shares.get(row as usize).map(|s| self.rest * s + self.more.get(&row).copied().unwrap_or(0.0));
        share
            .filter(|share| share.is_finite())
            .ok_or_else(|| err!(Corrupt, "popularity is damaged at item row {row}; verify the store and roll back"))
    }
}

/// Makes popular lists; the memory is kept.
#[derive(Debug, Default)]
pub(in crate::serve) struct Popular {
    listed: Vec<u32>,
}

impl Popular {
    /// Offers the `k` most popular rows that pass.
    pub(in crate::serve) fn retrieve(
        &mut self,
        blend: &Blend<'_>,
        mask: &mut Mask,
        conditions: &Conditions<'_>,
        k: usize,
        top: &mut TopK,
    ) -> Result<()> {
        // What the profile speaks for, first: every other item keeps its place among the others.
        for row in blend.more.keys() {
            if mask.lets(*row) && conditions.hold(*row)? {
                top.offer(blend.share(*row)?, *row);
            }
        }
        let mut left = k;
        self.listed.clear();
        for row in blend.generation.popular()? {
            if left == 0 {
                break;
            }
            let share = blend.share(*row)?;
            if !blend.more.contains_key(row) && mask.lets(*row) && conditions.hold(*row)? {
                // Each row once, whatever the section says.
                mask.leave_out(*row);
                self.listed.push(*row);
                top.offer(share, *row);
                left -= 1;
            }
        }
        // Nobody has touched added items yet: they come last.
        for (row, _) in blend.generation.overlay().items() {
            if left == 0 {
                break;
            }
            if mask.lets(row) && conditions.hold(row)? {
                top.offer(0.0, row);
                left -= 1;
            }
        }
        self.listed.iter().for_each(|row| mask.let_in(*row));
        Ok(())
    }
}
