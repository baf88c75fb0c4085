//! From a query to the history and the request that the model reads.

use super::generation::{Generation, StoredEvents};
use super::query::{EventInput, MAX_EVENTS, Query, UnknownItems, Who};
use crate::data::{Place, RunRule, newest_runs};
use crate::error::{Result, err};
use crate::model::{History, Request};
use std::ops::Range;

/// Times are kept within the years 0 to 9999, so that no difference of two overflows.
const TIME_LIMIT: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// A query as the model reads it; buffers are kept from query to query.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The newest part of the stored history that the model can read, then all events of the query.
    pub(super) history: History,
    /// The same as tokens; empty where each event is one.
    tokens: History,
    /// The circumstances.
    pub(super) request: Request,
    /// Where all of the entity's stored events lie.
    pub(super) stored: Range<usize>,
    /// Entity field and code of what is known of the person's profile; filled where no event is known.
    pub(super) profile: Vec<(usize, u32)>,
}

impl Resolved {
    /// Reads `query` under `generation`.
    pub(super) fn read(&mut self, generation: &Generation, query: &Query<'_>) -> Result<()> {
        self.clear(generation.codes().event_fields());
        self.read_request(generation, query)?;
        match query.who {
            Who::Entity(id) => {
                if let Some(row) = generation.find_entity(id)? {
                    self.stored = generation.stored_range(row)?;
                    self.read_stored(generation)?;
                }
                self.add_events(generation, query.then.iter().copied(), query.unknown)?;
            }
            Who::Items(ids) => {
                let events = ids.iter().map(|id| EventInput::item(id)).chain(query.then.iter().copied());
                self.add_events(generation, events, query.unknown)?;
            }
            Who::History(events) => {
                let events = events.iter().chain(query.then).copied();
                self.add_events(generation, events, query.unknown)?;
            }
        }
        self.put_in_order();
        self.merge(generation);
        self.read_profile(generation, query)
    }

    /// Reads the profile: what the query says and, of fields that it does not name, what is stored of the entity.
    fn read_profile(&mut self, generation: &Generation, query: &Query<'_>) -> Result<()> {
        for (name, text) in query.profile {
            self.profile.push(generation.codes().entity_field(name, text)?);
        }
        if !self.is_empty() {
            self.profile.clear();
            return Ok(());
        }
        if let Who::Entity(id) = query.who
            && let Some(row) = generation.find_entity(id)?
        {
            for field in 0..generation.schema().entity_fields.len() {
                if !self.profile.iter().any(|(given, _)| *given == field) {
                    generation.stored_profile(field, row, &mut self.profile)?;
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
    pub(super) fn read_by_model(&self) -> &History {
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
    pub(super) fn is_empty(&self) -> bool {
        self.history.items.is_empty()
    }

    /// Adds an event that is imagined to follow: the item, in the circumstances of the request, with the action of the
    /// event before it.
    pub(super) fn imagine(&mut self, generation: &Generation, item: u32) {
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
            // Outcomes are zero in a request: they are not known yet.
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
        self.stored = 0..0;
        self.profile.clear();
    }

    fn read_request(&mut self, generation: &Generation, query: &Query<'_>) -> Result<()> {
        if let Some(time) = query.time {
            check_time(time, || "the request".to_owned())?;
            self.request.time = Some(time).filter(|_| generation.schema().has_time);
        }
        for (name, text) in query.fields {
            let (at, code) = match generation.codes().request_field(name, text) {
                // What the ranker reads need not be a field of the events that the model reads.
                Err(_) if generation.is_surface(name) => continue,
                found => found?,
            };
            if let Some(slot) = self.request.fields.get_mut(at) {
                *slot = code;
            }
        }
        Ok(())
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
        if time.iter().any(|t| !TIME_LIMIT.contains(t)) || !time.is_sorted() {
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

    fn add_events<'a>(
        &mut self,
        generation: &Generation,
        events: impl Iterator<Item = EventInput<'a>> + Clone,
        unknown: UnknownItems,
    ) -> Result<()> {
        let count = events.clone().count();
        if count > MAX_EVENTS {
            return Err(err!(InvalidArgument, "the query brings {count} events; pass the newest {MAX_EVENTS} at most"));
        }
        let schema = generation.schema();
        let stored = !self.history.items.is_empty();
        let timed = schema.has_time && (stored || events.clone().any(|e| e.time.is_some()));
        let acted = !schema.actions.is_empty() && (stored || events.clone().any(|e| e.action.is_some()));
        let valued = schema.value.is_some() && (stored || events.clone().any(|e| e.value.is_some()));
        // Events before the first with a time happened with it.
        let first_time = events.clone().find_map(|e| e.time);
        for (place, event) in events.enumerate() {
            check_event(generation, place, &event)?;
            let Some(row) = generation.find_item(event.item)? else {
                match unknown {
                    UnknownItems::Skip => continue,
                    UnknownItems::Refuse => {
                        let (item, id) = (event.item, generation.id());
                        return Err(err!(
                            UnknownItem,
                            "event {} of the history names item {item:?}, which is not in generation {id}; check the id, or leave it out",
                            place + 1
                        ));
                    }
                }
            };
            if self.is_stored(generation, row, event.time)? {
                continue;
            }
            if acted {
                let code = event.action.map(|name| generation.codes().action(name)).transpose()?;
                self.history.action.push(code.unwrap_or(History::NO_ACTION));
            }
            if timed {
                let time = event.time.or(self.history.time.last().copied()).or(first_time).unwrap_or_default();
                self.history.time.push(time);
            }
            if valued {
                self.history.value.push(event.value.unwrap_or(f32::NAN));
            }
            self.history.items.push(row);
            for column in &mut self.history.fields {
                column.push(0);
            }
            for (name, text) in event.fields {
                let (at, code) = generation.codes().event_field(name, text)?;
                if let Some(slot) = self.history.fields.get_mut(at).and_then(|column| column.last_mut()) {
                    *slot = code;
                }
            }
        }
        Ok(())
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

pub(super) fn check_event(generation: &Generation, place: usize, event: &EventInput<'_>) -> Result<()> {
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
    match event.action {
        Some(name) => generation.codes().action(name).map(|_| ()),
        None => Ok(()),
    }
}

fn check_time(time: i64, what: impl Fn() -> String) -> Result<()> {
    match TIME_LIMIT.contains(&time) {
        true => Ok(()),
        false => {
            let what = what();
            Err(err!(InvalidArgument, "{what} has the time {time}; pass Unix milliseconds of the years 0 to 9999"))
        }
    }
}
