//! From described files to rows of the builder: item table, entity table, events.

use super::Dataset;
use super::builder::{BuildOptions, DatasetBuilder, EventRow, ItemRow};
use super::describe::{
    ColumnRef, Description, EntitiesTable, EventsTable, IdMapTable, ItemFormat, ItemsTable, LabelRole, Layout,
};
use super::moment::{Condition, TimeFormat};
use super::rows::Record;
use super::source::{self, Source};
use super::table::{Columns, Faults, Fields, Reading, Reason};
use crate::error::{ErrorKind, Result, err};
use crate::event::{Cell, Event};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) fn read(
    description: &Description,
    base: &Path,
    options: BuildOptions,
    observer: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Dataset> {
    let mut builder = DatasetBuilder::new(description.declaration()?, options)?;
    let faults = Faults::new(description.tolerance);
    let mut reading = Reading { base, observer, cancel, faults };
    if let Some(table) = &description.items {
        match table.format {
            ItemFormat::Rows => items(&mut reading, table, &mut builder)?,
            ItemFormat::JsonLists => json_lists(&mut reading, table, &mut builder)?,
        }
    }
    if let Some(table) = &description.entities {
        entities(&mut reading, table, &mut builder)?;
    }
    match description.events.layout {
        Layout::Rows => events(&mut reading, &description.events, &mut builder)?,
        Layout::Sequence => sequences(&mut reading, &description.events, &mut builder)?,
    }
    if reading.faults.count > 0 {
        let message = format!("{} malformed rows were left out: {}", reading.faults.count, reading.faults.shown());
        reading.observer.on_event(&ProgressEvent::Warning(message));
    }
    for (of, file, (unknown, named)) in [
        ("items", "[items]", description.items.as_ref().map_or((0, 0), |_| builder.items_without_row())),
        ("entities", "[entities]", description.entities.as_ref().map_or((0, 0), |_| builder.entities_without_row())),
    ] {
        if unknown > 0 {
            let hint = if unknown == named { "; do both files use the same ids? (`id_map` translates)" } else { "" };
            let message = format!("{unknown} of the {named} {of} in the events are not in the files of {file}{hint}");
            reading.observer.on_event(&ProgressEvent::Warning(message));
        }
    }
    builder.build()
}

/// A builder's refusal of a row is a fault of that row; anything else ends the reading.
fn refused(result: Result<()>) -> Result<std::result::Result<(), Reason>> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(e) if e.kind() == ErrorKind::InvalidData => Ok(Err(e.message().to_owned())),
        Err(e) => Err(e),
    }
}

/// The optional columns of a table: which of the wanted ones each is.
fn want(wanted: &mut Vec<ColumnRef>, column: Option<&ColumnRef>) -> Option<usize> {
    wanted.push(column?.clone());
    Some(wanted.len() - 1)
}

enum Label {
    Number,
    Conditions { positive: Condition, negative: Option<Condition> },
}

impl Label {
    fn read(
        &self,
        columns: &Columns,
        record: &Record,
        which: usize,
        missing: &[String],
    ) -> std::result::Result<Option<f32>, Reason> {
        match self {
            Self::Number => Ok(columns.number(record, which, missing)?.map(|x| x as f32)),
            Self::Conditions { positive, negative } => {
                let text = columns.text(record, which);
                if text.is_empty() || missing.iter().any(|m| m == text) {
                    return Ok(None);
                }
                let holds = |condition: &Condition| condition.holds(text).map_err(|r| columns.fault(which, r));
                Ok(if holds(positive)? { Some(1.0) } else { negative.as_ref().map_or(Ok(true), holds)?.then_some(0.0) })
            }
        }
    }
}

