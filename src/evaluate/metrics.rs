//! How good is a ranking? Metrics of next-item lists and of predicted probabilities.
//!
//! The rank of a target counts every item of the catalogue; where seen items are excluded, without those that the entity met before.
//! Where other items
//! have the same score as the target, it gets the mean of the ranks that they share: with `g` better items and `e`
//! equal ones, `1 + g + e / 2`. Such a rank may end in .5. It is used as it is: a hit at `k` means rank <= `k`, the gain
//! is `1 / log2(1 + rank)`, the reciprocal rank `1 / rank`. So a constant score earns the middle of the
//! catalogue, never a hit by luck. In a list that is served the rank is the place, as it is served; a target that is not among its first
//! 200 has no rank (it is infinite) and counts 0 everywhere.

use crate::error::{Result, err};

/// A metric of the rank of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RankMetric {
    /// The target is first.
    Hr1,
    /// It is among the first 10.
    Hr10,
    /// It is among the first 50.
    Hr50,
    /// It is among the first 200.
    Hr200,
    /// The gain of a target among the first 10.
    Ndcg10,
    /// The gain of a target among the first 200.
    Ndcg200,
    /// The reciprocal rank.
    Mrr,
}

impl RankMetric {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] = [Self::Hr1, Self::Hr10, Self::Hr50, Self::Hr200, Self::Ndcg10, Self::Ndcg200, Self::Mrr];

    /// Its key in reports.
    pub fn key(self) -> &'static str {
        match self {
            Self::Hr1 => "hr@1",
            Self::Hr10 => "hr@10",
            Self::Hr50 => "hr@50",
            Self::Hr200 => "hr@200",
            Self::Ndcg10 => "ndcg@10",
            Self::Ndcg200 => "ndcg@200",
            Self::Mrr => "mrr",
        }
    }

    /// What a target at `rank` (from 1, may end in .5) adds to it.
    pub fn value(self, rank: f64) -> f64 {
        let hit = |k: f64| f64::from(u8::from(rank <= k));
        let gain = || 1.0 / (1.0 + rank).log2();
        match self {
            Self::Hr1 => hit(1.0),
            Self::Hr10 => hit(10.0),
            Self::Hr50 => hit(50.0),
            Self::Hr200 => hit(200.0),
            Self::Ndcg10 => hit(10.0) * gain(),
            Self::Ndcg200 => hit(200.0) * gain(),
            Self::Mrr => 1.0 / rank,
        }
    }
}

impl std::fmt::Display for RankMetric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.key())
    }
}

#[cfg(feature = "files")]
impl serde::Serialize for RankMetric {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.key())
    }
}

impl std::str::FromStr for RankMetric {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|m| m.key() == text).ok_or_else(|| {
            let keys = Self::ALL.map(Self::key).join(", ");
            err!(NotFound, "there is no rank metric {text:?}; choose one of {keys}")
        })
    }
}

/// A figure for each [`RankMetric`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RankMetrics<T = f64> {
    /// Of [`RankMetric::Hr1`].
    pub hr_1: T,
    /// Of [`RankMetric::Hr10`].
    pub hr_10: T,
    /// Of [`RankMetric::Hr50`].
    pub hr_50: T,
    /// Of [`RankMetric::Hr200`].
    pub hr_200: T,
    /// Of [`RankMetric::Ndcg10`].
    pub ndcg_10: T,
    /// Of [`RankMetric::Ndcg200`].
    pub ndcg_200: T,
    /// Of [`RankMetric::Mrr`].
    pub mrr: T,
}

impl RankMetrics {
    /// The means over many questions; zeros where there are none.
    pub fn of(ranks: &[f64]) -> Self {
        let (mut means, n) = (Self::default(), ranks.len().max(1) as f64);
        for metric in RankMetric::ALL {
            *means.get_mut(metric) = ranks.iter().fold(0.0, |sum, rank| sum + metric.value(*rank)) / n;
        }
        means
    }
}

impl<T: Copy> RankMetrics<T> {
    /// The figure of a metric.
    pub fn get(&self, metric: RankMetric) -> T {
        match metric {
            RankMetric::Hr1 => self.hr_1,
            RankMetric::Hr10 => self.hr_10,
            RankMetric::Hr50 => self.hr_50,
            RankMetric::Hr200 => self.hr_200,
            RankMetric::Ndcg10 => self.ndcg_10,
            RankMetric::Ndcg200 => self.ndcg_200,
            RankMetric::Mrr => self.mrr,
        }
    }

