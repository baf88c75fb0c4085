//! Baseline: a factorization machine (Rendle 2010) over entity, item, item metadata and profile, of the first head.

use super::super::calibration::log_loss;
use super::super::plan::{Plan, TaskSet};
use crate::data::Column;
use crate::error::{Result, err};
use crate::kernels::adam::AdamStep;
use crate::kernels::math::sigmoid;
use crate::progress::Cancel;
use crate::random::{Rng, hash64};
use crate::schema::FieldKind;
use crate::train::optimiser::{Averaging, Table};

/// How a factorization machine is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorizationOptions {
    /// Seed of every random choice.
    pub seed: u64,
    /// Width of the factors.
    pub factors: u32,
    /// Most epochs.
    pub epochs: u32,
    /// Outcomes per step.
    pub batch: u32,
    /// Learning rate of Adam.
    pub learning_rate: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// Validations without a better loss before training stops.
    pub patience: u32,
}

impl Default for FactorizationOptions {
    fn default() -> Self {
        Self { seed: 1, factors: 16, epochs: 20, batch: 1024, learning_rate: 2e-3, decay: 0.5, patience: 2 }
    }
}

/// A trained machine.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorizationMachine {
    /// `[features, 1 + factors]`: the linear weight, then the factors. The last row's linear weight is the intercept.
    rows: Vec<f32>,
    width: usize,
    space: Space,
}

/// Where the features of each kind begin.
#[derive(Debug, Clone, PartialEq)]
struct Space {
    items: usize,
    item_fields: Vec<usize>,
    entity_fields: Vec<usize>,
    intercept: usize,
    /// Entities that were trained on.
    seen: Vec<bool>,
}

impl Space {
    fn new(plan: &Plan<'_>) -> Self {
        let mut at = plan.data.entities.len();
        let mut take = |n: usize| {
            at += n;
            at - n
        };
        let items = take(plan.data.items.len());
        let codes = |kind: &FieldKind| kind.codes();
        let item_fields = plan.data.schema.item_fields.iter().map(|f| take(codes(&f.kind))).collect();
        let entity_fields = plan.data.schema.entity_fields.iter().map(|f| take(codes(&f.kind))).collect();
        let intercept = take(1);
        let mut seen = vec![false; plan.data.entities.len()];
        plan.tasks(TaskSet::Train).for_each(|t| seen[t.entity as usize] = true);
        Self { items, item_fields, entity_fields, intercept, seen }
    }

    /// The features of an outcome with their values.
    fn features(&self, plan: &Plan<'_>, entity: u32, item: u32, out: &mut Vec<(u32, f32)>) {
        out.clear();
        if self.seen.get(entity as usize).copied().unwrap_or(false) {
            out.push((entity, 1.0));
        }
        out.push((self.items as u32 + item, 1.0));
        let d = plan.data;
        let sides = [
            (&d.item_columns, &d.schema.item_fields, &self.item_fields, item as usize),
            (&d.entity_columns, &d.schema.entity_fields, &self.entity_fields, entity as usize),
        ];
        for (columns, fields, starts, row) in sides {
            for ((column, field), start) in columns.iter().zip(fields).zip(starts) {
                let start = *start as u32;
                match column {
                    Column::Codes(codes) => out.push((start + codes[row], 1.0)),
                    Column::Numbers(values) => out.push((start + field.kind.bucket(values[row]), 1.0)),
                    Column::Lists { offsets, codes } => {
                        let own = &codes[offsets[row] as usize..offsets[row + 1] as usize];
                        out.extend(own.iter().map(|c| (start + c, 1.0 / own.len() as f32)));
                    }
                    Column::Vectors { .. } => {}
                }
            }
        }
    }
}

