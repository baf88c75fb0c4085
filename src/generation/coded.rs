//! A dataset in the rows and codes of a generation: the one that it was trained on, or a later one.

use super::published::Generation;
use crate::data::{Column, Dataset, RunRule, newest_runs};
use crate::error::{Result, err};
use crate::model::{History, Request};
use crate::schema::{FieldKind, Schema};
use crate::tokenizer::Tokenizer;
use std::ops::Range;
use std::sync::Arc;

/// Matches items, actions and field values of a dataset with those of a generation by their text.
#[derive(Debug)]
pub(crate) struct Coded {
    generation: Arc<Generation>,
    /// The generation's row of each item of the dataset.
    items: Vec<Option<u32>>,
    same_rows: bool,
    actions: Vec<Option<u16>>,
    fields: Vec<Recode>,
}

#[derive(Debug)]
enum Recode {
    Codes(Vec<u32>),
    Numbers(FieldKind),
}

impl Coded {
    /// Matches a generation with a dataset.
    ///
    /// # Errors
    /// `StateMismatch` where the dataset declares other event fields than the model was trained with, or shares no item with
    /// it; `Corrupt` where the generation's id table is damaged.
    pub(crate) fn new(generation: Arc<Generation>, data: &Dataset) -> Result<Self> {
        let mut items = Vec::with_capacity(data.items.len());
        for id in data.items.names() {
            items.push(generation.find_item(id)?);
        }
        if items.iter().all(Option::is_none) {
            return Err(err!(
                StateMismatch,
                "no item of dataset {} is in generation {}; bring the dataset that it was trained on, or a later one",
                data.schema.name,
                generation.id()
            ));
        }
        let rows = items.iter().enumerate().all(|(i, row)| *row == Some(i as u32));
        let same_rows = rows && items.len() == generation.items();
        let schema = generation.schema();
        let fields = recodes(schema, &data.schema)?;
        let action = |name: &String| schema.actions.iter().position(|a| a == name).map(|i| i as u16);
        let actions = data.schema.actions.iter().map(action).collect();
        Ok(Self { items, same_rows, actions, fields, generation })
    }

    /// The generation.
    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The generation's row of an item of the dataset.
    pub(crate) fn row(&self, item: u32) -> Option<u32> {
        self.items.get(item as usize).copied().flatten()
    }

    /// The generation's rows of all items of the dataset.
    pub(crate) fn rows(&self) -> &[Option<u32>] {
        &self.items
    }

    /// Whether both have the same items in the same rows.
    pub(crate) fn same_rows(&self) -> bool {
        self.same_rows
    }

    /// The code of event field `at` in event `i`.
    fn code(&self, data: &Dataset, at: usize, i: usize) -> u32 {
        match (self.fields.get(at), data.events.fields.get(at)) {
            (Some(Recode::Codes(map)), Some(Column::Codes(codes))) => {
                codes.get(i).and_then(|c| map.get(*c as usize)).copied().unwrap_or(0)
            }
            (Some(Recode::Numbers(kind)), Some(Column::Numbers(v))) => {
                kind.bucket(v.get(i).copied().unwrap_or(f32::NAN))
            }
            _ => 0,
        }
    }

    /// What the model reads of the events `range` of the dataset: the newest that it can read, as tokens where it reads tokens.
    pub(crate) fn history(&self, data: &Dataset, range: Range<usize>) -> History {
        let most = self.generation.model().max_length as usize + 1;
        let e = &data.events;
        let row = |i: usize| e.item.get(i).and_then(|r| self.row(*r));
        let known: Vec<usize> = range.filter(|i| row(*i).is_some()).collect();
        let place = |rule: &RunRule, at: usize| known.get(at).map(|i| rule.place(data, *i));
        let joins = |a: usize, b: usize| {
            let rule = self.generation.tokenizer().map(Tokenizer::rule);
            rule.and_then(|r| Some(r.joins(place(r, a)?, place(r, b)?))).unwrap_or(false)
        };
        let start = newest_runs(0..known.len(), most, joins);
        let known = known.get(start..).unwrap_or_default();
        let schema = self.generation.schema();
        let column = |wanted: bool| if wanted { known } else { &[] };
        let action = |i: &usize| {
            let known = e.action.get(*i).and_then(|a| self.actions.get(usize::from(*a)).copied().flatten());
            known.unwrap_or(History::NO_ACTION)
        };
        let history = History {
            items: known.iter().filter_map(|i| row(*i)).collect(),
            time: column(schema.has_time).iter().filter_map(|i| e.time.get(*i).copied()).collect(),
            first: Vec::new(),
            action: match data.schema.actions.is_empty() {
                true => Vec::new(),
                false => column(!schema.actions.is_empty()).iter().map(action).collect(),
            },
            value: column(schema.value.is_some()).iter().filter_map(|i| e.value.get(*i).copied()).collect(),
            fields: (0..self.fields.len()).map(|at| known.iter().map(|i| self.code(data, at, *i)).collect()).collect(),
        };
        match self.generation.tokenizer() {
            Some(tokenizer) => {
                let mut merged = History::default();
                tokenizer.merge(&history, 0..history.items.len(), &mut merged);
                merged
            }
            None => history,
        }
    }

    /// The request that event `target` answered, or one at the time `at` of which nothing more is known.
    pub(crate) fn request(&self, data: &Dataset, target: usize, at: Option<i64>) -> Request {
        let time = at.or(data.events.time.get(target).copied());
        Request {
            time: time.filter(|_| self.generation.schema().has_time),
            fields: match at {
                None => (0..self.fields.len()).map(|field| self.code(data, field, target)).collect(),
                Some(_) => Vec::new(),
            },
        }
    }
}

fn recodes(model: &Schema, data: &Schema) -> Result<Vec<Recode>> {
    let recode = |field: &crate::schema::EventField| {
        let name = &field.field.name;
        let found = data.event_fields.iter().position(|f| f.field.name == *name);
        let place = model.event_fields.iter().position(|f| f.field.name == *name);
        let other = found.filter(|at| Some(*at) == place).and_then(|at| data.event_fields.get(at));
        match (other.map(|f| &f.field.kind), &field.field.kind) {
            (Some(FieldKind::Categorical(theirs)), FieldKind::Categorical(ours)) => {
                let rows: std::collections::HashMap<&String, u32> = ours.iter().zip(1..).collect();
                let codes = theirs.iter().map(|v| rows.get(v).copied().unwrap_or(0));
                Ok(Recode::Codes(std::iter::once(0).chain(codes).collect()))
            }
            (Some(FieldKind::Numeric(_)), kind @ FieldKind::Numeric(_)) => Ok(Recode::Numbers(kind.clone())),
            _ => Err(err!(
                StateMismatch,
                "the model was trained with the event field {name}, which the dataset does not declare alike, at the same \
                 place; bring the dataset description that it was trained with"
            )),
        }
    };
    model.event_fields.iter().map(recode).collect()
}
