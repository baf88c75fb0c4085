//! The world itself: it happens, answers what nobody else knows, and becomes a dataset.

use super::catalogue::{self, CATEGORIES, Item};
use super::entities::{self, ACTIONS, DEVICES, Entity, Entry, HOUSEHOLDS, Impression, REGIONS};
use super::options::SyntheticOptions;
use super::{choice, names};
use crate::data::{BuildOptions, Dataset, DatasetBuilder, Declaration, EventFilter, EventRow, ItemRow, Kind};
use crate::error::{Result, err};
use crate::event::{Cell, Event};
use crate::random::Rng;
use crate::schema::Timing;
use crate::threads;

/// A whole synthetic world.
#[derive(Debug, Clone)]
pub struct World {
    options: SyntheticOptions,
    pub(super) items: Vec<Item>,
    pub(super) entities: Vec<Entity>,
    pub(super) impressions: Vec<Impression>,
}

impl World {
    /// Lets the world of `options` happen, on as many as `threads` threads; the result does not depend on how many.
    ///
    /// # Errors
    /// `InvalidArgument` for an option out of range.
    pub fn new(options: &SyntheticOptions, threads: usize) -> Result<Self> {
        options.check()?;
        let mut rng = Rng::for_stream(options.seed, 0);
        let centres = catalogue::centres(&mut rng);
        let items = catalogue::items(options, &centres, &mut rng);
        let live = |row, _: &mut ()| entities::live(options, &items, &centres, row as u32);
        let lives = threads::map(threads, options.entities as usize, || (), live);
        let (entities, impressions): (Vec<_>, Vec<_>) = lives.into_iter().unzip();
        Ok(Self { options: options.clone(), items, entities, impressions: impressions.into_iter().flatten().collect() })
    }

    /// The options that it came from.
    pub fn options(&self) -> &SyntheticOptions {
        &self.options
    }

    /// How many events happened.
    pub fn events(&self) -> usize {
        self.entities.iter().map(|p| p.log.len()).sum()
    }

    /// Everything that slates showed, by entity and time.
    pub fn impressions(&self) -> &[Impression] {
        &self.impressions
    }

    /// The id of the item at place `item` of the world; empty if there is none.
    pub fn item_id(&self, item: u32) -> &str {
        self.items.get(item as usize).map_or("", |i| &i.id)
    }

    /// The id of the entity at place `entity` of the world; empty if there is none.
    pub fn entity_id(&self, entity: u32) -> &str {
        self.entities.get(entity as usize).map_or("", |p| &p.id)
    }

    /// Whether the quirks of the entity at place `entity` turn into their opposite at [`SyntheticOptions::turn`].
    pub fn turned(&self, entity: u32) -> bool {
        entities::turned(&self.options, entity)
    }

    /// The items, by their place in the world, that the entity at place `entity` met, oldest first; none if there is no
    /// such entity.
    pub fn history(&self, entity: u32) -> impl ExactSizeIterator<Item = u32> {
        let log = self.entities.get(entity as usize).map_or(&[][..], |p| &p.log);
        log.iter().map(|e| e.item)
    }

    /// The probability of every item to be what entity `entity` meets in event `event` (both from 0), given all that
    /// the world knows just before: one number per item of the world, which sum to 1. Items met before, items not
    /// yet launched and, in a world of more than 20,000 items, items that the entity does not know of have 0.
    ///
    /// # Errors
    /// `NotFound` if there is no such entity or event.
    pub fn probabilities(&self, entity: u32, event: usize) -> Result<Vec<f64>> {
        let found = self.entities.get(entity as usize);
        let Some((found, entry)) = found.and_then(|found| Some((found, found.log.get(event)?))) else {
            return Err(err!(
                NotFound,
                "the synthetic world has no event {event} of entity {entity}; pass one of the {} entities and their events",
                self.entities.len()
            ));
        };
        let met: Vec<u32> = found.log.iter().take(event).map(|e| e.item).collect();
        let moment = choice::Moment {
            taste: &entry.taste,
            household: found.household,
            phone: entry.device == 1,
            time: entry.time,
            sequel: self.options.sequel,
            met: &met,
        };
        let (mut chosen, mut teased) = (Vec::new(), Vec::new());
        let known = choice::known(self.options.seed, &self.items, entity);
        choice::distributions(self.options.seed, &self.items, &known, &moment, &mut chosen, &mut teased);
        let mut probabilities = vec![0.0; self.items.len()];
        for ((item, chosen), teased) in known.into_iter().zip(chosen).zip(teased) {
            if let Some(probability) = probabilities.get_mut(item as usize) {
                *probability = (1.0 - choice::TRAILERS) * chosen + choice::TRAILERS * teased;
            }
        }
        Ok(probabilities)
    }

