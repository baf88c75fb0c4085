//! What is kept of an entity: its latest outcomes, and the items of events that had to go.

use super::records::{EntityState, StoredOutcome};

/// Bytes that the items of past events take at most, of the 1 MiB of a state.
const PAST_BYTES: usize = 256 << 10;

impl EntityState {
    /// Whether the outcome of this id is kept.
    pub(crate) fn has_outcome(&self, id: &str) -> bool {
        self.outcomes.iter().any(|o| o.id.as_deref() == Some(id))
    }

    /// Puts an outcome behind those that are not newer, and gives whether it is the newest. One without a time is.
    pub(crate) fn insert(&mut self, outcome: StoredOutcome) -> bool {
        let behind = |o: &StoredOutcome| outcome.time.is_none_or(|new| o.time.is_none_or(|time| time <= new));
        let at = self.outcomes.iter().rposition(behind).map_or(0, |last| last + 1);
        self.outcomes.insert(at, outcome);
        at + 1 == self.outcomes.len()
    }

    /// Leaves out the oldest outcomes of a kind, those in the history or those beside it, until no more than `most` are left.
    pub(crate) fn leave_out_oldest(&mut self, in_history: bool, most: usize) {
        let count = self.outcomes.iter().filter(|o| o.in_history == in_history).count();
        let mut over = count.saturating_sub(most);
        let goes = |o: &mut StoredOutcome| {
            let goes = over > 0 && o.in_history == in_history;
            over -= usize::from(goes);
            goes
        };
        let gone: Vec<StoredOutcome> = self.outcomes.extract_if(.., goes).collect();
        self.remember(gone);
    }

    /// Leaves out the `count` oldest outcomes.
    pub(super) fn leave_out_first(&mut self, count: usize) {
        let gone: Vec<StoredOutcome> = self.outcomes.drain(..count.min(self.outcomes.len())).collect();
        self.remember(gone);
    }

    /// Keeps the latest `most` items of past events, fewer where their ids are long.
    pub(crate) fn forget_items(&mut self, most: usize) {
        let (mut bytes, mut fits) = (0, 0);
        for item in self.past_items.iter().rev().take(most) {
            bytes += 2 * size_of::<u64>() + item.len();
            if bytes > PAST_BYTES {
                break;
            }
            fits += 1;
        }
        let over = self.past_items.len() - fits;
        self.past_items.drain(..over);
    }

    /// Keeps the items of events that left the history.
    fn remember(&mut self, gone: Vec<StoredOutcome>) {
        for outcome in gone.into_iter().filter(|o| o.in_history) {
            self.past_items.retain(|item| *item != outcome.item);
            self.past_items.push(outcome.item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(item: &str, time: Option<i64>, in_history: bool) -> StoredOutcome {
        StoredOutcome { item: item.into(), time, in_history, ..StoredOutcome::default() }
    }

    fn items(state: &EntityState) -> Vec<&str> {
        state.outcomes.iter().map(|o| o.item.as_str()).collect()
    }

    #[test]
    fn outcomes_stand_in_the_order_of_their_times() {
        let mut state = EntityState::default();
        assert!(state.insert(outcome("a", Some(5), true)));
        assert!(state.insert(outcome("b", Some(5), true)), "at one time, in the order they came");
        assert!(!state.insert(outcome("late", Some(4), true)));
        assert!(state.insert(outcome("none", None, true)));
        assert!(state.insert(outcome("c", Some(9), true)));
        assert!(!state.insert(outcome("d", Some(-7), true)), "before 1970, behind one of which nobody knows when");
        assert_eq!(items(&state), ["late", "a", "b", "none", "d", "c"]);
    }

    #[test]
    fn items_outlive_their_events() {
        let mut state = EntityState::default();
        for (n, item) in ["a", "b", "a", "c", "d"].into_iter().enumerate() {
            state.insert(outcome(item, Some(n as i64), true));
            state.insert(outcome("shown", Some(n as i64), false));
        }
        state.leave_out_oldest(true, 1);
        state.leave_out_oldest(false, 2);
        assert_eq!(items(&state), ["shown", "d", "shown"]);
        // Each once, in the order in which they were last left out; what was shown was not seen.
        assert_eq!(state.past_items, ["b", "a", "c"]);
        state.forget_items(2);
        assert_eq!(state.past_items, ["a", "c"]);
        state.leave_out_first(2);
        assert_eq!(state.past_items, ["a", "c", "d"]);
        // Ids of 64 KiB leave room for three of them.
        state.past_items = (0..9).map(|n| format!("{n}{}", "x".repeat(64 << 10))).collect();
        state.forget_items(100);
        assert_eq!(state.past_items.iter().map(|id| &id[..1]).collect::<String>(), "678");
    }
}
