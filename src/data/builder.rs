//! Rows in, a dataset out: the one way in which datasets come to be, from files, from Rust or from another language.
//!
//! ```
//! use docent::Event;
//! use docent::data::{BuildOptions, DatasetBuilder, Declaration, EventRow};
//! # fn main() -> docent::Result<()> {
//! let mut builder = DatasetBuilder::new(Declaration::new("shop").with_time(), BuildOptions::default())?;
//! for (item, time) in [("lamp", 1_700_000_000_000), ("chair", 1_700_000_600_000)] {
//!     builder.push_event(&EventRow::new("ann", Event { time: Some(time), ..Event::item(item) }))?;
//! }
//! let data = builder.build()?;
//! assert_eq!(data.items.names(), ["lamp", "chair"]);
//! # Ok(())
//! # }
//! ```

use super::Vocabulary;
use super::column::{Kind, Limits, Pile};
use crate::error::{Error, Result, err};
use crate::event::{Cell, Event, FieldValue, TIMES};
use crate::schema::Timing;
use std::fmt;
use std::str::FromStr;

/// What rows will carry: declared once, before the first row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Declaration {
    /// The dataset's name.
    pub name: String,
    /// Whether events carry a time.
    pub time: bool,
    /// Whether events carry an order number, which sorts where there is no time and breaks ties where there is.
    pub order: bool,
    /// Whether events carry an action.
    pub action: bool,
    /// Whether events carry a value.
    pub value: bool,
    /// Whether events carry a label.
    pub label: bool,
    /// Whether items carry a title.
    pub title: bool,
    /// Whether items carry a release time.
    pub released: bool,
    /// Name, kind (categorical or numeric) and timing of each further field of events.
    pub event_fields: Vec<(String, Kind, Timing)>,
    /// Name and kind of each field of items.
    pub item_fields: Vec<(String, Kind)>,
    /// Name and kind of each field of entities.
    pub entity_fields: Vec<(String, Kind)>,
}

impl Declaration {
    /// Events of an entity and an item, in the order of the input, and nothing else.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The same with a time on every event.
    pub fn with_time(self) -> Self {
        Self { time: true, ..self }
    }

    fn check(&self) -> Result<()> {
        for (name, kind, _) in &self.event_fields {
            if !matches!(kind, Kind::Categorical | Kind::Numeric) {
                return Err(err!(
                    InvalidConfig,
                    "event field `{name}` is {kind}; fields of events are categorical or numeric"
                ));
            }
        }
        let events = self.event_fields.iter().map(|(name, kind, _)| (name, *kind)).collect();
        let items = self.item_fields.iter().map(|(name, kind)| (name, *kind)).collect();
        let entities = self.entity_fields.iter().map(|(name, kind)| (name, *kind)).collect();
        for (of, fields) in [("event", events), ("item", items), ("entity", entities)] {
            let mut names = std::collections::HashSet::new();
            let fields: Vec<(&String, Kind)> = fields;
            for (name, kind) in fields {
                if name.is_empty() {
                    return Err(err!(InvalidConfig, "an {of} field has an empty name; name it"));
                }
                if kind == Kind::Vector(0) {
                    return Err(err!(
                        InvalidConfig,
                        "{of} field `{name}` is a vector of no numbers; declare its length"
                    ));
                }
                if !names.insert(name) {
                    return Err(err!(InvalidConfig, "{of} field `{name}` is declared twice; rename one of them"));
                }
            }
        }
        Ok(())
    }
}

/// One event as a row of a dataset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventRow<'a> {
    /// The entity's id.
    pub entity: &'a str,
    /// What happened. Its time and action are needed exactly where they are declared; its fields are the declared ones, by name.
    pub event: Event<'a>,
    /// Place among the entity's events; needed exactly where the declaration has an order.
    pub order: Option<f64>,
    /// The label, where it is known; NaN is not known.
    pub label: Option<f32>,
}

impl<'a> EventRow<'a> {
    /// An event without order and label.
    pub fn new(entity: &'a str, event: Event<'a>) -> Self {
        Self { entity, event, order: None, label: None }
    }
}

/// What is known about one item.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ItemRow<'a> {
    /// The item's id.
    pub id: &'a str,
    /// Its title.
    pub title: Option<&'a str>,
    /// When it came out, Unix milliseconds.
    pub released: Option<i64>,
    /// Declared fields by name; fields left out are missing.
    pub fields: &'a [FieldValue<'a>],
}

/// What becomes of several events of one entity with one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Duplicates {
    /// All stay.
    #[default]
    KeepAll,
    /// The earliest stays.
    KeepFirst,
    /// The latest stays.
    KeepLast,
    /// `InvalidData`.
    Error,
}