    /// The place of a metric's figure.
    pub(super) fn get_mut(&mut self, metric: RankMetric) -> &mut T {
        match metric {
            RankMetric::Hr1 => &mut self.hr_1,
            RankMetric::Hr10 => &mut self.hr_10,
            RankMetric::Hr50 => &mut self.hr_50,
            RankMetric::Hr200 => &mut self.hr_200,
            RankMetric::Ndcg10 => &mut self.ndcg_10,
            RankMetric::Ndcg200 => &mut self.ndcg_200,
            RankMetric::Mrr => &mut self.mrr,
        }
    }

    /// All figures by the keys of reports.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, T)> + '_ {
        RankMetric::ALL.into_iter().map(|m| (m.key(), self.get(m)))
    }
}

/// The mean rank that a target shares with `equal` other items below `better` ones.
pub(crate) fn mean_rank(better: usize, equal: usize) -> f64 {
    1.0 + better as f64 + equal as f64 / 2.0
}

/// Mean negative log-likelihood (nats) of `labels` under `probabilities`, which are kept within [1e-7, 1 - 1e-7]. `None`
/// for empty slices or slices that differ in length.
pub fn logloss(probabilities: &[f32], labels: &[bool]) -> Option<f64> {
    if probabilities.len() != labels.len() || labels.is_empty() {
        return None;
    }
    let cost = |(p, y): (&f32, &bool)| {
        let p = f64::from(*p).clamp(1e-7, 1.0 - 1e-7);
        if *y { -p.ln() } else { -(1.0 - p).ln() }
    };
    Some(probabilities.iter().zip(labels).map(cost).sum::<f64>() / labels.len() as f64)
}

/// The share of the catalogue that is in somebody's list: items with a count above 0, over all items.
pub fn coverage(recommended: &[u64]) -> f64 {
    recommended.iter().filter(|c| **c > 0).count() as f64 / recommended.len().max(1) as f64
}

/// The share of all recommendations that falls on the head: the most popular tenth of the items (rounded up; equally
/// popular items in row order). `recommended` and `popularity` have one entry per item. 0 where nothing is recommended.
pub fn head_share(recommended: &[u64], popularity: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..recommended.len().min(popularity.len())).collect();
    let count = |i: &usize| popularity.get(*i).copied().unwrap_or(0.0);
    order.sort_by(|a, b| count(b).total_cmp(&count(a)));
    let head = order.iter().take(recommended.len().div_ceil(10)).filter_map(|i| recommended.get(*i)).sum::<u64>();
    let all = recommended.iter().sum::<u64>();
    head as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_metrics_equal_hand_computed_values() {
        let m = RankMetrics::of(&[1.0, 3.0, 10.5, 300.0]);
        let close = |key: &str, v: f64| {
            let found = m.get(key.parse().unwrap());
            assert!((found - v).abs() < 1e-12, "{key} {found} {v}");
        };
        close("hr@1", 0.25);
        close("hr@10", 0.5);
        close("hr@50", 0.75);
        close("hr@200", 0.75);
        close("ndcg@10", (1.0 + 0.5) / 4.0);
        close("ndcg@200", (1.0 + 0.5 + 1.0 / 11.5f64.log2()) / 4.0);
        close("mrr", (1.0 + 1.0 / 3.0 + 1.0 / 10.5 + 1.0 / 300.0) / 4.0);
        assert!(RankMetrics::of(&[]).entries().all(|(_, v)| v == 0.0));
        assert_eq!("auc".parse::<RankMetric>().unwrap_err().kind(), crate::ErrorKind::NotFound);
    }

    #[test]
    fn logloss_equals_hand_computed_values() {
        let l = logloss(&[0.8, 0.4], &[true, false]).unwrap();
        assert!((l - (-(0.8f64.ln()) - 0.6f64.ln()) / 2.0).abs() < 1e-6);
        assert!(logloss(&[0.0], &[true]).unwrap() < 17.0);
    }

    #[test]
    fn coverage_and_head_share() {
        assert_eq!(coverage(&[0, 3, 0, 1]), 0.5);
        let mut recommended = vec![1u64; 20];
        recommended[7] = 11;
        let popularity: Vec<f64> = (0..20).map(|i| if i == 7 { 50.0 } else { f64::from(i) }).collect();
        assert!((head_share(&recommended, &popularity) - 12.0 / 30.0).abs() < 1e-12);
        assert_eq!(head_share(&[0; 4], &[1.0; 4]), 0.0);
    }
}
