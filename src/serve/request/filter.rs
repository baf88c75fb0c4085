//! Which items may be in a list.

use super::query::UnknownItems;
use super::resolve::Resolved;
use crate::error::{Result, err};
use crate::generation::{AddedItem, Column, FieldCode, Generation, Overlay, kind_name};
use crate::model::Value;
use crate::options::Seen;

/// A condition on an item's metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Condition<'a> {
    /// The categorical or multi-valued field has one of these values. Items without a value fail.
    AnyOf {
        /// The field's name.
        field: &'a str,
        /// Values as texts.
        values: &'a [&'a str],
    },
    /// The categorical or multi-valued field has none of these values. Items without a value pass.
    NoneOf {
        /// The field's name.
        field: &'a str,
        /// Values as texts.
        values: &'a [&'a str],
    },
    /// The numeric field lies within these bounds, both included. Items without a number fail.
    Between {
        /// The field's name.
        field: &'a str,
        /// The least number; `None` is no bound.
        least: Option<f32>,
        /// The greatest number; `None` is no bound.
        most: Option<f32>,
    },
    /// The item was released at or after `from` and before `until` (Unix milliseconds). Items whose release is not known
    /// fail.
    Released {
        /// The earliest time; `None` is no bound.
        from: Option<i64>,
        /// The first time that is too late; `None` is no bound.
        until: Option<i64>,
    },
}

/// Which items may be in a list. The default leaves nothing out but, where the generation says so, what the person has had already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter<'a> {
    /// Whether items of the history, stored and given, may be in the list; `None` is as the generation says
    /// ([`Generation::serve`](crate::serve::Generation::serve)).
    pub seen: Option<Seen>,
    /// Where given, only these item ids may be in the list.
    pub allow: Option<&'a [&'a str]>,
    /// Item ids that may not be in the list. Ids that the generation does not know are no error: they cannot be in it.
    pub deny: &'a [&'a str],
    /// All of these must hold.
    pub conditions: &'a [Condition<'a>],
    /// What to do about unknown ids in `allow` and unknown values in `conditions`: refuse, so that a slip of the pen does
    /// not pass for an empty list, or go on, where they match nothing.
    pub unknown: UnknownItems,
}

impl Default for Filter<'_> {
    fn default() -> Self {
        Self { seen: None, allow: None, deny: &[], conditions: &[], unknown: UnknownItems::Refuse }
    }
}

impl<'a> Filter<'a> {
    /// A filter that lets everything pass, also what was seen.
    pub fn everything() -> Self {
        Self::default().seen(Seen::Allowed)
    }

    /// The same, with or without what was seen.
    pub fn seen(self, seen: Seen) -> Self {
        Self { seen: Some(seen), ..self }
    }

    /// The same, without these item ids.
    pub fn deny(self, ids: &'a [&'a str]) -> Self {
        Self { deny: ids, ..self }
    }

    /// The same, with these item ids only.
    pub fn allow(self, ids: &'a [&'a str]) -> Self {
        Self { allow: Some(ids), ..self }
    }

    /// The same, under these conditions.
    pub fn under(self, conditions: &'a [Condition<'a>]) -> Self {
        Self { conditions, ..self }
    }

    /// The same, going on without ids and values that the generation does not know.
    pub fn skip_unknown(self) -> Self {
        Self { unknown: UnknownItems::Skip, ..self }
    }
}

/// The part of a filter that is a set of rows; buffers are kept from query to query.
#[derive(Debug, Default)]
pub(in crate::serve) struct Mask {
    /// One bit per row, set where the row is left out.
    out: Vec<u64>,
    /// The allowed rows in ascending order, each once; read only where the filter has an allow list.
    allowed: Vec<u32>,
    /// Whether the filter has an allow list.
    only: bool,
}