    /// The events of the world as a dataset, the same that its written files are read to.
    ///
    /// # Errors
    /// None that a generated world can cause; the builder's are passed on.
    pub fn dataset(&self) -> Result<Dataset> {
        let mut builder = DatasetBuilder::new(declaration(), build_options())?;
        for item in &self.items {
            let words = names::words(&item.title);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let fields = [
                ("category", Cell::Text(name(&CATEGORIES, item.category))),
                ("tags", Cell::Texts(&item.tags)),
                ("words", Cell::Texts(&words)),
                ("minutes", Cell::Number(item.minutes)),
            ];
            let (title, released) = (Some(item.title.as_str()), Some(item.launched));
            builder.push_item(&ItemRow { id: &item.id, title, released, fields: &fields })?;
        }
        for (entity, entry) in self.log() {
            let event = Event {
                item: self.item_id(entry.item),
                time: Some(entry.time),
                action: Some(name(&ACTIONS, entry.action)),
                value: Some(entry.minutes),
                fields: &[
                    ("device", Cell::Text(name(&DEVICES, entry.device))),
                    ("completion", Cell::Number(entry.completion)),
                ],
            };
            builder.push_event(&EventRow::new(&entity.id, event))?;
        }
        for entity in &self.entities {
            let household = ("household", Cell::Text(name(&HOUSEHOLDS, entity.household)));
            let region = ("region", Cell::Text(name(&REGIONS, entity.region)));
            builder.push_entity(&entity.id, &[household, region])?;
        }
        builder.build()
    }

    /// What slates showed as a dataset of labelled events, the same that `impressions.toml` reads: label 1 is a click, the place on
    /// the slate and the device are request-time fields.
    ///
    /// # Errors
    /// None that a generated world can cause; the builder's are passed on.
    pub fn impression_log(&self) -> Result<Dataset> {
        let declaration = Declaration {
            time: true,
            label: true,
            event_fields: vec![
                ("position".into(), Kind::Numeric, Timing::Request),
                ("device".into(), Kind::Categorical, Timing::Request),
            ],
            ..Declaration::new("synthetic-impressions")
        };
        let mut builder = DatasetBuilder::new(declaration, build_options())?;
        for i in &self.impressions {
            let event = Event {
                time: Some(i.time),
                fields: &[
                    ("position", Cell::Number(i.position as f32)),
                    ("device", Cell::Text(name(&DEVICES, i.device))),
                ],
                ..Event::item(self.item_id(i.item))
            };
            let label = Some(f32::from(u8::from(i.clicked)));
            builder.push_event(&EventRow { label, ..EventRow::new(self.entity_id(i.entity), event) })?;
        }
        builder.build()
    }

    /// All events in order of time, ties by entity.
    pub(super) fn log(&self) -> Vec<(&Entity, &Entry)> {
        let mut log: Vec<_> = self.entities.iter().flat_map(|u| u.log.iter().map(move |e| (u, e))).collect();
        log.sort_by_key(|(_, entry)| entry.time);
        log
    }
}

/// Some text of a fixed list.
pub(super) fn name(names: &[&'static str], index: usize) -> &'static str {
    names.get(index).copied().unwrap_or_default()
}

/// What the events, items and entities of the world carry.
fn declaration() -> Declaration {
    Declaration {
        time: true,
        action: true,
        value: true,
        title: true,
        released: true,
        event_fields: vec![
            ("device".into(), Kind::Categorical, Timing::Request),
            ("completion".into(), Kind::Numeric, Timing::PostAction),
        ],
        item_fields: vec![
            ("category".into(), Kind::Categorical),
            ("tags".into(), Kind::MultiValued),
            ("words".into(), Kind::MultiValued),
            ("minutes".into(), Kind::Numeric),
        ],
        entity_fields: vec![("household".into(), Kind::Categorical), ("region".into(), Kind::Categorical)],
        ..Declaration::new("synthetic")
    }
}

fn build_options() -> BuildOptions {
    BuildOptions {
        filter: EventFilter { keep_unused_items: true, ..EventFilter::default() },
        ..BuildOptions::default()
    }
}
