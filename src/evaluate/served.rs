//! What an engine serves, as a method to be judged: the list that a caller gets, with the ranker, the filter and the live items that
//! the caller gets.

use super::scorer::Scorer;
use crate::data::{Case, Column, Dataset};
use crate::error::{Result, err};
use crate::event::{Cell, Event, FieldValue};
use crate::options::Seen;
use crate::schema::{FieldKind, Timing};
use crate::serve::{AsOf, Engine, Filter, Generation, Query, Session, UnknownItems};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// How long a list is asked for: the greatest cut-off of the rank metrics.
pub(super) const DEPTH: usize = 200;

/// A method that is judged.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// By the score that it gives every item.
    Scores(&'a dyn Scorer),
    /// By the lists that are served.
    Lists(&'a Served<'a>),
}

impl Method<'_> {
    /// The name of its row.
    pub fn name(&self) -> &str {
        match self {
            Self::Scores(scorer) => scorer.name(),
            Self::Lists(served) => &served.name,
        }
    }
}

/// Asks an engine each question as a caller would: for the entity as it stood then ([`Query::as_of`]), at the time and in the
/// circumstances of the target. Where the dataset has gone on since the publication, the later events come with the query; where it has
/// another history of the entity than the generation, all of them do.
///
/// A target ranks where it stands in the list of 200; one that is not in it has no rank, and counts 0 in every metric.
#[derive(Debug)]
pub struct Served<'a> {
    name: String,
    engine: &'a Engine,
    filter: Filter<'a>,
    generation: Arc<Generation>,
    /// The dataset's item of each row of the generation.
    items: Vec<Option<u32>>,
    /// The generation's row of each item of the dataset.
    rows: Vec<Option<u32>>,
    sessions: Mutex<Vec<Session>>,
}

impl<'a> Served<'a> {
    /// Matches what an engine serves now with a dataset. Its row is `docent`.
    ///
    /// # Errors
    /// `StateMismatch` where the dataset shares no item with the generation; `Corrupt` where its id table is damaged.
    pub fn new(engine: &'a Engine, data: &Dataset) -> Result<Self> {
        let generation = engine.current();
        let (mut items, mut rows) = (vec![None; generation.items()], Vec::with_capacity(data.items.len()));
        for (item, id) in (0..).zip(data.items.names()) {
            let row = generation.find_item(id)?;
            if let Some(slot) = row.and_then(|row| items.get_mut(row as usize)) {
                *slot = Some(item);
            }
            rows.push(row);
        }
        if rows.iter().all(Option::is_none) {
            return Err(err!(
                StateMismatch,
                "no item of dataset {} is in generation {}; bring the dataset that it was trained on, or a later one",
                data.schema.name,
                generation.id()
            ));
        }
        let (name, filter) = ("docent".to_owned(), Filter::default());
        Ok(Self { name, engine, filter, generation, items, rows, sessions: Mutex::default() })
    }

    /// The same under another name.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The same with this filter in every request.
    pub fn under(self, filter: Filter<'a>) -> Self {
        Self { filter, ..self }
    }

    /// The list for a question, best first: items of the dataset, `None` for those that it does not have. With `among` only these ids
    /// may be in it.
    pub(super) fn list(
        &self,
        data: &Dataset,
        case: &Case,
        seen: Seen,
        among: Option<&[&str]>,
    ) -> Result<Vec<Option<u32>>> {
        let allowed: Option<Vec<&str>> = match (self.filter.allow, among) {
            (Some(own), Some(among)) => Some(among.iter().filter(|id| own.contains(id)).copied().collect()),
            _ => None,
        };
        let allow = allowed.as_deref().or(among).or(self.filter.allow);
        let unknown = if among.is_some() { UnknownItems::Skip } else { self.filter.unknown };
        let filter = Filter { seen: Some(seen), allow, unknown, ..self.filter };
        let mut session = self.sessions.lock().pop().unwrap_or_default();
        let (mut rows, mut scores) = ([0u32; DEPTH], [0.0f32; DEPTH]);
        let written = self
            .ask(data, case, |query| self.engine.recommend_into(&mut session, query, &filter, &mut rows, &mut scores));
        self.sessions.lock().push(session);
        let best = rows.get(..written?.count).unwrap_or_default();
        Ok(best.iter().map(|row| self.items.get(*row as usize).copied().flatten()).collect())
    }

