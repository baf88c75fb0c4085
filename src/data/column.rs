//! How a declared field's values pile up row by row, and how they become codes once all are known.

use super::{Column, Vocabulary};
use crate::error::{Result, err};
use crate::event::Cell;
use crate::schema::FieldKind;
use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

/// What kind of values a field will hold, before any is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One text out of a vocabulary that is collected from the rows.
    Categorical,
    /// Any number of texts out of such a vocabulary.
    MultiValued,
    /// A number.
    Numeric,
    /// A dense vector of this length.
    Vector(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Categorical => f.write_str("categorical"),
            Self::MultiValued => f.write_str("multi-valued"),
            Self::Numeric => f.write_str("numeric"),
            Self::Vector(dim) => write!(f, "vector:{dim}"),
        }
    }
}

impl FromStr for Kind {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        let dim = text.strip_prefix("vector:").and_then(|dim| dim.parse().ok());
        match (text, dim) {
            ("categorical", _) => Ok(Self::Categorical),
            ("multi-valued", _) => Ok(Self::MultiValued),
            ("numeric", _) => Ok(Self::Numeric),
            (_, Some(dim)) => Ok(Self::Vector(dim)),
            _ => Err(err!(
                InvalidConfig,
                "`{text}` is no kind of field; choose categorical, multi-valued, numeric, or vector:N for N numbers"
            )),
        }
    }
}

/// Marks a row of the finished dataset that was never pushed: its values are missing.
pub(super) const ABSENT: u32 = u32::MAX;

/// The values of one field while rows are still coming.
#[derive(Debug, Clone)]
pub(super) enum Pile {
    /// 0 is missing, else 1 + row in `names`.
    Codes {
        names: Vocabulary,
        codes: Vec<u32>,
    },
    Lists {
        names: Vocabulary,
        ends: Vec<u32>,
        codes: Vec<u32>,
    },
    Numbers(Vec<f32>),
    Vectors {
        dim: u32,
        values: Vec<f32>,
    },
}

