//! What is known about items, as the tower reads it: rows of feature tables and dense vectors.

use crate::data::{Column, Dataset};
use crate::schema::{FieldKind, Schema};

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
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// Slot `s` of item `i` is `rows[starts[i * slots + s]..starts[i * slots + s + 1]]`.
    starts: Vec<u32>,
    /// Rows of the feature tables.
    rows: Vec<u32>,
    /// Dense vectors, item by item.
    dense: Vec<f32>,
}

impl Default for Metadata {
    /// That of no items.
    fn default() -> Self {
        Self { starts: vec![0], rows: Vec::new(), dense: Vec::new() }
    }
}

/// What goes into `m` for a field.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// Codes of a table whose first row is this one among all feature tables.
    Table { first: usize, kind: FieldKind },
    /// A dense vector of this length.
    Dense(usize),
}

/// What an item has in one slot.
pub(super) enum Found<'m> {
    /// Rows of the feature tables.
    Rows(&'m [u32]),
    /// A dense vector.
    Dense(&'m [f32]),
}

/// The slots of an item's metadata: one for each of the schema's item fields in their order, titles last.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    parts: Vec<Part>,
    /// First row and number of buckets of the title's words.
    title: Option<(usize, usize)>,
    /// Numbers of dense vectors per item.
    dense: usize,
}

impl Slots {
    /// The slots of a schema, whose tables begin at row `first` of all feature tables.
    pub(super) fn new(schema: &Schema, mut first: usize, title_buckets: usize) -> Self {
        let mut dense = 0;
        let mut parts = Vec::new();
        for field in &schema.item_fields {
            parts.push(match &field.kind {
                FieldKind::Vector(dim) => {
                    dense += *dim as usize;
                    Part::Dense(*dim as usize)
                }
                kind => Part::Table { first, kind: kind.clone() },
            });
            first += field.kind.codes();
        }
        Self { parts, title: (title_buckets > 0).then_some((first, title_buckets)), dense }
    }

    fn count(&self) -> usize {
        self.parts.len() + usize::from(self.title.is_some())
    }

    /// One more than the last row of the feature tables that an item may have.
    pub(super) fn last_row(&self) -> usize {
        let ends =
            self.parts.iter().map(|p| if let Part::Table { first, kind } = p { first + kind.codes() } else { 0 });
        ends.fold(self.title.map_or(0, |(first, buckets)| first + buckets), usize::max)
    }

    /// The metadata of every item of a dataset.
    pub(super) fn of_dataset(&self, data: &Dataset) -> Metadata {
        let mut metadata = Metadata::default();
        for item in 0..data.items.len() {
            let values: Vec<Value<'_>> = data.item_columns.iter().map(|column| column_value(column, item)).collect();
            self.push(&mut metadata, data.titles.get(item).map_or("", String::as_str), &values);
        }
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

    /// Calls `f` with what an item has in each slot and the slot's place in `m`, where tables are `width` wide.
    pub(super) fn each<'m>(
        &self,
        metadata: &'m Metadata,
        item: usize,
        width: usize,
        mut f: impl FnMut(usize, Found<'m>),
    ) {
        let rows = |s: usize| {
            let at = item * self.count() + s;
            Found::Rows(&metadata.rows[metadata.starts[at] as usize..metadata.starts[at + 1] as usize])
        };
        let (mut at, mut from) = (0, item * self.dense);
        for (s, part) in self.parts.iter().enumerate() {
            match part {
                Part::Dense(dim) => {
                    f(at, Found::Dense(&metadata.dense[from..from + dim]));
                    (at, from) = (at + dim, from + dim);
                }
                Part::Table { .. } => {
                    f(at, rows(s));
                    at += width;
                }
            }
        }
        if self.title.is_some() {
            f(at, rows(self.parts.len()));
        }
    }

    /// Whether nothing is known of an item.
    pub(super) fn is_bare(&self, metadata: &Metadata, item: usize) -> bool {
        let slots = self.count();
        let rows = metadata.starts[(item + 1) * slots] > metadata.starts[item * slots];
        let dense = &metadata.dense[item * self.dense..(item + 1) * self.dense];
        !rows && dense.iter().all(|v| *v == 0.0)
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