    /// Calls `f` with a question as a query.
    fn ask<T>(&self, data: &Dataset, case: &Case, f: impl FnOnce(&Query<'_>) -> Result<T>) -> Result<T> {
        let id = data.entities.id(case.entity);
        let (known, whole) = self.known(data, id, case.history.clone())?;
        // What the generation holds of somebody with another history says nothing of the question.
        let since = if whole { case.history.start + known..case.history.end } else { case.history.clone() };
        let fields: Vec<Vec<FieldValue<'_>>> = since.clone().map(|event| self.fields(data, event, false)).collect();
        let events: Vec<Event<'_>> =
            since.zip(&fields).map(|(event, fields)| self.event(data, event, fields)).collect();
        let (time, circumstances) = match case.at {
            Some(at) => (Some(at), Vec::new()),
            None => (data.events.time.get(case.target).copied(), self.fields(data, case.target, true)),
        };
        let query = match whole {
            true => Query::entity(id).as_of(AsOf::Events(known)).and_then(&events),
            false => Query::history(&events),
        };
        f(&Query { time, ..query.with(&circumstances).skip_unknown() })
    }

    /// How many events of `history` the generation holds of the entity, and whether its history is the beginning of this one or goes on
    /// with it.
    fn known(&self, data: &Dataset, entity: &str, history: Range<usize>) -> Result<(usize, bool)> {
        let Some(entity) = self.generation.find_entity(entity)? else { return Ok((0, true)) };
        let stored = self.generation.stored_events(self.generation.stored_range(entity)?)?;
        let same = |(place, event): &(usize, usize)| {
            let item = data.events.item.get(*event).and_then(|item| self.rows.get(*item as usize)).copied().flatten();
            item.is_some()
                && stored.items.get(*place).copied() == item
                && (stored.time.is_empty() || stored.time.get(*place) == data.events.time.get(*event))
        };
        let length = history.len();
        let known = history.enumerate().take_while(same).count();
        Ok((known, known == length || known == stored.items.len()))
    }

    /// An event of the dataset, as far as the generation knows its kind.
    fn event<'b>(&self, data: &'b Dataset, event: usize, fields: &'b [FieldValue<'b>]) -> Event<'b> {
        let (schema, e) = (self.generation.schema(), &data.events);
        let action = e.action.get(event).and_then(|code| data.schema.actions.get(usize::from(*code)));
        Event {
            item: e.item.get(event).map_or("", |item| data.items.id(*item)),
            time: e.time.get(event).copied(),
            action: action.map(String::as_str).filter(|name| schema.actions.iter().any(|known| known == name)),
            value: e.value.get(event).copied().filter(|value| schema.value.is_some() && value.is_finite()),
            fields,
        }
    }

    /// The fields of an event that the generation knows, all or those that are known when a request is made.
    fn fields<'b>(&self, data: &'b Dataset, event: usize, at_request: bool) -> Vec<FieldValue<'b>> {
        let known = &self.generation.schema().event_fields;
        let mut found = Vec::new();
        for (declared, column) in data.schema.event_fields.iter().zip(&data.events.fields) {
            let name = &declared.field.name;
            let same = known.iter().find(|other| other.field.name == *name);
            if same.is_none_or(|other| at_request && other.timing != Timing::Request) {
                continue;
            }
            match (column, &declared.field.kind) {
                (Column::Codes(codes), FieldKind::Categorical(values)) => {
                    let code = codes.get(event).copied().unwrap_or(0);
                    if let Some(value) = values.get((code as usize).wrapping_sub(1)) {
                        found.push((name.as_str(), Cell::Text(value)));
                    }
                }
                (Column::Numbers(numbers), _) => {
                    let number = numbers.get(event).copied().filter(|x| !x.is_nan());
                    found.extend(number.map(|x| (name.as_str(), Cell::Number(x))));
                }
                _ => {}
            }
        }
        found
    }
}