impl Pile {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Categorical => Self::Codes { names: Vocabulary::default(), codes: Vec::new() },
            Kind::MultiValued => Self::Lists { names: Vocabulary::default(), ends: Vec::new(), codes: Vec::new() },
            Kind::Numeric => Self::Numbers(Vec::new()),
            Kind::Vector(dim) => Self::Vectors { dim, values: Vec::new() },
        }
    }

    /// Whether `cell` may be pushed onto the field `name`.
    pub(super) fn accepts(&self, name: &str, cell: &Cell<'_>) -> Result<()> {
        let wanted = match (self, cell) {
            (_, Cell::Missing)
            | (Self::Codes { .. } | Self::Lists { .. }, Cell::Text(_))
            | (Self::Lists { .. }, Cell::Texts(_)) => return Ok(()),
            (Self::Numbers(_), Cell::Number(x)) if x.is_infinite() => "a finite number",
            (Self::Numbers(_), Cell::Number(_)) => return Ok(()),
            (Self::Vectors { dim, .. }, Cell::Vector(v)) => {
                if v.len() != *dim as usize {
                    return Err(err!(InvalidData, "field `{name}` has {} numbers where {dim} are declared", v.len()));
                }
                if v.iter().all(|x| x.is_finite()) {
                    return Ok(());
                }
                "a vector of finite numbers"
            }
            (Self::Codes { .. }, _) => "a text",
            (Self::Lists { .. }, _) => "a list of texts",
            (Self::Numbers(_), _) => "a number",
            (Self::Vectors { .. }, _) => "a vector",
        };
        Err(err!(InvalidData, "field `{name}` takes {wanted}, not {cell:?}"))
    }

    /// Adds one row. The cell was accepted before; one that was not counts as missing.
    pub(super) fn push(&mut self, cell: &Cell<'_>) {
        let intern = |names: &mut Vocabulary, text: &str| names.intern(text) + 1;
        match self {
            Self::Codes { names, codes } => codes.push(match cell {
                Cell::Text(text) if !text.is_empty() => intern(names, text),
                _ => 0,
            }),
            Self::Lists { names, ends, codes } => {
                let texts = match cell {
                    Cell::Texts(texts) => texts,
                    Cell::Text(text) => std::slice::from_ref(text),
                    _ => &[],
                };
                codes.extend(texts.iter().filter(|t| !t.is_empty()).map(|t| intern(names, t)));
                ends.push(u32::try_from(codes.len()).unwrap_or(u32::MAX));
            }
            Self::Numbers(numbers) => numbers.push(match cell {
                Cell::Number(x) => *x,
                _ => f32::NAN,
            }),
            Self::Vectors { dim, values } => match cell {
                Cell::Vector(v) => values.extend_from_slice(v),
                _ => values.resize(values.len() + *dim as usize, 0.0),
            },
        }
    }

    /// The finished column: entry `i` is the value pushed as row `order[i]`, or missing where that is [`ABSENT`].
    /// Vocabularies and bucket bounds come from the rows in `order` alone.
    pub(super) fn finish(self, order: &[u32], limits: &Limits) -> Result<(FieldKind, Column)> {
        let row = |i: u32| (i != ABSENT).then_some(i as usize);
        Ok(match self {
            Self::Codes { names, codes } => {
                let raw: Vec<u32> =
                    order.iter().map(|&i| row(i).and_then(|i| codes.get(i)).copied().unwrap_or(0)).collect();
                let (vocabulary, map) = by_frequency(&names, raw.iter().copied(), limits.vocabulary);
                let codes = raw.iter().map(|&c| map.get(c as usize).copied().unwrap_or(0)).collect();
                (FieldKind::Categorical(vocabulary), Column::Codes(codes))
            }
            Self::Lists { names, ends, codes } => {
                if codes.len() >= u32::MAX as usize {
                    return Err(err!(
                        InvalidData,
                        "a multi-valued field holds {} values in all; fewer than {} fit",
                        codes.len(),
                        u32::MAX
                    ));
                }
                let list = |i: u32| -> Vec<u32> {
                    let Some(i) = row(i) else { return Vec::new() };
                    let start = i.checked_sub(1).and_then(|p| ends.get(p)).map_or(0, |&e| e as usize);
                    let end = ends.get(i).map_or(start, |&e| e as usize);
                    let mut list = codes.get(start..end).unwrap_or(&[]).to_vec();
                    list.sort_unstable();
                    list.dedup();
                    list
                };
                let (vocabulary, map) = by_frequency(&names, order.iter().flat_map(|&i| list(i)), limits.vocabulary);
                let mut offsets = Vec::with_capacity(order.len() + 1);
                let mut kept = Vec::new();
                offsets.push(0);
                for &i in order {
                    let mut list: Vec<u32> =
                        list(i).iter().filter_map(|&c| map.get(c as usize).copied()).filter(|&c| c != 0).collect();
                    list.sort_unstable();
                    kept.append(&mut list);
                    offsets.push(kept.len() as u32);
                }
                (FieldKind::MultiValued(vocabulary), Column::Lists { offsets, codes: kept })
            }
            Self::Numbers(numbers) => {
                let kept: Vec<f32> =
                    order.iter().map(|&i| row(i).and_then(|i| numbers.get(i)).copied().unwrap_or(f32::NAN)).collect();
                (FieldKind::Numeric(bounds(&kept, limits.buckets)), Column::Numbers(kept))
            }
            Self::Vectors { dim, values } => {
                let width = dim as usize;
                let mut kept = Vec::with_capacity(order.len() * width);
                for &i in order {
                    match row(i).and_then(|i| values.get(i * width..(i + 1) * width)) {
                        Some(v) => kept.extend_from_slice(v),
                        None => kept.resize(kept.len() + width, 0.0),
                    }
                }
                (FieldKind::Vector(dim), Column::Vectors { dim, values: kept })
            }
        })
    }
}

/// How far vocabularies and buckets grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Values kept per categorical or multi-valued field; rarer ones become code 0. Default 10,000.
    pub vocabulary: usize,
    /// Buckets per numeric field, the missing one not counted. Default 16.
    pub buckets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { vocabulary: 10_000, buckets: 16 }
    }
}