impl Mask {
    /// The rows that a filter lets pass; of a list for somebody also without what `asked` says that they have had.
    pub(in crate::serve) fn read(
        &mut self,
        generation: &Generation,
        filter: &Filter<'_>,
        asked: Option<&Resolved>,
    ) -> Result<()> {
        self.out.clear();
        self.allowed.clear();
        self.only = filter.allow.is_some();
        let words = generation.items().div_ceil(64);
        match filter.allow {
            None => self.out.resize(words, 0),
            Some(ids) => {
                self.out.resize(words, u64::MAX);
                for id in ids {
                    match (generation.find_item(id)?, filter.unknown) {
                        (Some(row), _) => self.admit(row),
                        (None, UnknownItems::Skip) => {}
                        (None, UnknownItems::Refuse) => {
                            let generation = generation.id();
                            return Err(err!(
                                UnknownItem,
                                "the allow list names item {id:?}, which is not in generation {generation}; check the id, or leave it out"
                            ));
                        }
                    }
                }
                self.allowed.sort_unstable();
            }
        }
        for (word, removed) in self.out.iter_mut().zip(generation.overlay().removed()) {
            *word |= removed;
        }
        for id in filter.deny {
            if let Some(row) = generation.find_item(id)? {
                self.leave_out(row);
            }
        }
        let seen = filter.seen.unwrap_or(generation.serve().seen);
        if let Some(asked) = asked.filter(|_| seen == Seen::Excluded) {
            let stored = generation.stored_events(asked.stored.clone())?.items;
            stored.iter().chain(&asked.history.items).chain(&asked.past).for_each(|row| self.leave_out(*row));
        }
        Ok(())
    }

    /// The allowed rows in ascending order, each once; `None` where the filter has no allow list.
    pub(in crate::serve) fn only(&self) -> Option<&[u32]> {
        self.only.then_some(&self.allowed)
    }

    fn admit(&mut self, row: u32) {
        let bit = 1 << (row % 64);
        if let Some(word) = self.out.get_mut(row as usize / 64)
            && *word & bit != 0
        {
            *word &= !bit;
            self.allowed.push(row);
        }
    }

    /// Leaves a row out.
    pub(in crate::serve) fn leave_out(&mut self, row: u32) {
        if let Some(word) = self.out.get_mut(row as usize / 64) {
            *word |= 1 << (row % 64);
        }
    }

    /// Lets a row in.
    pub(in crate::serve) fn let_in(&mut self, row: u32) {
        if let Some(word) = self.out.get_mut(row as usize / 64) {
            *word &= !(1 << (row % 64));
        }
    }

    /// Whether a row may be in the list; rows beyond the catalogue may not.
    pub(in crate::serve) fn lets(&self, row: u32) -> bool {
        self.out.get(row as usize / 64).is_some_and(|word| word & (1 << (row % 64)) == 0)
    }
}

/// The conditions of a filter, looked up.
pub(in crate::serve) struct Conditions<'g> {
    checks: Vec<Check<'g>>,
    overlay: &'g Overlay,
}

