//! A published generation as a method to be judged, on the dataset it was trained on or on a later one.

use super::scorer::Scorer;
use crate::data::{Case, Column, Dataset};
use crate::error::{Result, err};
use crate::model::{History, Request, Scratch};
use crate::schema::{FieldKind, Schema};
use crate::serve::Generation;
use std::sync::Arc;

/// Scores questions with a generation. Items, actions and field values are matched by their text; items that the
/// generation does not know score `-inf`.
#[derive(Debug)]
pub struct EngineScorer {
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

impl EngineScorer {
    /// Matches a generation with a dataset.
    ///
    /// # Errors
    /// `StateMismatch` where the dataset declares other event fields than the model was trained with, or shares no item with
    /// it; `Corrupt` where the generation's id table is damaged.
    pub fn new(generation: Arc<Generation>, data: &Dataset) -> Result<Self> {
        let mut items = Vec::with_capacity(data.items.len());
        for id in data.items.names() {
            items.push(generation.find_item(id)?);
        }
        if items.iter().all(Option::is_none) {
            return Err(err!(
                StateMismatch,
                "no item of dataset {} is in generation {}; evaluate with the dataset that it was trained on",
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

    /// The generation that is judged.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The generation's row of an item of the dataset.
    pub(super) fn row(&self, item: u32) -> Option<u32> {
        self.items.get(item as usize).copied().flatten()
    }

    /// The question in the generation's rows and codes.
    pub(super) fn question(&self, data: &Dataset, case: &Case) -> (History, Request) {
        let most = self.generation.model().context as usize + 1;
        let start = case.history.end.saturating_sub(most).max(case.history.start);
        let e = &data.events;
        let row = |i: usize| e.item.get(i).and_then(|r| self.items.get(*r as usize).copied().flatten());
        let known: Vec<usize> = (start..case.history.end).filter(|i| row(*i).is_some()).collect();
        let schema = self.generation.schema();
        let code = |at: usize, i: usize| match (self.fields.get(at), e.fields.get(at)) {
            (Some(Recode::Codes(map)), Some(Column::Codes(codes))) => {
                codes.get(i).and_then(|c| map.get(*c as usize)).copied().unwrap_or(0)
            }
            (Some(Recode::Numbers(kind)), Some(Column::Numbers(v))) => {
                kind.bucket(v.get(i).copied().unwrap_or(f32::NAN))
            }
            _ => 0,
        };
        let column = |wanted: bool| if wanted { known.as_slice() } else { &[] };
        let action = |i: &usize| {
            let known = e.action.get(*i).and_then(|a| self.actions.get(usize::from(*a)).copied().flatten());
            known.unwrap_or(History::NO_ACTION)
        };
        let history = History {
            items: known.iter().filter_map(|i| row(*i)).collect(),
            time: column(schema.has_time).iter().filter_map(|i| e.time.get(*i).copied()).collect(),
            action: match data.schema.actions.is_empty() {
                true => Vec::new(),
                false => column(!schema.actions.is_empty()).iter().map(action).collect(),
            },
            value: column(schema.value.is_some()).iter().filter_map(|i| e.value.get(*i).copied()).collect(),
            fields: (0..self.fields.len()).map(|at| known.iter().map(|i| code(at, *i)).collect()).collect(),
        };
        let request = Request {
            time: case.at.or(e.time.get(case.target).copied()).filter(|_| schema.has_time),
            fields: match case.at {
                None => (0..self.fields.len()).map(|at| code(at, case.target)).collect(),
                Some(_) => Vec::new(),
            },
        };
        (history, request)
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
                 place; evaluate with the dataset description that it was trained with"
            )),
        }
    };
    model.event_fields.iter().map(recode).collect()
}

impl Scorer for EngineScorer {
    fn name(&self) -> &str {
        "docent"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        self.score_batch(data, std::slice::from_ref(case), scores)
    }

    fn score_batch(&self, data: &Dataset, cases: &[Case], scores: &mut [f32]) -> Result<()> {
        let users: Vec<_> = cases.iter().map(|case| self.question(data, case)).collect();
        let mut scratch = Scratch::default();
        if self.same_rows {
            return self.generation.score_all(&users, &mut scratch, scores);
        }
        let n = self.generation.items();
        let mut all = vec![0.0f32; n * users.len()];
        self.generation.score_all(&users, &mut scratch, &mut all)?;
        for (to, from) in scores.chunks_exact_mut(self.items.len()).zip(all.chunks_exact(n)) {
            for (to, row) in to.iter_mut().zip(&self.items) {
                *to = row.and_then(|r| from.get(r as usize).copied()).unwrap_or(f32::NEG_INFINITY);
            }
        }
        Ok(())
    }
}
