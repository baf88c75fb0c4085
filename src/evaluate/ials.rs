//! iALS: matrix factorisation of what was met and what was not.

use super::choose::best;
use super::known::{CountedEvents, for_each_sequence};
use super::scorer::Scorer;
use crate::data::{Case, Dataset, Split};
use crate::error::{Result, err};
use crate::kernels::math::dot;
use crate::kernels::matmul::{View, matmul};
use crate::kernels::positive::solve;
use crate::progress::Cancel;
use crate::random::Rng;
use crate::threads;

/// What [`Ials::tuned`] chooses from.
const PENALTIES: [f32; 4] = [0.001, 0.003, 0.01, 0.03];
const UNOBSERVED: [f32; 3] = [0.03, 0.1, 0.3];

/// How an [`Ials`] is fitted, in the words of Rendle et al. 2021.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IalsOptions {
    /// Width of the vectors.
    pub width: usize,
    /// What an item that was not met weighs, beside 1 of one that was.
    pub unobserved: f32,
    /// The penalty of squared vectors, for each entity and item times what its row weighs.
    pub penalty: f32,
    /// Rounds over all entities and items.
    pub sweeps: usize,
    /// Seed of the first vectors.
    pub seed: u64,
}

impl Default for IalsOptions {
    fn default() -> Self {
        Self { width: 64, unobserved: 0.1, penalty: 0.003, sweeps: 10, seed: 1 }
    }
}

/// Implicit alternating least squares ("iALS++" and "Revisiting the performance of iALS on item recommendation benchmarks", Rendle et al. 2021): with
/// vectors `w_u` and `h_i`, least
/// `sum over met (w_u.h_i - 1)^2 + unobserved sum over all (w_u.h_i)^2 + penalty (sum_u n_u |w_u|^2 + sum_i n_i |h_i|^2)`, where `n` is
/// what a row weighs: what it met, and `unobserved` times all. A question's vector is solved for its whole history.
#[derive(Debug, Clone)]
pub struct Ials {
    options: IalsOptions,
    /// `[items, width]`.
    items: Vec<f32>,
    /// `unobserved` times the sum of all items' outer products, `[width, width]`.
    gram: Vec<f32>,
}

impl Ials {
    /// Fits the vectors on up to `threads` threads; how many does not change them.
    ///
    /// # Errors
    /// `InvalidArgument` for a width, weight or penalty that is not positive.
    pub fn fit(
        data: &Dataset,
        split: &Split,
        known: CountedEvents,
        options: &IalsOptions,
        threads: usize,
    ) -> Result<Self> {
        let IalsOptions { width: d, unobserved, penalty, sweeps, seed } = *options;
        if !(d > 0 && unobserved > 0.0 && unobserved.is_finite() && penalty > 0.0 && penalty.is_finite()) {
            return Err(err!(InvalidArgument, "{options:?} cannot be fitted; choose positive numbers"));
        }
        let n = data.items.len();
        let mut met: Vec<Vec<u32>> = Vec::new();
        let mut by: Vec<Vec<u32>> = vec![Vec::new(); n];
        for_each_sequence(data, split, known, |items, _| {
            let mut own = items.to_vec();
            own.sort_unstable();
            own.dedup();
            own.iter().for_each(|i| by[*i as usize].push(met.len() as u32));
            met.push(own);
        });
        let mut rng = Rng::for_stream(seed, 41);
        let scale = 0.1 / (d as f32).sqrt();
        let mut items: Vec<f32> = (0..n * d).map(|_| rng.normal() as f32 * scale).collect();
        for _ in 0..sweeps {
            let entities = solved(&met, &items, options, threads);
            items = solved(&by, &entities, options, threads);
        }
        let gram = gram(&items, options);
        Ok(Self { options: *options, items, gram })
    }

    /// The same with the penalty, then the weight of what was not met, that are best on the validation questions. The grids are those
    /// around the published choices.
    ///
    /// # Errors
    /// As [`Ials::fit`]; `Cancelled`.
    pub fn tuned(data: &Dataset, split: &Split, threads: usize, cancel: &Cancel) -> Result<Self> {
        let fit = |known, options: &IalsOptions| Self::fit(data, split, known, options, threads);
        let start = IalsOptions::default();
        let penalties = PENALTIES.map(|penalty| IalsOptions { penalty, ..start });
        let chosen = best(data, split, &penalties, fit, threads, cancel)?;
        let weights = UNOBSERVED.map(|unobserved| IalsOptions { unobserved, ..chosen });
        let chosen = best(data, split, &weights, fit, threads, cancel)?;
        fit(CountedEvents::BeforeTest, &chosen)
    }
}

