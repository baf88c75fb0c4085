//! Baseline: an entity's and an item's bias, each shrunk to none by how little is known (Koren 2009).

use super::plan::{Plan, Who};

/// `mean + b_u + b_i` of the first head, fitted by alternation. An entity's bias comes from the support of the task at hand, so that hidden
/// entities have one too.
#[derive(Debug, Clone, PartialEq)]
pub struct Biases {
    mean: f64,
    items: Vec<f64>,
    shrink: f64,
}

/// Rounds of alternation.
const ROUNDS: usize = 10;

impl Biases {
    /// Fits the biases of items on all training outcomes, validation included; `shrink` outcomes of the mean are added to each
    /// bias.
    pub fn fit(plan: &Plan<'_>, shrink: f64) -> Self {
        let h = plan.means.len();
        let label = |i: usize| f64::from(plan.impressions.labels[i * h]);
        let tasks = || plan.tasks(Who::Train).chain(plan.tasks(Who::Validation));
        let rows: Vec<(usize, usize, f64)> = tasks()
            .flat_map(|t| t.query.clone().map(|i| (t.entity as usize, i)))
            .map(|(u, i)| (u, plan.impressions.item[i] as usize, label(i)))
            .filter(|(.., y)| !y.is_nan())
            .collect();
        let mean = rows.iter().map(|r| r.2).sum::<f64>() / rows.len().max(1) as f64;
        let (mut items, mut entities) = (vec![0.0; plan.data.items.len()], vec![0.0; plan.data.entities.len()]);
        for _ in 0..ROUNDS {
            items = bias(&rows, items.len(), shrink, |(u, i, y)| (i, y - mean - entities[u]));
            entities = bias(&rows, entities.len(), shrink, |(u, i, y)| (u, y - mean - items[i]));
        }
        Self { mean, items, shrink }
    }

    /// Logits of the query outcomes of a part, in the order of tasks: of probabilities cut to 0.01 to 0.99.
    pub fn predict(&self, plan: &Plan<'_>, who: Who) -> Vec<f32> {
        let h = plan.means.len();
        let mut scores = Vec::new();
        for task in plan.tasks(who) {
            let (mut sum, mut n) = (0.0, 0.0);
            for i in task.support.clone() {
                let y = f64::from(plan.impressions.labels[i * h]);
                if !y.is_nan() {
                    sum += y - self.mean - self.item(plan.impressions.item[i]);
                    n += 1.0;
                }
            }
            let own = self.mean + sum / (n + self.shrink);
            scores.extend(task.query.clone().map(|i| logit(own + self.item(plan.impressions.item[i]))));
        }
        scores
    }

    fn item(&self, row: u32) -> f64 {
        self.items.get(row as usize).copied().unwrap_or(0.0)
    }
}

/// The logit of a score; scores beyond the cut keep their order.
fn logit(score: f64) -> f32 {
    let p = score.clamp(0.01, 0.99);
    ((p / (1.0 - p)).ln() + (score - p)) as f32
}

/// Shrunk means of `value` (whose, what) over rows.
fn bias(
    rows: &[(usize, usize, f64)],
    count: usize,
    shrink: f64,
    value: impl Fn((usize, usize, f64)) -> (usize, f64),
) -> Vec<f64> {
    let (mut sums, mut counts) = (vec![0.0; count], vec![shrink; count]);
    for row in rows {
        let (at, residual) = value(*row);
        sums[at] += residual;
        counts[at] += 1.0;
    }
    sums.iter().zip(&counts).map(|(s, n)| s / n.max(1e-9)).collect()
}
