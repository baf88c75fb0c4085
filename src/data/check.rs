//! The invariants of a [`Dataset`]: whatever the rest of the crate takes for granted about it.

use super::{Column, Dataset};
use crate::error::{Result, err};
use crate::schema::FieldKind;

impl Dataset {
    /// Checks every invariant that the rest of the crate relies on: lengths, ranges, order. Builders call it last.
    ///
    /// # Errors
    /// `InvalidData` naming the column that breaks one.
    pub fn check(&self) -> Result<()> {
        check(self)
    }
}

fn check(data: &Dataset) -> Result<()> {
    let (entities, items, events) = (data.entities.len(), data.items.len(), data.events.len());
    let e = &data.events;
    offsets(data)?;
    length("events.item", events, events, items as u64, e.item.iter().map(|&i| u64::from(i)))?;
    time(data)?;
    let actions = &data.schema.actions;
    let expected = if actions.is_empty() { 0 } else { events };
    length("events.action", e.action.len(), expected, actions.len() as u64, e.action.iter().map(|&a| u64::from(a)))?;
    match &data.schema.value {
        Some(kind @ FieldKind::Numeric(_)) => column_matches("events.value", kind, &e.value, events)?,
        Some(other) => return Err(broken("schema.value", &format!("is {other:?}, not numeric"))),
        None => count("events.value", e.value.len(), 0)?,
    }
    count("events.label", e.label.len(), if data.schema.has_label { events } else { 0 })?;
    finite("events.label", &e.label)?;
    count("events.fields", e.fields.len(), data.schema.event_fields.len())?;
    for (field, values) in data.schema.event_fields.iter().zip(&e.fields) {
        let name = format!("event field `{}`", field.field.name);
        if matches!(field.field.kind, FieldKind::MultiValued(_) | FieldKind::Vector(_)) {
            return Err(broken(&name, "is neither categorical nor numeric"));
        }
        column(&name, &field.field.kind, values, events)?;
    }
    for (what, len) in [("titles", data.titles.len()), ("released", data.released.len())] {
        if len != 0 {
            count(what, len, items)?;
        }
    }
    let (item_fields, entity_fields) = (&data.schema.item_fields, &data.schema.entity_fields);
    for (of, fields, columns, rows) in
        [("item", item_fields, &data.item_columns, items), ("entity", entity_fields, &data.entity_columns, entities)]
    {
        count(&format!("{of}_columns"), columns.len(), fields.len())?;
        for (field, values) in fields.iter().zip(columns) {
            column(&format!("{of} field `{}`", field.name), &field.kind, values, rows)?;
        }
    }
    Ok(())
}

fn broken(what: &str, why: &str) -> crate::Error {
    err!(InvalidData, "{what} {why}; build the dataset through `DatasetBuilder`, which keeps it in order")
}

fn offsets(data: &Dataset) -> Result<()> {
    let (offsets, events) = (&data.events.offsets, data.events.len() as u64);
    if data.entities.is_empty() && offsets.is_empty() && events == 0 {
        return Ok(());
    }
    count("events.offsets", offsets.len(), data.entities.len() + 1)?;
    let ends = (offsets.first().copied(), offsets.last().copied());
    if ends != (Some(0), Some(events)) || !offsets.is_sorted() {
        return Err(broken("events.offsets", &format!("do not rise from 0 to the {events} events")));
    }
    Ok(())
}

fn time(data: &Dataset) -> Result<()> {
    let time = &data.events.time;
    count("events.time", time.len(), if data.schema.has_time { data.events.len() } else { 0 })?;
    if time.is_empty() {
        return Ok(());
    }
    for (u, id) in data.entities.names().iter().enumerate() {
        if !time.get(data.range(u as u32)).unwrap_or(&[]).is_sorted() {
            return Err(broken("events.time", &format!("runs backwards within entity `{id}`")));
        }
    }
    Ok(())
}

fn count(what: &str, len: usize, expected: usize) -> Result<()> {
    if len == expected {
        return Ok(());
    }
    Err(broken(what, &format!("has {len} entries where {expected} are expected")))
}

fn finite(what: &str, numbers: &[f32]) -> Result<()> {
    match numbers.iter().position(|x| x.is_infinite()) {
        Some(at) => Err(broken(what, &format!("is infinite at {at}"))),
        None => Ok(()),
    }
}

/// `len` codes of which each is below `codes`.
fn length(what: &str, len: usize, expected: usize, codes: u64, mut values: impl Iterator<Item = u64>) -> Result<()> {
    count(what, len, expected)?;
    match values.position(|code| code >= codes) {
        Some(at) => Err(broken(what, &format!("has a code at {at} that is not below {codes}"))),
        None => Ok(()),
    }
}

fn column_matches(what: &str, kind: &FieldKind, numbers: &[f32], rows: usize) -> Result<()> {
    count(what, numbers.len(), rows)?;
    finite(what, numbers)?;
    if let FieldKind::Numeric(bounds) = kind
        && !(bounds.iter().all(|b| b.is_finite()) && bounds.is_sorted_by(|a, b| a < b))
    {
        return Err(broken(what, "has bucket bounds that do not rise"));
    }
    Ok(())
}

fn column(what: &str, kind: &FieldKind, column: &Column, rows: usize) -> Result<()> {
    match (kind, column) {
        (FieldKind::Categorical(_), Column::Codes(codes)) => {
            length(what, codes.len(), rows, kind.codes() as u64, codes.iter().map(|&c| u64::from(c)))
        }
        (FieldKind::MultiValued(_), Column::Lists { offsets, codes }) => {
            count(what, offsets.len(), rows + 1)?;
            let ends = (offsets.first().copied(), offsets.last().map(|&o| o as usize));
            if ends != (Some(0), Some(codes.len())) || !offsets.is_sorted() {
                return Err(broken(what, &format!("has offsets that do not rise from 0 to {}", codes.len())));
            }
            if codes.contains(&0) {
                return Err(broken(what, "lists the code 0"));
            }
            length(what, codes.len(), codes.len(), kind.codes() as u64, codes.iter().map(|&c| u64::from(c)))
        }
        (FieldKind::Numeric(_), Column::Numbers(numbers)) => column_matches(what, kind, numbers, rows),
        (FieldKind::Vector(declared), Column::Vectors { dim, values }) => {
            if dim != declared {
                return Err(broken(what, &format!("has vectors of {dim} numbers where {declared} are declared")));
            }
            count(what, values.len(), rows.saturating_mul(*dim as usize))?;
            match values.iter().position(|x| !x.is_finite()) {
                Some(at) => Err(broken(what, &format!("is not finite at {at}"))),
                None => Ok(()),
            }
        }
        _ => Err(broken(what, "has a column of another kind than its declaration")),
    }
}
