//! Items that are added and removed while an engine serves: durable first, visible at once after that.

use super::current::Current;
use crate::error::{Result, err};
use crate::event::Cell;
use crate::generation::{AddedItem, FieldCode, Generation, Overlay, kind_name};
use crate::kernels::retrieve::finite;
use crate::model::{Standing, Value};
use crate::schema::FieldKind;
use crate::store::{LiveStore, StoredItem, StoredValue};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Milliseconds of a day, in which the item tower counts ages.
const DAY: f32 = 86_400_000.0;
/// Milliseconds between two looks at what other processes have changed.
const LOOK_EVERY: u64 = 250;
/// Longest id and title, in bytes.
const TEXT_CAP: usize = 64 << 10;

/// An item to be added. What is left out is not known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NewItem<'a> {
    /// Its id: none of the generation's, but it may have been added before.
    pub id: &'a str,
    /// Its title.
    pub title: Option<&'a str>,
    /// Its release, Unix milliseconds.
    pub released: Option<i64>,
    /// The time now, Unix milliseconds: the item's age is what lies between `released` and this, which is read by models that
    /// were trained with times. An item without a release is new.
    pub now: Option<i64>,
    /// Declared item fields by name. Values that the generation's vocabulary does not have count as missing until a
    /// generation comes that has them.
    pub fields: &'a [(&'a str, Cell<'a>)],
}

/// An item that was added while serving.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveItem {
    /// What was stored.
    pub item: StoredItem,
    /// Its row in the current generation; `None` where the generation has an item of that id itself, or no item tower.
    pub row: Option<u32>,
}

/// What an engine needs to add and remove items.
#[derive(Debug)]
pub(super) struct Live {
    store: Arc<LiveStore>,
    /// Held from writing to showing, so that both happen in one order.
    showing: Mutex<()>,
    /// [`LiveStore::item_changes`] as of what is shown.
    shown: AtomicU64,
    /// When it was last looked whether another process changed something, in milliseconds since `begun`.
    looked: AtomicU64,
    begun: Instant,
}

impl Live {
    pub(super) fn new(store: Arc<LiveStore>) -> Self {
        let (shown, looked) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { store, showing: Mutex::new(()), shown, looked, begun: Instant::now() }
    }

    /// `generation` with everything that is stored, handed to `show` while nothing else is added or removed.
    pub(super) fn show<T>(&self, generation: Generation, show: impl FnOnce(Generation) -> T) -> Result<T> {
        self.store.ours()?;
        let _in_order = self.showing.lock();
        let generation = self.replayed(&generation)?;
        Ok(show(generation))
    }

    /// Shows what other processes have added and removed, once in [`LOOK_EVERY`]. What cannot be read now is read the next time: a request does not
    /// fail because of it.
    pub(super) fn look(&self, current: &Current) {
        let (now, before) = (self.begun.elapsed().as_millis() as u64, self.looked.load(Ordering::Relaxed));
        let due = now.saturating_sub(before) >= LOOK_EVERY
            && self.looked.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !due || self.store.item_changes().ok().is_none_or(|changes| changes == self.shown.load(Ordering::Relaxed)) {
            return;
        }
        // Whoever adds or removes something shows what others did before it, too: no request waits for that.
        let Some(_in_order) = self.showing.try_lock() else { return };
        let is_other = self.store.item_changes().is_ok_and(|changes| changes != self.shown.load(Ordering::Relaxed));
        if is_other && let Ok(generation) = self.replayed(&current.get()) {
            current.show(generation);
        }
    }