fn events(reading: &mut Reading<'_>, table: &EventsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let format = table.format();
    let mut wanted = Vec::new();
    let entity = want(&mut wanted, table.entity.as_ref()).unwrap_or(0);
    let item = want(&mut wanted, table.item.as_ref()).unwrap_or(0);
    let time = match &table.time {
        Some(role) => {
            let (column, format) = role.parts("s");
            let format =
                TimeFormat::parse(format).map_err(|e| err!(InvalidConfig, "[events] time: {}", e.message()))?;
            want(&mut wanted, Some(column)).map(|which| (which, format))
        }
        None => None,
    };
    let order = want(&mut wanted, table.order.as_ref());
    let action = want(&mut wanted, table.action.as_ref());
    let value = want(&mut wanted, table.value.as_ref());
    let label = match &table.label {
        None => None,
        Some(LabelRole::Column(column)) => want(&mut wanted, Some(column)).map(|which| (which, Label::Number)),
        Some(LabelRole::Table(table)) => {
            let condition = |text: &String| {
                Condition::parse(text).map_err(|e| err!(InvalidConfig, "[events] label: {}", e.message()))
            };
            let (positive, negative) =
                (condition(&table.positive)?, table.negative.as_ref().map(condition).transpose()?);
            want(&mut wanted, Some(&table.column)).map(|which| (which, Label::Conditions { positive, negative }))
        }
    };
    let fields = Fields::new(table.sources()?.into_iter().map(|(source, _)| source).collect(), &mut wanted);
    let missing = format.missing.clone();

    let mut row = |record: &Record, columns: &Columns| -> std::result::Result<Result<()>, Reason> {
        let number = |which: Option<usize>| match which {
            Some(which) => columns.number(record, which, &missing),
            None => Ok(None),
        };
        let needed = |which: usize| match columns.text(record, which) {
            "" => Err(columns.fault(which, "it is empty")),
            text => Ok(text),
        };
        let (entity, item) = (needed(entity)?, needed(item)?);
        let time = match &time {
            Some((which, format)) => {
                let millis = format.read(columns.text(record, *which)).map_err(|r| columns.fault(*which, r))?;
                Some(millis.ok_or_else(|| columns.fault(*which, "it holds no time"))?)
            }
            None => None,
        };
        let order_number = number(order)?;
        if let (Some(which), None) = (order, order_number) {
            return Err(columns.fault(which, "it is empty"));
        }
        let label = match &label {
            Some((which, label)) => label.read(columns, record, *which, &missing)?,
            None => None,
        };
        let values = fields.read(record, columns, &missing)?;
        let action = action.map(needed).transpose()?;
        let value = number(value)?.map(|x| x as f32);
        let event = Event { item, time, action, value, fields: &fields.named(&values) };
        Ok(builder.push_event(&EventRow { entity, event, order: order_number, label }))
    };
    reading.each_row("events", &format, &wanted, &mut |record, columns, _| match row(record, columns) {
        Ok(pushed) => refused(pushed),
        Err(reason) => Ok(Err(reason)),
    })
}

fn sequences(reading: &mut Reading<'_>, table: &EventsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let mut format = table.format();
    format.header = Some(format.header.unwrap_or(false));
    // Only the entity's column is sure to be there.
    reading.each_row("events", &format, &[ColumnRef::Number(1)], &mut |record, columns, _| {
        let entity = columns.text(record, 0);
        if entity.is_empty() {
            return Ok(Err(columns.fault(0, "it is empty")));
        }
        let empty = record.columns().position(str::is_empty);
        if let Some(at) = empty {
            return Ok(Err(format!("column {}: it is empty", at + 1)));
        }
        if record.len() < 2 {
            return Ok(Err("it names an entity and no item; is the `delimiter` right?".to_owned()));
        }
        for item in record.columns().skip(1) {
            if let Err(reason) = refused(builder.push_event(&EventRow::new(entity, Event::item(item))))? {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    })
}

/// Where each record of a table was first seen, to tell repetitions from contradictions.
#[derive(Default)]
struct Seen {
    paths: Vec<PathBuf>,
    rows: HashMap<String, (usize, u64, u64)>,
}

impl Seen {
    /// `Ok(true)` for a new id, `Ok(false)` for an equal repetition.
    fn note(&mut self, of: &str, id: &str, path: &Path, record: &Record) -> std::result::Result<bool, Reason> {
        if self.paths.last().is_none_or(|p| p != path) {
            self.paths.push(path.to_owned());
        }
        let digest = record.digest();
        match self.rows.entry(id.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert((self.paths.len() - 1, record.line, digest));
                Ok(true)
            }
            Entry::Occupied(entry) => {
                let &(place, line, first) = entry.get();
                if first == digest {
                    return Ok(false);
                }
                let at = match self.paths.get(place) {
                    Some(p) if p != path => format!("{} line {line}", p.display()),
                    _ => format!("line {line}"),
                };
                Err(format!("{of} `{id}` was already described differently in {at}; remove one of the two"))
            }
        }
    }
}

fn items(reading: &mut Reading<'_>, table: &ItemsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let map = table.id_map.as_ref().map(|map| id_map(reading, "items.id_map", map)).transpose()?;
    let format = table.format();
    let mut wanted = Vec::new();
    let id = want(&mut wanted, table.id.as_ref()).unwrap_or(0);
    let title = want(&mut wanted, table.title.as_ref());
    let released = match &table.released {
        Some(role) => {
            let (column, format) = role.parts("iso");
            let format =
                TimeFormat::parse(format).map_err(|e| err!(InvalidConfig, "[items] released: {}", e.message()))?;
            want(&mut wanted, Some(column)).map(|which| (which, format))
        }
        None => None,
    };
    let fields = Fields::new(table.sources()?, &mut wanted);
    let missing = format.missing.clone();
    let mut seen = Seen::default();
    let mut row = |record: &Record, columns: &Columns, path: &Path| -> std::result::Result<Result<()>, Reason> {
        let own = columns.text(record, id);
        if own.is_empty() {
            return Err(columns.fault(id, "it is empty"));
        }
        let Some(name) = translate(map.as_ref(), own) else { return Ok(Ok(())) };
        let millis = match &released {
            Some((which, format)) => match columns.text(record, *which) {
                "" => None,
                text if missing.iter().any(|m| m == text) => None,
                text => format.read(text).map_err(|r| columns.fault(*which, r))?,
            },
            None => None,
        };
        let values = fields.read(record, columns, &missing)?;
        if !seen.note("item", own, path, record)? {
            return Ok(Ok(()));
        }
        let title = title.map(|which| columns.text(record, which));
        Ok(builder.push_item(&ItemRow { id: name, title, released: millis, fields: &fields.named(&values) }))
    };
    reading.each_row("items", &format, &wanted, &mut |record, columns, path| match row(record, columns, path) {
        Ok(pushed) => refused(pushed),
        Err(reason) => Ok(Err(reason)),
    })
}

fn entities(reading: &mut Reading<'_>, table: &EntitiesTable, builder: &mut DatasetBuilder) -> Result<()> {
    let map = table.id_map.as_ref().map(|map| id_map(reading, "entities.id_map", map)).transpose()?;
    let format = table.format();
    let mut wanted = vec![table.id.clone()];
    let fields = Fields::new(table.sources()?, &mut wanted);
    let missing = format.missing.clone();
    let mut seen = Seen::default();
    let mut row = |record: &Record, columns: &Columns, path: &Path| -> std::result::Result<Result<()>, Reason> {
        let own = columns.text(record, 0);
        if own.is_empty() {
            return Err(columns.fault(0, "it is empty"));
        }
        let Some(id) = translate(map.as_ref(), own) else { return Ok(Ok(())) };
        let values = fields.read(record, columns, &missing)?;
        if !seen.note("entity", own, path, record)? {
            return Ok(Ok(()));
        }
        Ok(builder.push_entity(id, &fields.named(&values)))
    };
    reading.each_row("entities", &format, &wanted, &mut |record, columns, path| match row(record, columns, path) {
        Ok(pushed) => refused(pushed),
        Err(reason) => Ok(Err(reason)),
    })
}

/// The id that the events use; `None` where the map has none.
fn translate<'a>(map: Option<&'a HashMap<String, String>>, id: &'a str) -> Option<&'a str> {
    match map {
        Some(map) => map.get(id).map(String::as_str),
        None => Some(id),
    }
}

fn id_map(reading: &mut Reading<'_>, name: &str, table: &IdMapTable) -> Result<HashMap<String, String>> {
    let mut map: HashMap<String, String> = HashMap::new();
    let wanted = [table.from.clone(), table.to.clone()];
    reading.each_row(name, &table.format(), &wanted, &mut |record, columns, _| {
        let (from, to) = (columns.text(record, 0), columns.text(record, 1));
        if from.is_empty() || to.is_empty() {
            return Ok(Err(columns.fault(usize::from(!from.is_empty()), "it is empty")));
        }
        Ok(match map.entry(from.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(to.to_owned());
                Ok(())
            }
            Entry::Occupied(entry) if entry.get() == to => Ok(()),
            Entry::Occupied(entry) => Err(format!("`{from}` already maps to `{}`; remove one of the two", entry.get())),
        })
    })?;
    Ok(map)
}