/// `unobserved` times the sum of the outer products of rows.
fn gram(rows: &[f32], options: &IalsOptions) -> Vec<f32> {
    let d = options.width;
    let mut gram = vec![0.0; d * d];
    matmul(View::dense(rows, rows.len() / d, d).t(), View::dense(rows, rows.len() / d, d), &mut gram, d, false);
    gram.iter_mut().for_each(|g| *g *= options.unobserved);
    gram
}

/// The best vector of each row, given those of the other side.
fn solved(met: &[Vec<u32>], others: &[f32], options: &IalsOptions, threads: usize) -> Vec<f32> {
    let gram = gram(others, options);
    let parts = met.chunks(64).collect::<Vec<_>>();
    let work = |part: usize, memory: &mut Memory| -> Vec<f32> {
        let rows = parts.get(part).copied().unwrap_or(&[]);
        rows.iter().flat_map(|own| one(own, others, &gram, options, memory)).collect()
    };
    threads::map(threads, parts.len(), Memory::default, work).concat()
}

#[derive(Default)]
struct Memory {
    near: Vec<f32>,
    a: Vec<f32>,
}

/// The best vector of somebody who met `own`.
fn one(own: &[u32], others: &[f32], gram: &[f32], options: &IalsOptions, memory: &mut Memory) -> Vec<f32> {
    let d = options.width;
    let mut b = vec![0.0; d];
    if own.is_empty() {
        return b;
    }
    let Memory { near, a } = memory;
    near.clear();
    own.iter().filter_map(|i| others.get(*i as usize * d..(*i as usize + 1) * d)).for_each(|v| near.extend(v));
    a.clear();
    a.extend_from_slice(gram);
    let n = near.len() / d;
    matmul(View::dense(near, n, d).t(), View::dense(near, n, d), a, d, true);
    near.chunks_exact(d).for_each(|v| b.iter_mut().zip(v).for_each(|(b, v)| *b += v));
    let weight = n as f32 + options.unobserved * (others.len() / d) as f32;
    (0..d).for_each(|i| a[i * d + i] += options.penalty * weight);
    if !solve(a, &mut b) {
        b.fill(0.0);
    }
    b
}

impl Scorer for Ials {
    fn name(&self) -> &str {
        "ials"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        let mut met: Vec<u32> = data.events.item.get(case.history.clone()).unwrap_or(&[]).to_vec();
        met.sort_unstable();
        met.dedup();
        let user = one(&met, &self.items, &self.gram, &self.options, &mut Memory::default());
        let rows = self.items.chunks_exact(self.options.width);
        scores.iter_mut().zip(rows).for_each(|(s, row)| *s = dot(row, &user));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::known::tests::baskets;

    #[test]
    fn what_goes_together_scores_near_one_and_the_rest_near_zero() {
        let (data, split) = baskets(6, &[&[0, 1, 2], &[0, 1], &[1, 2], &[3, 4, 5], &[3, 5], &[4, 5]]);
        let options = IalsOptions { width: 4, penalty: 0.02, sweeps: 30, ..IalsOptions::default() };
        let ials = Ials::fit(&data, &split, CountedEvents::Training, &options, 1).unwrap();
        assert_eq!(ials.items, Ials::fit(&data, &split, CountedEvents::Training, &options, 3).unwrap().items);
        let mut scores = vec![0.0; 6];
        let case = Case { entity: 1, history: 3..5, target: 3, at: None };
        ials.score(&data, &case, &mut scores).unwrap();
        let (least, most) =
            (scores[..3].iter().copied().fold(1.0, f32::min), scores[3..].iter().copied().fold(0.0, f32::max));
        assert!(least > most + 0.1, "{scores:?}");
    }

    #[test]
    fn a_vector_is_the_least_of_the_loss() {
        let options = IalsOptions { width: 3, unobserved: 0.2, penalty: 0.1, ..IalsOptions::default() };
        let items = [1.0, 0.2, -0.3, 0.1, 0.9, 0.4, -0.5, 0.3, 0.8, 0.2, 0.2, 0.1];
        let own = [0u32, 2];
        let found = one(&own, &items, &gram(&items, &options), &options, &mut Memory::default());
        let loss = |w: &[f32]| -> f32 {
            let score = |i: usize| dot(&items[i * 3..i * 3 + 3], w);
            let met: f32 = own.iter().map(|i| (score(*i as usize) - 1.0).powi(2)).sum();
            let all: f32 = (0..4).map(|i| score(i).powi(2)).sum();
            met + 0.2 * all + 0.1 * (2.0 + 0.2 * 4.0) * dot(w, w)
        };
        for c in 0..3 {
            for step in [-0.01, 0.01] {
                let mut other = found.clone();
                other[c] += step;
                assert!(loss(&other) > loss(&found));
            }
        }
    }
}