impl fmt::Display for Duplicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAll => "keep-all",
            Self::KeepFirst => "keep-first",
            Self::KeepLast => "keep-last",
            Self::Error => "error",
        })
    }
}

impl FromStr for Duplicates {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::KeepAll, Self::KeepFirst, Self::KeepLast, Self::Error]
            .into_iter()
            .find(|d| d.to_string() == text)
            .ok_or_else(|| {
                err!(
                    InvalidConfig,
                    "`{text}` says nothing about duplicates; choose keep-all, keep-first, keep-last or error"
                )
            })
    }
}

/// Which rows are kept. Applied in this order: time range, duplicates, minimum counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Events before this Unix millisecond are dropped.
    pub from: Option<i64>,
    /// Events at or after this Unix millisecond are dropped.
    pub to: Option<i64>,
    /// What becomes of several events of one entity with one item.
    pub duplicates: Duplicates,
    /// Items with fewer events are dropped with their events.
    pub min_item_events: u64,
    /// Entities with fewer events are dropped with their events.
    pub min_entity_events: u64,
    /// Whether the minimum counts are applied again until nothing changes. Otherwise both count the same events once.
    pub iterate: bool,
    /// Whether items that were pushed stay although no kept event names them.
    pub keep_unused_items: bool,
}

/// How rows become a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// Which rows are kept.
    pub filter: EventFilter,
    /// How far vocabularies and buckets grow.
    pub limits: Limits,
}

/// The events pushed so far, column by column, in the order of the input.
#[derive(Debug, Default)]
pub(super) struct EventPile {
    pub(super) entity: Vec<u32>,
    pub(super) item: Vec<u32>,
    pub(super) time: Vec<i64>,
    /// Nanoseconds after `time`, for the order alone; empty where there are none.
    pub(super) nanos: Vec<u32>,
    pub(super) order: Vec<f64>,
    pub(super) action: Vec<u32>,
    pub(super) value: Vec<f32>,
    pub(super) label: Vec<f32>,
    pub(super) fields: FieldPiles,
}

/// The declared fields of events, items or entities: the name of each, and its values so far.
#[derive(Debug, Default)]
pub(super) struct FieldPiles(pub(super) Vec<(String, Pile)>);

