//! The gate of the item tower: how much an item's ID embedding and its metadata weigh, by its age and by what was seen of it.

use crate::kernels::math::{Real, sigmoid};

/// Hidden units of the gate.
pub(in crate::model) const HIDDEN: usize = 16;
/// Ages in days and numbers of events at which the gate's piecewise-linear functions have their knots.
pub(super) const AGES: [f32; 9] = [0.0, 1.0, 7.0, 28.0, 90.0, 365.0, 1095.0, 3650.0, 36500.0];
const EVIDENCE: [f32; 9] = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0];
/// Inputs of the gate: both functions, whether the age is unknown, whether there is no metadata.
pub(in crate::model) const INPUTS: usize = AGES.len() + EVIDENCE.len() + 2;
/// Where the gate starts: log(w_meta / w_id) of a new item of which nothing was seen, and how much it falls with the
/// logarithms of events seen and of days of age.
const PRIOR: f32 = 2.0;
const EVIDENCE_SLOPE: f32 = 0.5;
const AGE_SLOPE: f32 = 0.15;
/// What a fixed gate adds to that start, for good, to items of which something was seen: they are soon known better by what people do with
/// them than by their metadata, which is all that is known of the others.
const FIXED: f32 = -2.0;

/// What is known of an item's past at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Days since it was released, or first seen; `None` is unknown.
    pub age: Option<f32>,
    /// Events on it so far.
    pub evidence: u32,
    /// Whether its ID embedding stands for something; the vector of unknown items takes its place where not.
    pub known: bool,
}

impl Standing {
    /// An item that nobody has touched.
    pub fn unseen(age: Option<f32>) -> Self {
        Self { age, evidence: 0, known: false }
    }
}

/// Where the gate starts for a standing.
pub(super) fn prior(standing: Standing) -> f32 {
    let age = standing.age.map_or(0.0, |days| AGE_SLOPE * days.max(0.0).ln_1p());
    PRIOR - EVIDENCE_SLOPE * (standing.evidence as f32).ln_1p() - age
}

/// Writes the piecewise-linear functions of a standing: each number lies between two knots on a logarithmic scale, whose
/// entries are its shares of them.
pub(super) fn gate_inputs<T: Real>(standing: Standing, bare: bool, to: &mut [T]) {
    let mut spread = |value: f32, knots: &[f32; 9], at: usize| {
        let x = value.max(0.0).ln_1p();
        let next = knots.iter().position(|k| k.ln_1p() > x).unwrap_or(knots.len());
        let (low, high) = (next.saturating_sub(1), next.min(knots.len() - 1));
        let (a, b) = (knots[low].ln_1p(), knots[high].ln_1p());
        let share = if high > low { (x - a) / (b - a) } else { 0.0 };
        to[at + high] = T::of(f64::from(share));
        to[at + low] = T::of(f64::from(1.0 - share));
    };
    spread(standing.evidence as f32, &EVIDENCE, AGES.len());
    if let Some(age) = standing.age {
        spread(age, &AGES, 0);
    }
    to[INPUTS - 2] = if standing.age.is_none() { T::ONE } else { T::ZERO };
    to[INPUTS - 1] = if bare { T::ONE } else { T::ZERO };
}

/// Writes the weights of a fixed gate, `[HIDDEN, INPUTS]` inputs, `[2, HIDDEN]` outputs and the outputs' bias (the last two
/// start at 0): one hidden unit says that nothing was seen.
pub(crate) fn fix(inputs: &mut [f32], outputs: &mut [f32], bias: &mut [f32]) {
    const NOTHING_SEEN: f32 = 4.0;
    bias[1] = FIXED;
    inputs[..INPUTS].fill(0.0);
    inputs[AGES.len()] = NOTHING_SEEN;
    outputs[HIDDEN] = -FIXED / (NOTHING_SEEN * sigmoid(NOTHING_SEEN));
}
