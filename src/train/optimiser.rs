//! AdamW over the flat dense array and, row by row, over the tables; one clipping factor for all.

use crate::kernels::adam::{AdamStep, BETA1, BETA2, adamw};
use crate::kernels::math::{scale, square_sum};
use crate::model::layout::Layout;
use crate::options::TrainOptions;

/// Numbers with their two moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moments {
    /// The numbers.
    pub values: Vec<f32>,
    /// Running mean of gradients.
    pub first: Vec<f32>,
    /// Running mean of squared gradients.
    pub second: Vec<f32>,
}

impl Moments {
    /// Moments start at zero.
    pub(crate) fn new(values: Vec<f32>) -> Self {
        let n = values.len();
        Self { values, first: vec![0.0; n], second: vec![0.0; n] }
    }
}

/// A table whose rows are updated only when a step touches them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    /// Row-major numbers with their moments.
    pub rows: Moments,
    /// The step that touched each row last.
    pub last: Vec<u64>,
    /// Numbers per row.
    pub width: usize,
}

impl Table {
    /// A table that no step has touched.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let rows = values.len() / width.max(1);
        Self { rows: Moments::new(values), last: vec![0; rows], width }
    }

    /// Updates the named rows (ascending, each once) with their gradients, `[rows.len(), width]`. The moments of rows that
    /// earlier steps left alone first decay by the steps that they missed, as if their gradients had been zero.
    pub(crate) fn update(&mut self, t: u64, step: AdamStep, touched: &[u32], gradient: &[f32]) {
        let w = self.width;
        for (&row, g) in touched.iter().zip(gradient.chunks_exact(w)) {
            let (row, at) = (row as usize, row as usize * w);
            let missed = t - 1 - self.last[row].min(t - 1);
            if self.last[row] > 0 && missed > 0 {
                scale(&mut self.rows.first[at..at + w], BETA1.powf(missed as f32));
                scale(&mut self.rows.second[at..at + w], BETA2.powf(missed as f32));
            }
            self.last[row] = t;
            let (values, m) = (&mut self.rows.values[at..at + w], &mut self.rows.first[at..at + w]);
            adamw(step, values, g, m, &mut self.rows.second[at..at + w]);
        }
    }
}

/// Updates the dense array; decay applies to matrices only.
pub(crate) fn update_dense(layout: &Layout, dense: &mut Moments, step: AdamStep, decay: f32, gradient: &[f32]) {
    for w in &layout.weights {
        let r = w.range.clone();
        let step = AdamStep { decay: if w.decay { decay } else { 0.0 }, ..step };
        let (values, first) = (&mut dense.values[r.clone()], &mut dense.first[r.clone()]);
        adamw(step, values, &gradient[r.clone()], first, &mut dense.second[r]);
    }
}

/// The learning rate of step `t` (from 1) of `steps`: linear warm-up, then a cosine down to the final share.
pub(crate) fn learning_rate(options: &TrainOptions, t: u64, steps: u64) -> f32 {
    let warmup = u64::from(options.warmup).min(steps / 2);
    if t <= warmup {
        return options.learning_rate * t as f32 / warmup.max(1) as f32;
    }
    let progress = (t - warmup) as f64 / (steps - warmup).max(1) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
    let floor = f64::from(options.final_rate);
    (f64::from(options.learning_rate) * (floor + (1.0 - floor) * cosine)) as f32
}

/// The norm of all gradients together.
pub(crate) fn norm(gradients: &[&[f32]]) -> f64 {
    gradients.iter().map(|g| square_sum(g)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_left_alone_catches_up_with_its_moments() {
        // Row 0 is touched at steps 1 and 4; a dense Adam fed zeros between gives the same moments.
        let mut table = Table::new(vec![1.0; 4], 2);
        let mut dense = Moments::new(vec![1.0; 2]);
        let gradient = [0.5, -0.25];
        for t in 1..=4u64 {
            let step = AdamStep::new(0.0, 0.0, t, 1.0);
            let g = if t == 1 || t == 4 { gradient } else { [0.0; 2] };
            let (m, v) = (&mut dense.first, &mut dense.second);
            adamw(step, &mut dense.values, &g, m, v);
            match t {
                1 | 4 => table.update(t, step, &[0], &gradient),
                _ => table.update(t, step, &[1], &gradient),
            }
        }
        for i in 0..2 {
            assert!((table.rows.first[i] - dense.first[i]).abs() < 1e-7);
            assert!((table.rows.second[i] - dense.second[i]).abs() < 1e-7);
        }
    }

    #[test]
    fn adam_moves_by_its_rate_at_first() {
        let mut m = Moments::new(vec![1.0]);
        let (first, second) = (&mut m.first, &mut m.second);
        adamw(AdamStep::new(0.01, 0.0, 1, 1.0), &mut m.values, &[3.0], first, second);
        assert!((m.values[0] - 0.99).abs() < 1e-6, "{}", m.values[0]);
    }

    #[test]
    fn the_rate_warms_up_and_falls() {
        let o = TrainOptions { learning_rate: 1.0, warmup: 10, final_rate: 0.1, ..TrainOptions::default() };
        assert!((learning_rate(&o, 5, 100) - 0.5).abs() < 1e-6);
        assert!((learning_rate(&o, 10, 100) - 1.0).abs() < 1e-6);
        assert!((learning_rate(&o, 100, 100) - 0.1).abs() < 1e-6);
        assert!(learning_rate(&o, 50, 100) < learning_rate(&o, 40, 100));
    }
}
