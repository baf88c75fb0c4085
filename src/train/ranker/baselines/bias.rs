//! Baseline: an entity's and an item's bias, each pulled to none by how little is known: a logistic regression with a ridge
//! on both, which orders outcomes better than shrunk means do (Koren 2009 has the form).

use super::super::calibration::log_loss;
use super::super::plan::{Plan, TaskSet};

/// `logit = start + b_u + b_i` of the first head. An entity's bias comes from the support of the task at hand, so that hidden entities
/// have one too.
#[derive(Debug, Clone, PartialEq)]
pub struct Biases {
    start: f64,
    items: Vec<f64>,
    ridge: [f64; 2],
}

/// Rounds of alternation, one Newton step each.
const ROUNDS: usize = 20;
/// Newton steps for the bias of one entity.
const STEPS: usize = 8;
/// Ridges that may be chosen.
const GRID: [f64; 5] = [0.1, 0.3, 1.0, 3.0, 10.0];

impl Biases {
    /// Chooses the ridges of entities and items by the log loss of the validation tasks, with biases of items that were fitted
    /// without them, and fits on all training outcomes, validation included. Without validation tasks both are 1.
    pub fn tuned(plan: &Plan<'_>) -> Self {
        if plan.tasks(TaskSet::Validation).len() == 0 {
            return Self::fit(plan, [1.0, 1.0]);
        }
        let rows = rows(plan, &[TaskSet::Train]);
        let known = plan.query_labels(TaskSet::Validation);
        let known: Vec<f32> = known.into_iter().step_by(plan.means.len()).collect();
        let mut best = (f64::INFINITY, [1.0, 1.0]);
        for item in GRID {
            for entity in GRID {
                let found = Self::of(plan, &rows, [entity, item]);
                let loss = log_loss(&found.predict(plan, TaskSet::Validation), &known);
                if loss < best.0 {
                    best = (loss, [entity, item]);
                }
            }
        }
        Self::fit(plan, best.1)
    }

    /// Fits on all training outcomes, validation included, with the ridges of entities and items.
    pub fn fit(plan: &Plan<'_>, ridge: [f64; 2]) -> Self {
        Self::of(plan, &rows(plan, &[TaskSet::Train, TaskSet::Validation]), ridge)
    }

    /// The ridges of entities and items.
    pub fn ridge(&self) -> [f64; 2] {
        self.ridge
    }

    fn of(plan: &Plan<'_>, rows: &[(usize, usize, f64)], ridge: [f64; 2]) -> Self {
        let mean = rows.iter().map(|r| r.2).sum::<f64>() / rows.len().max(1) as f64;
        let start = (mean.clamp(1e-6, 1.0 - 1e-6) / (1.0 - mean).max(1e-6)).ln();
        let (mut items, mut entities) = (vec![0.0; plan.data.items.len()], vec![0.0; plan.data.entities.len()]);
        for _ in 0..ROUNDS {
            for side in 0..2 {
                let (own, pull) = if side == 0 { (items.len(), ridge[1]) } else { (entities.len(), ridge[0]) };
                let (mut slopes, mut curves) = (vec![0.0; own], vec![pull; own]);
                for (u, i, y) in rows {
                    let p = probability(start + entities[*u] + items[*i]);
                    let at = if side == 0 { *i } else { *u };
                    slopes[at] += y - p;
                    curves[at] += p * (1.0 - p);
                }
                let to = if side == 0 { &mut items } else { &mut entities };
                for ((b, g), h) in to.iter_mut().zip(&slopes).zip(&curves) {
                    *b += ((g - pull * *b) / h.max(1e-9)).clamp(-1.0, 1.0);
                }
            }
        }
        Self { start, items, ridge }
    }

    /// Logits of the query outcomes of a part, in the order of tasks.
    pub fn predict(&self, plan: &Plan<'_>, set: TaskSet) -> Vec<f32> {
        let h = plan.means.len();
        let mut scores = Vec::new();
        for task in plan.tasks(set) {
            let known =
                task.support.clone().map(|i| (plan.impressions.item[i], f64::from(plan.impressions.labels[i * h])));
            let known: Vec<(f64, f64)> =
                known.filter(|k| !k.1.is_nan()).map(|(i, y)| (self.start + self.item(i), y)).collect();
            let mut own = 0.0;
            for _ in 0..STEPS {
                let (mut slope, mut curve) = (-self.ridge[0] * own, self.ridge[0]);
                for (x, y) in &known {
                    let p = probability(x + own);
                    slope += y - p;
                    curve += p * (1.0 - p);
                }
                own += (slope / curve.max(1e-9)).clamp(-1.0, 1.0);
            }
            let logit = |i: usize| self.start + own + self.item(plan.impressions.item[i]);
            scores.extend(task.query.clone().map(|i| logit(i) as f32));
        }
        scores
    }

    fn item(&self, row: u32) -> f64 {
        self.items.get(row as usize).copied().unwrap_or(0.0)
    }
}

fn probability(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Whose, what, and the label, of the query outcomes of some parts.
fn rows(plan: &Plan<'_>, parts: &[TaskSet]) -> Vec<(usize, usize, f64)> {
    let h = plan.means.len();
    let tasks = parts.iter().flat_map(|set| plan.tasks(*set));
    let all = tasks.flat_map(|t| t.query.clone().map(|i| (t.entity as usize, i)));
    let rows = all.map(|(u, i)| (u, plan.impressions.item[i] as usize, f64::from(plan.impressions.labels[i * h])));
    rows.filter(|(.., y)| !y.is_nan()).collect()
}
