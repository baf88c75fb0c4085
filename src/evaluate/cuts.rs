//! For whom, and for what, is it good? The same questions by length of history, popularity and age of the target.

use crate::data::{Case, Dataset};
use crate::options::Seen;

/// One group of questions.
pub(super) struct Group {
    pub by: &'static str,
    pub bucket: &'static str,
    /// Places in the list of questions.
    pub questions: Vec<usize>,
}

const HISTORY: [(&str, u64); 5] = [("0", 0), ("1-5", 5), ("6-20", 20), ("21-100", 100), ("over 100", u64::MAX)];
const POPULARITY: [(&str, u64); 5] =
    [("0", 0), ("1-10", 10), ("11-100", 100), ("101-1000", 1000), ("over 1000", u64::MAX)];
const AGE: [(&str, u64); 4] =
    [("under 7 days", 6), ("7-28 days", 27), ("28-365 days", 364), ("over 365 days", u64::MAX)];

/// The groups that have questions: by `history` (events known), by `popularity` of the target (known events on it), by
/// its `age` at the target event in whole days (where release and event time are known; released later counts as under
/// 7 days), and, where seen items are allowed, by `repeat` (whether the entity met the target before).
pub(super) fn groups(data: &Dataset, cases: &[Case], popularity: &[f64], seen: Seen) -> Vec<Group> {
    let mut groups = Vec::new();
    let history = cases.iter().map(|c| Some(c.history.len() as u64)).collect::<Vec<_>>();
    split("history", &HISTORY, &history, &mut groups);
    let target = |c: &Case| data.events.item.get(c.target).map_or(usize::MAX, |i| *i as usize);
    let known = cases.iter().map(|c| popularity.get(target(c)).map(|p| *p as u64)).collect::<Vec<_>>();
    split("popularity", &POPULARITY, &known, &mut groups);
    let age = |c: &Case| {
        let released = data.released.get(target(c)).filter(|t| **t != i64::MIN)?;
        let days = data.events.time.get(c.target)?.saturating_sub(*released) / 86_400_000;
        Some(days.max(0) as u64)
    };
    split("age", &AGE, &cases.iter().map(age).collect::<Vec<_>>(), &mut groups);
    if seen == Seen::Allowed {
        let met: Vec<Option<u64>> = cases.iter().map(|c| Some(u64::from(c.is_repeat(data)))).collect();
        split("repeat", &[("first-time", 0), ("repeat", 1)], &met, &mut groups);
    }
    groups
}

fn split(by: &'static str, buckets: &[(&'static str, u64)], values: &[Option<u64>], groups: &mut Vec<Group>) {
    let mut low = 0;
    for (bucket, high) in buckets {
        let inside = |v: &Option<u64>| v.is_some_and(|v| (low..=*high).contains(&v));
        let questions: Vec<usize> = (0..).zip(values).filter(|(_, v)| inside(v)).map(|(q, _)| q).collect();
        if !questions.is_empty() {
            groups.push(Group { by, bucket, questions });
        }
        low = high.saturating_add(1);
    }
}
