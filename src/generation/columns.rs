//! The values of declared fields, in place: of items, and of entities.

use crate::error::{Result, err};
use crate::model::Value;
use crate::schema::{Field, FieldKind};
use crate::store::Snapshot;

/// The sections of each field of items or of entities.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Values, and offsets where multi-valued; empty where absent.
    sections: Vec<[String; 2]>,
}

/// The values of one field, in place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column<'a> {
    /// Categorical: a code a row.
    Codes(&'a [u32]),
    /// Multi-valued: where each row's codes lie.
    Lists { offsets: &'a [u32], codes: &'a [u32] },
    /// Numeric.
    Numbers(&'a [f32]),
    /// Vectors of `dim` numbers.
    Vectors { dim: usize, values: &'a [f32] },
}

impl Columns {
    /// Checks the columns of `fields` with sections below `prefix`, `rows` rows each.
    pub(super) fn open(snapshot: &Snapshot, prefix: &str, fields: &[Field], rows: usize) -> Result<Self> {
        let mut sections = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let name = |part: &str| format!("{prefix}.{i}.{part}");
            let names = match &field.kind {
                FieldKind::Categorical(_) => [name("codes"), String::new()],
                FieldKind::MultiValued(_) => [name("codes"), name("offsets")],
                FieldKind::Numeric(_) => [name("numbers"), String::new()],
                FieldKind::Vector(_) => [name("vectors"), String::new()],
            };
            let [values, offsets] = &names;
            match column(snapshot, &field.kind, &names)? {
                Column::Codes(codes) => expect_length(values, codes.len(), rows)?,
                Column::Lists { offsets: starts, .. } => expect_length(offsets, starts.len(), rows.saturating_add(1))?,
                Column::Numbers(numbers) => expect_length(values, numbers.len(), rows)?,
                Column::Vectors { dim, values: all } => expect_length(values, all.len(), rows.saturating_mul(dim))?,
            }
            sections.push(names);
        }
        Ok(Self { sections })
    }

    /// The values of field `index` of `fields`, those that were opened.
    pub(super) fn get<'a>(&self, snapshot: &'a Snapshot, fields: &[Field], index: usize) -> Result<Column<'a>> {
        match (fields.get(index), self.sections.get(index)) {
            (Some(field), Some(names)) => column(snapshot, &field.kind, names),
            _ => Err(err!(Internal, "there is no such metadata field; report it")),
        }
    }
}

fn column<'a>(snapshot: &'a Snapshot, kind: &FieldKind, [values, offsets]: &[String; 2]) -> Result<Column<'a>> {
    Ok(match kind {
        FieldKind::Categorical(_) => Column::Codes(snapshot.u32s(values)?),
        FieldKind::MultiValued(_) => Column::Lists { offsets: snapshot.u32s(offsets)?, codes: snapshot.u32s(values)? },
        FieldKind::Numeric(_) => Column::Numbers(snapshot.f32s(values)?),
        FieldKind::Vector(dim) => Column::Vectors { dim: *dim as usize, values: snapshot.f32s(values)? },
    })
}

impl<'a> Column<'a> {
    /// The value of a row.
    pub(crate) fn value(&self, row: u32) -> Result<Value<'a>> {
        let at = row as usize;
        let value = match *self {
            Self::Codes(codes) => codes.get(at).map(|code| Value::Codes(std::slice::from_ref(code))),
            Self::Lists { offsets, codes } => {
                let bounds = offsets.get(at).zip(offsets.get(at.saturating_add(1)));
                bounds.and_then(|(start, end)| codes.get(*start as usize..*end as usize)).map(Value::Codes)
            }
            Self::Numbers(numbers) => numbers.get(at).map(|number| Value::Number(*number)),
            Self::Vectors { dim, values } => {
                values.get(at.saturating_mul(dim)..at.saturating_add(1).saturating_mul(dim)).map(Value::Vector)
            }
        };
        value.ok_or_else(|| err!(Corrupt, "metadata of row {row} is damaged; verify the store and roll back"))
    }
}

/// A kind of field in a sentence.
pub(crate) fn kind_name(kind: &FieldKind) -> &'static str {
    match kind {
        FieldKind::Categorical(_) => "categorical",
        FieldKind::MultiValued(_) => "multi-valued",
        FieldKind::Numeric(_) => "numeric",
        FieldKind::Vector(_) => "a vector",
    }
}

/// Refuses a section of another length than the counts in the manifest ask for.
pub(super) fn expect_length(name: &str, have: usize, want: usize) -> Result<()> {
    match have == want {
        true => Ok(()),
        false => Err(err!(Corrupt, "section {name} has {have} elements, the manifest asks for {want}; publish again")),
    }
}
