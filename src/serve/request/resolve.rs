//! From a query to the history and the request that the model reads.

use super::query::{AsOf, MAX_EVENTS, Query, UnknownItems, Who};
use crate::data::{Place, RunRule, newest_runs};
use crate::error::{Result, err};
use crate::event::{Cell, Event, FieldValue, TIMES};
use crate::generation::{Generation, PublishedRanker, StoredEvents};
use crate::model::{History, Request, Value};
use std::ops::Range;

/// A query as the model reads it; buffers are kept from query to query.
///
/// [`Resolved::begin`], then the events of the entity's state, if it has one ([`Resolved::add_event`]), then [`Resolved::finish`].
#[derive(Debug, Default)]
pub(in crate::serve) struct Resolved {
    /// The newest part of the stored history that the model can read, then all events of the query.
    pub(in crate::serve) history: History,
    /// The same as tokens; empty where each event is one.
    tokens: History,
    /// The circumstances.
    pub(in crate::serve) request: Request,
    /// The row of the entity that asks.
    pub(in crate::serve) entity: Option<u32>,
    /// The code of the surface where the list will be shown; 0 is unknown.
    pub(in crate::serve) surface: u32,
    /// Where all of the entity's stored events lie, until the moment that is asked about.
    pub(in crate::serve) stored: Range<usize>,
    /// Items that were seen in events that are not kept any more.
    pub(in crate::serve) past: Vec<u32>,
    /// How many observed events still count; `None`: all.
    left: Option<usize>,
    /// Until when outcomes count, Unix milliseconds; `None`: all.
    until: Option<i64>,
    /// Entity field and code of what is known of the person's profile; filled where no event is known.
    pub(in crate::serve) profile: Vec<(usize, u32)>,
    added: Added,
}

/// The events after the stored ones, in rows and codes.
#[derive(Debug, Default)]
struct Added {
    /// How many were brought, those left out included.
    brought: usize,
    items: Vec<u32>,
    time: Vec<Option<i64>>,
    action: Vec<u16>,
    value: Vec<f32>,
    /// `[events, fields]`
    fields: Vec<u32>,
    /// The first time that any of them has.
    first_time: Option<i64>,
    acted: bool,
    valued: bool,
}

impl Resolved {
    /// Begins with who asks and in which circumstances, and what is stored of them.
    pub(in crate::serve) fn begin(
        &mut self,
        generation: &Generation,
        ranker: Option<&PublishedRanker<'_>>,
        query: &Query<'_>,
    ) -> Result<()> {
        self.clear(generation.codes().event_fields());
        let moment = match query.as_of {
            Some(AsOf::Time(time)) => Some(time),
            _ => None,
        };
        if let Some(time) = query.time.or(moment) {
            check_time(time, || "the request".to_owned())?;
            self.request.time = Some(time).filter(|_| generation.schema().has_time);
        }
        for (name, cell) in query.fields {
            let surface = ranker.filter(|r| r.is_surface(name));
            match (surface, cell) {
                (Some(ranker), Cell::Text(value)) => self.surface = ranker.surface_code(value),
                // As an observation keeps it.
                (Some(ranker), Cell::Number(number)) => self.surface = ranker.surface_code(&number.to_string()),
                _ => {}
            }
            let (at, code) = match generation.codes().request_field(name, cell) {
                // What the ranker reads need not be a field of the events that the model reads.
                Err(_) if surface.is_some() => continue,
                found => found?,
            };
            if let Some(slot) = self.request.fields.get_mut(at) {
                *slot = code;
            }
        }
        if let Who::Entity(id) = query.who
            && let Some(row) = generation.find_entity(id)?
        {
            self.entity = Some(row);
            self.stored = generation.stored_range(row)?;
        }
        if let Some(moment) = query.as_of {
            self.cut(generation, query.who, moment)?;
        }
        if self.entity.is_some() {
            self.read_stored(generation)?;
        }
        Ok(())
    }

    /// Ends the stored history at a moment.
    fn cut(&mut self, generation: &Generation, who: Who<'_>, moment: AsOf) -> Result<()> {
        if !matches!(who, Who::Entity(_)) {
            return Err(err!(
                InvalidArgument,
                "the query asks as of a moment in the past of an entity and names none; leave later events out of its history instead"
            ));
        }
        let stored = generation.stored_events(self.stored.clone())?;
        let keep = match moment {
            AsOf::Time(_) if !generation.schema().has_time => {
                return Err(err!(
                    InvalidArgument,
                    "the query asks as of a time, and events of this model have none; ask as of a number of events"
                ));
            }
            AsOf::Time(time) => {
                self.until = Some(time);
                stored.time.partition_point(|t| *t <= time)
            }
            AsOf::Events(count) => {
                let keep = count.min(stored.items.len());
                self.left = Some(count - keep);
                if keep < stored.items.len() {
                    self.until = Some(just_before(stored.time.get(keep).copied()));
                }
                keep
            }
        };
        self.stored.end = self.stored.start + keep;
        Ok(())
    }

