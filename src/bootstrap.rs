//! How sure is a difference? A paired bootstrap over people.
//!
//! One resample draws as many people as there are, with replacement, and keeps all questions of a drawn person. All
//! methods are read under the same draw, so what makes a person easy or hard for every method cancels out of their
//! difference. A method with several runs (seeds) draws its runs with replacement as well, so that its interval holds the
//! spread between runs, too. Intervals are percentile intervals (Efron & Tibshirani 1993, chapter 13).

use crate::random::Rng;
use crate::threads;

/// How to resample.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampling {
    /// How many resamples; 0 gives no intervals.
    pub resamples: u32,
    /// The share of resamples inside of an interval, such as 0.95.
    pub confidence: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.95, seed: 1 }
    }
}

/// What some methods reach under the same resamples.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    confidence: f64,
    /// By method, then by resample.
    samples: Vec<Vec<f64>>,
}

impl Bootstrap {
    /// Resamples the means of `methods[m][run][question]`, the values of one metric, where `people[question]` says whose
    /// question it is. Every run must hold one value per question; missing ones count as 0. Uses up to `threads` threads;
    /// the result does not depend on how many.
    pub fn new(people: &[u32], methods: &[&[Vec<f64>]], resampling: &Resampling, threads: usize) -> Self {
        let columns: Vec<&Vec<f64>> = methods.iter().flat_map(|runs| runs.iter()).collect();
        let width = columns.len() + 1;
        let mut order: Vec<usize> = (0..people.len()).collect();
        order.sort_by_key(|q| people.get(*q));
        // One row per person: the number of questions, then the sum of each run.
        let mut sums: Vec<f64> = Vec::new();
        for own in order.chunk_by(|a, b| people.get(*a) == people.get(*b)) {
            sums.push(own.len() as f64);
            let value = |column: &Vec<f64>| own.iter().filter_map(|q| column.get(*q)).sum::<f64>();
            sums.extend(columns.iter().map(|column| value(column)));
        }
        let resamples = if sums.is_empty() { 0 } else { resampling.resamples };
        let resampling = Resampling { resamples, ..resampling.clone() };
        Self::of(methods.len(), &resampling, threads, |rng| resample(&sums, width, methods, rng))
    }

    /// Resamples any figure of `methods` methods: `draw` gives each one's under one draw of people and runs.
    pub(crate) fn of(
        methods: usize,
        resampling: &Resampling,
        threads: usize,
        draw: impl Fn(Rng) -> Vec<f64> + Sync,
    ) -> Self {
        let one = |b: usize, (): &mut ()| draw(Rng::for_stream(resampling.seed, b as u64));
        let mut samples = vec![Vec::with_capacity(resampling.resamples as usize); methods];
        for drawn in threads::map(threads, resampling.resamples as usize, || (), one) {
            samples.iter_mut().zip(drawn).for_each(|(of_method, value)| of_method.push(value));
        }
        Self { confidence: resampling.confidence, samples }
    }

    /// The interval of method `m`'s figure; `None` without resamples or without such a method.
    pub fn interval(&self, m: usize) -> Option<[f64; 2]> {
        percentiles(self.samples.get(m)?.iter().copied(), self.confidence)
    }

    /// The interval of method `a`'s figure minus that of method `b`, under the same draws; those where it is not a number
    /// do not count.
    pub fn difference(&self, a: usize, b: usize) -> Option<[f64; 2]> {
        let pairs = self.samples.get(a)?.iter().zip(self.samples.get(b)?);
        percentiles(pairs.map(|(a, b)| a - b), self.confidence)
    }
}

/// The mean of each method under one draw of people and runs.
fn resample(sums: &[f64], width: usize, methods: &[&[Vec<f64>]], mut rng: Rng) -> Vec<f64> {
    let people = sums.len() / width;
    let mut total = vec![0.0; width];
    for _ in 0..people {
        let start = rng.below(people) * width;
        if let Some(row) = sums.get(start..start + width) {
            total.iter_mut().zip(row).for_each(|(t, v)| *t += v);
        }
    }
    let questions = total.first().copied().unwrap_or(1.0);
    let mut rest = total.get(1..).unwrap_or(&[]);
    let mut means = Vec::with_capacity(methods.len());
    for runs in methods {
        let (own, others) = rest.split_at(runs.len().min(rest.len()));
        rest = others;
        let sum: f64 = match own {
            [] => 0.0,
            [only] => *only,
            _ => (0..own.len()).filter_map(|_| own.get(rng.below(own.len()))).sum::<f64>() / own.len() as f64,
        };
        means.push(sum / questions);
    }
    means
}

