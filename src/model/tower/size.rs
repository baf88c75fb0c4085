//! How much the item tower of a schema and model options reads.

use crate::options::ModelOptions;
use crate::schema::{FieldKind, Schema};

/// How much a tower reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) struct TowerSize {
    /// Rows of the feature tables: those of the schema's item fields in their order, titles last.
    pub(in crate::model) rows: usize,
    /// Length of `m`.
    pub(in crate::model) inputs: usize,
}

impl TowerSize {
    /// The size that `options` ask for; `None` without a tower or without anything for it to read.
    pub(in crate::model) fn of(schema: &Schema, options: &ModelOptions) -> Option<Self> {
        let (tower, width) = (options.tower?, options.field_width as usize);
        let of = |kind: &FieldKind| if let FieldKind::Vector(dim) = kind { *dim as usize } else { width };
        let title = if tower.title_buckets > 0 { width } else { 0 };
        let inputs = schema.item_fields.iter().map(|f| of(&f.kind)).sum::<usize>() + title;
        let rows = schema.item_fields.iter().map(|f| f.kind.codes()).sum::<usize>() + tower.title_buckets as usize;
        (inputs > 0).then_some(Self { rows, inputs })
    }
}
