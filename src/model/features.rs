//! From events to the numbers that the network reads, the same way in training and in serving.
//!
//! Leakage rule (model.md, section 1): the token that predicts event k joins the request-time fields of k with the
//! post-action fields (item, action, value, outcomes) of k-1. The token before the first event is the opening token.

use crate::error::Result;
use crate::options::ModelOptions;
use crate::schema::Schema;

/// A history as the model reads it, oldest event first. Optional columns are empty or as long as `items`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Item rows.
    pub items: Vec<u32>,
    /// Unix times in milliseconds.
    pub time: Vec<i64>,
    /// Action codes (index into `schema.actions`).
    pub action: Vec<u16>,
    /// Values; NaN is missing.
    pub value: Vec<f32>,
    /// Codes of each of `schema.event_fields` (numeric ones bucketed; 0 is missing).
    pub fields: Vec<Vec<u32>>,
}

/// What is known when a list is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Unix time in milliseconds, where known.
    pub time: Option<i64>,
    /// Codes of `schema.event_fields`, of which only the request-time ones are read; empty or one per field.
    pub fields: Vec<u32>,
}

/// One embedded feature of a token besides its item.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name, as in the snapshot's sections.
    pub name: String,
    /// How many codes it has, 0 (missing) included.
    pub codes: usize,
}

/// The features of a token under a schema and model options.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// In the order of their codes in a token.
    pub list: Vec<Feature>,
}

impl Features {
    /// The features that `options` asks for out of `schema`.
    pub fn new(schema: &Schema, options: &ModelOptions) -> Self {
        let _ = (schema, options);
        Self { list: Vec::new() }
    }

    /// Checks a history's column lengths and codes against the schema.
    ///
    /// # Errors
    /// `InvalidArgument` naming the column.
    pub fn check(&self, history: &History, items: usize) -> Result<()> {
        let _ = (history, items);
        Ok(())
    }
}
