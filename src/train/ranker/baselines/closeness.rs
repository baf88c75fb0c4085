//! Baseline: the foundation model alone. How close a user vector is to an item's vector says how likely the outcome is good.

use super::super::calibration::calibrate;
use super::super::plan::{Plan, TaskSet};
use crate::kernels::math::dot;

/// The cosine of user and item vector, made a probability of the first head by a slope and an intercept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    calibration: [f32; 2],
}

impl Closeness {
    /// Fits slope and intercept on all training tasks.
    pub fn fit(plan: &Plan<'_>) -> Self {
        let labels = plan.query_labels(TaskSet::Train);
        let pairs = cosines(plan, TaskSet::Train).zip(labels.into_iter().step_by(plan.means.len()));
        Self { calibration: calibrate(pairs.collect::<Vec<_>>().into_iter()) }
    }

    /// Logits of the query outcomes of a part, in the order of tasks.
    pub fn predict(&self, plan: &Plan<'_>, set: TaskSet) -> Vec<f32> {
        let [slope, intercept] = self.calibration;
        cosines(plan, set).map(|x| slope * x + intercept).collect()
    }
}

/// Ten times the cosine, so that a slope is about 1.
fn cosines<'p>(plan: &'p Plan<'_>, set: TaskSet) -> impl Iterator<Item = f32> + 'p {
    let d = plan.width;
    plan.places(set).iter().flat_map(move |place| {
        let state = plan.state(*place);
        let length = dot(state, state);
        plan.task(*place).query.clone().map(move |i| {
            let item = plan.impressions.item[i] as usize * d;
            let vector = &plan.items[item..item + d];
            10.0 * dot(state, vector) / (length * dot(vector, vector)).sqrt().max(1e-9)
        })
    })
}
