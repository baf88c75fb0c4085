//! How does anything that happened look? One shape for events, whoever brings them: a dataset's rows, a query, an observation.
//!
//! Everything borrows from the caller, so that bringing an event allocates nothing.

use std::ops::RangeInclusive;

/// The Unix milliseconds that a time may have: the years 0 to 9999, so that no difference of two overflows.
pub(crate) const TIMES: RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Cell<'a> {
    /// Not known.
    #[default]
    Missing,
    /// For categorical and multi-valued fields; empty is missing.
    Text(&'a str),
    /// For multi-valued fields; repeated values count once.
    Texts(&'a [&'a str]),
    /// For numeric fields; NaN is missing.
    Number(f32),
    /// For vector fields.
    Vector(&'a [f32]),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<f32> for Cell<'_> {
    fn from(number: f32) -> Self {
        Self::Number(number)
    }
}

/// A field's value by the field's name: `("device", Cell::Text("phone"))`.
pub type FieldValue<'a> = (&'a str, Cell<'a>);

/// One event: an entity did something with an item.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Event<'a> {
    /// The item's id.
    pub item: &'a str,
    /// When it happened, in Unix milliseconds. In a query, an event without a time is taken to have happened together with the one
    /// before it.
    pub time: Option<i64>,
    /// The action's name.
    pub action: Option<&'a str>,
    /// A summable number, such as a rating or a duration; finite.
    pub value: Option<f32>,
    /// Request-time and post-action fields by name; fields left out are missing.
    pub fields: &'a [FieldValue<'a>],
}

impl<'a> Event<'a> {
    /// An event of which only the item is known.
    pub fn item(id: &'a str) -> Self {
        Self { item: id, ..Self::default() }
    }
}
