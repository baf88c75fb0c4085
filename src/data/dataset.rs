//! Who did what, with what: a whole dataset in memory, column by column.
//!
//! Rows are dense numbers: item row `i` is `items.id(i)`, entity row `u` is `entities.id(u)`. Events are sorted by
//! entity, then by time or order, then by their place in the input, and are addressed by a compressed-row offset table.

use crate::schema::{Schema, Timing};
use std::collections::HashMap;
use std::ops::Range;

/// Names for dense rows, in row order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    names: Vec<String>,
    rows: HashMap<String, u32>,
}

impl Vocabulary {
    /// The row of `name`, added at the end if it is new.
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        if let Some(&row) = self.rows.get(name) {
            return row;
        }
        let row = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.rows.insert(name.to_owned(), row);
        row
    }

    /// The row of `name`.
    pub fn row(&self, name: &str) -> Option<u32> {
        self.rows.get(name).copied()
    }

    /// The name of `row`; empty if there is no such row.
    pub fn id(&self, row: u32) -> &str {
        self.names.get(row as usize).map_or("", String::as_str)
    }

    /// All names in row order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// One column of values, one entry per event, item or entity.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Codes of a categorical field; 0 is missing.
    Codes(Vec<u32>),
    /// Codes of a multi-valued field: row `r` holds `codes[offsets[r]..offsets[r + 1]]`.
    Lists {
        /// One more than there are rows.
        offsets: Vec<u32>,
        /// All codes; none is 0.
        codes: Vec<u32>,
    },
    /// Numbers; NaN is missing.
    Numbers(Vec<f32>),
    /// Dense vectors, `dim` numbers a row; a missing vector is all zero.
    Vectors {
        /// Numbers per row.
        dim: u32,
        /// Row-major values.
        values: Vec<f32>,
    },
}

/// The events of a dataset as columns. All columns that exist have one entry per event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events {
    /// Entity `u`'s events are `offsets[u]..offsets[u + 1]`.
    pub offsets: Vec<u64>,
    /// Item row of each event.
    pub item: Vec<u32>,
    /// Unix time in milliseconds; empty where the dataset has no time.
    pub time: Vec<i64>,
    /// Action code (index into `schema.actions`); empty where events declare no action.
    pub action: Vec<u16>,
    /// Value; NaN is missing; empty where not declared.
    pub value: Vec<f32>,
    /// Label; NaN is missing; empty where not declared.
    pub label: Vec<f32>,
    /// One column per `schema.event_fields`: `Codes` or `Numbers`.
    pub fields: Vec<Column>,
}

impl Events {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.item.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.item.is_empty()
    }
}

/// A whole dataset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// The declared fields and their vocabularies.
    pub schema: Schema,
    /// Entity ids, in order of first appearance in the events.
    pub entities: Vocabulary,
    /// Item ids: those of the item file in its order first (where one is declared), then those that only events name.
    /// Items that no kept event names are dropped unless the filter keeps unused ones.
    pub items: Vocabulary,
    /// What happened.
    pub events: Events,
    /// Title of each item; empty strings where unknown; an empty vector where no title is declared.
    pub titles: Vec<String>,
    /// Release time of each item, Unix milliseconds; `i64::MIN` is unknown; empty where not declared.
    pub released: Vec<i64>,
    /// One column per `schema.item_fields`, one entry per item.
    pub item_columns: Vec<Column>,
    /// One column per `schema.entity_fields`, one entry per entity.
    pub entity_columns: Vec<Column>,
    /// BLAKE3 of the dataset's content (ids, events and columns, not file names): the same data gives the same hash.
    pub hash: [u8; 32],
}

impl Dataset {
    /// The range of entity `u`'s events in the columns of [`Events`]; empty if there is no such entity.
    pub fn range(&self, entity: u32) -> Range<usize> {
        let u = entity as usize;
        match (self.events.offsets.get(u), self.events.offsets.get(u + 1)) {
            (Some(&a), Some(&b)) => a as usize..b as usize,
            _ => 0..0,
        }
    }

    /// The item rows of entity `u`'s events, oldest first.
    pub fn history(&self, entity: u32) -> &[u32] {
        self.events.item.get(self.range(entity)).unwrap_or(&[])
    }

    /// Indices into `schema.event_fields` of the fields with this timing.
    pub fn fields_with(&self, timing: Timing) -> Vec<usize> {
        let fields = self.schema.event_fields.iter().enumerate();
        fields.filter(|(_, f)| f.timing == timing).map(|(i, _)| i).collect()
    }
}
