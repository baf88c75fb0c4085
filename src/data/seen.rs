//! Do people come back to what they have had? It is measured, and decides whether seen items may be in lists.

use super::{Dataset, RunRule};
use crate::options::Seen;
use std::ops::Range;

/// Where more than this share of the training events repeat an earlier item of their entity, people come back to items, and seen
/// items are allowed in lists. Below, the few repeats (a second visit, a double click) are no reason to show what somebody has had.
pub const COMES_BACK: f64 = 0.1;

/// The rule for a share of repeats.
pub(super) fn rule(repeated: f64) -> Seen {
    if repeated > COMES_BACK { Seen::Allowed } else { Seen::Excluded }
}

/// The share of the events of `train` (a range for each entity), those on hidden items left out, that repeat an earlier item of the
/// same entity. Under a run rule, events that go on with a run do not count.
pub(super) fn repeated(
    data: &Dataset,
    train: &[Range<usize>],
    is_hidden: impl Fn(u32) -> bool,
    rule: Option<&RunRule>,
) -> f64 {
    let (mut repeats, mut events) = (0u64, 0u64);
    let mut marks = Marks::new(data.items.len());
    for range in train {
        let mut last: Option<usize> = None;
        for at in range.clone() {
            let Some(item) = data.events.item.get(at).copied().filter(|item| !is_hidden(*item)) else { continue };
            let goes_on =
                last.zip(rule).is_some_and(|(last, rule)| rule.joins(rule.place(data, last), rule.place(data, at)));
            last = Some(at);
            if goes_on {
                continue;
            }
            events += 1;
            repeats += u64::from(!marks.first(item));
        }
        marks.forget();
    }
    repeats as f64 / events.max(1) as f64
}

/// Which items an entity has had; forgets in the time that it took to learn.
#[derive(Debug)]
pub(crate) struct Marks {
    marked: Vec<bool>,
    items: Vec<u32>,
}

impl Marks {
    pub(crate) fn new(items: usize) -> Self {
        Self { marked: vec![false; items], items: Vec::new() }
    }

    /// Marks an item; whether it was not marked before.
    pub(crate) fn first(&mut self, item: u32) -> bool {
        match self.marked.get_mut(item as usize) {
            Some(mark) if !*mark => {
                *mark = true;
                self.items.push(item);
                true
            }
            _ => false,
        }
    }

    /// Unmarks all.
    pub(crate) fn forget(&mut self) {
        for item in self.items.drain(..) {
            if let Some(mark) = self.marked.get_mut(item as usize) {
                *mark = false;
            }
        }
    }
}