    /// Shows `generation` with the overlay that has a change of ours, whose number is `changes`; where others made some before it, those, too.
    fn show_ours(&self, current: &Current, generation: &Generation, overlay: Overlay, changes: u64) {
        let before = changes.saturating_sub(1);
        let alone = self.shown.compare_exchange(before, changes, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        // What cannot be read now is read when it is looked at next.
        let all = if alone { None } else { self.replayed(generation).ok() };
        current.show(all.unwrap_or_else(|| generation.with_overlay(overlay)));
    }

    fn replayed(&self, generation: &Generation) -> Result<Generation> {
        let stored = self.store.items()?;
        let mut overlay = Overlay::new(generation.published_items(), generation.width());
        if generation.inference().tower().is_some() {
            for item in &stored.added {
                if generation.find_published(&item.id)?.is_none() {
                    let (added, vector) = materialize(generation, item)?;
                    overlay.add(added, &vector);
                }
            }
        }
        for id in &stored.removed {
            if let Some(row) = generation.find_published(id)? {
                overlay.remove(row);
            }
        }
        self.shown.store(stored.changes, Ordering::Relaxed);
        Ok(generation.with_overlay(overlay))
    }

    /// As [`super::Engine::add_item`].
    pub(super) fn add(&self, current: &Current, item: &NewItem<'_>) -> Result<()> {
        self.store.ours()?;
        let _in_order = self.showing.lock();
        let generation = current.get();
        let stored = to_store(&generation, item)?;
        let published = generation.find_published(item.id)?;
        if published.is_some_and(|row| !generation.is_removed(row)) {
            let (id, generation) = (item.id, generation.id());
            return Err(err!(
                AlreadyExists,
                "item {id:?} is in generation {generation}, which knows it from events; remove it first, or leave it"
            ));
        }
        if generation.items() >= (u32::MAX - 1) as usize {
            return Err(err!(InvalidArgument, "there are {} items, the most that fit", generation.items()));
        }
        let mut overlay = generation.overlay().clone();
        match published {
            Some(row) => overlay.restore(row),
            None => {
                let (added, vector) = materialize(&generation, &stored)?;
                overlay.add(added, &vector);
            }
        }
        let changes = self.store.add_item(&stored)?.changes;
        self.show_ours(current, &generation, overlay, changes);
        Ok(())
    }

    /// As [`super::Engine::remove_item`].
    pub(super) fn remove(&self, current: &Current, id: &str) -> Result<bool> {
        self.store.ours()?;
        let _in_order = self.showing.lock();
        let generation = current.get();
        let row = generation.find_item(id)?;
        if row.is_none() && !self.store.is_removed(id)? {
            // The error of a row that is not found, unless the item is stored for another generation.
            if !self.store.is_added(id)? {
                generation.item_row(id)?;
            }
        }
        let (was_there, changes) = self.store.remove_item(id)?;
        let mut overlay = generation.overlay().clone();
        if let Some(row) = row {
            overlay.remove(row);
            overlay.trim();
        }
        self.show_ours(current, &generation, overlay, changes);
        Ok(was_there)
    }

    /// As [`super::Engine::added_items`].
    pub(super) fn added(&self, current: &Current) -> Result<Vec<LiveItem>> {
        let (stored, generation) = {
            let _in_order = self.showing.lock();
            (self.store.items()?, current.get())
        };
        let found = |item: StoredItem| {
            let own = generation.find_published(&item.id)?.is_some();
            let row = generation.find_item(&item.id)?.filter(|_| !own);
            Ok(LiveItem { item, row })
        };
        stored.added.into_iter().map(found).collect()
    }

    /// As [`super::Engine::removed_items`].
    pub(super) fn removed(&self) -> Result<Vec<String>> {
        Ok(self.store.items()?.removed)
    }
}

/// Checks an item against the schema and gives what is stored of it.
fn to_store(generation: &Generation, item: &NewItem<'_>) -> Result<StoredItem> {
    let length = |what: &str, text: &str| match text.len() {
        0..=TEXT_CAP => Ok(()),
        n => Err(err!(InvalidArgument, "the item's {what} has {n} bytes; {TEXT_CAP} are the most")),
    };
    if item.id.is_empty() {
        return Err(err!(InvalidArgument, "the item's id is empty; name it"));
    }
    length("id", item.id)?;
    length("title", item.title.unwrap_or_default())?;
    let mut fields: Vec<(String, StoredValue)> = Vec::with_capacity(item.fields.len());
    for (name, cell) in item.fields {
        let (_, kind) = generation.codes().item_field(name)?;
        if fields.iter().any(|(other, _)| other == name) {
            return Err(err!(InvalidArgument, "item field {name:?} is given twice; leave one out"));
        }
        let texts = |texts: &[&str]| texts.iter().filter(|t| !t.is_empty()).map(|t| (*t).to_owned()).collect();
        let value = match (kind, *cell) {
            (_, Cell::Missing) => continue,
            (FieldKind::Categorical(_), Cell::Text("")) => continue,
            (FieldKind::Categorical(_), Cell::Text(text)) => StoredValue::Text(text.to_owned()),
            (FieldKind::MultiValued(_), Cell::Text(text)) => StoredValue::Texts(texts(&[text])),
            (FieldKind::MultiValued(_), Cell::Texts(all)) => StoredValue::Texts(texts(all)),
            (FieldKind::Numeric(_), Cell::Number(x)) if x.is_nan() => continue,
            (FieldKind::Numeric(_), Cell::Number(x)) if x.is_finite() => StoredValue::Number(x),
            (FieldKind::Vector(dim), Cell::Vector(v)) if v.len() == *dim as usize && finite(v) => {
                StoredValue::Vector(v.to_vec())
            }
            (kind, cell) => {
                let takes = match kind {
                    FieldKind::Categorical(_) => "a text".to_owned(),
                    FieldKind::MultiValued(_) => "texts".to_owned(),
                    FieldKind::Numeric(_) => "a finite number".to_owned(),
                    FieldKind::Vector(dim) => format!("{dim} finite numbers"),
                };
                let kind = kind_name(kind);
                return Err(err!(InvalidArgument, "item field {name:?} is {kind} and takes {takes}, not {cell:?}"));
            }
        };
        fields.push(((*name).to_owned(), value));
    }
    Ok(StoredItem {
        sequence: 0,
        id: item.id.to_owned(),
        title: item.title.filter(|t| !t.is_empty()).map(str::to_owned),
        released: item.released,
        added: item.now,
        fields,
    })
}

/// A stored item in the codes of this generation, and its vector. Fields that the generation does not declare, or
/// declares otherwise, are missing.
fn materialize(generation: &Generation, item: &StoredItem) -> Result<(AddedItem, Vec<f32>)> {
    let Some(tower) = generation.inference().tower() else {
        let generation = generation.id();
        return Err(err!(
            InvalidConfig,
            "generation {generation} knows items by their events alone (it has no item tower); declare item fields and \
             train with a tower"
        ));
    };
    let coded = |(at, field): (usize, &crate::schema::Field)| {
        let value = item.fields.iter().find(|(name, _)| *name == field.name).map(|(_, value)| value);
        match (&field.kind, value) {
            (FieldKind::Categorical(_), Some(StoredValue::Text(text))) => {
                FieldCode::Codes(known(generation, at, [text]))
            }
            (FieldKind::MultiValued(_), Some(StoredValue::Texts(all))) => FieldCode::Codes(known(generation, at, all)),
            (FieldKind::Categorical(_) | FieldKind::MultiValued(_), _) => FieldCode::Codes(Vec::new()),
            (FieldKind::Numeric(_), Some(StoredValue::Number(x))) => FieldCode::Number(*x),
            (FieldKind::Numeric(_), _) => FieldCode::Number(f32::NAN),
            (FieldKind::Vector(dim), Some(StoredValue::Vector(v))) if v.len() == *dim as usize => {
                FieldCode::Vector(v.clone())
            }
            (FieldKind::Vector(dim), _) => FieldCode::Vector(vec![0.0; *dim as usize]),
        }
    };
    let fields: Vec<FieldCode> = generation.schema().item_fields.iter().enumerate().map(coded).collect();
    let values: Vec<Value<'_>> = fields.iter().map(FieldCode::value).collect();
    // As in training: since the release or, where none is known, since it was first seen, which is now.
    let age = match (item.released, item.added) {
        _ if !generation.schema().has_time => None,
        (None, _) => Some(0.0),
        (Some(released), now) => now.map(|now| now.saturating_sub(released).max(0) as f32 / DAY),
    };
    let metadata = tower.describe(item.title.as_deref().unwrap_or_default(), &values);
    let mut vector = vec![0.0; generation.width()];
    tower.vector(generation.weights()?, &metadata, None, Standing::unseen(age), &mut vector)?;
    if !finite(&vector) {
        let (id, generation) = (&item.id, generation.id());
        return Err(err!(
            Corrupt,
            "generation {generation} gives item {id:?} a vector that is not finite; verify the store and roll back"
        ));
    }
    let added = AddedItem {
        id: item.id.clone(),
        title: item.title.clone(),
        released: item.released.unwrap_or(i64::MIN),
        age,
        fields,
    };
    Ok((added, vector))
}

/// The codes of those texts that the vocabulary of item field `at` has, ascending, each once.
fn known<'a>(generation: &Generation, at: usize, texts: impl IntoIterator<Item = &'a String>) -> Vec<u32> {
    let mut codes: Vec<u32> =
        texts.into_iter().map(|t| generation.codes().item_value(at, t)).filter(|c| *c > 0).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}
