//! Records of the live file.

use super::frozen;
use crate::store::records;
use rkyv::{Archive, Deserialize, Serialize};

frozen!(State = records::EntityState {
    each outcomes: Outcome,
    plain seen: u64,
    plain touched: i64,
    maybe adapted: Embedding,
});

frozen!(Outcome = records::StoredOutcome {
    plain item: String,
    plain time: Option<i64>,
    plain action: Option<String>,
    plain value: Option<f32>,
    plain fields: Vec<(String, String)>,
    plain labels: Vec<(String, f32)>,
    plain impression: Vec<(String, f32)>,
    plain in_history: bool,
});

frozen!(Embedding = records::StoredEmbedding {
    plain model: [u8; 32],
    plain embedding: Vec<f32>,
    plain surfaces: Vec<(String, Vec<f32>)>,
    plain outcomes: u64,
    plain made: i64,
});

frozen!(Item = records::StoredItem {
    plain sequence: u64,
    plain id: String,
    plain title: Option<String>,
    plain released: Option<i64>,
    plain added: Option<i64>,
    each fields: FieldOf,
});

/// A field of an item, by name.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct FieldOf(String, Value);

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(f32),
    Vector(Vec<f32>),
}

impl From<(String, records::StoredValue)> for FieldOf {
    fn from((name, value): (String, records::StoredValue)) -> Self {
        let value = match value {
            records::StoredValue::Text(text) => Value::Text(text),
            records::StoredValue::Texts(texts) => Value::Texts(texts),
            records::StoredValue::Number(number) => Value::Number(number),
            records::StoredValue::Vector(numbers) => Value::Vector(numbers),
        };
        Self(name, value)
    }
}

impl From<FieldOf> for (String, records::StoredValue) {
    fn from(FieldOf(name, value): FieldOf) -> Self {
        let value = match value {
            Value::Text(text) => records::StoredValue::Text(text),
            Value::Texts(texts) => records::StoredValue::Texts(texts),
            Value::Number(number) => records::StoredValue::Number(number),
            Value::Vector(numbers) => records::StoredValue::Vector(numbers),
        };
        (name, value)
    }
}