    /// Whether an observed event is among those that count at the moment that is asked about; to be asked of one after another.
    pub(in crate::serve) fn admits(&mut self, generation: &Generation, row: u32, time: Option<i64>) -> Result<bool> {
        if !self.knows(time) {
            return Ok(false);
        }
        match self.left {
            None => Ok(true),
            // It was counted with the stored ones.
            Some(_) if self.is_stored(generation, row, time)? => Ok(true),
            Some(0) => {
                self.until = Some(self.until.unwrap_or(i64::MAX).min(just_before(time)));
                Ok(false)
            }
            Some(left) => {
                self.left = Some(left - 1);
                Ok(true)
            }
        }
    }

    /// Whether later outcomes than those until the moment that is asked about do not count.
    pub(in crate::serve) fn is_cut(&self) -> bool {
        self.until.is_some()
    }

    /// Whether something that happened at `time` counts at the moment that is asked about.
    pub(in crate::serve) fn knows(&self, time: Option<i64>) -> bool {
        self.until.is_none_or(|until| time.is_some_and(|time| time <= until))
    }

    /// Adds the query's own events, and makes of all events what the model reads.
    pub(in crate::serve) fn finish(&mut self, generation: &Generation, query: &Query<'_>) -> Result<()> {
        let (ids, events) = match query.who {
            Who::Entity(_) => (&[][..], &[][..]),
            Who::Items(ids) => (ids, &[][..]),
            Who::History(events) => (&[][..], events),
        };
        let count = self.added.brought.saturating_add(ids.len() + events.len() + query.then.len());
        if count > MAX_EVENTS {
            return Err(err!(InvalidArgument, "the query brings {count} events; pass the newest {MAX_EVENTS} at most"));
        }
        for id in ids {
            let (row, event) = (generation.find_item(id)?, Event::item(id));
            self.add_event(generation, row, &event, std::iter::empty(), query.unknown)?;
        }
        for event in events.iter().chain(query.then) {
            let row = generation.find_item(event.item)?;
            self.add_event(generation, row, event, event.fields.iter().copied(), query.unknown)?;
        }
        self.append(generation);
        self.put_in_order();
        self.merge(generation);
        self.read_profile(generation, query)
    }

    /// Reads the profile: what the query says and, of fields that it does not name, what is stored of the entity.
    fn read_profile(&mut self, generation: &Generation, query: &Query<'_>) -> Result<()> {
        for (name, cell) in query.profile {
            generation.codes().entity_field(name, cell, &mut self.profile)?;
        }
        if !self.is_empty() {
            self.profile.clear();
            return Ok(());
        }
        for (field, declared) in generation.schema().entity_fields.iter().enumerate() {
            if let Some(row) = self.entity
                && !self.profile.iter().any(|(given, _)| *given == field)
            {
                match generation.entity_column(field)?.value(row)? {
                    Value::Codes(codes) => self.profile.extend(codes.iter().map(|code| (field, *code))),
                    Value::Number(number) => self.profile.push((field, declared.kind.bucket(number))),
                    Value::Vector(_) => {}
                }
            }
        }
        self.profile.retain(|(_, code)| *code > 0);
        // In the order of declaration, whatever the order of the query.
        self.profile.sort_unstable();
        self.profile.dedup();
        Ok(())
    }

    /// What the model reads: tokens, or the events where each is one.
    pub(in crate::serve) fn read_by_model(&self) -> &History {
        if self.tokens.items.is_empty() { &self.history } else { &self.tokens }
    }

    /// Makes tokens of the events, where the model was trained on tokens.
    fn merge(&mut self, generation: &Generation) {
        clear(&mut self.tokens);
        if let Some(tokenizer) = generation.tokenizer() {
            tokenizer.merge(&self.history, 0..self.history.items.len(), &mut self.tokens);
        }
    }

    /// Whether nothing is known: no event, stored or given.
    pub(in crate::serve) fn is_empty(&self) -> bool {
        self.history.items.is_empty()
    }

    /// Whether nothing is known of the circumstances: the user vector is then that under no request.
    pub(in crate::serve) fn is_plain(&self) -> bool {
        self.request.time.is_none() && self.request.fields.iter().all(|code| *code == 0)
    }