fn percentiles(samples: impl Iterator<Item = f64>, confidence: f64) -> Option<[f64; 2]> {
    let mut samples: Vec<f64> = samples.filter(|v| !v.is_nan()).collect();
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share.clamp(0.0, 1.0) * (samples.len() as f64 - 1.0);
        let (low, high) = (samples.get(place.floor() as usize)?, samples.get(place.ceil() as usize)?);
        Some(low + (high - low) * place.fract())
    };
    let tail = (1.0 - confidence) / 2.0;
    if samples.is_empty() { None } else { Some([at(tail)?, at(1.0 - tail)?]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampling(resamples: u32, seed: u64) -> Resampling {
        Resampling { resamples, confidence: 0.9, seed }
    }

    #[test]
    fn intervals_cover_the_true_mean_as_often_as_they_say() {
        let trials = 300;
        let mut covered = 0;
        for trial in 0..trials {
            let mut rng = Rng::for_stream(5, trial);
            // Two questions per person that share the person's level: resampling questions would be too sure.
            let levels: Vec<f64> = (0..60).map(|_| rng.normal()).collect();
            let people: Vec<u32> = (0..120).map(|q| q / 2).collect();
            let values = vec![people.iter().map(|p| levels[*p as usize] + 0.1 * rng.normal()).collect::<Vec<f64>>()];
            let b = Bootstrap::new(&people, &[&values], &resampling(200, trial), 1);
            let [low, high] = b.interval(0).unwrap();
            covered += u64::from(low <= 0.0 && 0.0 <= high);
        }
        let share = covered as f64 / trials as f64;
        assert!((0.83..=0.95).contains(&share), "{share}");
    }

    #[test]
    fn pairing_sees_a_small_difference_behind_large_spread() {
        let mut rng = Rng::new(3);
        let people: Vec<u32> = (0..200).collect();
        let worse = vec![people.iter().map(|_| 10.0 * rng.normal()).collect::<Vec<f64>>()];
        let better = vec![worse[0].iter().map(|v| v + 0.1 + 0.05 * rng.normal()).collect::<Vec<f64>>()];
        let b = Bootstrap::new(&people, &[&better, &worse], &resampling(300, 1), 1);
        assert!(b.difference(0, 1).unwrap()[0] > 0.0);
        assert!(b.interval(0).unwrap()[0] < 0.0 && b.interval(0).unwrap()[1] > 0.0);
    }

    #[test]
    fn threads_do_not_change_the_result_and_seeds_do() {
        let people: Vec<u32> = (0..50).map(|q| q % 7).collect();
        let values = vec![(0..50).map(|q| f64::from(q % 11)).collect::<Vec<f64>>(); 2];
        let one = Bootstrap::new(&people, &[&values], &resampling(101, 1), 1);
        let many = Bootstrap::new(&people, &[&values], &resampling(101, 1), 4);
        let other = Bootstrap::new(&people, &[&values], &resampling(101, 2), 4);
        assert_eq!(one.samples, many.samples);
        assert_ne!(one.samples, other.samples);
    }

    #[test]
    fn runs_widen_the_interval() {
        let mut rng = Rng::new(9);
        let people: Vec<u32> = (0..100).collect();
        let base: Vec<f64> = people.iter().map(|_| rng.uniform()).collect();
        let shifted = |by: f64| base.iter().map(|v| v + by).collect::<Vec<f64>>();
        let (same, spread) = (vec![base.clone(); 3], vec![shifted(-0.3), base.clone(), shifted(0.3)]);
        let b = Bootstrap::new(&people, &[&same, &spread], &resampling(400, 1), 2);
        let width = |m: usize| b.interval(m).unwrap()[1] - b.interval(m).unwrap()[0];
        assert!(width(1) > 2.0 * width(0), "{} {}", width(1), width(0));
        assert!(Bootstrap::new(&people, &[&same], &resampling(0, 1), 1).interval(0).is_none());
    }
}
