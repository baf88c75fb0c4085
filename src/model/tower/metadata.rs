//! What is known about items, as the tower reads it: rows of feature tables and dense vectors.

use super::{Part, Tower};
use crate::data::{Column, Dataset};

/// One metadata value, coded by the schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Codes of a categorical or multi-valued field; 0 is missing.
    Codes(&'a [u32]),
    /// A number; NaN is missing.
    Number(f32),
    /// A dense vector.
    Vector(&'a [f32]),
}

/// The metadata of some items as the tower reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Slot `s` of item `i` is `rows[starts[i * slots + s]..starts[i * slots + s + 1]]`.
    pub(super) starts: Vec<u32>,
    /// Rows of the feature tables.
    pub(super) rows: Vec<u32>,
    /// Dense vectors, item by item.
    pub(super) dense: Vec<f32>,
}

impl Tower {
    /// The metadata of every item of a dataset.
    pub(crate) fn metadata(&self, data: &Dataset) -> Metadata {
        let mut metadata = Metadata { starts: vec![0], ..Metadata::default() };
        for item in 0..data.items.len() {
            let values: Vec<Value<'_>> = data.item_columns.iter().map(|column| column_value(column, item)).collect();
            self.push(&mut metadata, data.titles.get(item).map_or("", String::as_str), &values);
        }
        metadata
    }

    /// The metadata of one item: one value for each of the schema's item fields, in their order.
    pub fn describe(&self, title: &str, values: &[Value<'_>]) -> Metadata {
        let mut metadata = Metadata { starts: vec![0], ..Metadata::default() };
        self.push(&mut metadata, title, values);
        metadata
    }

    pub(super) fn push(&self, to: &mut Metadata, title: &str, values: &[Value<'_>]) {
        for (i, part) in self.parts.iter().enumerate() {
            match (part, values.get(i)) {
                (Part::Table { first, kind }, Some(Value::Codes(codes))) => {
                    let valid = codes.iter().filter(|c| **c > 0 && (**c as usize) < kind.codes());
                    to.rows.extend(valid.map(|c| *first as u32 + c));
                }
                (Part::Table { first, kind }, Some(Value::Number(x))) => {
                    let code = kind.bucket(*x);
                    to.rows.extend((code > 0).then_some(*first as u32 + code));
                }
                (Part::Dense(dim), Some(Value::Vector(x))) if x.len() == *dim => to.dense.extend_from_slice(x),
                (Part::Dense(dim), _) => to.dense.extend(std::iter::repeat_n(0.0, *dim)),
                (Part::Table { .. }, _) => {}
            }
            to.starts.push(to.rows.len() as u32);
        }
        if let Some((first, buckets)) = self.title {
            to.rows.extend(words(title).map(|w| (first + word_bucket(&w, buckets)) as u32));
            to.starts.push(to.rows.len() as u32);
        }
    }
}

/// The value of a row of a column.
pub(crate) fn column_value(column: &Column, item: usize) -> Value<'_> {
    match column {
        Column::Codes(codes) => Value::Codes(codes.get(item..item + 1).unwrap_or(&[])),
        Column::Lists { offsets, codes } => {
            let at = |i: usize| offsets.get(i).map_or(0, |o| *o as usize);
            Value::Codes(codes.get(at(item)..at(item + 1)).unwrap_or(&[]))
        }
        Column::Numbers(values) => Value::Number(values.get(item).copied().unwrap_or(f32::NAN)),
        Column::Vectors { dim, values } => {
            let d = *dim as usize;
            Value::Vector(values.get(item * d..(item + 1) * d).unwrap_or(&[]))
        }
    }
}

/// The words of a title: runs of letters and digits, in lower case.
fn words(title: &str) -> impl Iterator<Item = String> + '_ {
    title.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

fn word_bucket(word: &str, buckets: usize) -> usize {
    let mut first = [0; 8];
    blake3::hash(word.as_bytes()).as_bytes().iter().zip(&mut first).for_each(|(from, to)| *to = *from);
    (u64::from_le_bytes(first) % buckets.max(1) as u64) as usize
}
