//! From described files to rows of the builder: item table, entity table, events.

use super::Dataset;
use super::builder::{BuildOptions, DatasetBuilder, EventRow, ItemRow};
use super::describe::{
    ColumnRef, Description, EntitiesTable, EventsTable, IdMapTable, ItemFormat, ItemsTable, LabelRole, Layout, TimeRole,
};
use super::moment::{Condition, Moment, TimeFormat};
use super::rows::Record;
use super::source::{self, Entries, Source};
use super::table::{Columns, Fault, Faults, Fields, Holds, Reading, Reason, Taken, Wanted};
use crate::error::{Error, ErrorKind, Result, err};
use crate::event::{Cell, Event};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::BufReader;
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
    for message in reading.faults.warnings() {
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
fn refused(result: Result<()>) -> Result<Taken<()>> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(e) if e.kind() == ErrorKind::InvalidData => Ok(Err(e.message().to_owned().into())),
        Err(e) => Err(e),
    }
}

/// The outcome of a row that was read and offered to the builder.
fn offered(row: Taken<Result<()>>) -> Result<Taken<()>> {
    match row {
        Ok(pushed) => refused(pushed),
        Err(fault) => Ok(Err(fault)),
    }
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
                let text = columns.text(record, which).trim();
                let unknown = text.parse::<f64>().is_ok_and(f64::is_nan);
                if unknown || text.is_empty() || missing.iter().any(|m| m == text) {
                    return Ok(None);
                }
                let holds = |condition: &Condition| condition.holds(text).map_err(|r| columns.fault(which, r));
                Ok(if holds(positive)? { Some(1.0) } else { negative.as_ref().map_or(Ok(true), holds)?.then_some(0.0) })
            }
        }
    }
}

/// The column and form of a time.
fn timed(wanted: &mut Wanted, of: &str, role: &TimeRole, default: &'static str) -> Result<(usize, TimeFormat)> {
    let (column, format) = role.parts(default);
    let format = TimeFormat::parse(format).map_err(|e| err!(InvalidConfig, "{of}: {}", e.message()))?;
    Ok((wanted.add(column, Holds::Time(format.clone())), format))
}

fn events(reading: &mut Reading<'_>, table: &EventsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let format = table.format();
    let mut wanted = Wanted::default();
    let entity = wanted.add_some(table.entity.as_ref(), Holds::Id).unwrap_or(0);
    let item = wanted.add_some(table.item.as_ref(), Holds::Id).unwrap_or(0);
    let time = table.time.as_ref().map(|role| timed(&mut wanted, "[events] time", role, "s")).transpose()?;
    let order = wanted.add_some(table.order.as_ref(), Holds::Number);
    let action = wanted.add_some(table.action.as_ref(), Holds::Text);
    let value = wanted.add_some(table.value.as_ref(), Holds::Number);
    let label = match &table.label {
        None => None,
        Some(LabelRole::Column(column)) => Some((wanted.add(column, Holds::Number), Label::Number)),
        Some(LabelRole::Table(table)) => {
            let condition = |text: &String| {
                Condition::parse(text).map_err(|e| err!(InvalidConfig, "[events] label: {}", e.message()))
            };
            let (positive, negative) =
                (condition(&table.positive)?, table.negative.as_ref().map(condition).transpose()?);
            Some((wanted.add(&table.column, Holds::Text), Label::Conditions { positive, negative }))
        }
    };
    let fields = Fields::new(table.sources()?.into_iter().map(|(source, _)| source).collect(), &mut wanted);
    let missing = format.missing.clone();
    let (mut first, mut last) = (i64::MAX, i64::MIN);

    let mut row = |record: &Record, columns: &Columns| -> Taken<Result<()>> {
        let number = |which: Option<usize>| match which {
            Some(which) => columns.number(record, which, &missing),
            None => Ok(None),
        };
        let (entity, item) = (columns.id(record, entity, &missing)?, columns.id(record, item, &missing)?);
        let at = match &time {
            Some((which, format)) => {
                let at = format.read(columns.text(record, *which)).map_err(|r| columns.fault(*which, r))?;
                Some(at.ok_or_else(|| columns.fault(*which, "it holds no time"))?)
            }
            None => None,
        };
        let order_number = number(order)?;
        if let (Some(which), None) = (order, order_number) {
            return Err(columns.fault(which, "it is empty").into());
        }
        let label = match &label {
            Some((which, label)) => label.read(columns, record, *which, &missing)?,
            None => None,
        };
        let values = fields.read(record, columns, &missing)?;
        let action = match action {
            Some(which) => match columns.text(record, which) {
                text if text.is_empty() || missing.iter().any(|m| m == text) => {
                    return Err(columns.fault(which, "it is empty").into());
                }
                text => Some(text),
            },
            None => None,
        };
        let value = number(value)?.map(|x| x as f32);
        let Moment { millis, nanos } = at.unwrap_or_default();
        let event = Event { item, time: at.map(|_| millis), action, value, fields: &fields.named(&values) };
        let pushed = builder.push_event_at(&EventRow { entity, event, order: order_number, label }, nanos);
        if pushed.is_ok() {
            (first, last) = (first.min(millis), last.max(millis));
        }
        Ok(pushed)
    };
    reading.each_row("events", &format, &wanted, &mut |record, columns, _| offered(row(record, columns)))?;
    if let Some(doubt) = time.and_then(|(_, format)| format.doubt(first, last)) {
        reading.observer.on_event(&ProgressEvent::Warning(format!("[events] {doubt}")));
    }
    Ok(())
}

