//! What the ranker reads of an item.

use crate::error::{Result, err};
use crate::generation::{Generation, PublishedRanker};
use crate::schema::ImpressionField;

/// The impression features in the order of `fields`, scaled; those that `find` does not know count as usual.
pub(in crate::serve) fn scaled<'a>(
    fields: &'a [ImpressionField],
    find: impl Fn(&str) -> Option<f32> + 'a,
) -> impl Iterator<Item = f32> + 'a {
    fields.iter().map(move |field| find(&field.name).map_or(0.0, |x| field.scaled(x)))
}

/// Appends the impression features that are given by name, scaled.
pub(in crate::serve) fn read_impression(
    fields: &[ImpressionField],
    given: &[(&str, f32)],
    to: &mut Vec<f32>,
) -> Result<()> {
    if let Some((name, _)) = given.iter().find(|(name, _)| !fields.iter().any(|f| f.name == *name)) {
        let known: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
        return Err(err!(InvalidArgument, "the ranker reads no impression feature {name:?}; it reads {known:?}"));
    }
    to.extend(scaled(fields, |name| given.iter().find(|(given, _)| *given == name).map(|(_, x)| *x)));
    Ok(())
}

/// Appends what the ranker reads of an item for a user vector; `numbers` are room for its popularity, then the impression features.
pub(super) fn candidate(
    generation: &Generation,
    ranker: &PublishedRanker<'_>,
    row: u32,
    state: &[f32],
    numbers: &mut [f32],
    out: &mut Vec<f32>,
) -> Result<()> {
    if let Some(first) = numbers.first_mut() {
        *first = ranker.popularity(row);
    }
    ranker.inputs.candidate(ranker.item(row), generation.item_vector(row)?, state, numbers, out);
    let at = out.len();
    out.resize(at.saturating_add(ranker.view.shape.shift()), 0.0);
    if let (Some(to), Some(from)) = (out.get_mut(at..), ranker.item_embedding(row)) {
        to.copy_from_slice(from);
    }
    Ok(())
}
