//! The methods that every model must beat first: popularity, popularity of late, and a first-order Markov chain.
//!
//! All are fitted on known events only ([`CountedEvents`]) and never see an event on a hidden item.

use super::known::{CountedEvents, counts, for_each_sequence, last_item};
use super::scorer::Scorer;
use crate::data::{Case, Dataset, Split};
use crate::error::{Result, err};
use std::collections::HashMap;

/// Scores every item by how many known events it has.
#[derive(Debug, Clone)]
pub struct Popularity {
    scores: Vec<f32>,
}

impl Popularity {
    /// Counts the known events of each item.
    pub fn fit(data: &Dataset, split: &Split, known: CountedEvents) -> Self {
        Self { scores: counts(data, split, known).into_iter().map(|c| c as f32).collect() }
    }
}

impl Scorer for Popularity {
    fn name(&self) -> &str {
        "popularity"
    }

    fn score(&self, _: &Dataset, _: &Case, scores: &mut [f32]) -> Result<()> {
        copy(&self.scores, scores)
    }
}

/// Scores every item by its known events, each weighing half as much for every half-life that it lies before the newest
/// known event.
#[derive(Debug, Clone)]
pub struct RecentPopularity {
    scores: Vec<f32>,
}

impl RecentPopularity {
    /// Sums the decayed weights of each item's known events.
    ///
    /// # Errors
    /// `InvalidData` if events carry no time, `InvalidArgument` if the half-life (days) is not a positive number.
    pub fn fit(data: &Dataset, split: &Split, known: CountedEvents, half_life_days: f64) -> Result<Self> {
        if data.events.time.len() != data.events.len() {
            return Err(err!(
                InvalidData,
                "recent popularity needs events with a time and {:?} has none; use popularity",
                data.schema.name
            ));
        }
        if !(half_life_days.is_finite() && half_life_days > 0.0) {
            return Err(err!(
                InvalidArgument,
                "the half-life is {half_life_days} days; choose a positive number of days"
            ));
        }
        let mut newest = i64::MIN;
        let time = |event: &usize| data.events.time.get(*event).copied().unwrap_or(i64::MIN);
        for_each_sequence(data, split, known, |_, events| {
            newest = events.iter().map(time).max().unwrap_or(newest).max(newest);
        });
        let mut sums = vec![0.0f64; data.items.len()];
        for_each_sequence(data, split, known, |items, events| {
            for (item, event) in items.iter().zip(events) {
                let days = newest.saturating_sub(time(event)) as f64 / 86_400_000.0;
                if let Some(sum) = sums.get_mut(*item as usize) {
                    *sum += (-days / half_life_days).exp2();
                }
            }
        });
        Ok(Self { scores: sums.into_iter().map(|s| s as f32).collect() })
    }
}

impl Scorer for RecentPopularity {
    fn name(&self) -> &str {
        "recent-popularity"
    }

    fn score(&self, _: &Dataset, _: &Case, scores: &mut [f32]) -> Result<()> {
        copy(&self.scores, scores)
    }
}

/// A first-order Markov chain over items: what most often came right after the newest item of the history.
///
/// Items are ordered by how often they came next to the newest item in known sequences, then by popularity, so items
/// that never followed it come last, the popular ones first. Only that order means anything: a follower scores
/// 1 + the place of its (count, popularity) from below, any other item its popularity relative to the most popular one,
/// below 1. On MovieLens-1M, protocol A, with [`CountedEvents::BeforeTest`], this gives the HR@10 0.2151 and NDCG@10 0.1261 that
/// are published for it. Someone without history gets the popular items.
#[derive(Debug, Clone)]
pub struct Markov {
    offsets: Vec<usize>,
    followers: Vec<(u32, f32)>,
    backoff: Vec<f32>,
    hidden: Vec<bool>,
}

impl Markov {
    /// Counts adjacent pairs of known events.
    pub fn fit(data: &Dataset, split: &Split, known: CountedEvents) -> Self {
        let popularity = counts(data, split, known);
        let mut pairs: HashMap<u64, u32> = HashMap::new();
        for_each_sequence(data, split, known, |items, _| {
            for (from, to) in items.iter().zip(items.iter().skip(1)) {
                *pairs.entry(u64::from(*from) << 32 | u64::from(*to)).or_default() += 1;
            }
        });
        let popularity_of = |item: u32| popularity.get(item as usize).copied().unwrap_or(0.0);
        let mut rows: Vec<(u32, u32, u32)> =
            pairs.into_iter().map(|(pair, n)| ((pair >> 32) as u32, pair as u32, n)).collect();
        rows.sort_unstable_by(|a, b| {
            let by_popularity = || popularity_of(a.1).total_cmp(&popularity_of(b.1));
            a.0.cmp(&b.0).then(a.2.cmp(&b.2)).then_with(by_popularity).then(a.1.cmp(&b.1))
        });
        let mut offsets = vec![0usize];
        let mut followers = Vec::with_capacity(rows.len());
        let mut rows = rows.as_slice();
        for from in 0..data.items.len() as u32 {
            let (own, rest) = rows.split_at(rows.partition_point(|r| r.0 <= from));
            let mut place = 1.0f32;
            for tie in own.chunk_by(|a, b| a.2 == b.2 && popularity_of(a.1) == popularity_of(b.1)) {
                place += 1.0;
                followers.extend(tie.iter().map(|r| (r.1, place)));
            }
            offsets.push(followers.len());
            rows = rest;
        }
        let most = popularity.iter().copied().fold(0.0, f64::max) + 1.0;
        let backoff = popularity.iter().map(|p| (p / most) as f32).collect();
        Self { offsets, followers, backoff, hidden: split.hidden.clone() }
    }
}

impl Scorer for Markov {
    fn name(&self) -> &str {
        "markov"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        copy(&self.backoff, scores)?;
        let Some(last) = last_item(data, &self.hidden, case.history.clone()) else { return Ok(()) };
        let bounds = (self.offsets.get(last as usize), self.offsets.get(last as usize + 1));
        if let (Some(&from), Some(&to)) = bounds {
            for (item, score) in self.followers.get(from..to).unwrap_or(&[]) {
                if let Some(slot) = scores.get_mut(*item as usize) {
                    *slot = *score;
                }
            }
        }
        Ok(())
    }
}

/// Copies a score per item, or says that the catalogue is another one.
pub(super) fn copy(from: &[f32], to: &mut [f32]) -> Result<()> {
    if from.len() != to.len() {
        return Err(err!(
            StateMismatch,
            "the baseline knows {} items and the catalogue has {}; fit it on the same dataset",
            from.len(),
            to.len()
        ));
    }
    to.copy_from_slice(from);
    Ok(())
}
