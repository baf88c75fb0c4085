//! Records of the live file.

use super::frozen;
use crate::store::records;
use rkyv::{Archive, Deserialize, Serialize};

/// The state of an entity; version 2 has another.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct State {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) seen: u64,
    pub(crate) touched: i64,
    pub(crate) adapted: Option<Embedding>,
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Outcome {
    pub(crate) item: String,
    pub(crate) time: Option<i64>,
    pub(crate) action: Option<String>,
    pub(crate) value: Option<f32>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) labels: Vec<(String, f32)>,
    pub(crate) impression: Vec<(String, f32)>,
    pub(crate) in_history: bool,
}

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