    /// Adds an event that is imagined to follow: the item, in the circumstances of the request, with the action of the
    /// event before it.
    pub(in crate::serve) fn imagine(&mut self, generation: &Generation, item: u32) {
        let history = &mut self.history;
        let time = match history.time.last() {
            Some(last) => Some(self.request.time.map_or(*last, |t| t.max(*last))),
            None => self.request.time.filter(|_| history.items.is_empty()),
        };
        history.time.extend(time);
        history.action.extend_from_within(history.action.len().saturating_sub(1)..);
        if !history.value.is_empty() {
            history.value.push(f32::NAN);
        }
        history.items.push(item);
        for (at, column) in history.fields.iter_mut().enumerate() {
            // Post-action fields are zero in a request: they are not known yet.
            column.push(self.request.fields.get(at).copied().unwrap_or(0));
        }
        self.merge(generation);
    }

    fn clear(&mut self, fields: usize) {
        clear(&mut self.history);
        self.history.fields.resize_with(fields, Vec::new);
        self.request.time = None;
        self.request.fields.clear();
        self.request.fields.resize(fields, 0);
        self.entity = None;
        self.surface = 0;
        self.stored = 0..0;
        (self.left, self.until) = (None, None);
        self.past.clear();
        self.profile.clear();
        self.added.clear();
    }

    /// Copies the newest stored events, as many (or of as many runs) as the model can read and one more, whose time starts
    /// the first gap.
    fn read_stored(&mut self, generation: &Generation) -> Result<()> {
        let most = generation.model().max_length as usize + 1;
        let start = match generation.tokenizer() {
            Some(tokenizer) => newest_stored(generation, tokenizer.rule(), self.stored.clone(), most)?,
            None => self.stored.end.saturating_sub(most).max(self.stored.start),
        };
        let range = start..self.stored.end;
        let StoredEvents { items, time, action, value } = generation.stored_events(range.clone())?;
        let damaged =
            |what: &str| err!(Corrupt, "{what} is damaged within events {range:?}; verify the store and roll back");
        if items.len() != range.len() || items.iter().any(|row| *row as usize >= generation.published_items()) {
            return Err(damaged("history.items"));
        }
        if time.iter().any(|t| !TIMES.contains(t)) || !time.is_sorted() {
            return Err(damaged("history.time"));
        }
        if action.iter().any(|a| usize::from(*a) >= generation.schema().actions.len()) {
            return Err(damaged("history.action"));
        }
        if value.iter().any(|v| v.is_infinite()) {
            return Err(damaged("history.value"));
        }
        self.history.items.extend_from_slice(items);
        self.history.time.extend_from_slice(time);
        self.history.action.extend_from_slice(action);
        self.history.value.extend_from_slice(value);
        for (at, column) in self.history.fields.iter_mut().enumerate() {
            let codes = generation.stored_field(at, range.clone())?;
            let declared = generation.schema().event_fields.get(at).map_or(0, |f| f.field.kind.codes());
            if codes.iter().any(|c| *c as usize >= declared) {
                return Err(damaged("history.field"));
            }
            column.extend_from_slice(codes);
            column.resize(items.len(), 0);
        }
        Ok(())
    }