/// A JSON object from id to a list of texts or numbers, in the order of the file.
struct JsonLists(Vec<(String, Vec<String>)>);

impl<'de> serde::Deserialize<'de> for JsonLists {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Lists;
        impl<'de> serde::de::Visitor<'de> for Lists {
            type Value = JsonLists;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object from item id to a list of texts or numbers")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<JsonLists, A::Error> {
                let mut lists = Vec::new();
                while let Some((id, list)) = map.next_entry::<String, Vec<Scalar>>()? {
                    lists.push((id, list.into_iter().map(Scalar::text).collect()));
                }
                Ok(JsonLists(lists))
            }
        }
        deserializer.deserialize_map(Lists)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a text or a number")]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

fn json_lists(reading: &mut Reading<'_>, table: &ItemsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let map = table.id_map.as_ref().map(|map| id_map(reading, "items.id_map", map)).transpose()?;
    let format = table.format();
    let sources = table.sources()?;
    let field = sources.first().map_or("", |source| source.name.as_str());
    for path in reading.files("items", &format)? {
        let mut source = Source::open(&path, format.encoding.as_deref())?;
        reading.stage(&path, source.size);
        let mut bytes = Vec::new();
        source.reader.read_to_end(&mut bytes).map_err(|e| source::failed(&path, source.is_compressed(), e))?;
        reading.go_on(&path)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(err!(InvalidData, "{} is empty; check the file", path.display()));
        }
        let JsonLists(lists) = serde_json::from_slice(&bytes)
            .map_err(|e| err!(InvalidData, "{}: {e}; correct the file", path.display()))?;
        for (id, list) in &lists {
            let Some(id) = translate(map.as_ref(), id) else { continue };
            let texts: Vec<&str> = list.iter().map(String::as_str).collect();
            let row = ItemRow { id, fields: &[(field, Cell::Texts(&texts))], ..ItemRow::default() };
            if let Err(reason) = refused(builder.push_item(&row))? {
                reading.faults.add(&path, 1, &reason)?;
            }
        }
        reading.observer.on_event(&ProgressEvent::Advance { done: source.size });
    }
    Ok(())
}
