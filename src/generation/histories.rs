//! What entities did before the publication, in place.

use super::columns::expect_length;
use crate::error::{Result, err};
use crate::model::sections;
use crate::schema::Schema;
use crate::store::Snapshot;
use std::ops::Range;

/// Which history sections there are.
#[derive(Debug, Default)]
pub(super) struct Histories {
    stored: bool,
    time: bool,
    action: bool,
    value: bool,
    fields: Vec<Option<String>>,
}

/// Some stored events of an entity. Optional columns are empty or as long as `items`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoredEvents<'a> {
    /// Item rows.
    pub items: &'a [u32],
    /// Unix milliseconds, ascending.
    pub time: &'a [i64],
    /// Action codes.
    pub action: &'a [u16],
    /// Values; NaN is missing.
    pub value: &'a [f32],
}

impl Histories {
    /// Checks the sections against the numbers of entities and events.
    pub(super) fn open(snapshot: &Snapshot, schema: &Schema, entities: usize, events: usize) -> Result<Self> {
        let stored = snapshot.has(sections::HISTORY_OFFSETS);
        if !stored {
            return match events {
                0 => Ok(Self::default()),
                _ => Err(err!(Corrupt, "section history.offsets is missing for {events} events; publish again")),
            };
        }
        let offsets = snapshot.u64s(sections::HISTORY_OFFSETS)?.len();
        expect_length(sections::HISTORY_OFFSETS, offsets, entities.saturating_add(1))?;
        expect_length(sections::HISTORY_ITEMS, snapshot.u32s(sections::HISTORY_ITEMS)?.len(), events)?;
        let (time, action, value) = (schema.has_time, !schema.actions.is_empty(), schema.value.is_some());
        if time {
            expect_length(sections::HISTORY_TIME, snapshot.i64s(sections::HISTORY_TIME)?.len(), events)?;
        }
        if action {
            expect_length(sections::HISTORY_ACTION, snapshot.u16s(sections::HISTORY_ACTION)?.len(), events)?;
        }
        if value {
            expect_length(sections::HISTORY_VALUE, snapshot.f32s(sections::HISTORY_VALUE)?.len(), events)?;
        }
        let mut fields = Vec::with_capacity(schema.event_fields.len());
        for i in 0..schema.event_fields.len() {
            let name = format!("{}.{i}", sections::HISTORY_FIELD);
            let present = snapshot.has(&name);
            if present {
                expect_length(&name, snapshot.u32s(&name)?.len(), events)?;
            }
            fields.push(present.then_some(name));
        }
        Ok(Self { stored, time, action, value, fields })
    }

    /// Where an entity's events lie.
    pub(super) fn range(&self, snapshot: &Snapshot, entity: u32) -> Result<Range<usize>> {
        if !self.stored {
            return Ok(0..0);
        }
        let offsets = snapshot.u64s(sections::HISTORY_OFFSETS)?;
        let events = snapshot.u32s(sections::HISTORY_ITEMS)?.len();
        let at = |row: usize| offsets.get(row).and_then(|o| usize::try_from(*o).ok());
        match (at(entity as usize), at(entity as usize + 1)) {
            (Some(start), Some(end)) if start <= end && end <= events => Ok(start..end),
            _ => {
                Err(err!(Corrupt, "history.offsets is damaged at entity row {entity}; verify the store and roll back"))
            }
        }
    }

    /// The events of `range`, without their fields.
    pub(super) fn events<'a>(&self, snapshot: &'a Snapshot, range: Range<usize>) -> Result<StoredEvents<'a>> {
        fn part<'a, T>(column: Result<&'a [T]>, range: &Range<usize>) -> Result<&'a [T]> {
            Ok(column?.get(range.clone()).unwrap_or_default())
        }
        let mut events = StoredEvents::default();
        if self.stored {
            events.items = part(snapshot.u32s(sections::HISTORY_ITEMS), &range)?;
        }
        if self.time {
            events.time = part(snapshot.i64s(sections::HISTORY_TIME), &range)?;
        }
        if self.action {
            events.action = part(snapshot.u16s(sections::HISTORY_ACTION), &range)?;
        }
        if self.value {
            events.value = part(snapshot.f32s(sections::HISTORY_VALUE), &range)?;
        }
        Ok(events)
    }

    /// The codes of event field `index` in the events of `range`; empty where they are not stored.
    pub(super) fn field<'a>(&self, snapshot: &'a Snapshot, index: usize, range: Range<usize>) -> Result<&'a [u32]> {
        match self.fields.get(index) {
            Some(Some(name)) => Ok(snapshot.u32s(name)?.get(range).unwrap_or_default()),
            _ => Ok(&[]),
        }
    }
}