    /// Adds an event after those before it: with the row of its item, and with these `fields` in place of its own.
    pub(in crate::serve) fn add_event<'a>(
        &mut self,
        generation: &Generation,
        row: Option<u32>,
        event: &Event<'_>,
        fields: impl Iterator<Item = FieldValue<'a>>,
        unknown: UnknownItems,
    ) -> Result<()> {
        let place = self.added.brought;
        let action = check_event(generation, place, event)?;
        let is_stored = row.map(|row| self.is_stored(generation, row, event.time)).transpose()?.unwrap_or(false);
        let added = &mut self.added;
        added.brought += 1;
        added.first_time = added.first_time.or(event.time);
        added.acted |= event.action.is_some();
        added.valued |= event.value.is_some();
        let row = match (row, unknown) {
            (Some(_), _) if is_stored => return Ok(()),
            (Some(row), _) => row,
            (None, UnknownItems::Skip) => return Ok(()),
            (None, UnknownItems::Refuse) => {
                let (item, id) = (event.item, generation.id());
                return Err(err!(
                    UnknownItem,
                    "event {} of the history names item {item:?}, which is not in generation {id}; check the id, or leave it out",
                    place + 1
                ));
            }
        };
        added.items.push(row);
        added.time.push(event.time);
        added.action.push(action.unwrap_or(History::NO_ACTION));
        added.value.push(event.value.unwrap_or(f32::NAN));
        let start = added.fields.len();
        added.fields.resize(start + generation.codes().event_fields(), 0);
        for (name, cell) in fields {
            let (at, code) = generation.codes().event_field(name, &cell)?;
            if let Some(slot) = added.fields.get_mut(start + at) {
                *slot = code;
            }
        }
        Ok(())
    }

    /// Moves the added events to the end of the history.
    fn append(&mut self, generation: &Generation) {
        let (schema, added, history) = (generation.schema(), &self.added, &mut self.history);
        let stored = !history.items.is_empty();
        if schema.has_time && (stored || added.first_time.is_some()) {
            for time in &added.time {
                // Events before the first with a time happened with it.
                let time = time.or(history.time.last().copied()).or(added.first_time).unwrap_or_default();
                history.time.push(time);
            }
        }
        if !schema.actions.is_empty() && (stored || added.acted) {
            history.action.extend_from_slice(&added.action);
        }
        if schema.value.is_some() && (stored || added.valued) {
            history.value.extend_from_slice(&added.value);
        }
        history.items.extend_from_slice(&added.items);
        let width = history.fields.len();
        for (at, column) in history.fields.iter_mut().enumerate() {
            column.extend(added.fields.iter().skip(at).step_by(width));
        }
    }

    /// Whether the entity's stored history holds this item at this time.
    fn is_stored(&self, generation: &Generation, row: u32, time: Option<i64>) -> Result<bool> {
        let Some(time) = time.filter(|_| !self.stored.is_empty()) else { return Ok(false) };
        let StoredEvents { items, time: times, .. } = generation.stored_events(self.stored.clone())?;
        let from = times.partition_point(|t| *t < time);
        let at_once = times.iter().zip(items).skip(from).take_while(|(t, _)| **t == time);
        Ok(at_once.into_iter().any(|(_, item)| *item == row))
    }

    /// Puts the events in order of their times; those at one time stay in the order given.
    fn put_in_order(&mut self) {
        fn permute<T: Copy>(column: &mut Vec<T>, order: &[usize]) {
            if !column.is_empty() {
                *column = order.iter().filter_map(|at| column.get(*at).copied()).collect();
            }
        }
        let history = &mut self.history;
        if history.time.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (0..history.items.len()).collect();
        order.sort_by_key(|at| history.time.get(*at).copied());
        permute(&mut history.items, &order);
        permute(&mut history.time, &order);
        permute(&mut history.action, &order);
        permute(&mut history.value, &order);
        history.fields.iter_mut().for_each(|column| permute(column, &order));
    }
}

impl Added {
    fn clear(&mut self) {
        (self.brought, self.first_time, self.acted, self.valued) = (0, None, false, false);
        self.items.clear();
        self.time.clear();
        self.action.clear();
        self.value.clear();
        self.fields.clear();
    }
}

/// The last time before `time`; before all times where that is not known.
fn just_before(time: Option<i64>) -> i64 {
    time.map_or(i64::MIN, |time| time.saturating_sub(1))
}

fn clear(history: &mut History) {
    history.items.clear();
    history.time.clear();
    history.first.clear();
    history.action.clear();
    history.value.clear();
    history.fields.iter_mut().for_each(Vec::clear);
}

/// Where the newest `most` runs of stored events begin.
fn newest_stored(generation: &Generation, rule: &RunRule, stored: Range<usize>, most: usize) -> Result<usize> {
    let StoredEvents { items, time, .. } = generation.stored_events(stored.clone())?;
    let surface = match rule.surface {
        Some(at) => generation.stored_field(at, stored.clone())?,
        None => &[],
    };
    let place = |i: usize| Place {
        item: items.get(i).copied().unwrap_or(u32::MAX),
        time: time.get(i).copied(),
        surface: surface.get(i).copied().unwrap_or(0),
    };
    Ok(stored.start + newest_runs(0..stored.len(), most, |a, b| rule.joins(place(a), place(b))))
}

/// Refuses an event's time, value or action where it cannot be; gives the action's code.
pub(in crate::serve) fn check_event(generation: &Generation, place: usize, event: &Event<'_>) -> Result<Option<u16>> {
    if let Some(time) = event.time {
        check_time(time, || format!("event {place}"))?;
    }
    match event.value {
        Some(_) if generation.schema().value.is_none() => {
            Err(err!(InvalidArgument, "event {place} has a value, but events of this model have none; leave it out"))
        }
        Some(value) if !value.is_finite() => {
            Err(err!(InvalidArgument, "event {place} has the value {value}; pass a finite number, or leave it out"))
        }
        _ => Ok(()),
    }?;
    event.action.map(|name| generation.codes().action(name)).transpose()
}

fn check_time(time: i64, what: impl Fn() -> String) -> Result<()> {
    match TIMES.contains(&time) {
        true => Ok(()),
        false => {
            let what = what();
            Err(err!(InvalidArgument, "{what} has the time {time}; pass Unix milliseconds of the years 0 to 9999"))
        }
    }
}