fn sequences(reading: &mut Reading<'_>, table: &EventsTable, builder: &mut DatasetBuilder) -> Result<()> {
    let mut format = table.format();
    format.header = Some(format.header.unwrap_or(false));
    // Only the entity's column is sure to be there.
    let mut wanted = Wanted::default();
    wanted.varied = true;
    let entity = wanted.add(&ColumnRef::Number(1), Holds::Id);
    let missing = format.missing.clone();
    let mut rows = 0u64;
    let mut entities = HashSet::new();
    reading.each_row("events", &format, &wanted, &mut |record, columns, _| {
        let entity = match columns.id(record, entity, &missing) {
            Ok(entity) => entity,
            Err(fault) => return Ok(Err(fault)),
        };
        let empty = record.columns().position(str::is_empty);
        if let Some(at) = empty {
            return Ok(Err(format!("column {}: it is empty", at + 1).into()));
        }
        if record.len() < 2 {
            return Ok(Err("it names an entity and no item; is the `delimiter` right?".to_owned().into()));
        }
        rows += 1;
        if !entities.contains(entity) {
            entities.insert(entity.to_owned());
        }
        let mut missed = false;
        for item in record.columns().skip(1) {
            if missing.iter().any(|m| m == item) {
                missed = true;
                continue;
            }
            if let Err(fault) = refused(builder.push_event(&EventRow::new(entity, Event::item(item))))? {
                return Ok(Err(fault));
            }
        }
        Ok(if missed { Err(Fault::WithoutId) } else { Ok(()) })
    })?;
    let again = rows - entities.len() as u64;
    if again > 0 {
        let message = format!(
            "{again} of the {rows} rows of [events] begin with an entity of an earlier row; their items were added to its \
             history: is the first column the entity?"
        );
        reading.observer.on_event(&ProgressEvent::Warning(message));
    }
    Ok(())
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
    let mut wanted = Wanted::default();
    let id = wanted.add_some(table.id.as_ref(), Holds::Id).unwrap_or(0);
    let title = wanted.add_some(table.title.as_ref(), Holds::Text);
    let released =
        table.released.as_ref().map(|role| timed(&mut wanted, "[items] released", role, "iso")).transpose()?;
    let fields = Fields::new(table.sources()?, &mut wanted);
    let missing = format.missing.clone();
    let mut seen = Seen::default();
    let mut row = |record: &Record, columns: &Columns, path: &Path| -> Taken<Result<()>> {
        let own = columns.id(record, id, &missing)?;
        let Some(name) = translate(map.as_ref(), own) else { return Ok(Ok(())) };
        let millis = match &released {
            Some((which, format)) => match columns.text(record, *which) {
                "" => None,
                text if missing.iter().any(|m| m == text) => None,
                text => format.read(text).map_err(|r| columns.fault(*which, r))?.map(|at| at.millis),
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
    reading.each_row("items", &format, &wanted, &mut |record, columns, path| offered(row(record, columns, path)))
}

fn entities(reading: &mut Reading<'_>, table: &EntitiesTable, builder: &mut DatasetBuilder) -> Result<()> {
    let map = table.id_map.as_ref().map(|map| id_map(reading, "entities.id_map", map)).transpose()?;
    let format = table.format();
    let mut wanted = Wanted::default();
    let id = wanted.add(&table.id, Holds::Id);
    let fields = Fields::new(table.sources()?, &mut wanted);
    let missing = format.missing.clone();
    let mut seen = Seen::default();
    let mut row = |record: &Record, columns: &Columns, path: &Path| -> Taken<Result<()>> {
        let own = columns.id(record, id, &missing)?;
        let Some(name) = translate(map.as_ref(), own) else { return Ok(Ok(())) };
        let values = fields.read(record, columns, &missing)?;
        if !seen.note("entity", own, path, record)? {
            return Ok(Ok(()));
        }
        Ok(builder.push_entity(name, &fields.named(&values)))
    };
    reading.each_row("entities", &format, &wanted, &mut |record, columns, path| offered(row(record, columns, path)))
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
    let format = table.format();
    let mut wanted = Wanted::default();
    let (from, to) = (wanted.add(&table.from, Holds::Id), wanted.add(&table.to, Holds::Id));
    reading.each_row(name, &format, &wanted, &mut |record, columns, _| {
        let id = |which| columns.id(record, which, &format.missing);
        let (from, to) = match (id(from), id(to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(fault)),
        };
        Ok(match map.entry(from.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(to.to_owned());
                Ok(())
            }
            Entry::Occupied(entry) if entry.get() == to => Ok(()),
            Entry::Occupied(entry) => {
                Err(format!("`{from}` already maps to `{}`; remove one of the two", entry.get()).into())
            }
        })
    })?;
    Ok(map)
}

/// Reads a JSON object from id to a list of texts or numbers, and passes on each entry in the order of the file: none waits for the others.
struct JsonLists<F> {
    entry: F,
    /// What an entry was refused with.
    refused: Option<Error>,
}

impl<'de, F: FnMut(&str, &[&str]) -> Result<()>> serde::de::Visitor<'de> for &mut JsonLists<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object from item id to a list of texts or numbers")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some((id, list)) = map.next_entry::<String, Vec<Scalar>>()? {
            let list: Vec<String> = list.into_iter().map(Scalar::text).collect();
            let texts: Vec<&str> = list.iter().map(String::as_str).collect();
            if let Err(e) = (self.entry)(&id, &texts) {
                self.refused = Some(e);
                return Err(serde::de::Error::custom("an entry was refused"));
            }
        }
        Ok(())
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
        let source = Source::open(&path, format.encoding.as_deref())?;
        reading.stage(&path, source.size);
        reading.go_on(&path)?;
        let (size, compressed) = (source.size, source.is_compressed());
        let mut text = BufReader::new(Entries::new(source.reader));
        let entry = |id: &str, texts: &[&str]| {
            let Some(id) = translate(map.as_ref(), id) else { return Ok(()) };
            let row = ItemRow { id, fields: &[(field, Cell::Texts(texts))], ..ItemRow::default() };
            match refused(builder.push_item(&row))? {
                Ok(()) => Ok(()),
                Err(fault) => reading.faults.add(&path, 1, &fault),
            }
        };
        let mut lists = JsonLists { entry, refused: None };
        let mut json = serde_json::Deserializer::from_reader(&mut text);
        let read = serde::Deserializer::deserialize_map(&mut json, &mut lists).and_then(|()| json.end());
        if let Some(e) = lists.refused {
            return Err(e);
        }
        read.map_err(|e| match e.is_io() {
            true => source::failed(&path, compressed, e.into()),
            false if text.get_ref().is_blank() => err!(InvalidData, "{} is empty; check the file", path.display()),
            false => err!(InvalidData, "{}: {e}; correct the file", path.display()),
        })?;
        reading.observer.on_event(&ProgressEvent::Advance { done: size });
    }
    Ok(())
}