impl FactorizationMachine {
    /// Trains on the training outcomes, choosing the epoch by the log loss of the validation tasks.
    ///
    /// # Errors
    /// `Diverged` for a loss that is not finite; `Cancelled`.
    pub fn train(plan: &Plan<'_>, options: &FactorizationOptions, cancel: &Cancel) -> Result<Self> {
        let h = plan.means.len();
        let space = Space::new(plan);
        let width = 1 + options.factors as usize;
        let mut rng = Rng::for_stream(options.seed, 41);
        let start: Vec<f32> = (0..(space.intercept + 1) * width)
            .map(|i| if i % width == 0 || i / width == space.intercept { 0.0 } else { 0.05 * rng.normal() as f32 })
            .collect();
        let mut table = Table::new(start, width, false);
        let outcomes: Vec<(u32, usize)> = plan
            .tasks(TaskSet::Train)
            .flat_map(|t| t.query.clone().map(|i| (t.entity, i)))
            .filter(|(_, i)| !plan.impressions.labels[i * h].is_nan())
            .collect();
        let labels: Vec<f32> = plan.query_labels(TaskSet::Validation).into_iter().step_by(h).collect();
        let mut best = (f64::INFINITY, Vec::new());
        let (mut t, mut waited) = (0, 0);
        for epoch in 0..options.epochs {
            let mut order = outcomes.clone();
            Rng::for_stream(options.seed, hash64(42, u64::from(epoch))).shuffle(&mut order);
            for batch in order.chunks(options.batch.max(1) as usize) {
                t += 1;
                let (rows, gradient) = step(plan, &space, &table.rows.values, width, batch);
                let adam = AdamStep::new(options.learning_rate, options.decay, t, 1.0);
                table.update(t, adam, Averaging { ema: 0.0 }, &rows, &gradient);
                if cancel.is_cancelled() {
                    return Err(err!(
                        Cancelled,
                        "the training of a factorization machine was cancelled; nothing is kept"
                    ));
                }
            }
            let machine = Self { rows: table.rows.values.clone(), width, space: space.clone() };
            let loss = log_loss(&machine.predict(plan, TaskSet::Validation), &labels);
            if !loss.is_finite() {
                return Err(err!(Diverged, "a factorization machine's loss is {loss}; lower its learning rate"));
            }
            if loss < best.0 {
                best = (loss, machine.rows);
                waited = 0;
            } else {
                waited += 1;
            }
            if waited >= options.patience {
                break;
            }
        }
        Ok(Self { rows: best.1, width, space })
    }

    /// Logits of the query outcomes of a part, in the order of tasks.
    pub fn predict(&self, plan: &Plan<'_>, set: TaskSet) -> Vec<f32> {
        let (mut features, mut sum) = (Vec::new(), vec![0.0; self.width]);
        let mut scores = Vec::new();
        for task in plan.tasks(set) {
            for i in task.query.clone() {
                self.space.features(plan, task.entity, plan.impressions.item[i], &mut features);
                scores.push(logit(&self.rows, self.width, self.space.intercept, &features, &mut sum));
            }
        }
        scores
    }
}

/// The logit; leaves the sum of the rows in `sum`.
fn logit(rows: &[f32], width: usize, intercept: usize, features: &[(u32, f32)], sum: &mut [f32]) -> f32 {
    sum.fill(0.0);
    let mut squares = 0.0;
    for (f, x) in features {
        let row = &rows[*f as usize * width..(*f as usize + 1) * width];
        for (i, (s, v)) in sum.iter_mut().zip(row).enumerate() {
            *s += x * v;
            squares += if i > 0 { x * x * v * v } else { 0.0 };
        }
    }
    let whole: f32 = sum[1..].iter().map(|s| s * s).sum();
    rows[intercept * width] + sum[0] + 0.5 * (whole - squares)
}

/// Rows touched by a batch, ascending, and the gradients of its mean log loss.
fn step(plan: &Plan<'_>, space: &Space, rows: &[f32], width: usize, batch: &[(u32, usize)]) -> (Vec<u32>, Vec<f32>) {
    let h = plan.means.len();
    let mut all: Vec<Vec<(u32, f32)>> = Vec::with_capacity(batch.len());
    let mut features = Vec::new();
    for (entity, i) in batch {
        space.features(plan, *entity, plan.impressions.item[*i], &mut features);
        all.push(features.clone());
    }
    let mut touched: Vec<u32> = all.iter().flatten().map(|(f, _)| *f).chain([space.intercept as u32]).collect();
    touched.sort_unstable();
    touched.dedup();
    let mut gradient = vec![0.0; touched.len() * width];
    let mut sum = vec![0.0; width];
    for ((_, i), features) in batch.iter().zip(&all) {
        let x = logit(rows, width, space.intercept, features, &mut sum);
        let d = (sigmoid(x) - plan.impressions.labels[i * h]) / batch.len() as f32;
        for (f, x) in features {
            let slot = touched.partition_point(|t| t < f) * width;
            let row = &rows[*f as usize * width..(*f as usize + 1) * width];
            gradient[slot] += d * x;
            for k in 1..width {
                gradient[slot + k] += d * x * (sum[k] - x * row[k]);
            }
        }
        let slot = touched.len() * width - width;
        gradient[slot] += d;
    }
    (touched, gradient)
}
