//! Which events belong together, and which questions ask for the beginning of something new.
//!
//! A run is a longest stretch of adjacent events of one entity on one item, on one surface, with gaps no longer than a bound.
//! Where times are not known, events are taken to have happened together.

use super::{Column, Dataset};
use crate::error::{Result, err};
use crate::options::DEFAULT_GAP;
use crate::schema::{FieldKind, Schema, Timing};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The rule that joins adjacent events into runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunRule {
    /// Longest gap between two events of a run, in milliseconds.
    pub(crate) max_gap: i64,
    /// Index into `schema.event_fields` of the field that stays the same within a run.
    pub(crate) surface: Option<usize>,
}

/// What the rule looks at in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Item row.
    pub(crate) item: u32,
    /// Unix time in milliseconds, where known.
    pub(crate) time: Option<i64>,
    /// Code of the surface; 0 where there is none.
    pub(crate) surface: u32,
}

impl RunRule {
    /// The rule with a gap in seconds and the name of the surface's field, none where it is empty.
    ///
    /// # Errors
    /// `InvalidConfig` where `schema` has no such field, or it is not a categorical one that is known at the request.
    pub(crate) fn new(schema: &Schema, max_gap: u32, surface: &str) -> Result<Self> {
        let at = schema.event_fields.iter().position(|f| f.field.name == surface);
        let surface = match at.and_then(|at| schema.event_fields.get(at).map(|f| (at, f))) {
            _ if surface.is_empty() => None,
            Some((at, f)) if f.timing == Timing::Request && matches!(f.field.kind, FieldKind::Categorical(_)) => {
                Some(at)
            }
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "the surface {surface:?} is no categorical request field of the events of dataset {:?}; name one of its \
                     request fields, or none",
                    schema.name
                ));
            }
        };
        Ok(Self { max_gap: i64::from(max_gap) * 1000, surface })
    }

    /// Whether `next`, right after `last` in an entity's history, goes on with its run.
    pub(crate) fn joins(&self, last: Place, next: Place) -> bool {
        let near = match (last.time, next.time) {
            (Some(a), Some(b)) => b.saturating_sub(a) <= self.max_gap,
            _ => true,
        };
        last.item == next.item && last.surface == next.surface && near
    }

    /// What the rule looks at in event `i` of a dataset.
    pub(crate) fn place(&self, data: &Dataset, i: usize) -> Place {
        let surface = self.surface.and_then(|at| data.events.fields.get(at));
        Place {
            item: data.events.item.get(i).copied().unwrap_or(u32::MAX),
            time: data.events.time.get(i).copied(),
            surface: match surface {
                Some(Column::Codes(codes)) => codes.get(i).copied().unwrap_or(0),
                _ => 0,
            },
        }
    }
}

/// Where the newest `most` runs of `events` begin; `joins(i, i + 1)` says whether event `i + 1` goes on with the run of event
/// `i`. Runs are tokenized apart, so what lies before changes nothing in them.
pub(crate) fn newest_runs(events: Range<usize>, most: usize, joins: impl Fn(usize, usize) -> bool) -> usize {
    let (mut start, mut runs) = (events.end, 0);
    while start > events.start {
        if start == events.end || !joins(start - 1, start) {
            if runs == most {
                break;
            }
            runs += 1;
        }
        start -= 1;
    }
    start
}

/// Which questions of a split are asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Questions {
    /// All of them.
    #[default]
    All,
    /// Those whose target begins a run, that is, a new token of a tokenizer with this rule. A model of merged events has no
    /// answer to the others; models that are compared with it are asked the same.
    TokenStarts {
        /// Longest gap within a run, in seconds.
        max_gap: u32,
        /// Name of the field that stays the same within a run; empty: none.
        surface: String,
    },
}

impl Questions {
    /// Reads what [`Display`](fmt::Display) writes: `all`, `token-starts`, or `token-starts:max_gap=1800,surface=device`.
    ///
    /// # Errors
    /// `InvalidConfig` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
        let (mut max_gap, mut surface) = (DEFAULT_GAP, String::new());
        let bad = || {
            err!(InvalidConfig, "`{text}` names no questions; write all, or token-starts, or token-starts:max_gap=1800")
        };
        for parameter in parameters.split(',').filter(|p| !p.is_empty()) {
            match parameter.split_once('=') {
                Some(("max_gap", seconds)) => max_gap = seconds.parse().map_err(|_| bad())?,
                Some(("surface", name)) => surface = name.to_owned(),
                _ => return Err(bad()),
            }
        }
        match name {
            "all" if parameters.is_empty() => Ok(Self::All),
            "token-starts" => Ok(Self::TokenStarts { max_gap, surface }),
            _ => Err(bad()),
        }
    }
}

impl FromStr for Questions {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::TokenStarts { max_gap, surface } if surface.is_empty() => write!(f, "token-starts:max_gap={max_gap}"),
            Self::TokenStarts { max_gap, surface } => write!(f, "token-starts:max_gap={max_gap},surface={surface}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_as_they_are_written() {
        let device = Questions::TokenStarts { max_gap: 60, surface: "device".into() };
        for q in [Questions::All, device, Questions::parse("token-starts").unwrap()] {
            assert_eq!(Questions::parse(&q.to_string()).unwrap(), q);
        }
        for bad in ["some", "all:max_gap=3", "token-starts:gap=3", "token-starts:max_gap=x"] {
            assert_eq!(Questions::parse(bad).unwrap_err().kind(), crate::ErrorKind::InvalidConfig, "{bad}");
        }
    }

    #[test]
    fn the_newest_runs_begin_where_they_begin() {
        let items = [1, 1, 2, 3, 3, 3, 1];
        let start = |most| newest_runs(0..7, most, |a: usize, b: usize| items[a] == items[b]);
        assert_eq!([0, 1, 2, 3, 4, 9].map(start), [7, 6, 3, 2, 0, 0]);
        assert_eq!(newest_runs(2..7, 2, |_, _| false), 5);
        assert_eq!(newest_runs(4..7, 9, |_, _| true), 4);
    }

    #[test]
    fn a_run_ends_at_another_item_another_surface_or_a_long_gap() {
        let rule = RunRule { max_gap: 1000, surface: Some(0) };
        let a = Place { item: 1, time: Some(0), surface: 1 };
        assert!(rule.joins(a, Place { time: Some(1000), ..a }));
        assert!(rule.joins(a, Place { time: None, ..a }));
        assert!(!rule.joins(a, Place { time: Some(1001), ..a }));
        assert!(!rule.joins(a, Place { item: 2, ..a }));
        assert!(!rule.joins(a, Place { surface: 0, ..a }));
    }
}
