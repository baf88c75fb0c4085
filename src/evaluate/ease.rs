//! EASE: a linear model of what goes together, in closed form.

use super::choose::best;
use super::known::{CountedEvents, counts, for_each_sequence, tie_break};
use super::scorer::Scorer;
use crate::data::{Case, Dataset, Split};
use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::kernels::positive::invert;
use crate::progress::Cancel;

/// The most items that [`Ease`] is fitted to: its matrix has this number squared, 1.6 GB.
pub const EASE_ITEMS: usize = 20_000;
/// The penalties that [`Ease::tuned`] chooses from.
const PENALTIES: [f32; 4] = [20.0, 100.0, 300.0, 1000.0];

/// The item-to-item weights `B` that rebuild each entity's items from its others (Steck 2019, "Embarrassingly shallow
/// autoencoders for sparse data"): with `G = X'X + penalty I` over the 0/1 matrix `X` of entities and items, `B = I - G^-1 / diag(G^-1)`, whose
/// diagonal is 0. An item's score is the sum of the weights from the items of the history.
#[derive(Debug, Clone)]
pub struct Ease {
    /// Each item's place in the matrix, `u32::MAX` for one without known events.
    place: Vec<u32>,
    rows: Vec<u32>,
    /// `[n, n]`: weights from the item of a row.
    weights: Vec<f32>,
    backoff: Vec<f32>,
}

impl Ease {
    /// Fits the weights for a penalty of squared weights, on up to `threads` threads.
    ///
    /// # Errors
    /// `InvalidArgument` for a penalty that is not positive; `InvalidData` if more than [`EASE_ITEMS`] items have known events.
    pub fn fit(data: &Dataset, split: &Split, known: CountedEvents, penalty: f32, threads: usize) -> Result<Self> {
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(err!(InvalidArgument, "the penalty of EASE is {penalty}; choose a positive number"));
        }
        let popularity = counts(data, split, known);
        let rows: Vec<u32> = (0..).zip(&popularity).filter(|(_, c)| **c > 0.0).map(|(i, _)| i).collect();
        let n = rows.len();
        if n > EASE_ITEMS {
            return Err(err!(
                InvalidData,
                "EASE would need a matrix of {n} by {n} items; it is fitted up to {EASE_ITEMS}, leave it out"
            ));
        }
        let mut place = vec![u32::MAX; data.items.len()];
        rows.iter().zip(0..).for_each(|(row, at)| place[*row as usize] = at);
        let mut weights = vec![0.0f32; n * n];
        for_each_sequence(data, split, known, |items, _| {
            let mut met: Vec<usize> = items.iter().map(|i| place[*i as usize] as usize).collect();
            met.sort_unstable();
            met.dedup();
            for (at, a) in met.iter().enumerate() {
                met[at..].iter().for_each(|b| weights[a * n + b] += 1.0);
            }
        });
        (0..n).for_each(|i| weights[i * n + i] += penalty);
        if !invert(&mut weights, n, threads) {
            return Err(err!(InvalidArgument, "EASE has no solution at penalty {penalty}; choose a greater one"));
        }
        let diagonal: Vec<f32> = (0..n).map(|i| weights[i * n + i]).collect();
        for (i, row) in weights.chunks_exact_mut(n.max(1)).enumerate() {
            row.iter_mut().zip(&diagonal).for_each(|(w, d)| *w /= -d);
            row[i] = 0.0;
        }
        Ok(Self { place, rows, weights, backoff: tie_break(&popularity) })
    }

    /// The same with the penalty that is best on the validation questions, of 20, 100, 300 and 1000.
    ///
    /// # Errors
    /// As [`Ease::fit`]; `Cancelled`.
    pub fn tuned(data: &Dataset, split: &Split, threads: usize, cancel: &Cancel) -> Result<Self> {
        let fit = |known, penalty: &f32| Self::fit(data, split, known, *penalty, threads);
        let penalty = best(data, split, &PENALTIES, fit, threads, cancel)?;
        fit(CountedEvents::BeforeTest, &penalty)
    }
}

impl Scorer for Ease {
    fn name(&self) -> &str {
        "ease"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        let n = self.rows.len();
        let mut met: Vec<u32> = data.events.item.get(case.history.clone()).unwrap_or(&[]).to_vec();
        met.sort_unstable();
        met.dedup();
        let mut sums = vec![0.0f32; n];
        for item in met {
            let Some(place) = self.place.get(item as usize).map(|p| *p as usize) else { continue };
            if let Some(row) = self.weights.get(place.saturating_mul(n)..(place.saturating_add(1)).saturating_mul(n)) {
                add(&mut sums, row);
            }
        }
        scores.iter_mut().zip(&self.backoff).for_each(|(s, b)| *s = *b);
        for (row, sum) in self.rows.iter().zip(&sums) {
            if let Some(score) = scores.get_mut(*row as usize) {
                *score += sum;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::known::tests::baskets;

    #[test]
    fn the_weights_are_those_of_the_closed_form() {
        // G = [[2, 1], [1, 2]] + 1: P = [[3, -1], [-1, 3]] / 8, so B = [[0, 1/3], [1/3, 0]]; item 2 was met by nobody.
        let (data, split) = baskets(3, &[&[0, 1], &[0], &[1]]);
        let ease = Ease::fit(&data, &split, CountedEvents::Training, 1.0, 2).unwrap();
        assert_eq!((ease.rows.len(), ease.weights[0], ease.weights[3]), (2, 0.0, 0.0));
        assert!((ease.weights[1] - 1.0 / 3.0).abs() < 1e-6 && (ease.weights[2] - 1.0 / 3.0).abs() < 1e-6);
        let mut scores = vec![0.0; 3];
        let case = Case { entity: 1, history: 2..3, target: 3, at: None };
        ease.score(&data, &case, &mut scores).unwrap();
        assert!((scores[1] - 1.0 / 3.0).abs() < 1e-4 && scores[2] == 0.0, "{scores:?}");
        assert!(Ease::fit(&data, &split, CountedEvents::Training, 0.0, 1).is_err());
    }
}
