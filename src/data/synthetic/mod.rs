//! A synthetic world: seeded people who meet works in a way that is known exactly, so that the best possible
//! recommender is known as well.
//!
//! Planted are drifting tastes, series whose next part is called for long after the part before, categories that
//! households prefer on each weekday, moods that carry over to the next work, launches and their freshness, short works
//! on the phone, a long tail of popularity, trailers that say nothing, and impressions with clicks that follow personal
//! quirks. Every event's item is drawn from the distribution of `choice.rs`, which [`World::probabilities`] recomputes
//! for any event: no method can rank better on average than by these numbers, since they are conditioned on the
//! person's true taste at that moment, which a recommender must infer. They bound what can be reached from above.

mod calendar;
mod catalogue;
mod choice;
mod names;
mod options;
mod people;
#[cfg(feature = "files")]
mod write;
pub(crate) use calendar::iso_date;
pub use options::{SyntheticOptions, Turn};
pub use people::Impression;

use super::{BuildOptions, Dataset, DatasetBuilder, Declaration, EntityRow, EventFilter, EventRow, ItemRow, Kind};
use crate::error::{Result, err};
use crate::event::Cell;
use crate::random::Rng;
use crate::schema::Timing;
use catalogue::{CATEGORIES, Item};
use people::{ACTIONS, DEVICES, HOUSEHOLDS, Person, REGIONS};

/// A whole synthetic world.
#[derive(Debug, Clone)]
pub struct World {
    options: SyntheticOptions,
    items: Vec<Item>,
    people: Vec<Person>,
    impressions: Vec<Impression>,
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
        let share = (options.entities as usize).div_ceil(threads.max(1)).max(1);
        let rows: Vec<u32> = (0..options.entities).collect();
        let live = |rows: &[u32]| rows.iter().map(|row| people::live(options, &items, &centres, *row)).collect();
        let lives: Vec<Vec<(Person, Vec<Impression>)>> = std::thread::scope(|scope| {
            let mut parts = rows.chunks(share);
            let own = parts.next().unwrap_or(&[]);
            let workers: Vec<_> = parts.map(|part| scope.spawn(move || live(part))).collect();
            let mut lives = vec![live(own)];
            lives.extend(workers.into_iter().map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p))));
            lives
        });
        let (people, impressions): (Vec<_>, Vec<_>) = lives.into_iter().flatten().unzip();
        Ok(Self { options: options.clone(), items, people, impressions: impressions.into_iter().flatten().collect() })
    }

    /// The options that it came from.
    pub fn options(&self) -> &SyntheticOptions {
        &self.options
    }

    /// How many events happened.
    pub fn events(&self) -> usize {
        self.people.iter().map(|p| p.log.len()).sum()
    }

    /// Everything that slates showed, by person and time.
    pub fn impressions(&self) -> &[Impression] {
        &self.impressions
    }

    /// The id of the item at place `item` of the world; empty if there is none.
    pub fn item_id(&self, item: u32) -> &str {
        self.items.get(item as usize).map_or("", |i| &i.id)
    }

    /// The id of the person at place `entity` of the world; empty if there is none.
    pub fn entity_id(&self, entity: u32) -> &str {
        self.people.get(entity as usize).map_or("", |p| &p.id)
    }

    /// Whether the quirks of the person at place `entity` turn into their opposite at [`SyntheticOptions::turn`].
    pub fn turned(&self, entity: u32) -> bool {
        people::turned(&self.options, entity)
    }

    /// The items, by their place in the world, that the person at place `entity` met, oldest first; none if there is no
    /// such person.
    pub fn history(&self, entity: u32) -> impl ExactSizeIterator<Item = u32> {
        let log = self.people.get(entity as usize).map_or(&[][..], |p| &p.log);
        log.iter().map(|e| e.item)
    }

    /// The probability of every item to be what person `entity` meets in event `event` (both from 0), given all that
    /// the world knows just before: one number per item of the world, which sum to 1. Items met before and items not
    /// yet launched have 0.
    ///
    /// # Errors
    /// `NotFound` if there is no such person or event.
    pub fn probabilities(&self, entity: u32, event: usize) -> Result<Vec<f64>> {
        let person = self.people.get(entity as usize);
        let Some((person, entry)) = person.and_then(|p| p.log.get(event).map(|e| (p, e))) else {
            return Err(err!(
                NotFound,
                "the synthetic world has no event {event} of person {entity}; pass one of the {} people and their events",
                self.people.len()
            ));
        };
        let met: Vec<u32> = person.log.iter().take(event).map(|e| e.item).collect();
        let moment = choice::Moment {
            taste: &entry.taste,
            household: person.household,
            phone: entry.device == 1,
            time: entry.time,
            sequel: self.options.sequel,
            met: &met,
        };
        let (mut chosen, mut teased) = (Vec::new(), Vec::new());
        choice::distributions(self.options.seed, &self.items, &moment, &mut chosen, &mut teased);
        let mix = |(c, t): (&f64, &f64)| (1.0 - choice::TRAILERS) * c + choice::TRAILERS * t;
        Ok(chosen.iter().zip(&teased).map(mix).collect())
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
                Cell::Text(name(&CATEGORIES, item.category)),
                Cell::Texts(&item.tags),
                Cell::Texts(&words),
                Cell::Number(item.minutes),
            ];
            let released = Some(item.launched);
            builder.push_item(&ItemRow { id: &item.id, title: &item.title, released, fields: &fields })?;
        }
        for (person, entry) in self.log() {
            let fields = [Cell::Text(name(&DEVICES, entry.device)), Cell::Number(entry.completion)];
            builder.push_event(&EventRow {
                time: Some(entry.time),
                action: name(&ACTIONS, entry.action),
                value: entry.minutes,
                fields: &fields,
                ..EventRow::new(&person.id, self.item_id(entry.item))
            })?;
        }
        for person in &self.people {
            let fields = [Cell::Text(name(&HOUSEHOLDS, person.household)), Cell::Text(name(&REGIONS, person.region))];
            builder.push_entity(&EntityRow { id: &person.id, fields: &fields })?;
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
            let fields = [Cell::Number(i.position as f32), Cell::Text(name(&DEVICES, i.device))];
            builder.push_event(&EventRow {
                time: Some(i.time),
                label: f32::from(u8::from(i.clicked)),
                fields: &fields,
                ..EventRow::new(self.entity_id(i.entity), self.item_id(i.item))
            })?;
        }
        builder.build()
    }

    /// All events in order of time, ties by person.
    fn log(&self) -> Vec<(&Person, &people::Entry)> {
        let mut log: Vec<_> = self.people.iter().flat_map(|p| p.log.iter().map(move |e| (p, e))).collect();
        log.sort_by_key(|(_, entry)| entry.time);
        log
    }
}

/// Some text of a fixed list.
fn name(names: &[&'static str], index: usize) -> &'static str {
    names.get(index).copied().unwrap_or_default()
}

/// What the events, items and people of the world carry.
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
