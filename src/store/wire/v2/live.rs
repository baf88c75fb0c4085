//! States of entities: outcomes have ids, the newest time may lie before 1970, and items outlive their events.

use super::super::v1::{self, Embedding, frozen};
use crate::store::records;

frozen!(State = records::EntityState {
    each outcomes: Outcome,
    plain seen: u64,
    plain touched: Option<i64>,
    plain past_items: Vec<String>,
    maybe adapted: Embedding,
});

frozen!(Outcome = records::StoredOutcome {
    plain id: Option<String>,
    plain item: String,
    plain time: Option<i64>,
    plain action: Option<String>,
    plain value: Option<f32>,
    plain fields: Vec<(String, String)>,
    plain labels: Vec<(String, f32)>,
    plain impression: Vec<(String, f32)>,
    plain in_history: bool,
});

impl From<v1::State> for State {
    fn from(before: v1::State) -> Self {
        let v1::State { outcomes, seen, touched, adapted } = before;
        Self {
            outcomes: outcomes.into_iter().map(Into::into).collect(),
            seen,
            // 0 stood for none.
            touched: (touched != 0).then_some(touched),
            past_items: Vec::new(),
            adapted,
        }
    }
}

impl From<v1::Outcome> for Outcome {
    fn from(before: v1::Outcome) -> Self {
        let v1::Outcome { item, time, action, value, fields, labels, impression, in_history } = before;
        Self { id: None, item, time, action, value, fields, labels, impression, in_history }
    }
}
