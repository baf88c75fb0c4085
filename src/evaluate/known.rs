//! What counting baselines are allowed to count.

use crate::data::{Dataset, Split};

/// Which events a baseline is fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CountedEvents {
    /// The events that are trained on.
    Training,
    /// Those and the targets of the validation questions: everything that is known before the test. Counting baselines
    /// choose no model, so nothing else would use the validation events; published baseline figures count them, too.
    #[default]
    BeforeTest,
}

/// Calls `visit` with the item rows of each entity's known events, oldest first, and their indices. Events on hidden
/// items are left out as if they had not happened, and entities without any known event are passed over.
pub(super) fn for_each_sequence(
    data: &Dataset,
    split: &Split,
    known: CountedEvents,
    mut visit: impl FnMut(&[u32], &[usize]),
) {
    let hidden = |item: u32| split.hidden.get(item as usize).copied().unwrap_or(false);
    let mut extra: Vec<(u32, usize)> = match known {
        CountedEvents::Training => Vec::new(),
        CountedEvents::BeforeTest => split.validation.iter().map(|c| (c.entity, c.target)).collect(),
    };
    extra.sort_unstable();
    let mut extra = extra.into_iter().peekable();
    let (mut items, mut events) = (Vec::new(), Vec::new());
    for entity in 0..data.entities.len() as u32 {
        let train = split.train.get(entity as usize).cloned().unwrap_or(0..0);
        events.clear();
        events.extend(train.clone());
        while let Some((_, event)) = extra.next_if(|e| e.0 == entity) {
            if !train.contains(&event) {
                events.push(event);
            }
        }
        events.sort_unstable();
        events.dedup();
        events.retain(|e| data.events.item.get(*e).is_some_and(|i| !hidden(*i)));
        items.clear();
        items.extend(events.iter().filter_map(|e| data.events.item.get(*e)));
        if !items.is_empty() {
            visit(&items, &events);
        }
    }
}

/// How many known events each item has.
pub(super) fn counts(data: &Dataset, split: &Split, known: CountedEvents) -> Vec<f64> {
    let mut counts = vec![0.0; data.items.len()];
    for_each_sequence(data, split, known, |items, _| {
        for &item in items {
            if let Some(c) = counts.get_mut(item as usize) {
                *c += 1.0;
            }
        }
    });
    counts
}

/// What breaks ties of a baseline's scores: popularity, too small to change any other order.
pub(super) fn tie_break(popularity: &[f64]) -> Vec<f32> {
    let most = popularity.iter().copied().fold(0.0, f64::max) + 1.0;
    popularity.iter().map(|p| (1e-6 * p / most) as f32).collect()
}

/// How many items have known events.
pub fn known_items(data: &Dataset, split: &Split, known: CountedEvents) -> usize {
    counts(data, split, known).iter().filter(|c| **c > 0.0).count()
}

/// The newest item of a question's history that is not hidden from training.
pub(super) fn last_item(data: &Dataset, hidden: &[bool], history: std::ops::Range<usize>) -> Option<u32> {
    let items = data.events.item.get(history).unwrap_or(&[]);
    items.iter().rev().copied().find(|i| !hidden.get(*i as usize).copied().unwrap_or(false))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::{Protocol, Questions};
    use crate::options::Seen;

    /// A dataset of so many items in which each entity met these, all of it to train on.
    pub(in crate::evaluate) fn baskets(items: usize, met: &[&[u32]]) -> (Dataset, Split) {
        let mut data = Dataset::default();
        for item in 0..items {
            data.items.intern(&item.to_string());
        }
        let mut train = Vec::new();
        for (entity, own) in met.iter().enumerate() {
            data.entities.intern(&entity.to_string());
            let first = data.events.item.len();
            data.events.item.extend_from_slice(own);
            train.push(first..data.events.item.len());
        }
        let (protocol, questions) = (Protocol::Everything, Questions::default());
        let none = || Vec::new();
        let (hidden, validation, test, target_hash) = (Vec::new(), none(), none(), [0; 32]);
        let (repeated, seen) = (0.0, Seen::Excluded);
        (data, Split { protocol, train, hidden, questions, validation, test, target_hash, repeated, seen })
    }
}
