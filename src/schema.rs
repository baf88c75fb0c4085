//! How anything gets named: the fields of events, items and entities, and the vocabularies behind their codes.
//!
//! A schema is shared by the data that is read, the model that is trained, the snapshot that is published and the
//! engine that serves, so it sits below all of them.

use crate::options::TokenizerOptions;

/// When a field of an event is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timing {
    /// Known when the request is made: device, surface, country. May be used to predict the same event.
    Request,
    /// Known only after the person acted: duration, rating, outcome. May be used for later events only.
    PostAction,
}

/// What a field's values are.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    /// One value out of the vocabulary given here, most frequent first (ties by text). Code 0 is "missing or unknown";
    /// code `c >= 1` is `vocabulary[c - 1]`.
    Categorical(Vec<String>),
    /// Any number of values out of a vocabulary, coded as above.
    MultiValued(Vec<String>),
    /// A number; NaN is "missing". Holds the upper bounds of the buckets that split the observed values evenly,
    /// ascending. Bucket codes are 0 = missing, then 1 ..= `bounds.len() + 1`.
    Numeric(Vec<f32>),
    /// A dense vector of this length.
    Vector(u32),
}

impl FieldKind {
    /// How many codes a categorical, multi-valued or bucketed field has, code 0 included; 0 for vectors.
    pub fn codes(&self) -> usize {
        match self {
            Self::Categorical(vocabulary) | Self::MultiValued(vocabulary) => vocabulary.len() + 1,
            Self::Numeric(bounds) => bounds.len() + 2,
            Self::Vector(_) => 0,
        }
    }

    /// The bucket code of a number: 0 if it is missing, else 1 + the count of bounds below it.
    pub fn bucket(&self, value: f32) -> u32 {
        match self {
            Self::Numeric(bounds) if !value.is_nan() => 1 + bounds.partition_point(|b| *b < value) as u32,
            _ => 0,
        }
    }

    /// The text of a code of a categorical or multi-valued field; `None` for 0 and for codes that it does not have.
    pub fn text(&self, code: u32) -> Option<&str> {
        match self {
            Self::Categorical(vocabulary) | Self::MultiValued(vocabulary) => {
                vocabulary.get((code as usize).checked_sub(1)?).map(String::as_str)
            }
            _ => None,
        }
    }

    /// The code of a value's text in a categorical or multi-valued field; 0 if it is not known.
    pub fn code(&self, text: &str) -> u32 {
        match self {
            Self::Categorical(vocabulary) | Self::MultiValued(vocabulary) => {
                vocabulary.iter().position(|v| v == text).map_or(0, |i| i as u32 + 1)
            }
            _ => 0,
        }
    }
}

/// One declared field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name in `dataset.toml`.
    pub name: String,
    /// What its values are.
    pub kind: FieldKind,
}

/// One declared field of events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventField {
    /// Name and kind (categorical or numeric).
    pub field: Field,
    /// When it is known.
    pub timing: Timing,
}

/// Everything that was declared about a dataset, with the vocabularies found in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// The dataset's name.
    pub name: String,
    /// Whether events carry a time.
    pub has_time: bool,
    /// Action names by code; empty where events declare no action.
    pub actions: Vec<String>,
    /// Bucket bounds ([`FieldKind::Numeric`]) of the events' value (a summable number such as a duration or a rating);
    /// `None` where events declare no value.
    pub value: Option<FieldKind>,
    /// Whether events carry a label (for click and rating prediction).
    pub has_label: bool,
    /// Declared request and post-action fields of events, in order of declaration.
    pub event_fields: Vec<EventField>,
    /// Declared metadata fields of items.
    pub item_fields: Vec<Field>,
    /// Declared profile fields of entities.
    pub entity_fields: Vec<Field>,
}

/// A number that the ranker reads beside a candidate, such as its place on the page: `(x - mean) / deviation`, 0 where it is
/// not known.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpressionField {
    /// Its name.
    pub name: String,
    /// Its mean in training.
    pub mean: f32,
    /// Its standard deviation in training; above 0.
    pub deviation: f32,
}

impl ImpressionField {
    /// The number as the ranker reads it; what is not finite counts as not known.
    pub fn scaled(&self, x: f32) -> f32 {
        let scaled = (x - self.mean) / self.deviation;
        if scaled.is_finite() { scaled.clamp(-10.0, 10.0) } else { 0.0 }
    }
}

/// A learned merge: the symbol `left` of a token that is followed, in its run, by the action `right` becomes a symbol of
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// An action code, or the number of actions plus the place of an earlier merge.
    pub left: u16,
    /// An action code.
    pub right: u16,
    /// How often the pair stood in the training events when it was merged.
    pub count: u64,
}

/// What a tokenizer learned from training events: what is needed beside the [`Schema`] to make the same tokens again.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVocabulary {
    /// The version of the rules that make tokens from this.
    pub version: u32,
    /// How runs become tokens.
    pub options: TokenizerOptions,
    /// Learned merges in the order in which they were learned: merge `j` makes the symbol `actions + j`.
    pub merges: Vec<Merge>,
    /// Bucket bounds of the sum of a token's values; empty where events declare no value.
    pub value: Vec<f32>,
    /// Bucket bounds of how many events a token holds.
    pub count: Vec<f32>,
    /// Bucket bounds of the seconds between a token's first and last event.
    pub span: Vec<f32>,
}
