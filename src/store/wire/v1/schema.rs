//! Declared fields and vocabularies.

use super::frozen;
use crate::schema;
use rkyv::{Archive, Deserialize, Serialize};

frozen!(Schema = schema::Schema {
    plain name: String,
    plain has_time: bool,
    plain actions: Vec<String>,
    maybe value: FieldKind,
    plain has_label: bool,
    each event_fields: EventField,
    each item_fields: Field,
    each entity_fields: Field,
});

frozen!(Field = schema::Field {
    plain name: String,
    plain kind: FieldKind,
});

frozen!(EventField = schema::EventField {
    plain field: Field,
    plain timing: Timing,
});

frozen!(ImpressionField = schema::ImpressionField {
    plain name: String,
    plain mean: f32,
    plain deviation: f32,
});

frozen!(Merge = schema::Merge {
    plain left: u16,
    plain right: u16,
    plain count: u64,
});

#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) enum Timing {
    Request,
    PostAction,
}

impl From<schema::Timing> for Timing {
    fn from(timing: schema::Timing) -> Self {
        match timing {
            schema::Timing::Request => Self::Request,
            schema::Timing::PostAction => Self::PostAction,
        }
    }
}

impl From<Timing> for schema::Timing {
    fn from(timing: Timing) -> Self {
        match timing {
            Timing::Request => Self::Request,
            Timing::PostAction => Self::PostAction,
        }
    }
}

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) enum FieldKind {
    Categorical(Vec<String>),
    MultiValued(Vec<String>),
    Numeric(Vec<f32>),
    Vector(u32),
}

impl From<schema::FieldKind> for FieldKind {
    fn from(kind: schema::FieldKind) -> Self {
        match kind {
            schema::FieldKind::Categorical(vocabulary) => Self::Categorical(vocabulary),
            schema::FieldKind::MultiValued(vocabulary) => Self::MultiValued(vocabulary),
            schema::FieldKind::Numeric(bounds) => Self::Numeric(bounds),
            schema::FieldKind::Vector(length) => Self::Vector(length),
        }
    }
}

impl From<FieldKind> for schema::FieldKind {
    fn from(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Categorical(vocabulary) => Self::Categorical(vocabulary),
            FieldKind::MultiValued(vocabulary) => Self::MultiValued(vocabulary),
            FieldKind::Numeric(bounds) => Self::Numeric(bounds),
            FieldKind::Vector(length) => Self::Vector(length),
        }
    }
}