enum Check<'g> {
    Codes { field: usize, column: Column<'g>, codes: Vec<u32>, wanted: bool },
    Between { field: usize, numbers: &'g [f32], least: f32, most: f32 },
    Released { times: &'g [i64], from: i64, until: i64 },
}

impl<'g> Conditions<'g> {
    /// Looks up fields and values.
    pub(in crate::serve) fn read(generation: &'g Generation, filter: &Filter<'_>) -> Result<Self> {
        let checks = filter.conditions.iter().map(|c| Check::read(generation, c, filter.unknown));
        Ok(Self { checks: checks.collect::<Result<_>>()?, overlay: generation.overlay() })
    }

    /// Whether all hold for an item row.
    pub(in crate::serve) fn hold(&self, row: u32) -> Result<bool> {
        if self.checks.is_empty() {
            return Ok(true);
        }
        if let Some(added) = self.overlay.item(row) {
            return Ok(self.checks.iter().all(|check| check.holds_for_added(added)));
        }
        for check in &self.checks {
            if !check.holds(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<'g> Check<'g> {
    fn read(generation: &'g Generation, condition: &Condition<'_>, unknown: UnknownItems) -> Result<Self> {
        match *condition {
            Condition::AnyOf { field, values } => Self::codes(generation, field, values, true, unknown),
            Condition::NoneOf { field, values } => Self::codes(generation, field, values, false, unknown),
            Condition::Between { field, least, most } => {
                let (at, kind) = generation.codes().item_field(field)?;
                let Column::Numbers(numbers) = generation.item_column(at)? else {
                    let kind = kind_name(kind);
                    return Err(err!(InvalidArgument, "item field {field:?} is {kind}, not numeric; filter by value"));
                };
                let (least, most) = (least.unwrap_or(f32::NEG_INFINITY), most.unwrap_or(f32::INFINITY));
                match least <= most {
                    true => Ok(Self::Between { field: at, numbers, least, most }),
                    false => Err(err!(
                        InvalidArgument,
                        "the bounds {least} to {most} of item field {field:?} hold no number; correct them"
                    )),
                }
            }
            Condition::Released { from, until } => {
                let times = generation.released()?.ok_or_else(|| {
                    err!(InvalidArgument, "items of this model have no release time; leave the condition out")
                })?;
                // i64::MIN stands for unknown.
                let from = from.unwrap_or(i64::MIN + 1).max(i64::MIN + 1);
                let until = until.unwrap_or(i64::MAX);
                match from < until {
                    true => Ok(Self::Released { times, from, until }),
                    false => Err(err!(
                        InvalidArgument,
                        "the release times {from} to {until} hold no time; correct the condition"
                    )),
                }
            }
        }
    }

    fn codes(
        generation: &'g Generation,
        field: &str,
        values: &[&str],
        wanted: bool,
        unknown: UnknownItems,
    ) -> Result<Self> {
        let (at, kind) = generation.codes().item_field(field)?;
        let column = generation.item_column(at)?;
        if !matches!(column, Column::Codes(_) | Column::Lists { .. }) {
            let kind = kind_name(kind);
            return Err(err!(InvalidArgument, "item field {field:?} is {kind} and has no named values; use bounds"));
        }
        let mut codes = Vec::with_capacity(values.len());
        for value in values {
            match (generation.codes().item_value(at, value), unknown) {
                (0, UnknownItems::Skip) => {}
                (0, UnknownItems::Refuse) => {
                    return Err(err!(
                        InvalidArgument,
                        "item field {field:?} never has the value {value:?}; check it, or leave it out"
                    ));
                }
                (code, _) => codes.push(code),
            }
        }
        codes.sort_unstable();
        codes.dedup();
        Ok(Self::Codes { field: at, column, codes, wanted })
    }

    fn holds(&self, row: u32) -> Result<bool> {
        let damaged = || err!(Corrupt, "metadata of item row {row} is damaged; verify the store and roll back");
        let at = row as usize;
        match self {
            Self::Codes { column, codes, wanted, .. } => {
                let Value::Codes(own) = column.value(row)? else { return Err(damaged()) };
                Ok(own.iter().any(|code| codes.binary_search(code).is_ok()) == *wanted)
            }
            Self::Between { numbers, least, most, .. } => {
                let number = numbers.get(at).ok_or_else(damaged)?;
                Ok(number >= least && number <= most)
            }
            Self::Released { times, from, until } => {
                let time = times.get(at).ok_or_else(damaged)?;
                Ok(time >= from && time < until)
            }
        }
    }
}

impl Check<'_> {
    fn holds_for_added(&self, item: &AddedItem) -> bool {
        match self {
            Self::Codes { field, codes, wanted, .. } => match item.fields.get(*field) {
                Some(FieldCode::Codes(own)) => own.iter().any(|code| codes.binary_search(code).is_ok()) == *wanted,
                _ => false,
            },
            Self::Between { field, least, most, .. } => {
                matches!(item.fields.get(*field), Some(FieldCode::Number(x)) if x >= least && x <= most)
            }
            Self::Released { from, until, .. } => item.released >= *from && item.released < *until,
        }
    }
}