impl FieldPiles {
    fn new<'a>(declared: impl Iterator<Item = (&'a String, Kind)>) -> Self {
        Self(declared.map(|(name, kind)| (name.clone(), Pile::new(kind))).collect())
    }

    /// Whether a row with these values may be added. Values in the order of declaration are found at once.
    fn accept(&self, of: &str, given: &[FieldValue<'_>]) -> Result<()> {
        let (mut next, mut reached) = (0, 0);
        for (at, (name, cell)) in given.iter().enumerate() {
            let Some((place, (_, pile))) = from(&self.0, next, |(declared, _)| declared == name) else {
                let declared: Vec<String> = self.0.iter().map(|(name, _)| format!("`{name}`")).collect();
                return Err(err!(
                    InvalidData,
                    "the {of} has a field `{name}`, declared are {}; declare it or correct its name",
                    if declared.is_empty() { "none".to_owned() } else { declared.join(", ") }
                ));
            };
            if place < reached && given.iter().take(at).any(|earlier| earlier.0 == *name) {
                return Err(err!(InvalidData, "the {of} gives its field `{name}` twice; remove one of the two"));
            }
            pile.accepts(name, cell)?;
            next = place + 1;
            reached = reached.max(next);
        }
        Ok(())
    }

    /// Adds a row that was accepted.
    fn push(&mut self, given: &[FieldValue<'_>]) {
        let mut next = 0;
        for (name, pile) in &mut self.0 {
            match from(given, next, |(given, _)| given == name) {
                Some((place, (_, cell))) => {
                    pile.push(cell);
                    next = place + 1;
                }
                None => pile.push(&Cell::Missing),
            }
        }
    }
}

/// The place and value of what `is` says, looked for at `next` first.
fn from<T>(values: &[T], next: usize, is: impl Fn(&T) -> bool) -> Option<(usize, &T)> {
    match values.get(next) {
        Some(value) if is(value) => Some((next, value)),
        _ => values.iter().enumerate().find(|(_, value)| is(value)),
    }
}

/// Items or entities pushed so far. `rows[i]` is the name row of the i-th one pushed.
#[derive(Debug, Default)]
pub(super) struct RecordPile {
    pub(super) rows: Vec<u32>,
    /// By name row: 1 + the place in `rows`, or 0.
    pub(super) place: Vec<u32>,
    pub(super) fields: FieldPiles,
}

impl RecordPile {
    pub(super) fn place(&self, name: u32) -> Option<u32> {
        self.place.get(name as usize).copied().unwrap_or(0).checked_sub(1)
    }

    fn add(&mut self, name: u32) {
        if self.place.len() <= name as usize {
            self.place.resize(name as usize + 1, 0);
        }
        self.rows.push(name);
        if let Some(place) = self.place.get_mut(name as usize) {
            *place = self.rows.len() as u32;
        }
    }
}

/// Collects rows, then builds the [`Dataset`](super::Dataset). A row that is refused leaves no trace.
#[derive(Debug)]
pub struct DatasetBuilder {
    pub(super) declaration: Declaration,
    pub(super) options: BuildOptions,
    pub(super) entity_names: Vocabulary,
    pub(super) item_names: Vocabulary,
    pub(super) actions: Vocabulary,
    pub(super) events: EventPile,
    pub(super) items: RecordPile,
    pub(super) titles: Vec<String>,
    pub(super) released: Vec<i64>,
    pub(super) entities: RecordPile,
}

impl DatasetBuilder {
    /// A builder without rows.
    ///
    /// # Errors
    /// `InvalidConfig` for a declaration or options that contradict themselves.
    pub fn new(declaration: Declaration, options: BuildOptions) -> Result<Self> {
        declaration.check()?;
        let EventFilter { from, to, .. } = options.filter;
        if (from.is_some() || to.is_some()) && !declaration.time {
            return Err(err!(InvalidConfig, "a time range is asked for, but events have no time; declare their time"));
        }
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(err!(InvalidConfig, "the time range ends ({to}) before it starts ({from}); swap its ends"));
        }
        if options.limits.buckets == 0 || options.limits.vocabulary == 0 {
            return Err(err!(InvalidConfig, "limits of 0 buckets or values keep nothing; ask for at least 1"));
        }
        let piles = |fields: &[(String, Kind)]| FieldPiles::new(fields.iter().map(|(name, kind)| (name, *kind)));
        Ok(Self {
            events: EventPile {
                fields: FieldPiles::new(declaration.event_fields.iter().map(|(name, kind, _)| (name, *kind))),
                ..EventPile::default()
            },
            items: RecordPile { fields: piles(&declaration.item_fields), ..RecordPile::default() },
            entities: RecordPile { fields: piles(&declaration.entity_fields), ..RecordPile::default() },
            declaration,
            options,
            entity_names: Vocabulary::default(),
            item_names: Vocabulary::default(),
            actions: Vocabulary::default(),
            titles: Vec::new(),
            released: Vec::new(),
        })
    }

    /// How many events were pushed.
    pub fn events(&self) -> usize {
        self.events.item.len()
    }

    /// Adds an event.
    ///
    /// # Errors
    /// `InvalidData` for an empty id, a missing or undeclared time, order or action, a time outside the years 0 to 9999, a number
    /// that is infinite, or fields that do not match the declaration.
    pub fn push_event(&mut self, row: &EventRow<'_>) -> Result<()> {
        self.push_event_at(row, 0)
    }

    /// Adds an event that happened so many nanoseconds after the millisecond of its time: they decide the order of events.
    pub(super) fn push_event_at(&mut self, row: &EventRow<'_>, nanos: u32) -> Result<()> {
        let EventRow { entity, event, order, label } = *row;
        if entity.is_empty() || event.item.is_empty() {
            let what = if entity.is_empty() { "entity" } else { "item" };
            return Err(err!(InvalidData, "the event's {what} id is empty"));
        }
        let order = order.filter(|order| !order.is_nan());
        let action = event.action.filter(|action| !action.is_empty());
        let declared = [
            ("time", self.declaration.time, event.time.is_some()),
            ("order", self.declaration.order, order.is_some()),
            ("action", self.declaration.action, action.is_some()),
        ];
        for (name, declared, given) in declared {
            if declared != given {
                let (is, remedy) = if declared { ("misses", "give it") } else { ("has", "declare it") };
                return Err(err!(InvalidData, "the event {is} a value for `{name}`; {remedy}"));
            }
        }
        event.time.map_or(Ok(()), |time| in_range("event", event.item, time))?;
        let (value, label) = (event.value.unwrap_or(f32::NAN), label.unwrap_or(f32::NAN));
        for (name, declared, number) in
            [("value", self.declaration.value, value), ("label", self.declaration.label, label)]
        {
            if number.is_infinite() {
                return Err(err!(InvalidData, "the event's {name} is infinite; it must be a number that 32 bits hold"));
            }
            if !declared && !number.is_nan() {
                return Err(err!(InvalidData, "the event has a value for `{name}`; declare it"));
            }
        }
        self.events.fields.accept("event", event.fields)?;
        if self.events.item.len() >= u32::MAX as usize {
            return Err(err!(InvalidData, "more than {} events; split the dataset by time or entity", u32::MAX));
        }
        if nanos != 0 || !self.events.nanos.is_empty() {
            self.events.nanos.resize(self.events.item.len(), 0);
            self.events.nanos.push(nanos);
        }
        self.events.entity.push(self.entity_names.intern(entity));
        self.events.item.push(self.item_names.intern(event.item));
        self.events.time.extend(event.time);
        self.events.order.extend(order);
        self.events.action.extend(action.map(|action| self.actions.intern(action) + 1));
        if self.declaration.value {
            self.events.value.push(value);
        }
        if self.declaration.label {
            self.events.label.push(label);
        }
        self.events.fields.push(event.fields);
        Ok(())
    }

    /// Adds what is known about an item. Items keep the order in which they are pushed.
    ///
    /// # Errors
    /// `InvalidData` for an empty id, an item pushed before, a release outside the years 0 to 9999, or anything that does not match
    /// the declaration.
    pub fn push_item(&mut self, row: &ItemRow<'_>) -> Result<()> {
        let taken = self.item_names.row(row.id).and_then(|name| self.items.place(name));
        new_record("item", row.id, taken)?;
        let title = row.title.unwrap_or_default();
        if (!self.declaration.title && !title.is_empty()) || (!self.declaration.released && row.released.is_some()) {
            return Err(err!(InvalidData, "item `{}` has a title or release time; declare it", row.id));
        }
        row.released.map_or(Ok(()), |time| in_range("item", row.id, time))?;
        self.items.fields.accept("item", row.fields)?;
        self.items.add(self.item_names.intern(row.id));
        if self.declaration.title {
            self.titles.push(title.to_owned());
        }
        if self.declaration.released {
            self.released.push(row.released.unwrap_or(i64::MIN));
        }
        self.items.fields.push(row.fields);
        Ok(())
    }

    /// Adds what is known about an entity: declared fields by name; fields left out are missing.
    ///
    /// # Errors
    /// `InvalidData` for an empty id, an entity pushed before, or fields that do not match the declaration.
    pub fn push_entity(&mut self, id: &str, fields: &[FieldValue<'_>]) -> Result<()> {
        let taken = self.entity_names.row(id).and_then(|name| self.entities.place(name));
        new_record("entity", id, taken)?;
        self.entities.fields.accept("entity", fields)?;
        self.entities.add(self.entity_names.intern(id));
        self.entities.fields.push(fields);
        Ok(())
    }

    /// Of the items that events name: how many have no row of their own, and how many there are.
    #[cfg(feature = "files")]
    pub(super) fn items_without_row(&self) -> (usize, usize) {
        without_row(&self.items, &self.events.item, self.item_names.len())
    }

    /// The same of entities.
    #[cfg(feature = "files")]
    pub(super) fn entities_without_row(&self) -> (usize, usize) {
        without_row(&self.entities, &self.events.entity, self.entity_names.len())
    }
}

/// Of the names that events use: how many have no row, and how many there are.
#[cfg(feature = "files")]
fn without_row(pile: &RecordPile, events: &[u32], names: usize) -> (usize, usize) {
    let mut used = vec![false; names];
    for &name in events {
        if let Some(used) = used.get_mut(name as usize) {
            *used = true;
        }
    }
    let named = used.iter().enumerate().filter(|(_, used)| **used).map(|(name, _)| name as u32);
    named.fold((0, 0), |(unknown, all), name| (unknown + usize::from(pile.place(name).is_none()), all + 1))
}

/// Whether a time is one that the whole crate takes.
fn in_range(of: &str, id: &str, time: i64) -> Result<()> {
    if TIMES.contains(&time) {
        return Ok(());
    }
    Err(err!(
        InvalidData,
        "the {of} `{id}` has the time {time}, which is outside the years 0 to 9999; give Unix milliseconds"
    ))
}

fn new_record(of: &str, id: &str, taken: Option<u32>) -> Result<()> {
    if id.is_empty() {
        return Err(err!(InvalidData, "the {of}'s id is empty"));
    }
    match taken {
        Some(_) => Err(err!(InvalidData, "{of} `{id}` is given twice; remove one of the two")),
        None => Ok(()),
    }
}
