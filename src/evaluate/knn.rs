//! Item-kNN: items that the same people met as the newest items of the history.

use super::baselines::copy;
use super::known::{CountedEvents, counts, for_each_sequence, tie_break};
use super::scorer::Scorer;
use crate::data::{Case, Dataset, Split};
use crate::error::Result;
use crate::threads;

/// How an [`ItemKnn`] is fitted and read. The defaults were chosen on the validation questions of MovieLens-1M, protocol A.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnOptions {
    /// Neighbours kept per item.
    pub neighbours: usize,
    /// An item of the history weighs half as much for every so many events that it lies back.
    pub half_life: f64,
    /// Events of an entity that are used, the newest ones; bounds the cost of very long histories.
    pub longest: usize,
}

impl Default for KnnOptions {
    fn default() -> Self {
        Self { neighbours: 500, half_life: 1.0, longest: 1000 }
    }
}

/// Item-kNN over co-occurrence. With `n_i` the number of entities that met item `i` in known events and `n_ij` those
/// that met both, the similarity is the cosine `n_ij / sqrt(n_i n_j)`; an item's score is the sum of its similarities to
/// the items of the history, later ones weighing more. Ties, such as items similar to nothing in the history, are broken
/// by popularity.
#[derive(Debug, Clone)]
pub struct ItemKnn {
    options: KnnOptions,
    neighbours: Vec<Vec<(u32, f32)>>,
    backoff: Vec<f32>,
}

impl ItemKnn {
    /// Counts co-occurrence and keeps each item's nearest neighbours, on as many as `threads` threads.
    pub fn fit(data: &Dataset, split: &Split, known: CountedEvents, options: &KnnOptions, threads: usize) -> Self {
        let items = data.items.len();
        let mut baskets: Vec<Vec<u32>> = Vec::new();
        for_each_sequence(data, split, known, |sequence, _| {
            let newest = sequence.get(sequence.len().saturating_sub(options.longest)..).unwrap_or(sequence);
            let mut basket = newest.to_vec();
            basket.sort_unstable();
            basket.dedup();
            baskets.push(basket);
        });
        let mut owners: Vec<Vec<u32>> = vec![Vec::new(); items];
        for (row, basket) in baskets.iter().enumerate() {
            for item in basket {
                if let Some(list) = owners.get_mut(*item as usize) {
                    list.push(row as u32);
                }
            }
        }
        let near = |item, together: &mut Vec<u32>| nearest(item, &owners, &baskets, options.neighbours, together);
        let neighbours = threads::map(threads, items, || vec![0u32; items], near);
        let backoff = tie_break(&counts(data, split, known));
        Self { options: options.clone(), neighbours, backoff }
    }
}

/// The `k` items most similar to `item`, nearest first, ties by row. `together` is scratch, all zero before and after.
fn nearest(item: usize, owners: &[Vec<u32>], baskets: &[Vec<u32>], k: usize, together: &mut [u32]) -> Vec<(u32, f32)> {
    let own = owners.get(item).map_or(&[][..], Vec::as_slice);
    let mut touched = Vec::new();
    for basket in own.iter().filter_map(|b| baskets.get(*b as usize)) {
        for other in basket {
            if let Some(count) = together.get_mut(*other as usize) {
                if *count == 0 {
                    touched.push(*other);
                }
                *count += 1;
            }
        }
    }
    let mut list = Vec::with_capacity(touched.len());
    for other in touched {
        let count = together.get_mut(other as usize).map_or(0, std::mem::take);
        if other as usize != item {
            let theirs = owners.get(other as usize).map_or(1, Vec::len);
            list.push((other, (f64::from(count) / ((own.len() * theirs) as f64).sqrt()) as f32));
        }
    }
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if list.len() > k && k > 0 {
        list.select_nth_unstable_by(k - 1, order);
    }
    list.truncate(k);
    list.sort_unstable_by(order);
    list
}

impl Scorer for ItemKnn {
    fn name(&self) -> &str {
        "item-knn"
    }

    fn score(&self, data: &Dataset, case: &Case, scores: &mut [f32]) -> Result<()> {
        copy(&self.backoff, scores)?;
        let history = data.events.item.get(case.history.clone()).unwrap_or(&[]);
        let mut weight = 1.0f64;
        let decay = (-1.0 / self.options.half_life).exp2();
        for item in history.iter().rev() {
            for (other, similarity) in self.neighbours.get(*item as usize).map_or(&[][..], Vec::as_slice) {
                if let Some(slot) = scores.get_mut(*other as usize) {
                    *slot += weight as f32 * similarity;
                }
            }
            weight *= decay;
            if weight < 1e-6 {
                break;
            }
        }
        Ok(())
    }
}