/// The names in use, most frequent first (ties by text), at most `most` of them; and the new code of each raw code
/// (raw code 0 is missing, raw code `c` is name `c - 1`).
pub(super) fn by_frequency(names: &Vocabulary, raw: impl Iterator<Item = u32>, most: usize) -> (Vec<String>, Vec<u32>) {
    let mut counts = vec![0u64; names.len() + 1];
    for code in raw {
        if let Some(count) = counts.get_mut(code as usize) {
            *count += 1;
        }
    }
    let mut ranked: Vec<(u64, &str, usize)> = (names.names().iter().zip(counts.iter().skip(1)).enumerate())
        .filter(|(_, (_, count))| **count > 0)
        .map(|(i, (name, &count))| (count, name.as_str(), i + 1))
        .collect();
    ranked.sort_unstable_by_key(|&(count, name, _)| (Reverse(count), name));
    ranked.truncate(most);
    let mut map = vec![0u32; names.len() + 1];
    for (new, &(_, _, old)) in ranked.iter().enumerate() {
        if let Some(slot) = map.get_mut(old) {
            *slot = new as u32 + 1;
        }
    }
    (ranked.iter().map(|&(_, name, _)| name.to_owned()).collect(), map)
}

/// Upper bounds that split the numbers present into at most `buckets` buckets of about equal count, none of them empty.
pub(crate) fn bounds(numbers: &[f32], buckets: usize) -> Vec<f32> {
    let mut sorted: Vec<f32> = numbers.iter().copied().filter(|x| !x.is_nan()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(&largest) = sorted.last() else { return Vec::new() };
    let mut bounds: Vec<f32> = (1..buckets)
        .filter_map(|q| sorted.get((q * sorted.len()).div_ceil(buckets).saturating_sub(1)).copied())
        .filter(|&b| b < largest)
        .collect();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rank_by_frequency_then_text_and_rare_ones_are_dropped() {
        let mut pile = Pile::new(Kind::Categorical);
        for text in ["b", "a", "c", "c", "", "z"] {
            pile.push(&Cell::Text(text));
        }
        // Row 5 ("z") is not kept, so it is not in the vocabulary.
        let limits = Limits { vocabulary: 2, ..Limits::default() };
        let (kind, column) = pile.finish(&[0, 1, 2, 3, 4, ABSENT], &limits).unwrap();
        assert_eq!(kind, FieldKind::Categorical(vec!["c".into(), "a".into()]));
        assert_eq!(column, Column::Codes(vec![0, 2, 1, 1, 0, 0]));
    }

    #[test]
    fn lists_count_a_repeated_value_once() {
        let mut pile = Pile::new(Kind::MultiValued);
        pile.push(&Cell::Texts(&["x", "y", "x"]));
        pile.push(&Cell::Missing);
        pile.push(&Cell::Texts(&["y"]));
        let (kind, column) = pile.finish(&[2, 1, 0], &Limits::default()).unwrap();
        assert_eq!(kind, FieldKind::MultiValued(vec!["y".into(), "x".into()]));
        assert_eq!(column, Column::Lists { offsets: vec![0, 1, 1, 3], codes: vec![1, 1, 2] });
    }

    #[test]
    fn buckets_hold_equal_counts_and_none_is_empty() {
        let numbers: Vec<f32> = (1..=160).map(|i| i as f32).chain([f32::NAN]).collect();
        let kind = FieldKind::Numeric(bounds(&numbers, 16));
        let mut counts = vec![0; kind.codes()];
        for &x in &numbers {
            counts[kind.bucket(x) as usize] += 1;
        }
        assert_eq!(counts[0], 1);
        assert!(counts[1..].iter().all(|&c| c == 10), "{counts:?}");
        // Five distinct values give five buckets.
        let ratings: Vec<f32> = (0..1000).map(|i| (i % 5 + 1) as f32).collect();
        assert_eq!(bounds(&ratings, 16), [1.0, 2.0, 3.0, 4.0]);
        assert!(bounds(&[f32::NAN], 16).is_empty() && bounds(&[2.0, 2.0], 16).is_empty());
    }

    #[test]
    fn a_cell_of_another_kind_is_refused() {
        let vector = Pile::new(Kind::Vector(2));
        assert!(vector.accepts("v", &Cell::Vector(&[1.0])).unwrap_err().message().contains("1 numbers where 2"));
        assert!(vector.accepts("v", &Cell::Vector(&[1.0, f32::NAN])).is_err());
        assert!(Pile::new(Kind::Numeric).accepts("n", &Cell::Number(f32::INFINITY)).is_err());
        assert!(Pile::new(Kind::Categorical).accepts("c", &Cell::Number(1.0)).is_err());
    }
}
