//! The bias model that ratings must beat.

use std::collections::BTreeMap;

/// What a shrunken mean counts a prior of the mean rating as.
const PRIOR: f64 = 5.0;

/// A bias model of three parameters: a constant, and the weights of the person's mean and of the item's, both shrunken.
pub struct ThreeParameters {
    weights: [f64; 3],
    mean: f64,
    /// Sum and number of the stars of each item.
    items: BTreeMap<u32, (f64, f64)>,
}

impl ThreeParameters {
    /// Least squares over the ratings of each person (item and stars), each predicted from the others.
    pub fn fit(people: Vec<Vec<(u32, f64)>>) -> Self {
        let n = people.iter().map(Vec::len).sum::<usize>() as f64;
        let mean = people.iter().flatten().map(|(_, stars)| stars).sum::<f64>() / n;
        let mut items: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (item, stars) in people.iter().flatten() {
            let item = items.entry(*item).or_default();
            *item = (item.0 + stars, item.1 + 1.0);
        }
        let (mut a, mut b) = ([[0.0f64; 3]; 3], [0.0f64; 3]);
        for person in &people {
            let (sum, count) = (person.iter().map(|(_, stars)| stars).sum::<f64>(), person.len() as f64);
            for (item, y) in person {
                let (item_sum, item_count) = items[item];
                let x = [1.0, shrunken(sum - y, count - 1.0, mean), shrunken(item_sum - y, item_count - 1.0, mean)];
                for i in 0..3 {
                    b[i] += x[i] * y;
                    (0..3).for_each(|j| a[i][j] += x[i] * x[j]);
                }
            }
        }
        Self { weights: solve(a, b), mean, items }
    }

    /// The stars of an item by somebody with these ratings.
    pub fn predict(&self, known: &[(u32, f64)], item: u32) -> f64 {
        let sum = known.iter().map(|(_, stars)| stars).sum();
        let (item_sum, item_count) = self.items.get(&item).copied().unwrap_or_default();
        let x = [1.0, shrunken(sum, known.len() as f64, self.mean), shrunken(item_sum, item_count, self.mean)];
        x.iter().zip(self.weights).map(|(x, w)| x * w).sum()
    }
}

fn shrunken(sum: f64, count: f64, mean: f64) -> f64 {
    (sum + PRIOR * mean) / (count + PRIOR)
}

/// Solves three linear equations.
fn solve(mut a: [[f64; 3]; 3], mut b: [f64; 3]) -> [f64; 3] {
    for i in 0..3 {
        for j in (0..3).filter(|j| *j != i) {
            let by = a[j][i] / a[i][i];
            (0..3).for_each(|k| a[j][k] -= by * a[i][k]);
            b[j] -= by * b[i];
        }
    }
    std::array::from_fn(|i| b[i] / a[i][i])
}
